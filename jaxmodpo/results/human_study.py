"""``human_study.json`` of ``study analyze``: what people said of two models, and how far a judge
agrees with them.

``a`` is the study's first model and ``b`` its second one. Labels are ``a``, ``b`` and ``equal``, in
this order wherever they have no names. Shares and rates lie in 0–1; intervals are 95%, over
resampled questions where nothing else is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from jaxmodpo.results.judges import Estimate
from jaxmodpo.results.versioned import Result, refuse_missing
from jaxmodpo.schema import Tally

HUMAN_STUDY = "human_study.json"
EXAMPLES = "examples.json"

Label = Literal["a", "b", "equal"]
LABELS: tuple[Label, ...] = ("a", "b", "equal")

Table = tuple[tuple[Tally, ...], ...]
"""counts: rows are the majority's labels, columns the judge's"""


@dataclass(frozen=True, kw_only=True)
class RaterCounts:
    """How many raters count, and why the others do not."""

    counted: Tally
    """raters with an answer to a question"""
    excluded: Mapping[str, Tally] = field(default_factory=dict)
    """raters by the reason for which they are left out"""
    median_seconds: float | None = None
    """of an item, from its first showing to its last answer; None where nobody knows"""


@dataclass(frozen=True, kw_only=True)
class RaterMean:
    """A figure of each rater, averaged over the raters that have it."""

    value: float | None
    standard_error: float | None
    """over raters; None of fewer than two"""
    interval: tuple[float, float] | None
    raters: Tally
    undefined: str | None = None
    """why there is no value"""


@dataclass(frozen=True, kw_only=True)
class LeaveOneOut:
    """Each rater against the majority of the others, where neither is a tie."""

    accuracy: RaterMean
    kappa: RaterMean
    ac1: RaterMean


@dataclass(frozen=True, kw_only=True)
class JudgeAgreement:
    """The judge against the majority of all raters."""

    questions: Tally
    """those that count"""
    accuracy: Estimate
    kappa: Estimate
    ac1: Estimate


@dataclass(frozen=True, kw_only=True)
class AgreementLevels:
    """Shares of equal labels among three, ties included."""

    human_human: Estimate
    """pairs of raters of the same question"""
    human_judge: Estimate
    """raters' answers and the judge's label"""
    judge_majority: Estimate
    """the judge's label and the majority's"""


@dataclass(frozen=True, kw_only=True)
class ConsensusBin:
    """How often the judge is right where so many of those who preferred a reply agree."""

    above: float
    """the majority's share, exclusive"""
    to: float
    """inclusive"""
    questions: Tally
    accuracy: Estimate


@dataclass(frozen=True, kw_only=True)
class CorrectedRate:
    """A win rate of ``a`` over ``b``, a tie counting half, as the judge has it and corrected by the
    people's majority labels (prediction-powered inference).
    """

    judge: Estimate
    """over all questions of the evaluation"""
    people: Estimate
    """over the study's questions, by the majority's labels alone"""
    corrected: Estimate
    """normal interval; of all questions of the evaluation"""
    weight: float | None
    """λ: how much the judge counts"""
    labeled: Tally
    """questions with a majority label and an outcome of the judge"""
    unlabeled: Tally
    """questions with an outcome alone"""
    more_labels: Tally | None
    """how many more of the evaluation's questions people would have to label for half the width;
    None where all of them would not do"""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A question in one cell of the confusion table."""

    majority: Label
    judge: Label
    question_id: str
    item_id: str
    votes: Mapping[Label, Tally]
    """raters by their choice"""


@dataclass(frozen=True, kw_only=True)
class CriterionFindings:
    """What people said by one criterion."""

    questions: Tally
    """with an answer"""
    answers: Tally
    shares: Mapping[Label, Estimate]
    """of questions, by the majority's label"""
    fleiss: Estimate
    """Fleiss' κ over three labels"""
    leave_one_out: LeaveOneOut
    """on questions whose majority is no tie"""
    leave_one_out_of_all: LeaveOneOut
    """on all questions"""
    two_class: JudgeAgreement
    """on questions that neither the majority nor the judge leaves tied"""
    three_class: JudgeAgreement
    levels: AgreementLevels
    confusion: Table
    consensus: tuple[ConsensusBin, ...]
    inflation: Estimate
    """how much more often the judge prefers ``a`` than the majority does, on the same questions: a
    difference of win rates, a tie counting half"""
    intraclass: Estimate
    """ICC(2,1) of the judge's score and the people's mean score of a question"""
    corrected: CorrectedRate
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True, kw_only=True)
class HumanStudyResults(Result):
    """``human_study.json``."""

    VERSION: ClassVar[int] = 1

    title: str
    models: tuple[str, ...]
    questions: Tally
    """of the study"""
    raters: RaterCounts
    criteria: Mapping[str, CriterionFindings]
    judge_is_samples: bool
    """whether the outcomes are those that the study's questions were picked by"""
    bootstrap: Tally
    """how many times the questions were resampled"""
    is_simulated: bool = False
    """whether nobody took part"""

    def check(self, source: str) -> None:
        """Refuse findings that lack a label's share."""
        for name, findings in self.criteria.items():
            refuse_missing(LABELS, findings.shares, f"{source}: criteria, {name}, shares")


@dataclass(frozen=True, kw_only=True)
class ExampleTexts:
    """The texts of an item that an example names."""

    post: str
    reply_a: str
    reply_b: str


@dataclass(frozen=True, kw_only=True)
class StudyExamples(Result):
    """``examples.json`` of ``study analyze --include-texts``: people's words, by item id."""

    texts: Mapping[str, ExampleTexts]
