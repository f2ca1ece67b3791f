"""Evaluations on held-out examples: how one is made, which is the best, and when to stop early."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from jaxmodpo.data.batches import Batches
from jaxmodpo.errors import UserError
from jaxmodpo.models.parameters import Parameters
from jaxmodpo.parsing import JsonObject
from jaxmodpo.policy.mesh import place_microbatch
from jaxmodpo.training.problem import Problem
from jaxmodpo.training.step import LossTerms, as_numbers, evaluation_step, means


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
class Evaluations:
    """How the evaluations of a run went so far: plain numbers, which a checkpoint keeps as JSON.

    Attributes:
        best: the highest score; None before the first evaluation.
        best_update: the update after which it was measured.
        without_better: evaluations since then.
        best_values: the loss and the metrics of the best one.
    """

    best: float | None = None
    best_update: int = 0
    without_better: int = 0
    best_values: dict[str, float] | None = None

    def add(self, score: float, update: int, values: dict[str, float]) -> bool:
        """Take a score, higher is better; return whether it is the best."""
        # Of equal scores the earliest is kept, as it needed least training.
        is_best = self.best is None or score > self.best
        if is_best:
            self.best = score
            self.best_update = update
            self.best_values = values
            self.without_better = 0
        else:
            self.without_better += 1
        return is_best

    def over(self, patience: int) -> bool:
        """Return whether the last ``patience`` evaluations were all without a better one; never
        with 0.
        """
        return 0 < patience <= self.without_better

    def report(self, batches: Batches) -> dict[str, Any]:
        """Return the best evaluation's figures for the manifest."""
        values = self.best_values or {}
        report: JsonObject = {
            "best_update": self.best_update,
            "best_epoch": round(self.best_update / batches.steps_per_epoch, 4),
        }
        for name, value in values.items():
            # JSON has no NaN and no infinities.
            if math.isfinite(value):
                report[f"held_out_{name}"] = value
        return report


def evaluate(problem: Problem, trainable: Parameters, held_out: Batches) -> dict[str, float]:
    """Return the mean loss and metrics over held-out examples.

    Sums and denominators are added up on the devices, and the host waits for them once, at the end.

    Args:
        problem: the loss, the frozen parameters and the devices.
        trainable: the parameters to evaluate.
        held_out: what to evaluate them on.
    """
    sums: LossTerms | None = None
    for step in range(held_out.steps_per_epoch):
        batch = held_out.at(step)
        for number in range(held_out.accumulation):
            microbatch = place_microbatch(problem.mesh, batch, held_out.by_rows, number)
            # Sums, not means: the last microbatch may have fewer rows than the others.
            terms = evaluation_step(trainable, problem.frozen, microbatch, loss=problem.loss)
            sums = terms if sums is None else jax.tree.map(jnp.add, sums, terms)
    assert sums is not None
    return as_numbers(means(sums))


def score(values: Mapping[str, float], metric: str) -> float:
    """Return an evaluation's score by which the best is chosen, higher is better.

    Args:
        values: of the evaluation.
        metric: ``loss``, or ``accuracy``, which is the weighted one where there is one.

    Returns:
        The score, or −∞ where something is not finite. Nothing is greater than NaN: as the first
        evaluation it would stay the best.

    Raises:
        UserError: the accuracy of a method that compares nothing.
    """
    if metric == "loss":
        return -values["loss"] if math.isfinite(values["loss"]) else -math.inf
    for name in ("rewards/weighted_accuracies", "rewards/accuracies"):
        if name in values:
            is_finite = math.isfinite(values["loss"]) and math.isfinite(values[name])
            return values[name] if is_finite else -math.inf
    raise UserError(
        "--best-metric accuracy needs a method that compares responses; this one has only a loss"
    )
