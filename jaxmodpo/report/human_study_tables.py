"""The tables of a human study: every figure's numbers, with intervals or why there are none."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jaxmodpo.report.blocks import Cell, Column, Table
from jaxmodpo.report.human_study_figures import label_names
from jaxmodpo.report.wording import percent, title
from jaxmodpo.results.human_study import (
    CorrectedRate,
    CriterionFindings,
    HumanStudyResults,
    LeaveOneOut,
    RaterMean,
)
from jaxmodpo.results.judges import Estimate

INTERVAL = "95% interval"
NO_INTERVAL = "no interval"
NOTHING = "–"

Row = list[Cell | str]
"""a table's row, from left to right"""


def shares_table(name: str, results: HumanStudyResults) -> Table:
    """Return the shares of questions by the majority's label, and Fleiss' κ."""
    columns = [
        Column("questions"),
        Column("answers"),
        *(Column(f"{label}, %", detail=INTERVAL) for label in label_names(results)),
        Column("Fleiss' κ", detail=INTERVAL),
    ]

    def rows_of(findings: CriterionFindings) -> list[Row]:
        counts = [str(findings.questions), str(findings.answers)]
        shares = [share_cell(share) for share in findings.shares.values()]
        return [[*counts, *shares, number_cell(findings.fleiss)]]

    return _criterion_table(name, results, columns, rows_of)


def agreement_table(name: str, results: HumanStudyResults) -> Table:
    """Return people's and the judge's agreement with majorities, where neither is a tie."""
    columns = [
        Column("who", is_word=True),
        Column("questions"),
        Column("accuracy, %", detail=INTERVAL),
        Column("Cohen's κ", detail=INTERVAL),
        Column("Gwet's AC1", detail=INTERVAL),
    ]

    def rows_of(findings: CriterionFindings) -> list[Row]:
        judge = findings.two_class
        judge_cells = [share_cell(judge.accuracy), number_cell(judge.kappa), number_cell(judge.ac1)]
        return [
            ["one person", "", *_people_cells(findings.leave_one_out)],
            ["one person, all questions", "", *_people_cells(findings.leave_one_out_of_all)],
            ["judge", str(judge.questions), *judge_cells],
        ]

    caption = (
        "One person: each against the majority of the others, averaged over people, with ± one"
        " standard error over people; on questions whose majority is no tie, as in the paper, and"
        " on all questions. Judge: against the majority of all."
    )
    return _criterion_table(name, results, columns, rows_of, caption)


def _people_cells(people: LeaveOneOut) -> list[Cell]:
    return [
        rater_cell(people.accuracy, is_share=True),
        rater_cell(people.kappa),
        rater_cell(people.ac1),
    ]


def judge_table(stem: str, results: HumanStudyResults) -> Table:
    """Return the judge's agreement with the majority over three labels."""
    columns = [
        Column("questions"),
        Column("accuracy, %", detail=INTERVAL),
        Column("Cohen's κ", detail=INTERVAL),
        Column("Gwet's AC1", detail=INTERVAL),
        Column("ICC(2,1)", detail=INTERVAL),
    ]

    def rows_of(findings: CriterionFindings) -> list[Row]:
        judge = findings.three_class
        row = [
            str(judge.questions),
            share_cell(judge.accuracy),
            number_cell(judge.kappa),
            number_cell(judge.ac1),
            number_cell(findings.intraclass),
        ]
        return [row]

    caption = (
        "ICC(2,1): two-way random effects, absolute agreement, of the judge's score of a question"
        " and the people's mean score, where the first model's win is 1 and a tie 0.5."
    )
    return _criterion_table(f"{stem}-three-class", results, columns, rows_of, caption)


def levels_table(name: str, results: HumanStudyResults) -> Table:
    """Return the three shares of equal labels."""
    columns = [
        Column("two people, %", detail=INTERVAL),
        Column("a person and the judge, %", detail=INTERVAL),
        Column("the majority and the judge, %", detail=INTERVAL),
    ]

    def rows_of(findings: CriterionFindings) -> list[Row]:
        levels = findings.levels
        shares = (levels.human_human, levels.human_judge, levels.judge_majority)
        return [[share_cell(share) for share in shares]]

    return _criterion_table(name, results, columns, rows_of)


def confusion_table(name: str, results: HumanStudyResults) -> Table:
    """Return all confusion tables: a row for each criterion and label of the majority."""
    labels = label_names(results)
    columns = [
        Column("majority", is_word=True),
        *(Column(f"judge: {label}") for label in labels),
    ]

    def rows_of(findings: CriterionFindings) -> list[Row]:
        rows: list[Row] = []
        for label, counts in zip(labels, findings.confusion, strict=True):
            rows.append([label, *map(str, counts)])
        return rows

    return _criterion_table(name, results, columns, rows_of)


def consensus_table(name: str, results: HumanStudyResults) -> Table:
    """Return the judge's accuracy by how clearly people decide."""
    columns = [
        Column("majority's share, %"),
        Column("questions"),
        Column("judge's accuracy, %", detail=INTERVAL),
    ]

    def rows_of(findings: CriterionFindings) -> list[Row]:
        rows: list[Row] = []
        for level in findings.consensus:
            span = f"above {100 * level.above:.0f} to {100 * level.to:.0f}"
            rows.append([span, str(level.questions), share_cell(level.accuracy)])
        return rows

    return _criterion_table(name, results, columns, rows_of)


def corrected_table(name: str, results: HumanStudyResults) -> Table:
    """Return win rates raw and corrected, and how much the judge inflates them."""
    columns = [
        Column("judge, %", detail=INTERVAL),
        Column("people, %", detail=INTERVAL),
        Column("corrected, %", detail=INTERVAL),
        Column("λ"),
        Column("inflation, points", detail=INTERVAL),
        Column("more labels for half the interval", detail="why none"),
    ]

    def rows_of(findings: CriterionFindings) -> list[Row]:
        corrected = findings.corrected
        row = [
            share_cell(corrected.judge),
            share_cell(corrected.people),
            share_cell(corrected.corrected),
            NOTHING if corrected.weight is None else f"{corrected.weight:.2f}",
            points_cell(findings.inflation),
            _more_labels(corrected),
        ]
        return [row]

    return _criterion_table(name, results, columns, rows_of)


def _criterion_table(
    name: str,
    results: HumanStudyResults,
    columns: Sequence[Column],
    rows_of: Callable[[CriterionFindings], list[Row]],
    caption: str = "",
) -> Table:
    """Return a table whose rows begin with their criterion.

    Args:
        name: of its file.
        results: the study's.
        columns: those behind the criterion's.
        rows_of: a criterion's rows, without its name.
        caption: what stands below.
    """
    rows: list[Row] = []
    for criterion, findings in results.criteria.items():
        rows += [[title(criterion), *row] for row in rows_of(findings)]
    return Table(name, [Column("criterion", is_word=True), *columns], rows, caption)


def _more_labels(corrected: CorrectedRate) -> Cell:
    if corrected.more_labels is not None:
        return Cell(str(corrected.more_labels))
    if corrected.labeled < 2:
        return Cell(NOTHING, "too few questions have a label")
    return Cell(NOTHING, f"labels of all {corrected.labeled + corrected.unlabeled} would not do")


# --------------------------------------------------------------------------- cells


def share_cell(figure: Estimate) -> Cell:
    """Return a share in percent with its interval, or why there is none."""
    return _estimate_cell(figure, percent, "–")


def number_cell(figure: Estimate) -> Cell:
    """Return a coefficient with its interval, or why there is none."""
    return _estimate_cell(figure, "{:.3f}".format, " to ")


def points_cell(figure: Estimate) -> Cell:
    """Return a difference of shares in points of a hundred, with its sign, or why there is none."""
    return _estimate_cell(figure, _signed_points, " to ")


def _signed_points(difference: float) -> str:
    return f"{100 * difference:+.1f}"


def _estimate_cell(figure: Estimate, write: Callable[[float], str], between: str) -> Cell:
    """Return a value with its interval, or why there is none.

    Args:
        figure: the value and the interval.
        write: writes a number.
        between: stands between the interval's two ends.
    """
    if figure.value is None:
        return Cell(NOTHING, figure.undefined or "")
    if figure.interval is None:
        return Cell(write(figure.value), NO_INTERVAL)
    low, high = figure.interval
    return Cell(write(figure.value), f"{write(low)}{between}{write(high)}")


def rater_cell(figure: RaterMean, *, is_share: bool = False) -> Cell:
    """Return a mean over people with its standard error and its interval, or why there is none."""
    if figure.value is None:
        return Cell(NOTHING, figure.undefined or "")
    estimate = Estimate(value=figure.value, interval=figure.interval)
    cell = share_cell(estimate) if is_share else number_cell(estimate)
    if figure.standard_error is None:
        return cell
    error = percent(figure.standard_error) if is_share else f"{figure.standard_error:.3f}"
    return Cell(f"{cell.text} ± {error}", cell.detail)
