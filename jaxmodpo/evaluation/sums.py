"""Sums of votes by question, which every figure about judges is a function of.

A figure's interval resamples questions, so that it needs a table of sums with one row per question
and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxmodpo.evaluation.vote_table import Numbers, VoteTable
from jaxmodpo.statistics.arrays import Array, ratio

ALL = "all criteria"
Row = dict[str, Any]
Estimator = Callable[[Array, Callable[[Array], Array], str], Row]
"""sums by question, a statistic of sums, and why it may be undefined: its value and interval"""


def counted(votes: VoteTable) -> Row:
    """Return how many votes there are, on how many questions, by how many personas."""
    return {
        "votes": len(votes),
        "questions": len(np.unique(votes.question)),
        "personas": len(np.unique(votes.persona)),
    }


def by_question(questions: Numbers, *values: Numbers) -> Array:
    """Add up values by question: each ``[rows]`` or ``[rows, …]``, to ``[questions, sums]`` in
    their order.
    """
    distinct, question = np.unique(questions, return_inverse=True)
    columns = [np.reshape(value, (len(questions), -1)) for value in values]
    return add_up(question, np.concatenate(columns, axis=1), len(distinct))


def add_up(group: Numbers, values: Numbers, groups: int) -> Array:
    """Add up rows by group: ``[rows, values]`` to ``[groups, values]``."""
    # bincount adds up one column in a fraction of the time that np.add.at needs for the table.
    sums = np.empty((groups, values.shape[1]), np.float64)
    for column in range(values.shape[1]):
        sums[:, column] = np.bincount(group, values[:, column], groups)
    return sums


def fraction(sums: Array) -> Array:
    """Return the first of two sums as a fraction of the second."""
    return ratio(sums[..., 0], sums[..., 1])


def count_values(unit: Numbers, value: Numbers, units: int, values: int) -> Array:
    """Count values by unit: ``[units, values]``."""
    # Unit and value become one number, so that a single pass counts all cells.
    cell = unit * values + value
    counts = np.bincount(cell, minlength=units * values)
    return counts.reshape(units, values).astype(np.float64)


def square_tables(sums: Array) -> Array:
    """Undo the flattening of square tables: ``[..., side²]`` to ``[..., side, side]``."""
    side = round(sums.shape[-1] ** 0.5)
    return sums.reshape(*sums.shape[:-1], side, side)


def verdicts(ballots: VoteTable) -> Numbers:
    """Return of each comparison 0 for the first response by id, 1 for the second, 2 for a tie."""
    first = ballots.ranks[:, 0]
    second = ballots.ranks[:, 1]
    return np.where(first == second, 2, second == 0)
