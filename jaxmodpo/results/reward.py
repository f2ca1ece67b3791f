"""``validation.json`` of ``reward``: how good a reward model is on rankings that it never saw."""

from __future__ import annotations

from dataclasses import dataclass

from jaxmodpo.errors import UserError
from jaxmodpo.results.evaluation import Interval
from jaxmodpo.results.versioned import Result
from jaxmodpo.schema import Tally

VALIDATION = "validation.json"


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Accuracy over pairs of replies; equal rewards count half."""

    pairs: Tally
    accuracy: float
    accuracy_interval: Interval
    loss: float
    """mean Bradley–Terry loss"""


@dataclass(frozen=True, kw_only=True)
class CalibrationBin:
    """Pairs of which the model is about equally sure."""

    low: float
    high: float
    """the probabilities that the bin reaches from and to"""
    pairs: Tally
    probability: float
    """mean probability that the model gives to its own preference"""
    agreement: float
    """how often the ranking prefers the same response"""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How often rankings agree that the model is this sure of."""

    bins: tuple[CalibrationBin, ...]
    expected_calibration_error: float


@dataclass(frozen=True, kw_only=True)
class RewardSummary:
    """Rewards of one kind of response."""

    mean: float
    std: float
    quantiles: tuple[float, ...]
    histogram: tuple[Tally, ...]


@dataclass(frozen=True, kw_only=True)
class RewardDistribution:
    """Rewards of the best and the worst responses, over shared bins."""

    quantiles: tuple[Tally, ...]
    """percentages"""
    histogram_edges: tuple[float, ...]
    best: RewardSummary
    worst: RewardSummary


@dataclass(frozen=True, kw_only=True)
class Validation(Result):
    """``validation.json``."""

    questions: Tally
    pairs: Tally
    """best-worst pairs, one for each ranking"""
    tied_pairs_left_out: Tally
    accuracy: float
    accuracy_interval: Interval
    loss: float
    all_pairs: Accuracy | None = None
    """None where every ranking is a pair, so that the figures would be said twice"""
    calibration: Calibration
    rewards: RewardDistribution
    measured_in: str | None = None
    """of a search, the trial whose model it was"""

    def check(self, source: str) -> None:
        """Refuse rewards whose bins and edges do not belong together."""
        edges = self.rewards.histogram_edges
        for name, rewards in (("best", self.rewards.best), ("worst", self.rewards.worst)):
            if len(rewards.histogram) + 1 != len(edges):
                raise UserError(
                    f"{source}: rewards, {name}, histogram must have one bin less than"
                    " histogram_edges has edges"
                )
