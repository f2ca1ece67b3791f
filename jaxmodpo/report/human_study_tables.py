"""The tables of a human study: every figure's numbers, with intervals or why there are none."""

from __future__ import annotations

from jaxmodpo.report.blocks import Cell, Column, Table
from jaxmodpo.report.human_study_figures import label_names
from jaxmodpo.report.wording import percent, title
from jaxmodpo.results.human_study import (
    CorrectedRate,
    CriterionFindings,
    HumanStudyResults,
    RaterMean,
)
from jaxmodpo.results.judges import Estimate

INTERVAL = "95% interval"
NO_INTERVAL = "no interval"
NOTHING = "–"

_NAME = Column("criterion", is_word=True)


def shares_table(name: str, results: HumanStudyResults) -> Table:
    """Return the shares of questions by the majority's label, and Fleiss' κ."""
    columns = [
        _NAME,
        Column("questions"),
        Column("answers"),
        *(Column(f"{label}, %", detail=INTERVAL) for label in label_names(results)),
        Column("Fleiss' κ", detail=INTERVAL),
    ]
    rows: list[list[Cell | str]] = []
    for criterion, findings in results.criteria.items():
        shares = [share_cell(share) for share in findings.shares.values()]
        counts = [f"{findings.questions}", f"{findings.answers}"]
        rows.append([title(criterion), *counts, *shares, number_cell(findings.fleiss)])
    return Table(name, columns, rows)


def agreement_table(name: str, results: HumanStudyResults) -> Table:
    """Return people's and the judge's agreement with majorities, where neither is a tie."""
    columns = [
        _NAME,
        Column("who", is_word=True),
        Column("questions"),
        Column("accuracy, %", detail=INTERVAL),
        Column("Cohen's κ", detail=INTERVAL),
        Column("Gwet's AC1", detail=INTERVAL),
    ]
    rows: list[list[Cell | str]] = []
    for criterion, findings in results.criteria.items():
        for rater, people in (
            ("one person", findings.leave_one_out),
            ("one person, all questions", findings.leave_one_out_of_all),
        ):
            figures = [
                rater_cell(people.accuracy, is_share=True),
                rater_cell(people.kappa),
                rater_cell(people.ac1),
            ]
            rows.append([title(criterion), rater, "", *figures])
        judge = findings.two_class
        figures = [share_cell(judge.accuracy), number_cell(judge.kappa), number_cell(judge.ac1)]
        rows.append([title(criterion), "judge", str(judge.questions), *figures])
    caption = (
        "One person: each against the majority of the others, averaged over people, with ± one"
        " standard error over people; on questions whose majority is no tie, as in the paper, and"
        " on all questions. Judge: against the majority of all."
    )
    return Table(name, columns, rows, caption)


def judge_table(stem: str, results: HumanStudyResults) -> Table:
    """Return the judge's agreement with the majority over three labels."""
    columns = [
        _NAME,
        Column("questions"),
        Column("accuracy, %", detail=INTERVAL),
        Column("Cohen's κ", detail=INTERVAL),
        Column("Gwet's AC1", detail=INTERVAL),
        Column("ICC(2,1)", detail=INTERVAL),
    ]
    rows: list[list[Cell | str]] = []
    for criterion, findings in results.criteria.items():
        judge = findings.three_class
        rows.append(
            [
                title(criterion),
                str(judge.questions),
                share_cell(judge.accuracy),
                number_cell(judge.kappa),
                number_cell(judge.ac1),
                number_cell(findings.intraclass),
            ]
        )
    caption = (
        "ICC(2,1): two-way random effects, absolute agreement, of the judge's score of a question"
        " and the people's mean score, where the first model's win is 1 and a tie 0.5."
    )
    return Table(f"{stem}-three-class", columns, rows, caption)


def levels_table(name: str, results: HumanStudyResults) -> Table:
    """Return the three shares of equal labels."""
    columns = [
        _NAME,
        Column("two people, %", detail=INTERVAL),
        Column("a person and the judge, %", detail=INTERVAL),
        Column("the majority and the judge, %", detail=INTERVAL),
    ]
    rows: list[list[Cell | str]] = []
    for criterion, findings in results.criteria.items():
        levels = findings.levels
        figures = (levels.human_human, levels.human_judge, levels.judge_majority)
        rows.append([title(criterion), *(share_cell(figure) for figure in figures)])
    return Table(name, columns, rows)


def confusion_table(name: str, results: HumanStudyResults) -> Table:
    """Return all confusion tables: a row for each criterion and label of the majority."""
    labels = label_names(results)
    columns = [
        _NAME,
        Column("majority", is_word=True),
        *(Column(f"judge: {label}") for label in labels),
    ]
    rows: list[list[Cell | str]] = []
    for criterion, findings in results.criteria.items():
        for label, counts in zip(labels, findings.confusion, strict=True):
            rows.append([title(criterion), label, *map(str, counts)])
    return Table(name, columns, rows)


def consensus_table(name: str, results: HumanStudyResults) -> Table:
    """Return the judge's accuracy by how clearly people decide."""
    columns = [
        _NAME,
        Column("majority's share, %"),
        Column("questions"),
        Column("judge's accuracy, %", detail=INTERVAL),
    ]
    rows: list[list[Cell | str]] = []
    for criterion, findings in results.criteria.items():
        for level in findings.consensus:
            span = f"above {100 * level.above:.0f} to {100 * level.to:.0f}"
            rows.append([title(criterion), span, str(level.questions), share_cell(level.accuracy)])
    return Table(name, columns, rows)


def corrected_table(name: str, results: HumanStudyResults) -> Table:
    """Return win rates raw and corrected, and how much the judge inflates them."""
    columns = [
        _NAME,
        Column("judge, %", detail=INTERVAL),
        Column("people, %", detail=INTERVAL),
        Column("corrected, %", detail=INTERVAL),
        Column("λ"),
        Column("inflation, points", detail=INTERVAL),
        Column("more labels for half the interval", detail="why none"),
    ]
    rows: list[list[Cell | str]] = []
    for criterion, findings in results.criteria.items():
        corrected = findings.corrected
        weight = NOTHING if corrected.weight is None else f"{corrected.weight:.2f}"
        rows.append(
            [
                title(criterion),
                share_cell(corrected.judge),
                share_cell(corrected.people),
                share_cell(corrected.corrected),
                weight,
                _points(findings),
                _more_labels(corrected),
            ]
        )
    return Table(name, columns, rows)


def _more_labels(corrected: CorrectedRate) -> Cell:
    if corrected.more_labels is not None:
        return Cell(str(corrected.more_labels))
    if corrected.labeled < 2:
        return Cell(NOTHING, "too few questions have a label")
    return Cell(NOTHING, f"labels of all {corrected.labeled + corrected.unlabeled} would not do")


def _points(findings: CriterionFindings) -> Cell:
    """Return the judge's inflation in points of a hundred, with its sign."""
    inflation = findings.inflation
    if inflation.value is None:
        return Cell(NOTHING, inflation.undefined or "")
    if inflation.interval is None:
        return Cell(f"{100 * inflation.value:+.1f}", NO_INTERVAL)
    low, high = inflation.interval
    return Cell(f"{100 * inflation.value:+.1f}", f"{100 * low:+.1f} to {100 * high:+.1f}")


# --------------------------------------------------------------------------- cells


def share_cell(figure: Estimate) -> Cell:
    """Return a share in percent with its interval, or why there is none."""
    if figure.value is None:
        return Cell(NOTHING, figure.undefined or "")
    if figure.interval is None:
        return Cell(percent(figure.value), NO_INTERVAL)
    low, high = figure.interval
    return Cell(percent(figure.value), f"{percent(low)}–{percent(high)}")


def number_cell(figure: Estimate) -> Cell:
    """Return a coefficient with its interval, or why there is none."""
    if figure.value is None:
        return Cell(NOTHING, figure.undefined or "")
    if figure.interval is None:
        return Cell(f"{figure.value:.3f}", NO_INTERVAL)
    low, high = figure.interval
    return Cell(f"{figure.value:.3f}", f"{low:.3f} to {high:.3f}")


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
