"""The training loop that every method shares: updates, metrics, evaluations and checkpoints.

From Python, on a policy and batches in memory::

    problem = policy_problem(policy, DPO(beta=0.1))
    settings = LoopSettings(output_dir=Path("run"), learning_rate=1e-5)
    trained = train(problem, batches, settings)
    policy = policy.with_parameters(trained.parameters)
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxmodpo.config import as_mapping
from jaxmodpo.data.batches import Batches
from jaxmodpo.errors import Preempted, UserError
from jaxmodpo.models.parameters import Parameters
from jaxmodpo.policy.distributed import leads
from jaxmodpo.policy.mesh import place_batch
from jaxmodpo.policy.preemption import notice
from jaxmodpo.progress import Progress
from jaxmodpo.training.checkpoints import Checkpoints
from jaxmodpo.training.evaluation import OnEvaluation, evaluate, score
from jaxmodpo.training.problem import Problem
from jaxmodpo.training.profiling import Profile
from jaxmodpo.training.recomputation import choose
from jaxmodpo.training.resume import begin_or_resume
from jaxmodpo.training.schedule import learning_rates, updates_between_evaluations
from jaxmodpo.training.settings import LoopSettings
from jaxmodpo.training.startup import Startup
from jaxmodpo.training.step import Loss, OptimizerSettings, as_numbers, places_of, train_step
from jaxmodpo.training.throughput import Throughput
from jaxmodpo.training.tracking import Tracking

logger = logging.getLogger(__name__)


@dataclass
class Trained:
    """What came out of a run.

    Attributes:
        parameters: the best by evaluation, or the last where nothing was held out; placed on the
            mesh.
        report: figures for the manifest: updates done and skipped, the best evaluation and its
            update, what the backward pass computed again, and what the time to the first update
            went into.
    """

    parameters: Parameters
    report: dict[str, Any]


def train(
    problem: Problem,
    batches: Batches,
    settings: LoopSettings,
    held_out: Batches | None = None,
    on_evaluation: OnEvaluation | None = None,
    startup: Startup | None = None,
    *,
    cache_dir: Path | None = None,
) -> Trained:
    """Minimize a loss over a data set, from the last checkpoint in ``settings.output_dir`` if there
    is one.

    Writes ``metrics.jsonl`` (means over each logged update, TRL's names, ``eval_`` before the
    held-out ones) and ``checkpoints/``.

    Args:
        problem: the loss, its parameters and the devices.
        batches: the data.
        settings: schedule and so on; of a command's settings the other fields are not read.
        held_out: evaluated now and then; the parameters that do best are kept.
        on_evaluation: called after each evaluation, in every process; what it raises ends the run.
        startup: counts since the run's beginning, and ends with the first update; by default it
            begins here.
        cache_dir: keeps what is chosen to be computed again; None for the default one.

    Raises:
        UserError: too many updates in a row were not finite; a checkpoint cannot be written; the
            evaluation lacks ``settings.best_metric``.
        Preempted: SIGTERM came; everything so far is in a checkpoint.
    """
    startup = startup or Startup()
    with closing(Checkpoints(settings.output_dir / "checkpoints")) as checkpoints:
        with startup.part("initial state"):
            run = _Run(problem, batches, settings, held_out, on_evaluation, checkpoints, startup)
        run.log_start()
        with startup.part("first update"):
            run.choose_recomputation(cache_dir)
        run.go(Throughput(batches, problem.flops, problem.mesh))
        return run.result()


class _Run:
    """A run on its way.

    Attributes:
        now: all that an update changes.
        is_over: whether no evaluation can be expected to be better.
    """

    def __init__(
        self,
        problem: Problem,
        batches: Batches,
        settings: LoopSettings,
        held_out: Batches | None,
        on_evaluation: OnEvaluation | None,
        checkpoints: Checkpoints,
        startup: Startup,
    ):
        self._problem = problem
        self._batches = batches
        self._settings = settings
        self._held_out = held_out
        self._on_evaluation = on_evaluation
        self._checkpoints = checkpoints
        self._startup = startup
        self._optimizer = OptimizerSettings(float(settings.weight_decay), settings.max_grad_norm)
        self._rates = learning_rates(settings, batches.steps)
        self._eval_every = updates_between_evaluations(settings, batches)
        self.now = begin_or_resume(problem, self._optimizer, batches, settings.seed, checkpoints)
        # Once for the whole run: XLA's words for where an update's arrays lie may be others than
        # ours for the same places, and the step would be compiled for each.
        self._places = places_of(self.now.state)
        self.is_over = self.now.evaluations.over(settings.patience)

    @property
    def _is_last(self) -> bool:
        return self.now.done == self._batches.steps

    @property
    def _has_ended(self) -> bool:
        return self._is_last or self.is_over

    @property
    def _epoch(self) -> float:
        return self.now.done / self._batches.steps_per_epoch

    def _is_due(self, every: int) -> bool:
        """Return whether it is the turn of what happens every so many updates and at the end."""
        return self.now.done % every == 0 or self._is_last

    def log_start(self) -> None:
        """Say what is trained on, and from where."""
        shape = self._batches.shape
        *shorter, _ = np.unique(self._batches.row_lengths).tolist()
        shorter_in_words = ""
        if shorter:
            lengths = ", ".join(map(str, shorter))
            shorter_in_words = f", or {lengths} where that is enough"
        logger.info(
            "training: %d examples, %d updates of %d, from update %d; rows of %d × %d tokens a"
            " microbatch%s, %.1f%% padding",
            len(self._batches.examples),
            self._batches.steps,
            self._batches.examples_per_update,
            self.now.done,
            shape.rows,
            shape.length,
            shorter_in_words,
            100 * self._batches.waste,
        )

    def choose_recomputation(self, cache_dir: Path | None) -> None:
        """Choose what the backward pass computes again, where that is left to the trainer.

        Raises:
            UserError: no choice makes the step fit.
        """
        problem = self._problem
        if problem.loss_under is None:
            return
        if not self._has_ended:
            # What fits with the longest rows fits with all.
            arguments = self._arguments(self._batches.at(self._batches.longest_step))

            def lower(loss: Loss) -> Any:
                return train_step.lower(
                    *arguments,
                    loss=loss,
                    optimizer=self._optimizer,
                    places=self._places,
                )

            self.now.choice = choose(
                problem.loss_under,
                lower,
                (arguments, self._optimizer),
                problem.mesh,
                cache_dir,
                self.now.choice,
            )
        if self.now.choice is not None:
            self._problem = problem.under(self.now.choice.policy)

    def go(self, throughput: Throughput) -> None:
        """Make updates until all are done or no better evaluation comes.

        Raises:
            UserError: too many updates in a row were not finite.
            Preempted: SIGTERM came; everything so far is in a checkpoint.
        """
        settings = self._settings
        done = self.now.done
        with (
            closing(
                Tracking(settings.output_dir, settings.track, as_mapping(settings), done, leads())
            ) as tracking,
            Progress("training", self._batches.steps, "updates", done, leave=False) as progress,
            notice() as preemption,
            closing(Profile(settings.output_dir / "profile", settings.profile)) as profile,
        ):
            while not self._has_ended:
                with self._startup.part("first update"):
                    metrics = self._update()
                    # It waits for the first update alone.
                    throughput.count(self.now.done - 1, metrics)
                self._startup.end()
                profile.after_update(metrics)
                if self._is_due(settings.log_every):
                    self._log(metrics, throughput, tracking, progress)
                progress.update()
                best_score = None
                if self._held_out is not None and self._is_due(self._eval_every):
                    best_score = self._evaluate(self._held_out, tracking)
                    # An evaluation's time is not training's.
                    throughput.restart()
                # All processes learn of a signal at the same update, so that all of them stop after
                # the same one.
                must_stop = preemption.should_stop()
                is_save_due = self._is_due(settings.save_every) or self.is_over
                if is_save_due or best_score is not None or must_stop:
                    # First the metrics: a checkpoint must never be ahead of the rows that belong to
                    # it. Rows that are ahead of it are dropped when the run goes on.
                    tracking.sync()
                    self._save(best_score)
                if must_stop and not self._has_ended:
                    self._checkpoints.wait()
                    raise Preempted(
                        f"asked to end; everything up to update {self.now.done} of"
                        f" {self._batches.steps} is in a checkpoint"
                    )
        self._checkpoints.wait()

    def result(self) -> Trained:
        """Return the best parameters, or the last where nothing was held out, and the manifest's
        figures.
        """
        state = self.now.state
        evaluations = self.now.evaluations
        skipped = int(np.asarray(state.skipped.addressable_data(0)))
        report: dict[str, Any] = {"updates": self.now.done, "skipped_updates": skipped}
        if self._problem.remat is not None:
            report["remat"] = self._problem.remat
        if self._startup.has_ended:
            report["startup_seconds"] = dict(self._startup.seconds)
        if evaluations.best_values is not None:
            report["stopped_early"] = self.is_over and not self._is_last
            report |= evaluations.report(self._batches)
            # The best one's checkpoint was kept for this; the last parameters are in memory.
            if evaluations.best_update != self.now.done:
                logger.info("update %d was the best of the evaluated ones", evaluations.best_update)
                state = self._checkpoints.at(evaluations.best_update, state)
        return Trained(state.trainable, report)

    def _update(self) -> dict[str, jax.Array]:
        """Make one update and return its metrics, which are still being computed.

        JAX hands the work to the devices and returns at once, so that the host makes the next batch
        while they compute. It lasts as long as nobody looks at a number.
        """
        arguments = self._arguments(next(self._batches))
        self.now.state, metrics = train_step(
            *arguments,
            loss=self._problem.loss,
            optimizer=self._optimizer,
            places=self._places,
        )
        self.now.done += 1
        return metrics

    def _arguments(self, batch: Mapping[str, np.ndarray]) -> tuple[Any, ...]:
        """Return what the next update is a function of, besides the loss and the optimizer."""
        return (
            self.now.state,
            self._problem.frozen,
            place_batch(self._problem.mesh, batch, self._batches.by_rows),
            self.now.key,
            np.int32(self.now.done),
            np.float32(self._rates[self.now.done]),
        )

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
        # Checkpoints are written by threads, whose failures would otherwise be told at the end.
        self._checkpoints.check()
        values = as_numbers(metrics)
        speed = throughput.rates()
        rate = {"learning_rate": float(self._rates[self.now.done - 1])}
        tracking.write(self._place() | values | rate | speed)
        pace = f", {speed['tokens_per_second']:,.0f} tokens a second" if speed else ""
        progress.note(f"loss {values['loss']:.4f}{pace}")
        most_skipped = min(self._settings.max_skipped, self._batches.steps)
        if values["skipped_in_row"] >= most_skipped:
            self._save(None)
            self._checkpoints.wait()
            raise UserError(
                f"training broke down: the last {values['skipped_in_row']:.0f} updates up to"
                f" {self.now.done} had a loss or gradient that was not finite, and were left out; a"
                " lower --learning-rate or --max-grad-norm helps"
            )

    def _evaluate(self, held_out: Batches, tracking: Tracking) -> float | None:
        """Evaluate the parameters as they are; return their score if it is the best so far."""
        values = evaluate(self._problem, self.now.state.trainable, held_out)
        evaluation_score = score(values, self._settings.best_metric)
        is_best = self.now.evaluations.add(evaluation_score, self.now.done, values)
        row = self._place()
        for name, value in values.items():
            row[f"eval_{name}"] = value
        tracking.write(row)
        self.is_over = self.now.evaluations.over(self._settings.patience)
        if self._on_evaluation is not None:
            self._on_evaluation(self._epoch, values)
        return evaluation_score if is_best else None

    def _place(self) -> dict[str, float]:
        """Return the columns that say where in the run a row of metrics belongs."""
        return {"step": self.now.done, "epoch": round(self._epoch, 4)}

    def _save(self, best_score: float | None) -> None:
        """Save a checkpoint; the one with the best score is kept until a better one comes."""
        self.now.save(self._checkpoints, self._batches, best_score)
