"""What a training run carries from step to step, and how it starts."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from negint.method import loss_scale, optim
from negint.method.loss_scale import LossScale
from negint.method.phi import init_theta_and_phi
from negint.method.tree import Tree
from negint.options import AdamOptions, ModelOptions, RunOptions


class TrainState(struct.PyTreeNode):
  """The state of a training run after a step. Trees of phi are empty where a system has no phi."""

  step: jax.Array  # updates done, int scalar
  key: jax.Array  # data of the run's PRNG key, uint32 [2]; the noise of a step folds `step` into it
  theta: Tree  # parameters shared by all languages
  phi: Tree  # parameters of each language, every leaf [num_languages, ...]
  theta_slots: Tree  # Adam's moments of theta; empty where theta is frozen
  phi_slots: Tree  # Adam's moments of phi, every leaf [num_languages, ...]
  rho_LL: jax.Array  # GradVac's target cosines, float32 [L, L]; zero in other systems


class ReleaseState(TrainState):
  """The state of a run with the release's meta step, in which phi_i takes two updates."""

  meta_slots: Tree  # Adam's moments of phi's update by the meta-gradient, like phi_slots


class ScaledState(TrainState):
  """The state of a float16 run. Only its states have this field: those of others are read as before."""

  loss_scale: LossScale  # of every loss that is differentiated


class ScaledReleaseState(ScaledState, ReleaseState):
  """The state of a float16 run with the release's meta step."""


def state_of(run: RunOptions) -> TrainState:
  """The state before the first step of a run."""
  return init_state(
    run.model,
    run.optimiser,
    run.seed,
    meta_slots=run.meta.own_slots,
    freeze_theta=run.freeze_theta,
  )


def init_state(
  model: ModelOptions,
  optimiser: AdamOptions,
  seed: int,
  *,
  meta_slots: bool = False,
  freeze_theta: bool = False,
) -> TrainState:
  """The state before the first step.

  Args:
    model: shape of the encoder.
    optimiser: Adam's options.
    seed: fixes the parameters and all later noise.
    meta_slots: whether the state is a ReleaseState, `MetaOptions.own_slots`.
    freeze_theta: whether theta never moves, and so has no slots.
  """
  init_key, run_key = jax.random.split(jax.random.key(seed))
  theta, phi = jax.jit(init_theta_and_phi, static_argnums=0)(model, init_key)
  theta_slots, phi_slots = optim.init_slots(optimiser, {} if freeze_theta else theta, phi)
  state = TrainState(
    step=jnp.zeros((), jnp.int32),
    # Not a typed key: with several processes pmap would wait for it, and so for the step before.
    key=jax.random.key_data(run_key),
    theta=theta,
    phi=phi,
    theta_slots=theta_slots,
    phi_slots=phi_slots,
    rho_LL=jnp.zeros((model.num_languages, model.num_languages), jnp.float32),
  )
  more: dict[str, Any] = {}
  if meta_slots:
    more["meta_slots"] = jax.tree.map(jnp.copy, phi_slots)
  if loss_scale.needed(model.dtype):
    more["loss_scale"] = loss_scale.first()
  kinds = {
    (): TrainState,
    ("meta_slots",): ReleaseState,
    ("loss_scale",): ScaledState,
    ("meta_slots", "loss_scale"): ScaledReleaseState,
  }
  return kinds[tuple(more)](**vars(state), **more)
