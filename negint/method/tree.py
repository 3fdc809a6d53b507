"""Names for type annotations of trees of arrays and of indices."""

from typing import Any

import jax

Tree = Any  # nested dicts of arrays, as JAX's pytrees: Python's types cannot express their leaves
Index = jax.Array | int  # an int scalar, traced or not
