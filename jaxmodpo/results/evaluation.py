"""``results.json`` of ``evaluate``: win rates, their intervals, and tests between models.

Rates lie in 0–1. Mappings go by the name of a model or of a criterion, as their docstrings say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from jaxmodpo.errors import UserError
from jaxmodpo.results.inference import (
    GroupRates,
    Interval,
    LengthBin,
    LengthControlledRate,
    PanelIntervals,
    Ratings,
)
from jaxmodpo.results.versioned import Result, refuse_missing
from jaxmodpo.results.votes import FailedVotes
from jaxmodpo.schema import Tally

RESULTS = "results.json"

TiesRule = Literal["half", "left-out"]
"""whether a tied question is half a win for either model, or counts for no win rate"""


@dataclass(frozen=True, kw_only=True)
class PairTest:
    """McNemar's test of two models on one criterion, question by question."""

    a: str
    b: str
    wins: Tally
    """questions that ``a`` won"""
    losses: Tally
    """questions that ``b`` won"""
    ties: Tally
    statistic: float
    p_value: float
    statistic_corrected: float
    p_value_corrected: float
    p_value_exact: float
    decisive: Literal["p_value", "p_value_exact"]
    """which p value to read: of few decided questions the exact one"""
    average_difference: float
    """of the models' average win rates, ``a`` minus ``b``"""
    average_difference_interval: Interval
    p_value_holm: float
    """the decisive p value adjusted by Holm's method over all pairs of the criterion"""

    @property
    def decisive_p_value(self) -> float:
        return self.p_value if self.decisive == "p_value" else self.p_value_exact


@dataclass(frozen=True, kw_only=True)
class ComparisonJudged:
    """How many questions one comparison has that lacks some."""

    criterion: str
    a: str
    b: str
    judged: Tally


@dataclass(frozen=True, kw_only=True)
class WinRates(Result):
    """What outcomes come to: the part of a result that follows from them alone."""

    models: Mapping[str, Mapping[str, float]]
    """average win rate over all opponents, by model and criterion"""
    intervals: Mapping[str, Mapping[str, Interval]]
    """of ``models``, in the same layout"""
    pairwise: Mapping[str, Mapping[str, Mapping[str, float]]]
    """by criterion, the win rate of the first model over the second"""
    pairwise_intervals: Mapping[str, Mapping[str, Mapping[str, Interval]]]
    tests: Mapping[str, tuple[PairTest, ...]]
    """by criterion, every two models"""
    criteria: tuple[str, ...]
    ties: TiesRule = "half"
    """what win rates make of ties; the tests leave them out either way"""


@dataclass(frozen=True, kw_only=True)
class CriterionCounts:
    """Votes and units of one criterion; a unit is a question, two models and the number of their
    replies.
    """

    votes_asked: Tally
    valid: Tally
    failed: Mapping[str, Tally]
    """votes by their status"""
    units: Tally
    units_without_valid_vote: Tally
    units_tied: Tally
    """units with as many votes for each model, or with identical replies"""
    identical_replies: Tally
    """units that nobody was asked about, since both replies are the same text"""


@dataclass(frozen=True, kw_only=True)
class Counts(CriterionCounts):
    """The same over all criteria, and what they are made of."""

    by_criterion: Mapping[str, CriterionCounts]
    missing: FailedVotes


@dataclass(frozen=True, kw_only=True)
class CutReplies:
    """Replies of a model that a limit of tokens ended, and not their model."""

    cut: Tally
    replies: Tally
    """those of which the file says why they ended"""

    @property
    def share(self) -> float:
        return self.cut / self.replies


@dataclass(frozen=True, kw_only=True)
class EvaluationResults(WinRates):
    """``results.json``."""

    counts: Counts
    questions: Tally
    questions_judged: Tally
    """questions with an outcome by every criterion in every comparison"""
    questions_judged_by_comparison: tuple[ComparisonJudged, ...]
    empty_replies: Mapping[str, Tally]
    """by model"""
    replies_per_question: Tally
    judge: str
    note: str
    """what must be read before any number; empty where there is nothing"""
    cut_replies: Mapping[str, CutReplies] = field(default_factory=dict)
    """by model, without those whose files do not say why replies ended"""
    panels: Mapping[str, PanelIntervals] = field(default_factory=dict)
    """by criterion, intervals over questions and personas; empty for votes that others collected"""
    ratings: Mapping[str, Ratings] = field(default_factory=dict)
    """by criterion, Bradley-Terry ratings and ranks"""
    mean_tokens: Mapping[str, float] = field(default_factory=dict)
    """mean length of a reply by model, without those whose files do not record it"""
    length_controlled: Mapping[str, tuple[LengthControlledRate, ...]] = field(default_factory=dict)
    """by criterion, every two models whose files record lengths"""
    length_bins: Mapping[str, tuple[LengthBin, ...]] = field(default_factory=dict)
    """by criterion, how often the longer reply wins, by how much longer it is"""
    groups: Mapping[str, tuple[GroupRates, ...]] = field(default_factory=dict)
    """by criterion, what groups of personas think, as far as their texts tell the groups"""

    def check(self, source: str) -> None:
        """Refuse results in which a model or criterion lacks figures that others have."""
        if not self.models or not self.criteria:
            raise UserError(
                f"{source} holds no models or no criteria; write it with 'jaxmodpo evaluate'"
            )
        refuse_missing(self.models, self.empty_replies, f"{source}: empty_replies")
        for name in self.models:
            refuse_missing(self.criteria, self.models[name], f"{source}: models, {name}")
            intervals = self.intervals.get(name, {})
            refuse_missing(self.criteria, intervals, f"{source}: intervals, {name}")
        refuse_missing(self.criteria, self.pairwise, f"{source}: pairwise")
        refuse_missing(self.criteria, self.tests, f"{source}: tests")
        for criterion in self.criteria:
            self._check_criterion(criterion, source)

    def _check_criterion(self, criterion: str, source: str) -> None:
        refuse_missing(self.models, self.pairwise[criterion], f"{source}: pairwise, {criterion}")
        for number, test in enumerate(self.tests[criterion], 1):
            location = f"{source}: models, beside tests, {criterion}, item {number},"
            refuse_missing((test.a, test.b), self.models, location)
