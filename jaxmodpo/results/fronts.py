"""``fronts.json`` of ``sandbox fronts``: sweeps of several synthetic worlds put together.

A world is made from a seed. Every number is a mean over seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxmodpo.results.evaluation import Interval
from jaxmodpo.results.sweep import MODPO_MINUS_SOUP, Method
from jaxmodpo.results.versioned import Result
from jaxmodpo.schema import KEY, Tally

FRONTS = "fronts.json"


@dataclass(frozen=True, kw_only=True)
class SeedMean:
    """A mean over seeds, with its 95% t interval."""

    mean: float
    interval: Interval
    """None of a single seed"""


@dataclass(frozen=True, kw_only=True)
class SeedDifference(SeedMean):
    """A difference, taken within each seed."""

    seeds_above: Tally
    """seeds in which it is positive"""


@dataclass(frozen=True, kw_only=True)
class MeanPoint:
    """One point of a front."""

    weights: tuple[float, ...]
    scores: Mapping[str, SeedMean]
    kl: SeedMean


@dataclass(frozen=True, kw_only=True)
class MeanComparison:
    """MODPO against the soup of the same weights."""

    weights: tuple[float, ...]
    kl: Mapping[Method, SeedMean]
    differences: Mapping[str, SeedMean] = field(metadata={KEY: MODPO_MINUS_SOUP})
    """by objective, and ``weighted``: of the weighted sum"""


@dataclass(frozen=True, kw_only=True)
class MeanHypervolumes:
    """What both methods' fronts cover."""

    modpo: SeedMean
    soup: SeedMean
    difference: SeedDifference = field(metadata={KEY: MODPO_MINUS_SOUP})


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way of making pairs, with sweeps over the same weights in every seed."""

    objectives: tuple[str, ...]
    seeds: Tally
    base: Mapping[str, SeedMean]
    """the base's scores"""
    fronts: Mapping[Method, tuple[MeanPoint, ...]]
    """at equal weights"""
    matched_fronts: Mapping[Method, tuple[MeanPoint, ...]]
    """at matched divergence"""
    hypervolume: MeanHypervolumes
    equal_weights: tuple[MeanComparison, ...]
    matched_kl: tuple[MeanComparison, ...]


@dataclass(frozen=True, kw_only=True)
class Advantage:
    """MODPO of the second arm minus one method of the first."""

    hypervolume: SeedDifference
    weighted: tuple[SeedDifference, ...]
    """of the weighted scores, for each weight in the order of the fronts"""


@dataclass(frozen=True, kw_only=True)
class Fronts(Result):
    """``fronts.json``."""

    arms: Mapping[str, Arm]
    between: Mapping[Method, Advantage]
    """by method of the first arm"""
