"""The training loop that every method shares: schedule, evaluation, metrics, checkpoints, exact resume.

A run that was killed goes on from its last checkpoint to the very parameters of an undisturbed run: the
checkpoint holds all that training changes, and batches and dropout are functions of it.
"""

from __future__ import annotations

import logging
import math
import time
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
from jaxmodpo.progress import Progress
from jaxmodpo.training.checkpoints import Checkpoints
from jaxmodpo.training.distributed import leads
from jaxmodpo.training.hardware import peak_flops
from jaxmodpo.training.mesh import place_batch, put
from jaxmodpo.training.preemption import notice
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
        parameters: the best by evaluation, or the last where nothing was held out; placed on the mesh.
        report: figures for the manifest: updates done and skipped, the best evaluation and its update.
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
            self.best, self.best_update, self.without_better, self.best_values = score, update, 0, values
        else:
            self.without_better += 1
        return better

    def over(self, patience: int) -> bool:
        """Return whether the last ``patience`` evaluations were all without a better one; never with 0."""
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
    """Minimise a loss over a data set, from the last checkpoint in ``config.output_dir`` if there is one.

    Writes ``metrics.jsonl`` (means over each logged update, TRL's names, ``eval_`` before the held-out
    ones) and ``checkpoints/``.

    Args:
        loss: what to minimise.
        trainable: initial parameters; those without a place on ``mesh`` go to all its devices.
        frozen: parameters without gradients, placed on ``mesh``.
        batches: the data.
        config: schedule and so on.
        mesh: the devices.
        held_out: evaluated now and then; the parameters that do best are kept.
        flops: operations of an update whose sequences have these lengths, for the utilisation.
        on_evaluation: called after each evaluation, in every process; what it raises ends the run.

    Raises:
        UserError: too many updates in a row were not finite; a checkpoint cannot be written; the evaluation
            lacks ``config.best_metric``.
        Preempted: SIGTERM came; everything so far is in a checkpoint.
    """
    checkpoints = Checkpoints(config.output_dir / "checkpoints")
    try:
        return _train(loss, trainable, frozen, batches, config, mesh, held_out, flops, on_evaluation, checkpoints)
    finally:
        checkpoints.close()


def _train(
    loss: Loss,
    trainable: Parameters,
    frozen: Parameters,
    batches: Batches,
    config: TrainingConfig,
    mesh: Mesh,
    held_out: Batches | None,
    flops: Callable[[np.ndarray], float] | None,
    on_evaluation: OnEvaluation | None,
    checkpoints: Checkpoints,
) -> Trained:
    steps = batches.steps
    optimizer = OptimizerSettings(float(config.weight_decay), config.max_grad_norm)
    rates = _rates(config, steps)
    state, key, evaluations, start = _start(trainable, optimizer, batches, config.seed, mesh, checkpoints)
    eval_every = _eval_every(config, batches)
    logger.info(
        "training: %d examples, %d updates of %d, from update %d; rows of %d × %d tokens a microbatch, %.1f%% padding",
        len(batches.examples),
        steps,
        batches.examples_per_update,
        start,
        batches.shape.rows,
        batches.shape.length,
        100 * batches.waste,
    )
    random = np.asarray(jax.random.key_data(key).addressable_data(0)).tolist()
    clock = _Clock(batches, flops, mesh)
    over = evaluations.over(config.patience)
    done = start
    with (
        closing(Tracking(config.output_dir, config.track, as_mapping(config), start, leads())) as tracking,
        Progress("training", steps, "updates", start, leave=False) as progress,
        notice() as preemption,
    ):
        while done < steps and not over:
            batch = place_batch(mesh, next(batches), batches.by_rows)
            state, metrics = train_step(
                state, frozen, batch, key, np.int32(done), np.float32(rates[done]), loss=loss, optimizer=optimizer
            )
            clock.count(done, metrics)
            done += 1
            epoch = done / batches.steps_per_epoch
            now = {"step": done, "epoch": round(epoch, 4)}
            last = done == steps
            if done % config.log_every == 0 or last:
                checkpoints.check()
                values = _fetch(metrics)
                speed = clock.rates()
                tracking.write(now | values | {"learning_rate": float(rates[done - 1])} | speed)
                pace = f", {speed['tokens_per_second']:,.0f} tokens a second" if speed else ""
                progress.note(f"loss {values['loss']:.4f}{pace}")
                if values["skipped_in_row"] >= min(config.max_skipped, steps):
                    checkpoints.save(done, state, _progress(batches, evaluations, random))
                    checkpoints.wait()
                    raise UserError(
                        f"training broke down: the last {values['skipped_in_row']:.0f} updates up to {done} had a loss "
                        "or gradient that was not finite, and were left out; a lower --learning-rate or "
                        "--max-grad-norm helps"
                    )
            progress.update()
            score = None
            if held_out is not None and (done % eval_every == 0 or last):
                values = evaluate(loss, state.trainable, frozen, held_out, mesh)
                candidate = _score(values, config.best_metric)
                better = evaluations.add(candidate, done, values)
                score = candidate if better else None
                tracking.write(now | {f"eval_{name}": value for name, value in values.items()})
                over = evaluations.over(config.patience)
                if on_evaluation is not None:
                    on_evaluation(epoch, values)
                clock.restart()
            ending = preemption.heeded()
            if done % config.save_every == 0 or last or over or score is not None or ending:
                tracking.sync()
                checkpoints.save(done, state, _progress(batches, evaluations, random), score)
            if ending and not (last or over):
                checkpoints.wait()
                raise Preempted(f"asked to end; everything up to update {done} of {steps} is in a checkpoint")
    checkpoints.wait()
    report = {"updates": done, "skipped_updates": int(np.asarray(state.skipped.addressable_data(0)))}
    if evaluations.best_values is not None:
        report |= {"stopped_early": over and done < steps} | _best(evaluations, batches)
        if evaluations.best_update != done:
            logger.info("update %d was the best of the evaluated ones", evaluations.best_update)
            state = checkpoints.at(evaluations.best_update, state)
    return Trained(state.trainable, report)


def _start(
    trainable: Parameters,
    optimizer: OptimizerSettings,
    batches: Batches,
    seed: int,
    mesh: Mesh,
    checkpoints: Checkpoints,
) -> tuple[TrainState, jax.Array, _Evaluations, int]:
    """Return the state, the random key, the evaluations and the update to go on from: the last checkpoint's, or new.

    ``batches`` are set to go on from there.
    """
    everywhere = NamedSharding(mesh, PartitionSpec())
    state = initial_state(optimizer, _on_mesh(trainable, everywhere))
    found = checkpoints.last(state)
    if found is None:
        return state, jax.jit(lambda: jax.random.key(seed), out_shardings=everywhere)(), _Evaluations(), 0
    state, progress, start = found
    batches.restore(progress["batches"])
    data = put(np.asarray(progress["random"], np.uint32), everywhere)
    key = jax.jit(jax.random.wrap_key_data, out_shardings=everywhere)(data)
    return state, key, _Evaluations(**progress["evaluations"]), start


def _best(evaluations: _Evaluations, batches: Batches) -> dict[str, Any]:
    """Return the best evaluation's figures for the manifest."""
    values = evaluations.best_values or {}
    return {
        "best_update": evaluations.best_update,
        "best_epoch": round(evaluations.best_update / batches.steps_per_epoch, 4),
        **{f"held_out_{name}": value for name, value in values.items() if math.isfinite(value)},
    }


def evaluate(loss: Loss, trainable: Parameters, frozen: Parameters, held_out: Batches, mesh: Mesh) -> dict[str, float]:
    """Return the mean loss and metrics over held-out examples; one synchronisation, at the end."""
    total: LossTerms | None = None
    for step in range(held_out.steps_per_epoch):
        batch = place_batch(mesh, held_out.at(step), held_out.by_rows)
        for part in range(held_out.accumulation):
            terms = evaluation_step(trainable, frozen, {name: a[part] for name, a in batch.items()}, loss=loss)
            total = terms if total is None else jax.tree.map(jax.numpy.add, total, terms)
    assert total is not None
    return _fetch(means(total))


def passing(config: TrainingConfig) -> list[Path]:
    """Return what a run needs no more once it is finished: its checkpoints, unless they are to be kept."""
    return [] if config.keep_checkpoints else [config.output_dir / "checkpoints"]


class _Clock:
    """Counts what was trained since the last look, and how long that took."""

    def __init__(self, batches: Batches, flops: Callable[[np.ndarray], float] | None, mesh: Mesh):
        self._batches = batches
        self._flops = flops
        self._devices = mesh.size
        self._peak = peak_flops(mesh.devices.flat[0].device_kind)
        self._compiled = False
        self.restart()

    def restart(self) -> None:
        self._since, self._tokens, self._examples, self._operations = time.perf_counter(), 0, 0, 0.0

    def count(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Count an update; the first one is waited for and does not count, since it is compiled."""
        if not self._compiled:
            jax.block_until_ready(metrics)
            self._compiled = True
            self.restart()
            return
        members = self._batches.members(step)
        lengths = self._batches.examples.lengths[members[members >= 0]]
        self._tokens += int(lengths.sum())
        self._examples += len(lengths)
        self._operations += self._flops(lengths) if self._flops else 0.0

    def rates(self) -> dict[str, float]:
        """Return tokens and examples a second and the share of peak, of real tokens alone; and start anew."""
        took = time.perf_counter() - self._since
        found: dict[str, float] = {}
        if self._examples:
            found = {
                "tokens_per_second": round(self._tokens / took, 1),
                "examples_per_second": round(self._examples / took, 3),
            }
            if self._peak and self._operations:
                found["mfu"] = round(self._operations / took / self._peak / self._devices, 4)
        self.restart()
        return found


def _eval_every(config: TrainingConfig, batches: Batches) -> int:
    """Return the updates between two evaluations."""
    if config.evaluations_per_epoch is None:
        return config.eval_every
    return max(1, batches.steps_per_epoch // config.evaluations_per_epoch)


def _rates(config: TrainingConfig, steps: int) -> np.ndarray:
    """Return every update's learning rate, all at once: in the loop the devices would have to be waited for."""
    warmup = min(steps, max(1, math.ceil(config.warmup_ratio * steps)))
    # The first update must not have a rate of 0, so they count from 1.
    schedule = optax.schedules.warmup_cosine_decay_schedule(0.0, config.learning_rate, warmup, max(steps, warmup + 1))
    return np.asarray(schedule(np.arange(1, steps + 1)), np.float32)


def _fetch(metrics: dict[str, jax.Array]) -> dict[str, float]:
    return {name: round(float(np.asarray(value.addressable_data(0))), 7) for name, value in sorted(metrics.items())}


def _score(values: dict[str, float], metric: str) -> float:
    if metric == "loss":
        return -values["loss"] if math.isfinite(values["loss"]) else -math.inf
    for name in ("rewards/weighted_accuracies", "rewards/accuracies"):
        if name in values:
            # Nothing is greater than NaN: as the first evaluation it would stay the best.
            finite = math.isfinite(values["loss"]) and math.isfinite(values[name])
            return values[name] if finite else -math.inf
    raise UserError("--best-metric accuracy needs a method that compares responses; this one has only a loss")


def _progress(batches: Batches, evaluations: _Evaluations, random: list[int]) -> dict[str, Any]:
    return {"batches": batches.state, "evaluations": vars(evaluations).copy(), "random": random}


def _on_mesh(parameters: Parameters, everywhere: NamedSharding) -> Parameters:
    return {
        name: array if isinstance(array.sharding, NamedSharding) else jax.device_put(array, everywhere)
        for name, array in parameters.items()
    }
