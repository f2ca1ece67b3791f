"""``results.json`` of ``demo``: an evaluation in the sandbox, and what it is held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxmodpo.results.evaluation import EvaluationResults, Interval
from jaxmodpo.results.versioned import Result, refuse_missing


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """One statement about the outcome."""

    statement: str
    holds: bool
    figures: str
    """what it rests on, in words; empty where the tables above it say so"""


@dataclass(frozen=True, kw_only=True)
class WorldResults(EvaluationResults):
    """``results.json`` of one world: its evaluation's, and what was measured besides."""

    seed: int
    kl: Mapping[str, float]
    """by model, its divergence from the base in nats per reply"""
    malformed: Mapping[str, float]
    """by model, the share of replies that the sandbox's grammar cannot read"""
    required: tuple[Expectation, ...]
    """what a working system shows in this world"""
    figure_2: tuple[Expectation, ...]
    """every comparison of the paper's Figure 2"""

    def check(self, source: str) -> None:
        """Refuse what an evaluation is refused for, and models whose replies were not measured."""
        super().check(source)
        refuse_missing(self.models, self.kl, f"{source}: kl")
        refuse_missing(self.models, self.malformed, f"{source}: malformed")

    @property
    def seeds(self) -> tuple[int, ...]:
        return (self.seed,)


@dataclass(frozen=True, kw_only=True)
class WorldMeans(Result):
    """``results.json`` of several worlds: means over their seeds."""

    seeds: tuple[int, ...]
    models: Mapping[str, Mapping[str, float]]
    """average win rates, by model and criterion"""
    intervals: Mapping[str, Mapping[str, Interval]]
    """of ``models``: the lowest and the highest of all seeds"""
    pairwise: Mapping[str, Mapping[str, Mapping[str, float]]]
    """by criterion, the win rate of the first model over the second"""
    kl: Mapping[str, float]
    malformed: Mapping[str, float]
    required: tuple[Expectation, ...]
    """each holds where it does on all seeds"""
    figure_2: tuple[Expectation, ...]
