"""Whether a judge answers the same when it is asked the same again."""

from __future__ import annotations

import numpy as np

from jaxmodpo.evaluation.sums import Estimator, Row, add_up, by_question, counted, fraction
from jaxmodpo.evaluation.vote_table import Numbers, VoteTable, together
from jaxmodpo.statistics import agreement
from jaxmodpo.statistics.arrays import Array


def repeats(votes: VoteTable, estimator: Estimator) -> list[Row]:
    """Return how often the same request got the same answer; nothing where none was asked twice.

    Every two answers to a request are compared. Of rankings also Kendall's τ, which is the mean
    over every two responses of 1 for the same order and −1 for the opposite one; and the same first
    place.
    """
    request = together(votes.unit, votes.criterion, votes.persona, votes.order)
    _, request_index, answer_counts = np.unique(request, return_inverse=True, return_counts=True)
    was_repeated = answer_counts[request_index] > 1
    if not was_repeated.any():
        return []
    votes = votes.where(was_repeated)
    # Numbered again, so that the requests without a repeat leave no empty groups.
    _, first_row, request = np.unique(
        request_index[was_repeated], return_index=True, return_inverse=True
    )
    answers = np.bincount(request)
    question = votes.question[first_row]
    pairs = answers * (answers - 1) / 2
    undefined = "no request was answered twice"

    def per_pair(alike: Array) -> Row:
        return estimator(by_question(question, alike, pairs), fraction, undefined)

    row = counted(votes) | {"requests": len(first_row), "pairs": int(pairs.sum())}
    row["same"] = per_pair(_pairs_alike(request, together(*votes.ranks.T)))
    if votes.kind == "rank":
        row["same_best"] = per_pair(_pairs_alike(request, votes.ranks.argmin(axis=1)))
        signs = agreement.orientations(votes.ranks)
        sign_sums = add_up(request, signs, len(first_row))
        # Of R signs that add up to S, every two multiply to (S² − R) / 2 in all: this compares
        # every two answers without a table of pairs.
        products = (sign_sums**2 - answers[:, None]) / 2
        row["tau"] = per_pair(products.mean(axis=1))
    return [row]


def _pairs_alike(group: Numbers, value: Numbers) -> Array:
    """Count in each group every two rows with the same value."""
    distinct_values, value = np.unique(value, return_inverse=True)
    group_and_value = group * len(distinct_values) + value
    cells, rows = np.unique(group_and_value, return_counts=True)
    pairs = rows * (rows - 1) / 2
    group_of_cell = cells // len(distinct_values)
    groups = int(group.max()) + 1
    return add_up(group_of_cell, pairs[:, None], groups)[:, 0]
