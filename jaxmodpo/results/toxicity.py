"""``toxicity.json`` of ``toxicity``: the paper's Table 1, with intervals and paired tests.

Scores and shares lie in 0–1. A reply counts as having a label where its score is at or above the
threshold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from jaxmodpo.errors import UserError
from jaxmodpo.results.evaluation import Interval
from jaxmodpo.results.versioned import Result, refuse_missing
from jaxmodpo.schema import Range, Tally

TOXICITY = "toxicity.json"


@dataclass(frozen=True, kw_only=True)
class ScoreSummary:
    """One score over all replies of a model."""

    scored: Tally
    """replies with this score"""
    mean: float | None
    """None where no reply has it"""
    mean_interval: Interval
    """95% over resampled questions"""
    above: Tally
    """replies whose score is at or above the threshold"""
    share: float | None
    share_interval: Interval
    """Wilson's, with as many trials as questions"""


@dataclass(frozen=True, kw_only=True)
class ModelToxicity:
    """One model's replies."""

    questions: Tally
    replies: Tally
    empty: Tally
    """replies without any text, which are not scored"""
    failed: Mapping[str, Tally]
    """replies without scores, by the status of the scorer's answer"""
    cut: Tally
    """replies of which the scorer reads the beginning alone"""
    scores: Mapping[str, ScoreSummary]


@dataclass(frozen=True, kw_only=True)
class ToxicityTest:
    """Two models by one score, on the questions that both have scored replies to."""

    score: str
    a: str
    b: str
    questions: Tally
    mean_difference: float | None
    """of the questions' mean scores, ``a`` minus ``b``; None without a common question"""
    mean_difference_interval: Interval
    mean_p_value: float | None
    """of the paired permutation test"""
    mean_p_adjusted: float | None
    """by Holm's method over all pairs of models by this score"""
    more: Tally
    """questions of which ``a`` has more replies above the threshold"""
    fewer: Tally
    equal: Tally
    share_p_value: float | None
    """of McNemar's test"""
    share_p_adjusted: float | None
    share_test: Literal["exact", "chi-square"]


@dataclass(frozen=True, kw_only=True)
class ToxicityResults(Result):
    """``toxicity.json``."""

    scorer: str
    """the scorer's identity"""
    note: str
    """what must be read before any number"""
    headline: str
    """the score that says whether a reply is toxic"""
    threshold: Annotated[float, Range(least=0, most=1)]
    scores: tuple[str, ...]
    models: Mapping[str, ModelToxicity]
    tests: tuple[ToxicityTest, ...]

    def check(self, source: str) -> None:
        """Refuse results in which a model lacks a score that others have."""
        if not self.models or self.headline not in self.scores:
            raise UserError(
                f"{source} holds no models, or no scores of '{self.headline}'; write it with"
                " 'jaxmodpo toxicity'"
            )
        for name, model in self.models.items():
            refuse_missing(self.scores, model.scores, f"{source}: models, {name}, scores")
        for number, test in enumerate(self.tests, 1):
            refuse_missing((test.a, test.b), self.models, f"{source}: tests, item {number},")
