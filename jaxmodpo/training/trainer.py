"""The training loop that every method shares: schedule, evaluation, metrics, checkpoints, exact
resume.

A run that was killed goes on from its last checkpoint to the very parameters of an undisturbed run:
the checkpoint holds all that training changes, and batches and dropout are functions of it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxmodpo.config import as_mapping
from jaxmodpo.data.batches import Batches
from jaxmodpo.errors import Preempted, UserError
from jaxmodpo.policy.distributed import leads
from jaxmodpo.policy.mesh import place_batch, put
from jaxmodpo.policy.preemption import notice
from jaxmodpo.progress import Progress
from jaxmodpo.training.checkpoints import Checkpoints
from jaxmodpo.training.settings import TrainingConfig
from jaxmodpo.training.step import (
    Loss,
    LossTerms,
    OptimizerSettings,
    Parameters,
    TrainState,
    evaluation_step,
    initial_state,
    means,
    train_step,
)
from jaxmodpo.training.throughput import Throughput
from jaxmodpo.training.tracking import Tracking

logger = logging.getLogger(__name__)


class OnEvaluation(Protocol):
    """Whoever is told of evaluations."""

    def __call__(self, epoch: float, values: Mapping[str, float]) -> None:
        """Take an evaluation.

        Args:
            epoch: passes over the data so far.
            values: ``loss``, ``rewards/accuracies`` and so on, of the held-out examples.
        """
        ...


@dataclass
class Trained:
    """What came out of a run.

    Attributes:
        parameters: the best by evaluation, or the last where nothing was held out; placed on the
            mesh.
        report: figures for the manifest: updates done and skipped, the best evaluation and its
            update.
    """

    parameters: Parameters
    report: dict[str, Any]


@dataclass
class _Evaluations:
    """How the evaluations went so far."""

    best: float | None = None
    best_update: int = 0
    without_better: int = 0
    best_values: dict[str, float] | None = None

    def add(self, score: float, update: int, values: dict[str, float]) -> bool:
        """Take a score, higher is better; return whether it is the best."""
        better = self.best is None or score > self.best
        if better:
            self.best = score
            self.best_update = update
            self.best_values = values
            self.without_better = 0
        else:
            self.without_better += 1
        return better

    def over(self, patience: int) -> bool:
        """Return whether the last ``patience`` evaluations were all without a better one; never
        with 0.
        """
        return 0 < patience <= self.without_better


def train(
    loss: Loss,
    trainable: Parameters,
    frozen: Parameters,
    batches: Batches,
    config: TrainingConfig,
    mesh: Mesh,
    held_out: Batches | None = None,
    flops: Callable[[np.ndarray], float] | None = None,
    on_evaluation: OnEvaluation | None = None,
) -> Trained:
    """Minimise a loss over a data set, from the last checkpoint in ``config.output_dir`` if there
    is one.

    Writes ``metrics.jsonl`` (means over each logged update, TRL's names, ``eval_`` before the
    held-out ones) and ``checkpoints/``.

    Args:
        loss: what to minimise.
        trainable: initial parameters; those without a place on ``mesh`` go to all its devices.
        frozen: parameters without gradients, placed on ``mesh``.
        batches: the data.
        config: schedule and so on.
        mesh: the devices.
        held_out: evaluated now and then; the parameters that do best are kept.
        flops: operations of an update whose sequences have these lengths, for the utilization.
        on_evaluation: called after each evaluation, in every process; what it raises ends the run.

    Raises:
        UserError: too many updates in a row were not finite; a checkpoint cannot be written; the
            evaluation lacks ``config.best_metric``.
        Preempted: SIGTERM came; everything so far is in a checkpoint.
    """
    with closing(Checkpoints(config.output_dir / "checkpoints")) as checkpoints:
        run = _Run(
            loss, frozen, batches, config, mesh, held_out, on_evaluation, checkpoints, trainable
        )
        run.log_start()
        run.go(Throughput(batches, flops, mesh))
        return run.result()


class _Run:
    """A run on its way: what changes with every update, and the settings that say what happens
    after one.

    Attributes:
        done: updates made so far.
        state: parameters, the optimizer's moments and what was skipped, after those updates.
        evaluations: how they went so far.
        is_over: whether no evaluation can be expected to be better.
    """

    def __init__(
        self,
        loss: Loss,
        frozen: Parameters,
        batches: Batches,
        config: TrainingConfig,
        mesh: Mesh,
        held_out: Batches | None,
        on_evaluation: OnEvaluation | None,
        checkpoints: Checkpoints,
        trainable: Parameters,
    ):
        self._loss = loss
        self._frozen = frozen
        self._batches = batches
        self._config = config
        self._mesh = mesh
        self._held_out = held_out
        self._on_evaluation = on_evaluation
        self._checkpoints = checkpoints
        self._steps = batches.steps
        self._optimizer = OptimizerSettings(float(config.weight_decay), config.max_grad_norm)
        self._rates = _rates(config, self._steps)
        self._eval_every = _eval_every(config, batches)
        self.state, self._key, self.evaluations, self.done = _start(
            trainable, self._optimizer, batches, config.seed, mesh, checkpoints
        )
        self.is_over = self.evaluations.over(config.patience)

    @property
    def _is_last(self) -> bool:
        return self.done == self._steps

    @property
    def _epoch(self) -> float:
        return self.done / self._batches.steps_per_epoch

    def log_start(self) -> None:
        """Say what is trained on, and from where."""
        shape = self._batches.shape
        logger.info(
            "training: %d examples, %d updates of %d, from update %d; rows of %d × %d tokens a"
            " microbatch, %.1f%% padding",
            len(self._batches.examples),
            self._steps,
            self._batches.examples_per_update,
            self.done,
            shape.rows,
            shape.length,
            100 * self._batches.waste,
        )

    def go(self, throughput: Throughput) -> None:
        """Make updates until all are done or no better evaluation comes.

        Raises:
            UserError: too many updates in a row were not finite.
            Preempted: SIGTERM came; everything so far is in a checkpoint.
        """
        config = self._config
        with (
            closing(
                Tracking(config.output_dir, config.track, as_mapping(config), self.done, leads())
            ) as tracking,
            Progress("training", self._steps, "updates", self.done, leave=False) as progress,
            notice() as preemption,
        ):
            while not (self._is_last or self.is_over):
                metrics = self._update()
                throughput.count(self.done - 1, metrics)
                if self.done % config.log_every == 0 or self._is_last:
                    self._log(metrics, throughput, tracking, progress)
                progress.update()
                score = None
                if self._held_out is not None and (
                    self.done % self._eval_every == 0 or self._is_last
                ):
                    score = self._evaluate(self._held_out, tracking)
                    throughput.restart()
                # All processes learn of a signal at the same update, so that all of them stop after
                # the same one.
                must_stop = preemption.should_stop()
                is_due = self.done % config.save_every == 0 or self._is_last or self.is_over
                if is_due or score is not None or must_stop:
                    # First the metrics: a checkpoint must never be ahead of the rows that belong to
                    # it.
                    tracking.sync()
                    self._save(score)
                if must_stop and not (self._is_last or self.is_over):
                    self._checkpoints.wait()
                    raise Preempted(
                        f"asked to end; everything up to update {self.done} of {self._steps} is in"
                        " a checkpoint"
                    )
        self._checkpoints.wait()

    def result(self) -> Trained:
        """Return the best parameters, or the last where nothing was held out, and the manifest's
        figures.
        """
        state = self.state
        skipped = int(np.asarray(state.skipped.addressable_data(0)))
        report = {"updates": self.done, "skipped_updates": skipped}
        if self.evaluations.best_values is not None:
            report["stopped_early"] = self.is_over and not self._is_last
            report |= _best(self.evaluations, self._batches)
            if self.evaluations.best_update != self.done:
                logger.info(
                    "update %d was the best of the evaluated ones", self.evaluations.best_update
                )
                state = self._checkpoints.at(self.evaluations.best_update, state)
        return Trained(state.trainable, report)

    def _update(self) -> dict[str, jax.Array]:
        """Make one update and return its metrics, which are still being computed."""
        batch = place_batch(self._mesh, next(self._batches), self._batches.by_rows)
        self.state, metrics = train_step(
            self.state,
            self._frozen,
            batch,
            self._key,
            np.int32(self.done),
            np.float32(self._rates[self.done]),
            loss=self._loss,
            optimizer=self._optimizer,
        )
        self.done += 1
        return metrics

    def _log(
        self,
        metrics: dict[str, jax.Array],
        throughput: Throughput,
        tracking: Tracking,
        progress: Progress,
    ) -> None:
        """Write a row of metrics; here alone the host waits for the devices.

        Raises:
            UserError: too many updates in a row were not finite.
        """
        self._checkpoints.check()
        values = _fetch(metrics)
        speed = throughput.rates()
        rate = {"learning_rate": float(self._rates[self.done - 1])}
        tracking.write(self._place() | values | rate | speed)
        pace = f", {speed['tokens_per_second']:,.0f} tokens a second" if speed else ""
        progress.note(f"loss {values['loss']:.4f}{pace}")
        if values["skipped_in_row"] >= min(self._config.max_skipped, self._steps):
            self._save(None)
            self._checkpoints.wait()
            raise UserError(
                f"training broke down: the last {values['skipped_in_row']:.0f} updates up to"
                f" {self.done} had a loss or gradient that was not finite, and were left out; a"
                " lower --learning-rate or --max-grad-norm helps"
            )

    def _evaluate(self, held_out: Batches, tracking: Tracking) -> float | None:
        """Evaluate the parameters as they are; return their score if it is the best so far."""
        values = evaluate(self._loss, self.state.trainable, self._frozen, held_out, self._mesh)
        score = _score(values, self._config.best_metric)
        is_best = self.evaluations.add(score, self.done, values)
        tracking.write(self._place() | {f"eval_{name}": value for name, value in values.items()})
        self.is_over = self.evaluations.over(self._config.patience)
        if self._on_evaluation is not None:
            self._on_evaluation(self._epoch, values)
        return score if is_best else None

    def _place(self) -> dict[str, float]:
        """Return the columns that say where in the run a row of metrics belongs."""
        return {"step": self.done, "epoch": round(self._epoch, 4)}

    def _save(self, score: float | None) -> None:
        """Save a checkpoint; one with a score is kept until a better one comes.

        It holds all that training changes besides the state: where the batches stand, how the
        evaluations went, and the random key, so that a run that goes on from it makes the very
        updates of one that was never stopped.
        """
        random = np.asarray(jax.random.key_data(self._key).addressable_data(0)).tolist()
        self._checkpoints.save(
            self.done, self.state, _progress(self._batches, self.evaluations, random), score
        )


def _start(
    trainable: Parameters,
    optimizer: OptimizerSettings,
    batches: Batches,
    seed: int,
    mesh: Mesh,
    checkpoints: Checkpoints,
) -> tuple[TrainState, jax.Array, _Evaluations, int]:
    """Return the state, the random key, the evaluations and the update to go on from: the last
    checkpoint's, or new.

    ``batches`` are set to go on from there.
    """
    everywhere = NamedSharding(mesh, PartitionSpec())
    state = initial_state(optimizer, _on_mesh(trainable, everywhere))
    checkpoint = checkpoints.last(state)
    if checkpoint is None:
        key = jax.jit(lambda: jax.random.key(seed), out_shardings=everywhere)()
        return state, key, _Evaluations(), 0
    state, progress, done = checkpoint
    batches.restore(progress["batches"])
    # The run's own key, whatever JAX makes of the seed today.
    data = put(np.asarray(progress["random"], np.uint32), everywhere)
    key = jax.jit(jax.random.wrap_key_data, out_shardings=everywhere)(data)
    return state, key, _Evaluations(**progress["evaluations"]), done


def _best(evaluations: _Evaluations, batches: Batches) -> dict[str, Any]:
    """Return the best evaluation's figures for the manifest."""
    values = evaluations.best_values or {}
    return {
        "best_update": evaluations.best_update,
        "best_epoch": round(evaluations.best_update / batches.steps_per_epoch, 4),
        **{f"held_out_{name}": value for name, value in values.items() if math.isfinite(value)},
    }


def evaluate(
    loss: Loss, trainable: Parameters, frozen: Parameters, held_out: Batches, mesh: Mesh
) -> dict[str, float]:
    """Return the mean loss and metrics over held-out examples; one synchronisation, at the end."""
    total: LossTerms | None = None
    for step in range(held_out.steps_per_epoch):
        batch = place_batch(mesh, held_out.at(step), held_out.by_rows)
        for part in range(held_out.accumulation):
            microbatch = {name: array[part] for name, array in batch.items()}
            terms = evaluation_step(trainable, frozen, microbatch, loss=loss)
            total = terms if total is None else jax.tree.map(jax.numpy.add, total, terms)
    assert total is not None
    return _fetch(means(total))


def passing(config: TrainingConfig) -> list[Path]:
    """Return what a run needs no more once it is finished: its checkpoints, unless they are to be
    kept.
    """
    return [] if config.keep_checkpoints else [config.output_dir / "checkpoints"]


def _eval_every(config: TrainingConfig, batches: Batches) -> int:
    """Return the updates between two evaluations."""
    if config.evaluations_per_epoch is None:
        return config.eval_every
    return max(1, batches.steps_per_epoch // config.evaluations_per_epoch)


def _rates(config: TrainingConfig, steps: int) -> np.ndarray:
    """Return every update's learning rate, all at once: in the loop the devices would have to be
    waited for.
    """
    warmup = min(steps, max(1, math.ceil(config.warmup_ratio * steps)))
    # The first update must not have a rate of 0, so they count from 1.
    schedule = optax.schedules.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, warmup, max(steps, warmup + 1)
    )
    return np.asarray(schedule(np.arange(1, steps + 1)), np.float32)


def _fetch(metrics: dict[str, jax.Array]) -> dict[str, float]:
    """Return metrics as numbers; this waits until the devices have computed them."""
    return {
        name: round(float(np.asarray(value.addressable_data(0))), 7)
        for name, value in sorted(metrics.items())
    }


def _score(values: dict[str, float], metric: str) -> float:
    """Return an evaluation's score by which the best is chosen, higher is better; −∞ where it is
    not finite.
    """
    if metric == "loss":
        return -values["loss"] if math.isfinite(values["loss"]) else -math.inf
    for name in ("rewards/weighted_accuracies", "rewards/accuracies"):
        if name in values:
            # Nothing is greater than NaN: as the first evaluation it would stay the best.
            finite = math.isfinite(values["loss"]) and math.isfinite(values[name])
            return values[name] if finite else -math.inf
    raise UserError(
        "--best-metric accuracy needs a method that compares responses; this one has only a loss"
    )


def _progress(batches: Batches, evaluations: _Evaluations, random: list[int]) -> dict[str, Any]:
    """Return what a checkpoint holds beside the arrays, as JSON values."""
    return {"batches": batches.state, "evaluations": vars(evaluations).copy(), "random": random}


def _on_mesh(parameters: Parameters, everywhere: NamedSharding) -> Parameters:
    """Return parameters of which those without a place on a mesh are copied to all its devices."""
    return {
        name: (
            array
            if isinstance(array.sharding, NamedSharding)
            else jax.device_put(array, everywhere)
        )
        for name, array in parameters.items()
    }
