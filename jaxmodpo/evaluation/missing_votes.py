"""Which votes are missing, and whom that affects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxmodpo.evaluation.sums import ALL, Estimator, Row, by_question, fraction
from jaxmodpo.evaluation.vote_table import Numbers, Record

MOST_AFFECTED = 10
"""personas that are named for their failed votes"""


def missingness(record: Record, estimator: Estimator) -> Row:
    """Count failed votes: by status, by judge and criterion, by model, and for the personas most
    affected.
    """
    status = _column(record, "status")
    failed = status != record.statuses.index("valid")
    affected_personas = _affected(_column(record, "persona"), failed, record.personas)
    return {
        "votes": len(status),
        "valid": int((~failed).sum()),
        "failed": int(failed.sum()),
        "statuses": _tally(status[failed], record.statuses),
        "by_criterion": _by_criterion(record, status, failed, estimator),
        "by_model": _affected(_column(record, "model"), failed, record.models),
        # Hundreds of personas would fill pages; those who lost most votes show whether it is a few.
        "personas_most_affected": [
            row for row in affected_personas[:MOST_AFFECTED] if row["failed"]
        ],
    }


def _column(record: Record, name: str) -> Numbers:
    """Return one column of all tables, one below the other."""
    return np.concatenate([getattr(votes, name) for votes in record.tables])


def _by_criterion(
    record: Record, status: Numbers, failed: Numbers, estimator: Estimator
) -> list[Row]:
    """Count failed votes of each source by each criterion, and by all where it has several.

    A failed vote has no judge, since nobody answered: what is known is who was asked.
    """
    source = _column(record, "source")
    criterion = _column(record, "criterion")
    question = _column(record, "question")
    rows: list[Row] = []
    for number, asked_source in enumerate(record.sources):
        of_source = source == number
        numbers = np.unique(criterion[of_source]).tolist()
        criteria: list[int | None] = sorted(numbers, key=record.criteria.__getitem__)
        # None stands for all of them together.
        if len(criteria) > 1:
            criteria.append(None)
        for of_criterion in criteria:
            votes = of_source
            if of_criterion is not None:
                votes = of_source & (criterion == of_criterion)
            # By question, as all figures are: the votes on one question tend to fail together.
            ones = np.ones(int(votes.sum()))
            failed_sums = by_question(question[votes], failed[votes], ones)
            rows.append(
                {
                    "judge": asked_source.name,
                    "criterion": ALL if of_criterion is None else record.criteria[of_criterion],
                    "votes": int(votes.sum()),
                    "failed": int(failed[votes].sum()),
                    "statuses": _tally(status[votes & failed], record.statuses),
                    "failed_share": estimator(failed_sums, fraction, "no votes"),
                }
            )
    return rows


def _tally(values: Numbers, names: Sequence[str]) -> dict[str, int]:
    """Count values by their names."""
    numbers, counts = np.unique(values, return_counts=True)
    tally: dict[str, int] = {}
    for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
        tally[names[number]] = count
    return tally


def _affected(values: Numbers, failed: Numbers, names: Sequence[str]) -> list[Row]:
    """Return votes and failed votes of each value, most failed ones first."""
    votes = np.bincount(values, minlength=len(names))
    failed_votes = np.bincount(values[failed], minlength=len(names))
    rows: list[Row] = []
    for number, name in enumerate(names):
        if votes[number]:
            row = {
                "name": name,
                "votes": int(votes[number]),
                "failed": int(failed_votes[number]),
            }
            rows.append(row)
    return sorted(rows, key=lambda row: (-row["failed"], row["name"]))
