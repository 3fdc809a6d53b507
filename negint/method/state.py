"""What a training run carries from step to step, and its beginning."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from negint.method import optim
from negint.method.phi import init_theta_and_phi
from negint.options import ModelOptions, OptimiserOptions


@struct.dataclass
class TrainState:
  """step: updates done, int scalar. key: the run's PRNG key; a step's noise folds `step` into it.
  theta, theta_slots: shared parameters and their Adam slots. phi, phi_slots: language-specific
  ones, every leaf [num_languages, ...] (empty dicts where the system has none)."""

  step: jax.Array
  key: jax.Array
  theta: Any
  phi: Any
  theta_slots: Any
  phi_slots: Any


@struct.dataclass
class GradVacState(TrainState):
  """rho_LL: GradVac's target cosines, [L, L] float32. A class of its own, because a checkpoint is
  read only into the fields that it was written with."""

  rho_LL: jax.Array


def init_state(model: ModelOptions, optimiser: OptimiserOptions, seed: int) -> TrainState:
  init_key, run_key = jax.random.split(jax.random.key(seed))
  theta, phi = jax.jit(init_theta_and_phi, static_argnums=0)(model, init_key)
  theta_slots, phi_slots = optim.init_slots(optimiser, theta, phi)
  fields = jnp.zeros((), jnp.int32), run_key, theta, phi, theta_slots, phi_slots
  if optimiser.surgery.method != "gradvac":
    return TrainState(*fields)
  return GradVacState(*fields, jnp.zeros((model.num_languages,) * 2, jnp.float32))
