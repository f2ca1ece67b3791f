"""``sweep.json`` of ``sweep``, and the files in its ``points/``: models over a grid of weights.

Scores are means over all replies of a model; divergences from the base are in nats per reply.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from jaxmodpo.errors import UserError
from jaxmodpo.results.versioned import Result, refuse_missing
from jaxmodpo.schema import KEY, Tally

SWEEP = "sweep.json"

Method = Literal["modpo", "soup"]

MODPO_MINUS_SOUP = "modpo - soup"
"""the key of a difference, wherever results hold one"""


# --------------------------------------------------------------------------- one model


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model, measured on replies sampled from it."""

    label: str
    scale: float
    """factor of its adapter: 1, or less where it was scaled back to another model's divergence"""
    weights: tuple[float, ...] | None
    """of the objectives, the primary first; None of the base"""
    scores: Mapping[str, float]
    """by objective"""
    kl: float
    kl_standard_error: float | None
    """None of a single question"""


@dataclass(frozen=True, kw_only=True)
class Point(Model):
    """One model of a front, which was made for these weights."""

    weights: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Measured(Model, Result):
    """A file below ``points/``, kept so that no model is measured twice."""

    adapter: str | None
    """folder of its adapter; None of the base"""
    per_question: Mapping[str, Mapping[str, float]]
    """by objective and question, the mean over the question's replies"""

    def as_model(self) -> Model:
        """Return it without what makes its file long, and without where its adapter lay."""
        return Model(
            label=self.label,
            scale=self.scale,
            weights=self.weights,
            scores=self.scores,
            kl=self.kl,
            kl_standard_error=self.kl_standard_error,
        )

    def as_point(self) -> Point:
        """Return the same of a model that was made for weights."""
        assert self.weights is not None, self.label
        return Point(
            label=self.label,
            scale=self.scale,
            weights=self.weights,
            scores=self.scores,
            kl=self.kl,
            kl_standard_error=self.kl_standard_error,
        )


# --------------------------------------------------------------------------- all of them


@dataclass(frozen=True, kw_only=True)
class Hypervolume:
    """What a front covers, or by how much MODPO's covers more than the soups'."""

    value: float
    interval: tuple[float, float]
    undominated: Tally | None = None
    """points of the front that no other one beats; absent of a difference"""


@dataclass(frozen=True, kw_only=True)
class ScoreDifference:
    """A mean over questions, with its 95% interval."""

    value: float
    interval: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """MODPO against the soup of the same weights."""

    weights: tuple[float, ...]
    kl: Mapping[Method, float]
    scale: Mapping[Method, float]
    """of both adapters, 1 where it was not scaled back"""
    differences: Mapping[str, ScoreDifference] = field(metadata={KEY: MODPO_MINUS_SOUP})
    """by objective, and ``weighted``: of the weighted sum"""


@dataclass(frozen=True, kw_only=True)
class Sweep(Result):
    """``sweep.json``."""

    objectives: tuple[str, ...]
    base: Model
    fronts: Mapping[str, tuple[Point, ...]]
    """by method, in the order of the grid"""
    reference_point: Mapping[str, float]
    """by objective, the lowest score of any model, above which hypervolumes are measured"""
    hypervolume: Mapping[str, Hypervolume]
    """by method and, where soups were made, of their difference"""
    equal_weights: tuple[Comparison, ...] | None = None
    """None where no soups were made"""
    matched_kl: tuple[Comparison, ...] | None = None
    """None where no soups were made, and empty where none were scaled back"""

    def check(self, source: str) -> None:
        """Refuse points that lack an objective's score or weight."""
        refuse_missing(self.objectives, self.base.scores, f"{source}: base, scores")
        for method, points in self.fronts.items():
            if not points:
                raise UserError(f"{source}: fronts, {method} holds no point")
            for number, point in enumerate(points, 1):
                self._check_point(point, f"{source}: fronts, {method}, item {number}")

    def _check_point(self, point: Point, place: str) -> None:
        refuse_missing(self.objectives, point.scores, f"{place}, scores")
        if not len(point.weights) == len(point.scores) == len(self.base.scores):
            raise UserError(
                f"{place}: as many weights and scores are needed as the base has scores"
            )
