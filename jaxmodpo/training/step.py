"""One optimization step, compiled once and shared by every method.

A loss is a callable from trainable parameters, frozen parameters, a batch and a dropout key
to :class:`LossTerms`: an unreduced sum and its denominator, so that accumulation over microbatches
of unequal weight is exact. The learning rate, and whatever of the loss is a number, are arguments
of the step and not a part of it: runs that differ in length, rate, β or weights share one
compilation::

    state = initial_state(optimizer, trainable)
    places = places_of(state)
    for update, batch in enumerate(batches):
        state, metrics = train_step(
            state,
            frozen,
            batch,
            key,
            update,
            rates[update],
            loss=loss,
            optimizer=optimizer,
            places=places,
        )
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec

from jaxmodpo.models.parameters import Parameters

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

    @classmethod
    def of_rows(
        cls, losses: Array, row_weights: Array, row_metrics: Mapping[str, Array]
    ) -> LossTerms:
        """Return the terms of a loss that has one value, ``[rows]``, for each row.

        Sums, and what they are to be divided by, and no means: the last microbatch of an epoch has
        fewer rows than the others, and a mean of means would give each of its rows more weight.

        Args:
            losses: ``[rows]``.
            row_weights: ``[rows]``, 0 for rows that only fill up the batch.
            row_metrics: ``[rows]`` each.
        """
        rows = jnp.sum(row_weights)
        return cls(
            total=jnp.sum(losses * row_weights),
            denominator=rows,
            metrics={name: jnp.sum(values * row_weights) for name, values in row_metrics.items()},
            rows=rows,
        )


class Loss(Protocol):
    """A loss that a step can train: a pytree, whose leaves are constants such as β.

    Its structure selects the compiled step; losses that differ in constants alone share one. A loss
    without constants is registered with ``jax.tree_util.register_static``.
    """

    def __call__(
        self, trainable: Parameters, frozen: Parameters, batch: Batch, dropout_key: Array | None
    ) -> LossTerms: ...


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["weight_decay"],
    meta_fields=["max_grad_norm", "beta1", "beta2", "epsilon"],
)
@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW's constants; the learning rate comes with each step. Steps of any weight decay share a
    compilation.
    """

    weight_decay: float
    max_grad_norm: float
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def transformation(self) -> optax.GradientTransformation:
        """Clip by global norm, then Adam's direction plus decoupled weight decay, as AdamW without
        its rate.
        """
        return optax.chain(
            optax.clip_by_global_norm(self.max_grad_norm),
            optax.scale_by_adam(b1=self.beta1, b2=self.beta2, eps=self.epsilon),
            optax.add_decayed_weights(self.weight_decay),
        )


class TrainState(NamedTuple):
    """What training changes.

    Attributes:
        trainable: parameters.
        moments: Adam's.
        skipped: updates left out because the loss or a gradient was not finite, int32.
        skipped_in_row: those of them since the last good update, int32.
    """

    trainable: Parameters
    moments: Any
    skipped: Array
    skipped_in_row: Array


def initial_state(optimizer: OptimizerSettings, trainable: Parameters) -> TrainState:
    """Return the state before the first update; all of it lies where ``trainable`` does."""
    shardings_of_moments = moment_shardings(optimizer, trainable)
    # Zeros depend on nothing that lies anywhere. Without places XLA would copy them to every
    # device, and each would hold the moments of all parameters and not of its own shard.
    moments = jax.jit(optimizer.transformation().init, out_shardings=shardings_of_moments)(
        trainable
    )
    mesh = next(iter(trainable.values())).sharding.mesh  # type: ignore[union-attr]
    everywhere = NamedSharding(mesh, PartitionSpec())
    zero = jax.jit(lambda: jnp.zeros((), jnp.int32), out_shardings=everywhere)
    return TrainState(trainable, moments, zero(), zero())


def moment_shardings(optimizer: OptimizerSettings, trainable: Any) -> Any:
    """Return where the optimizer's state lies: Adam's moments as the parameters do, its count
    everywhere.

    Args:
        optimizer: AdamW's constants.
        trainable: arrays, or shapes with NamedShardings, all on one mesh.
    """
    transformation = optimizer.transformation()
    mesh = next(iter(trainable.values())).sharding.mesh
    return optax.tree.map_params(
        cast("Any", transformation),
        lambda _, parameter: parameter.sharding,
        jax.eval_shape(transformation.init, trainable),
        trainable,
        transform_non_params=lambda _: NamedSharding(mesh, PartitionSpec()),
    )


def places_of(state: Any) -> tuple[NamedSharding, ...]:
    """Return where each array of a state lies, or would, in the order of its leaves.

    A run asks once, before its first update: places that are equal but said in other words compile
    another step.
    """
    return tuple(array.sharding for array in jax.tree.leaves(state))


@functools.partial(jax.jit, donate_argnames=("state",), static_argnames=("places",))
def train_step(
    state: TrainState,
    frozen: Parameters,
    batch: Batch,
    key: Array,
    update: Array,
    learning_rate: Array,
    *,
    loss: Loss,
    optimizer: OptimizerSettings,
    places: tuple[NamedSharding, ...],
) -> tuple[TrainState, dict[str, Array]]:
    """Accumulate gradients over microbatches and update once, unless something is not finite.

    Args:
        state: trainable parameters and Adam's moments; donated.
        frozen: parameters without gradients.
        batch: arrays ``[microbatches, …]``, one microbatch in memory at a time.
        key: of the run; with the update's number it draws the dropout.
        update: the update's number, from 0.
        learning_rate: scalar.
        loss: what to minimize.
        optimizer: AdamW's constants.
        places: where the state lies (:func:`places_of`); the new one lies there too.

    Returns:
        The new state, and the step's mean loss, metrics, gradient norm (before clipping) and how
        many updates were skipped so far, and in a row. A loss or gradient that is not finite leaves
        the parameters and Adam's moments as they were.
    """
    gradients, terms = _accumulate(state.trainable, frozen, batch, key, update, loss)
    # Divided once, at the end, by the denominators' sum. Microbatches may hold different numbers of
    # pairs or tokens; the mean of their means would weigh the rows of a small one more.
    denominator = jnp.maximum(terms.denominator, 1.0)
    gradients = jax.tree.map(lambda gradient: gradient / denominator, gradients)
    norm = optax.global_norm(gradients)
    is_finite = jnp.isfinite(terms.total) & jnp.isfinite(norm)
    trainable, moments = _updated(state, gradients, learning_rate, optimizer)
    # The choice is made on the devices: asking the host would make it wait for every update. The
    # moments are chosen as well, or one NaN would stay in Adam's averages for good.
    trainable, moments = jax.tree.map(
        lambda new, old: jnp.where(is_finite, new, old),
        (trainable, moments),
        (state.trainable, state.moments),
    )
    is_skipped = 1 - is_finite.astype(jnp.int32)
    skipped = state.skipped + is_skipped
    skipped_in_row = (state.skipped_in_row + 1) * is_skipped
    metrics = means(terms) | {
        "grad_norm": norm,
        "skipped": skipped,
        "skipped_in_row": skipped_in_row,
    }
    new_state = TrainState(trainable, moments, skipped, skipped_in_row)
    return _kept_in_place(new_state, places), metrics


def _kept_in_place(state: TrainState, places: tuple[NamedSharding, ...]) -> TrainState:
    """Have XLA leave a new state where the old one was.

    It would choose by itself, and may shard what was whole on every device, such as an encoder's
    norms: the next update would then be another program, compiled anew.
    """
    arrays, structure = jax.tree.flatten(state)
    kept = [
        jax.lax.with_sharding_constraint(array, place)
        for array, place in zip(arrays, places, strict=True)
    ]
    return jax.tree.unflatten(structure, kept)


def _accumulate(
    trainable: Parameters,
    frozen: Parameters,
    batch: Batch,
    key: Array,
    update: Array,
    loss: Loss,
) -> tuple[Parameters, LossTerms]:
    """Return the gradients and the loss terms, both summed over the microbatches."""

    def total_loss(
        trainable: Parameters, microbatch: Batch, dropout_key: Array
    ) -> tuple[Array, LossTerms]:
        terms = loss(trainable, frozen, microbatch, dropout_key)
        return terms.total, terms

    def add_microbatch(sums: tuple[Parameters, LossTerms], microbatch: Batch) -> tuple[Any, None]:
        gradient_of = jax.value_and_grad(total_loss, has_aux=True)
        (_, terms), gradients = gradient_of(trainable, microbatch, dropout_key)
        return jax.tree.map(jnp.add, sums, (gradients, terms)), None

    # Dropout is a function of the run's key, the update's number and the sequence that is dropped
    # from, so that a run that is resumed drops what the undisturbed one would have dropped, and so
    # does one whose examples lie in other microbatches.
    dropout_key = jax.random.fold_in(key, update)
    first_microbatch = {name: array[0] for name, array in batch.items()}
    _, term_shapes = jax.eval_shape(lambda: total_loss(trainable, first_microbatch, dropout_key))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), (trainable, term_shapes))
    # A scan and not a loop in Python: one microbatch's activations are in memory at a time, and the
    # model is compiled once, however many microbatches there are.
    sums, _ = jax.lax.scan(add_microbatch, zeros, dict(batch))
    return sums


def _updated(
    state: TrainState, gradients: Parameters, learning_rate: Array, optimizer: OptimizerSettings
) -> tuple[Parameters, Any]:
    """Return the parameters and Adam's moments after a step in the direction of AdamW."""
    directions, moments = optimizer.transformation().update(
        gradients, state.moments, state.trainable
    )
    trainable = jax.tree.map(
        lambda parameter, direction: parameter - learning_rate * direction,
        state.trainable,
        directions,
    )
    return trainable, moments


def means(terms: LossTerms) -> dict[str, Array]:
    """Return the mean loss and the metrics' means over rows."""
    # A batch of nothing but filling rows has no mean: 0, and not NaN, which would count as broken.
    rows = jnp.maximum(terms.rows, 1.0)
    denominator = jnp.maximum(terms.denominator, 1.0)
    metrics = {name: value / rows for name, value in terms.metrics.items()}
    return metrics | {"loss": terms.total / denominator}


def as_numbers(metrics: Mapping[str, Array]) -> dict[str, float]:
    """Return metrics as numbers, by name; this waits until the devices have computed them."""
    numbers: dict[str, float] = {}
    for name, value in sorted(metrics.items()):
        # Every device holds the same number; this process reads its first device's copy.
        own_copy = np.asarray(value.addressable_data(0))
        numbers[name] = round(float(own_copy), 7)
    return numbers


@jax.jit
def evaluation_step(
    trainable: Parameters, frozen: Parameters, batch: Batch, *, loss: Loss
) -> LossTerms:
    """Return what one microbatch contributes to a held-out evaluation: no gradient, no dropout."""
    return loss(trainable, frozen, batch, None)
