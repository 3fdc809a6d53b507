"""+ meta adpt: adapters trained by the meta-gradient (Section 4, Algorithm 1; Tables 2, 3, 6, 7).

theta are the parameters shared by all languages, phi_i those of language i: two bottleneck adapters
per layer. Each step takes a batch of one language i. It first moves phi_i by the exact gradient of the
held-out loss of all languages after a look-ahead of theta. Then it moves theta by its gradient at the
new phi_i.

The sample and the lab take --config.meta.gradient=grad_of_grad by default. forward_over_reverse, the
default of base and paper, gives the same gradient with less memory.

  python -m negint.main --config=configs/meta_adpt.py:ar          # bundled sample
  python -m negint.main --config=configs/meta_adpt.py:lab         # artificial languages
  python -m negint.main --config=configs/meta_adpt.py:ar,paper    # the paper's setting
"""

from configs import base


def get_config(arg=None):
  """The config of `<language>[,<scale>][,key=value...]`, see configs/base.py."""
  return base.pretrain("meta_adpt", arg)
