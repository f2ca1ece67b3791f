"""What several people chose between two replies, and how far a judge agrees with them.

Choices are an array ``[items, raters]`` of numbers: 0 for the first reply (a), 1 for the second
(b), 2 for equal, −1 where a rater did not answer. Labels are the same numbers, one for each item::

    counts = count_choices(choices)                    # [items, 3]
    labels = majority_labels(counts)                   # [items]
    sums = confusion_cells(labels, judge, values=3)    # [items, 9]: one for each item
    agreement.cohen_kappa(square_tables(sums.sum(axis=0)))

Everything that is estimated is made of sums over items, so that questions can be resampled
(:func:`jaxmodpo.statistics.bootstrap.estimate`). Source: the paper, "Human Validation Study".
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxmodpo.statistics.arrays import Array, ratio

A = 0
B = 1
EQUAL = 2
NONE = -1

Labels = NDArray[np.int64]


def count_choices(choices: ArrayLike) -> Labels:
    """Return how many raters chose a, b and equal: ``[items, raters]`` to ``[items, 3]``."""
    choices = np.asarray(choices, np.int64)
    counts: list[Labels] = []
    for value in (A, B, EQUAL):
        is_value = choices == value  # [items, raters]
        counts.append(is_value.sum(axis=-1))
    return np.stack(counts, axis=-1)


def majority_labels(counts: ArrayLike) -> Labels:
    """Return the label of each item by the paper's fixed rule: ``[..., 3]`` counts to ``[...]``.

    More votes for a than for b make a, fewer make b, as many make equal; how many raters found the
    replies equal does not matter. −1 where nobody answered.
    """
    counts = np.asarray(counts, np.int64)
    first = counts[..., A]
    second = counts[..., B]
    without_first = np.where(second > first, B, EQUAL)
    labels = np.where(first > second, A, without_first)
    is_answered = counts.sum(axis=-1) > 0
    return np.where(is_answered, labels, NONE)


def indicators(labels: ArrayLike, values: int = 3) -> Array:
    """Return a one in the column of each item's label: ``[items]`` to ``[items, values]``; zeros
    where it has none.
    """
    labels = np.asarray(labels, np.int64)
    is_value = labels[..., None] == np.arange(values)
    return is_value.astype(np.float64)


def confusion_cells(rows: ArrayLike, columns: ArrayLike, values: int) -> Array:
    """Return each item's own confusion table, flat: two ``[items]`` to ``[items, values²]``.

    A one stands where both have a label below ``values``; an item whose label is −1, or too high,
    has zeros. With two values the ties are so left out.
    """
    row_indicators = indicators(rows, values)
    column_indicators = indicators(columns, values)
    tables = row_indicators[..., :, None] * column_indicators[..., None, :]
    *items, _, _ = tables.shape
    return tables.reshape(*items, values * values)


def square_tables(sums: ArrayLike) -> Array:
    """Return flat confusion tables as squares: ``[..., values²]`` to ``[..., values, values]``."""
    sums = np.asarray(sums, np.float64)
    *tables, cells = sums.shape
    values = math.isqrt(cells)
    return sums.reshape(*tables, values, values)


# -------------------------------------------------------------------- people among themselves


def fleiss_sums(counts: ArrayLike) -> Array:
    """Return what Fleiss' κ is made of: ``[items, 3]`` counts to ``[items, 5]``.

    The share of pairs of raters who agree, a one, and the counts; zeros of an item with fewer than
    two raters, which has no pair.
    """
    counts = np.asarray(counts, np.float64)
    pairs_agreeing, pairs = _ordered_pairs(counts)
    agreement = ratio(pairs_agreeing, pairs)
    ones = np.ones_like(agreement)
    columns = np.concatenate([agreement[..., None], ones[..., None], counts], axis=-1)
    has_pair = pairs > 0
    return np.where(has_pair[..., None], columns, 0.0)


def _ordered_pairs(counts: Array) -> tuple[Array, Array]:
    """Return how many ordered pairs of an item's raters agree, and how many there are."""
    raters = counts.sum(axis=-1)
    # Each of n raters who say the same agrees with the n − 1 others.
    pairs_agreeing = np.sum(counts * (counts - 1), axis=-1)
    return pairs_agreeing, raters * (raters - 1)


def fleiss_of_sums(sums: ArrayLike) -> Array:
    """Return Fleiss' κ of summed :func:`fleiss_sums`: ``[..., 5]`` to ``[...]``.

    It equals :func:`jaxmodpo.statistics.agreement.fleiss_kappa` of the same counts. NaN where no
    item has two raters, or where all answers are the same.
    """
    sums = np.asarray(sums, np.float64)
    observed = ratio(sums[..., 0], sums[..., 1])
    votes = sums[..., 2:]
    all_votes = votes.sum(axis=-1, keepdims=True)
    share = ratio(votes, all_votes)
    by_chance = np.sum(share**2, axis=-1)
    return ratio(observed - by_chance, 1 - by_chance)


def pair_sums(counts: ArrayLike) -> Array:
    """Return how many pairs of raters agree on an item and how many there are: ``[items, 3]`` to
    ``[items, 2]``.
    """
    counts = np.asarray(counts, np.float64)
    ordered_pairs = np.stack(_ordered_pairs(counts), axis=-1)
    # Each pair once, where an ordered pair counts it from either side.
    return ordered_pairs / 2


def leave_one_out_cells(choices: ArrayLike, *, decided_by_all: bool) -> Array:
    """Return each rater's confusion with the majority of the others: ``[items, raters, 4]``.

    Rows are the others' majority, columns the rater's own choice, a and b alone: an item counts
    where neither is a tie.

    Args:
        choices: ``[items, raters]``.
        decided_by_all: count those items alone whose majority of all raters is no tie, the subset
            on which the paper compares a judge. It leaves out items that the rater's own dissent
            made a tie, and so flatters people a little; without it, every item counts.
    """
    choices = np.asarray(choices, np.int64)
    counts = count_choices(choices)
    # The others' counts: all, less the rater's own.
    own_counts = indicators(choices).astype(np.int64)  # [items, raters, 3]
    counts_of_others = counts[:, None, :] - own_counts
    majority_of_others = majority_labels(counts_of_others)
    if decided_by_all:
        is_tied = majority_labels(counts) == EQUAL
        majority_of_others = np.where(is_tied[:, None], NONE, majority_of_others)
    return confusion_cells(majority_of_others, choices, 2)


# --------------------------------------------------------------------------- people and a judge


def match_sums(counts: ArrayLike, judge: ArrayLike) -> Array:
    """Return how many raters say of an item what the judge says, and how many there are:
    ``[items, 3]`` counts and ``[items]`` labels to ``[items, 2]``; zeros where the judge says
    nothing.
    """
    counts = np.asarray(counts, np.float64)
    judge_indicators = indicators(judge)
    same = np.sum(counts * judge_indicators, axis=-1)
    # 1 where the judge says something, 0 where nothing can be compared.
    judge_answers = judge_indicators.sum(axis=-1)
    raters = counts.sum(axis=-1)
    comparable = raters * judge_answers
    return np.stack([same, comparable], axis=-1)


def consensus(counts: ArrayLike) -> Array:
    """Return the share of the majority among the votes for a or b: ``[..., 3]`` to ``[...]``.

    From 0.5 of a tie to 1 of a consensus; NaN where nobody preferred either reply.
    """
    counts = np.asarray(counts, np.float64)
    preferring = counts[..., :EQUAL]  # a and b
    majority = preferring.max(axis=-1)
    all_preferring = preferring.sum(axis=-1)
    return ratio(majority, all_preferring)


def preference_scores(labels: ArrayLike) -> Array:
    """Return 1 for a, 0.5 for equal, 0 for b and NaN for none: ``[...]`` to ``[...]``."""
    labels = np.asarray(labels, np.int64)
    # In the order of A, B and EQUAL; NONE is −1 and picks the last one.
    score_of_label = np.array([1.0, 0.0, 0.5, np.nan])
    return score_of_label[labels]


def mean_scores(counts: ArrayLike) -> Array:
    """Return the mean of the raters' scores, 1 for a and 0.5 for equal: ``[..., 3]`` to ``[...]``;
    NaN where nobody answered.
    """
    counts = np.asarray(counts, np.float64)
    total_score = counts[..., A] + counts[..., EQUAL] / 2
    raters = counts.sum(axis=-1)
    return ratio(total_score, raters)
