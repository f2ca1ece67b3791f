"""How the scores of replies become Table 1: counts, means, shares, intervals and paired tests.

Replies to one question resemble each other, and a model may have several. So questions are what is
resampled and paired: a question's score is the mean over its replies.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxmodpo.files import Row
from jaxmodpo.results.evaluation import Interval
from jaxmodpo.results.toxicity import ModelToxicity, ScoreSummary, ToxicityTest
from jaxmodpo.statistics.bootstrap import estimate
from jaxmodpo.statistics.intervals import wilson_interval
from jaxmodpo.statistics.mcnemar import mcnemar_from_counts
from jaxmodpo.statistics.multiple_tests import holm
from jaxmodpo.statistics.permutation import paired_permutation_p_value

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ScoredReply:
    """A reply and what the scorer said of it.

    Attributes:
        model: whose reply it is.
        question_id: of the post.
        number: of the reply to its question, from 1.
        status: of the scores; empty for a reply without text, which nobody was asked about.
        scores: by name; without those that the scorer did not give.
        is_cut: whether the scorer read its beginning alone.
    """

    model: str
    question_id: str
    number: int
    status: str
    scores: Mapping[str, float]
    is_cut: bool = False


@dataclass(frozen=True)
class Rules:
    """What decides how scores are summed up."""

    threshold: float
    resamples: int
    seed: int


@dataclass(frozen=True)
class _Question:
    """A model's replies to one question by one score."""

    replies: int
    total: float
    above: int

    @property
    def mean(self) -> float:
        return self.total / self.replies

    @property
    def share(self) -> float:
        return self.above / self.replies


def summarize_model(
    replies: Sequence[ScoredReply], names: Sequence[str], rules: Rules
) -> ModelToxicity:
    """Sum up one model's replies."""
    failed = Counter(reply.status for reply in replies if reply.status not in ("", "valid"))
    question_ids = {reply.question_id for reply in replies}
    scores: dict[str, ScoreSummary] = {}
    for name in names:
        questions = _by_question(replies, name, rules)
        scores[name] = _summary(questions, rules)
    return ModelToxicity(
        questions=len(question_ids),
        replies=len(replies),
        empty=sum(reply.status == "" for reply in replies),
        failed=dict(sorted(failed.items())),
        cut=sum(reply.is_cut for reply in replies),
        scores=scores,
    )


def _by_question(replies: Sequence[ScoredReply], name: str, rules: Rules) -> dict[str, _Question]:
    """Return the questions whose replies have a score of this name, in the replies' order."""
    scores: defaultdict[str, list[float]] = defaultdict(list)
    for reply in replies:
        if name in reply.scores:
            scores[reply.question_id].append(reply.scores[name])
    questions: dict[str, _Question] = {}
    for question_id, values in scores.items():
        above = sum(value >= rules.threshold for value in values)
        # Exactly rounded, so that the order of a file's rows changes no digit.
        questions[question_id] = _Question(len(values), math.fsum(values), above)
    return questions


def _summary(questions: Mapping[str, _Question], rules: Rules) -> ScoreSummary:
    scored = sum(question.replies for question in questions.values())
    above = sum(question.above for question in questions.values())
    if not scored:
        return ScoreSummary(
            scored=0, mean=None, mean_interval=None, above=0, share=None, share_interval=None
        )
    # Sums and not means: resampled by question, a question with more replies still weighs more, as
    # in the mean over all replies.
    sums = [(question.total, question.replies) for question in questions.values()]
    mean = _mean_over_questions(sums, rules)
    share = above / scored
    return ScoreSummary(
        scored=scored,
        mean=mean["value"],
        mean_interval=_interval(mean),
        above=above,
        share=share,
        # A bootstrap of no toxic reply, which is common, has no width. Wilson's interval has, and
        # counts a question once however many replies it has.
        share_interval=wilson_interval(share * len(questions), len(questions)),
    )


def _mean_over_questions(sums: Sequence[tuple[float, float]], rules: Rules) -> Row:
    """Return the ratio of two sums over questions, with an interval over resampled questions."""

    def mean(totals: Floats) -> Floats:
        """``[..., 2]`` to ``[...]``."""
        return totals[..., 0] / totals[..., 1]

    return estimate(
        sums,
        mean,
        "no reply is scored",
        resamples=rules.resamples,
        seed=rules.seed,
    )


def _interval(estimated: Mapping[str, Any]) -> Interval:
    interval = estimated["interval"]
    return None if interval is None else (interval[0], interval[1])


# --------------------------------------------------------------------------- tests


def paired_tests(
    replies: Mapping[str, Sequence[ScoredReply]], names: Sequence[str], rules: Rules
) -> list[ToxicityTest]:
    """Test every two models by every score, and adjust the p values of one score together."""
    tests: list[ToxicityTest] = []
    for name in names:
        questions = {model: _by_question(rows, name, rules) for model, rows in replies.items()}
        of_score: list[ToxicityTest] = []
        for a, b in itertools.combinations(replies, 2):
            of_score.append(_test(name, a, b, questions, rules))
        tests += _adjusted(of_score)
    return tests


def _test(
    name: str,
    a: str,
    b: str,
    questions: Mapping[str, Mapping[str, _Question]],
    rules: Rules,
) -> ToxicityTest:
    # Questions that both models answered.
    pairs: list[tuple[_Question, _Question]] = []
    for question_id, of_a in questions[a].items():
        if question_id in questions[b]:
            pairs.append((of_a, questions[b][question_id]))
    # By question, since its replies are not independent: which model has the larger share of toxic
    # ones there.
    more = sum(of_a.share > of_b.share for of_a, of_b in pairs)
    fewer = sum(of_a.share < of_b.share for of_a, of_b in pairs)
    equal = len(pairs) - more - fewer
    mcnemar = mcnemar_from_counts(more, fewer, equal)
    is_exact = mcnemar.decisive == "p_value_exact"
    test = ToxicityTest(
        score=name,
        a=a,
        b=b,
        questions=len(pairs),
        mean_difference=None,
        mean_difference_interval=None,
        mean_p_value=None,
        mean_p_adjusted=None,
        more=more,
        fewer=fewer,
        equal=mcnemar.ties,
        share_p_value=None,
        share_p_adjusted=None,
        share_test="exact" if is_exact else "chi-square",
    )
    if not pairs:
        return test
    differences = np.array([of_a.mean - of_b.mean for of_a, of_b in pairs])
    # Each question weighs one, whatever its number of replies, as in the permutation test.
    sums = [(difference, 1.0) for difference in differences]
    mean = _mean_over_questions(sums, rules)
    return replace(
        test,
        mean_difference=mean["value"],
        mean_difference_interval=_interval(mean),
        mean_p_value=paired_permutation_p_value(differences, seed=rules.seed),
        share_p_value=mcnemar.p_value_exact if is_exact else mcnemar.p_value,
    )


def _adjusted(tests: Sequence[ToxicityTest]) -> list[ToxicityTest]:
    """Return the tests of one score with p values by Holm's method."""
    if not tests:
        return []
    # Means and shares are two questions to the data, and each has its own family of tests.
    means = holm([_or_nan(test.mean_p_value) for test in tests])
    shares = holm([_or_nan(test.share_p_value) for test in tests])
    adjusted: list[ToxicityTest] = []
    for test, mean_p, share_p in zip(tests, means, shares, strict=True):
        with_p_values = replace(
            test,
            mean_p_adjusted=_or_none(mean_p),
            share_p_adjusted=_or_none(share_p),
        )
        adjusted.append(with_p_values)
    return adjusted


def _or_nan(p_value: float | None) -> float:
    return math.nan if p_value is None else p_value


def _or_none(p_value: float) -> float | None:
    return None if math.isnan(p_value) else float(p_value)


# --------------------------------------------------------------------------- tables


TABLE_COLUMNS = (
    *("model", "score", "replies", "scored", "mean", "mean_low", "mean_high"),
    *("above", "share", "share_low", "share_high", "threshold"),
)


def table_rows(models: Mapping[str, ModelToxicity], threshold: float) -> list[Row]:
    """Return the rows of ``table.csv``: one for each model and score; what is not there is
    empty.
    """
    rows: list[Row] = []
    for name, model in models.items():
        for score, summary in model.scores.items():
            mean_low, mean_high = summary.mean_interval or (None, None)
            share_low, share_high = summary.share_interval or (None, None)
            rows.append(
                {
                    "model": name,
                    "score": score,
                    "replies": model.replies,
                    "scored": summary.scored,
                    "mean": summary.mean,
                    "mean_low": mean_low,
                    "mean_high": mean_high,
                    "above": summary.above,
                    "share": summary.share,
                    "share_low": share_low,
                    "share_high": share_high,
                    "threshold": threshold,
                }
            )
    return rows
