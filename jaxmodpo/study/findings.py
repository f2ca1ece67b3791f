"""What one criterion's answers say: shares, agreement, and win rates corrected by people's labels.

Each figure is a function of sums over questions, with an interval over resampled questions. The
formulas stand in ``docs/human_study_analysis.md``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from jaxmodpo.results.human_study import (
    LABELS,
    AgreementLevels,
    ConsensusBin,
    CorrectedRate,
    CriterionFindings,
    Example,
    JudgeAgreement,
    Label,
    LeaveOneOut,
    RaterMean,
)
from jaxmodpo.results.judges import Estimate
from jaxmodpo.statistics import agreement, human_choices, intraclass
from jaxmodpo.statistics.arrays import Array, ratio
from jaxmodpo.statistics.bootstrap import estimate
from jaxmodpo.statistics.human_choices import NONE, Labels, square_tables
from jaxmodpo.statistics.intervals import wilson_interval
from jaxmodpo.statistics.prediction_powered import labels_to_halve, prediction_powered_mean
from jaxmodpo.study.answer_table import AnswerTable
from jaxmodpo.study.judged import Judged

NO_ANSWERS = "nobody answered this criterion"
NOT_JUDGED = "the judge has no outcome on any of these questions"
NO_PAIR = "no question has two raters, or all answers are the same"
NO_DECISION = "no question is decided by both"
ONE_LABEL = "no question is decided by both, or both say the same of all"

CONSENSUS_EDGES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

Statistic = Callable[[Array], Array]


@dataclass(frozen=True)
class Resampling:
    """How intervals over questions are made."""

    resamples: int
    seed: int

    def __call__(self, sums: Array, statistic: Statistic, undefined: str) -> Estimate:
        """Return a statistic of sums over questions with its interval."""
        fields = estimate(sums, statistic, undefined, resamples=self.resamples, seed=self.seed)
        interval = fields["interval"]
        return Estimate(
            value=fields["value"],
            interval=None if interval is None else (interval[0], interval[1]),
            undefined=fields.get("undefined"),
        )

    def share(self, sums: Array, statistic: Statistic, undefined: str) -> Estimate:
        """Return a share of questions with its interval; Wilson's where all questions are the same.

        Ten wins of ten are ten in every resample, which would look like certainty.
        """
        estimated = self(sums, statistic, undefined)
        if estimated.value is None or estimated.interval is None:
            return estimated
        # A question without a label has sums of zero, and is no trial.
        trials = int((sums.sum(axis=-1) > 0).sum())
        return replace(estimated, interval=_widened(estimated.value, estimated.interval, trials))


def _widened(value: float, interval: tuple[float, float], trials: int) -> tuple[float, float]:
    """Return Wilson's interval in place of one without width."""
    low, high = interval
    if high - low > 1e-12:
        return interval
    # A mean of ones may be 1 + 2e-16, which is no share of anything.
    share = min(max(value, 0.0), 1.0)
    return wilson_interval(share * trials, trials) or interval


def findings_of(
    criterion: str, table: AnswerTable, judged: Judged, examples: int, resampling: Resampling
) -> CriterionFindings:
    """Return everything that one criterion's answers say.

    Args:
        criterion: its name.
        table: the answers and the judge's labels.
        judged: the judge's outcomes on all questions of the evaluation.
        examples: how many questions are named of each cell of the confusion table, at most.
        resampling: of the questions.
    """
    counts = table.counts
    cells = human_choices.confusion_cells(table.majority, table.judge, 3)
    confusion = square_tables(cells.sum(axis=0)).astype(int)
    return CriterionFindings(
        questions=len(set(table.question[counts.sum(axis=-1) > 0].tolist())),
        answers=int(counts.sum()),
        shares=_shares(table, resampling),
        fleiss=resampling(
            table.by_question(human_choices.fleiss_sums(counts)),
            human_choices.fleiss_of_sums,
            NO_PAIR if counts.sum() else NO_ANSWERS,
        ),
        leave_one_out=_leave_one_out(table, resampling, decided_by_all=True),
        leave_one_out_of_all=_leave_one_out(table, resampling, decided_by_all=False),
        two_class=_judge_agreement(table, 2, resampling),
        three_class=_judge_agreement(table, 3, resampling),
        levels=_levels(table, resampling),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        consensus=_consensus_bins(table, resampling),
        inflation=_inflation(table, resampling),
        intraclass=_intraclass(table, resampling),
        corrected=_corrected(criterion, table, judged, resampling),
        examples=tuple(_examples(table, examples)),
    )


def _shares(table: AnswerTable, resampling: Resampling) -> dict[Label, Estimate]:
    """Return the share of questions with each majority label."""
    sums = table.by_question(human_choices.indicators(table.majority))
    shares: dict[Label, Estimate] = {}
    for number, label in enumerate(LABELS):

        def share(sums: Array, number: int = number) -> Array:
            return ratio(sums[..., number], sums.sum(axis=-1))

        shares[label] = resampling.share(sums, share, NO_ANSWERS)
    return shares


# -------------------------------------------------------------------- people among themselves


def _leave_one_out(
    table: AnswerTable, resampling: Resampling, *, decided_by_all: bool
) -> LeaveOneOut:
    cells = human_choices.leave_one_out_cells(table.choices, decided_by_all=decided_by_all)
    # One row of sums for each question: all raters' tables, end to end.
    sums = table.by_question(cells.reshape(len(cells), -1))

    def of_raters(coefficient: Statistic) -> Statistic:
        def values(sums: Array) -> Array:
            tables = sums.reshape(*sums.shape[:-1], -1, 2, 2)
            return coefficient(tables)

        return values

    return LeaveOneOut(
        accuracy=_rater_mean(sums, of_raters(agreement.raw_agreement), resampling),
        kappa=_rater_mean(sums, of_raters(agreement.cohen_kappa), resampling),
        ac1=_rater_mean(sums, of_raters(agreement.gwet_ac1), resampling),
    )


def _rater_mean(sums: Array, values: Statistic, resampling: Resampling) -> RaterMean:
    """Return the mean over raters of a figure of each: with its standard error over raters, and its
    interval over questions.
    """
    of_raters = values(sums.sum(axis=0))
    defined = of_raters[np.isfinite(of_raters)]
    undefined = "no rater can be compared with a majority of others"

    def mean(sums: Array) -> Array:
        of_raters = values(sums)
        is_defined = np.isfinite(of_raters)
        total = np.where(is_defined, of_raters, 0.0).sum(axis=-1)
        return ratio(total, is_defined.sum(axis=-1))

    estimated = resampling(sums, mean, undefined)
    standard_error = None
    if len(defined) > 1:
        standard_error = float(defined.std(ddof=1)) / math.sqrt(len(defined))
    return RaterMean(
        value=estimated.value,
        standard_error=standard_error,
        interval=estimated.interval,
        raters=len(defined),
        undefined=estimated.undefined,
    )


# --------------------------------------------------------------------------- people and the judge


def _judge_agreement(table: AnswerTable, values: int, resampling: Resampling) -> JudgeAgreement:
    """Return how far the judge agrees with the majority; of two values on decided questions."""
    cells = human_choices.confusion_cells(table.majority, table.judge, values)
    sums = table.by_question(cells)

    def estimated(coefficient: Statistic, undefined: str) -> Estimate:
        return resampling(sums, lambda s: coefficient(square_tables(s)), undefined)

    return JudgeAgreement(
        questions=int(cells.sum()),
        accuracy=resampling.share(
            sums, lambda s: agreement.raw_agreement(square_tables(s)), _why_nothing(table)
        ),
        kappa=estimated(agreement.cohen_kappa, ONE_LABEL if cells.sum() else _why_nothing(table)),
        ac1=estimated(agreement.gwet_ac1, _why_nothing(table)),
    )


def _why_nothing(table: AnswerTable) -> str:
    """Return why a figure of people and judge is undefined."""
    if not table.counts.sum():
        return NO_ANSWERS
    return NO_DECISION if (table.judge != NONE).any() else NOT_JUDGED


def _levels(table: AnswerTable, resampling: Resampling) -> AgreementLevels:
    counts = table.counts
    cells = human_choices.confusion_cells(table.majority, table.judge, 3)

    def share(sums: Array) -> Array:
        return ratio(sums[..., 0], sums[..., 1])

    return AgreementLevels(
        human_human=resampling.share(
            table.by_question(human_choices.pair_sums(counts)),
            share,
            "no question has two raters" if counts.sum() else NO_ANSWERS,
        ),
        human_judge=resampling.share(
            table.by_question(human_choices.match_sums(counts, table.judge)),
            share,
            _why_nothing(table),
        ),
        judge_majority=resampling.share(
            table.by_question(cells),
            lambda s: agreement.raw_agreement(square_tables(s)),
            _why_nothing(table),
        ),
    )


def _consensus_bins(table: AnswerTable, resampling: Resampling) -> tuple[ConsensusBin, ...]:
    """Return the judge's accuracy by the majority's share among those who preferred a reply."""
    # Shares such as 3/5 are rounded, so that they fall on the same side of an edge as 0.6 does.
    strength = np.round(human_choices.consensus(table.counts), 9)
    bins: list[ConsensusBin] = []
    for above, to in itertools.pairwise(CONSENSUS_EDGES):
        inside = (strength > above) & (strength <= to)
        judge = np.where(inside, table.judge, NONE)
        cells = human_choices.confusion_cells(table.majority, judge, 2)
        accuracy = resampling.share(
            table.by_question(cells),
            lambda s: agreement.raw_agreement(square_tables(s)),
            "no decided question is so clear",
        )
        bins.append(ConsensusBin(above=above, to=to, questions=int(cells.sum()), accuracy=accuracy))
    return tuple(bins)


def _inflation(table: AnswerTable, resampling: Resampling) -> Estimate:
    """Return how much more often the judge prefers the first model than the majority does."""
    difference = human_choices.preference_scores(table.judge)
    difference = difference - human_choices.preference_scores(table.majority)
    return resampling(
        table.by_question(_value_and_one(difference)),
        _fraction,
        _why_nothing(table),
    )


def _value_and_one(values: Array) -> Array:
    """Return values beside ones, and zeros where a value is NaN: sums of which make their mean."""
    is_there = np.isfinite(values)
    return np.stack([np.where(is_there, values, 0.0), is_there], axis=-1)


def _fraction(sums: Array) -> Array:
    return ratio(sums[..., 0], sums[..., 1])


def _intraclass(table: AnswerTable, resampling: Resampling) -> Estimate:
    scores = np.stack(
        [
            human_choices.preference_scores(table.judge),
            human_choices.mean_scores(table.counts),
        ],
        axis=-1,
    )
    has_both = np.isfinite(scores).all(axis=-1).any()
    undefined = "fewer than two questions, or all scores are the same"
    return resampling(
        table.by_question(intraclass.intraclass_sums(scores)),
        intraclass.intraclass_of_sums,
        undefined if has_both else _why_nothing(table),
    )


# --------------------------------------------------------------------------- corrected win rates


def _corrected(
    criterion: str, table: AnswerTable, judged: Judged, resampling: Resampling
) -> CorrectedRate:
    """Return the judge's win rate over all questions, and what people's labels make of it."""
    people = human_choices.preference_scores(table.majority)
    judge = human_choices.preference_scores(table.judge)
    labeled = np.isfinite(people) & np.isfinite(judge)
    # A question may have several items: its labels and predictions are their means.
    labels = _question_means(table, np.where(labeled, people, np.nan))
    predictions = _question_means(table, np.where(labeled, judge, np.nan))
    in_study = {item.question_id for item in table.items}
    further = _judge_means(criterion, judged, without=in_study)
    everywhere = _judge_means(criterion, judged, without=set())
    powered = prediction_powered_mean(labels, predictions, further)
    if powered is None:
        corrected = Estimate(
            value=None,
            interval=None,
            undefined="fewer than two questions have a majority and an outcome of the judge",
        )
    else:
        # The formula may leave 0 to 1 by a little where nearly all questions are won.
        low = max(powered.low, 0.0)
        high = min(powered.high, 1.0)
        value = min(max(powered.value, 0.0), 1.0)
        corrected = Estimate(value=value, interval=_widened(value, (low, high), len(labels)))
    return CorrectedRate(
        judge=resampling.share(_value_and_one(everywhere), _fraction, NOT_JUDGED),
        people=resampling.share(table.by_question(_value_and_one(people)), _fraction, NO_ANSWERS),
        corrected=corrected,
        weight=None if powered is None else powered.weight,
        labeled=len(labels),
        unlabeled=len(further),
        more_labels=labels_to_halve(labels, predictions, further),
    )


def _question_means(table: AnswerTable, values: Array) -> Array:
    """Return the mean of each question that has a value."""
    means = _fraction(table.by_question(_value_and_one(values)))
    return means[np.isfinite(means)]


def _judge_means(criterion: str, judged: Judged, without: set[str]) -> Array:
    """Return the judge's mean score of every question of the evaluation, but those of the study."""
    score: Mapping[Label, float] = {"a": 1.0, "equal": 0.5, "b": 0.0}
    of_question: dict[str, list[float]] = {}
    for (question_id, _), labels in judged.items():
        if criterion in labels and question_id not in without:
            of_question.setdefault(question_id, []).append(score[labels[criterion]])
    return np.array([float(np.mean(scores)) for scores in of_question.values()], np.float64)


# --------------------------------------------------------------------------- examples


def _examples(table: AnswerTable, most: int) -> Sequence[Example]:
    """Return the questions of each cell of the confusion table on which most raters agree."""
    counts: Labels = table.counts
    # First the questions on which most raters gave the same answer; of equal ones the earlier.
    clarity = counts.max(axis=-1)
    clearest = np.argsort(-clarity, kind="stable").tolist()
    in_cell: dict[tuple[int, int], list[Example]] = {}
    for row in clearest:
        majority, judge = int(table.majority[row]), int(table.judge[row])
        if NONE in (majority, judge):
            continue
        item = table.items[row]
        of_cell = in_cell.setdefault((majority, judge), [])
        if len(of_cell) < most:
            votes = {label: int(counts[row, number]) for number, label in enumerate(LABELS)}
            of_cell.append(
                Example(
                    majority=LABELS[majority],
                    judge=LABELS[judge],
                    question_id=item.question_id,
                    item_id=item.item_id,
                    votes=votes,
                )
            )
    return [example for cell in sorted(in_cell) for example in in_cell[cell]]
