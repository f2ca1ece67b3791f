"""One optimisation step, compiled once and shared by every method.

A loss is a hashable callable from trainable parameters, frozen parameters, a batch and a dropout key
to :class:`LossTerms`: an unreduced sum and its denominator, so that accumulation over microbatches of
unequal weight is exact. The learning rate is an argument of the step, not a part of it: runs of different
length or rate share one compilation.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec

Parameters = dict[str, Array]
Batch = Mapping[str, Array]


class LossTerms(NamedTuple):
    """What one microbatch contributes.

    Attributes:
        total: the loss, summed.
        denominator: what the sum over all microbatches is divided by (pairs, or tokens).
        metrics: sums over rows, by name.
        rows: the number of rows that those sums cover.
    """

    total: Array
    denominator: Array
    metrics: dict[str, Array]
    rows: Array


class Loss(Protocol):
    """A loss that a step can train; hashable, since it selects the compiled step."""

    def __call__(
        self, trainable: Parameters, frozen: Parameters, batch: Batch, dropout_key: Array | None
    ) -> LossTerms: ...

    def __hash__(self) -> int: ...


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW's constants; the learning rate comes with each step."""

    weight_decay: float
    max_grad_norm: float
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def transformation(self) -> optax.GradientTransformation:
        """Clip by global norm, then Adam's direction plus decoupled weight decay, as AdamW without its rate."""
        return optax.chain(
            optax.clip_by_global_norm(self.max_grad_norm),
            optax.scale_by_adam(b1=self.beta1, b2=self.beta2, eps=self.epsilon),
            optax.add_decayed_weights(self.weight_decay),
        )


class TrainState(NamedTuple):
    """What training changes."""

    trainable: Parameters
    moments: Any


def moment_shardings(optimizer: OptimizerSettings, trainable: Any) -> Any:
    """Return where the optimizer's state lies: Adam's moments as the parameters do, its count everywhere.

    Args:
        optimizer: AdamW's constants.
        trainable: arrays, or shapes with NamedShardings, all on one mesh.
    """
    transformation = optimizer.transformation()
    mesh = next(iter(trainable.values())).sharding.mesh
    return optax.tree.map_params(
        transformation,
        lambda _, parameter: parameter.sharding,
        jax.eval_shape(transformation.init, trainable),
        trainable,
        transform_non_params=lambda _: NamedSharding(mesh, PartitionSpec()),
    )


@functools.partial(jax.jit, static_argnames=("loss", "optimizer", "microbatches"), donate_argnames=("state",))
def train_step(
    state: TrainState,
    frozen: Parameters,
    batch: Batch,
    key: Array,
    learning_rate: Array,
    *,
    loss: Loss,
    optimizer: OptimizerSettings,
    microbatches: int,
) -> tuple[TrainState, dict[str, Array]]:
    """Accumulate gradients over microbatches and update once.

    Args:
        state: trainable parameters and Adam's moments; donated.
        frozen: parameters without gradients.
        batch: arrays ``[microbatches × rows, …]``.
        key: draws this step's dropout.
        learning_rate: scalar.
        loss: what to minimise.
        optimizer: AdamW's constants.
        microbatches: how many parts the batch is cut into, one in memory at a time.

    Returns:
        The new state, and the step's mean loss, metrics and gradient norm (before clipping).
    """
    parts = {name: a.reshape(microbatches, -1, *a.shape[1:]) for name, a in batch.items()}

    def objective(trainable: Parameters, part: Batch, part_key: Array) -> tuple[Array, LossTerms]:
        terms = loss(trainable, frozen, part, part_key)
        return terms.total, terms

    def accumulate(sums: tuple[Parameters, LossTerms], part: tuple[Batch, Array]) -> tuple[Any, None]:
        (_, terms), gradients = jax.value_and_grad(objective, has_aux=True)(state.trainable, *part)
        return jax.tree.map(jnp.add, sums, (gradients, terms)), None

    keys = jax.random.split(key, microbatches)
    shapes = jax.eval_shape(lambda: objective(state.trainable, {n: a[0] for n, a in parts.items()}, keys[0])[1])
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), (state.trainable, shapes))
    (gradients, terms), _ = jax.lax.scan(accumulate, zeros, (parts, keys))
    denominator = jnp.maximum(terms.denominator, 1.0)
    gradients = jax.tree.map(lambda g: g / denominator, gradients)
    directions, moments = optimizer.transformation().update(gradients, state.moments, state.trainable)
    trainable = jax.tree.map(lambda p, d: p - learning_rate * d, state.trainable, directions)
    metrics = {name: value / jnp.maximum(terms.rows, 1.0) for name, value in terms.metrics.items()}
    metrics |= {"loss": terms.total / denominator, "grad_norm": optax.global_norm(gradients)}
    return TrainState(trainable, moments), metrics
