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

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxmodpo.statistics.arrays import Array, ratio

A, B, EQUAL, NONE = 0, 1, 2, -1

Labels = NDArray[np.int64]


def count_choices(choices: ArrayLike) -> Labels:
    """Return how many raters chose a, b and equal: ``[items, raters]`` to ``[items, 3]``."""
    choices = np.asarray(choices, np.int64)
    return np.stack([(choices == value).sum(axis=-1) for value in (A, B, EQUAL)], axis=-1)


def majority_labels(counts: ArrayLike) -> Labels:
    """Return the label of each item by the paper's fixed rule: ``[..., 3]`` counts to ``[...]``.

    More votes for a than for b make a, fewer make b, as many make equal; how many raters found the
    replies equal does not matter. −1 where nobody answered.
    """
    counts = np.asarray(counts, np.int64)
    first, second = counts[..., A], counts[..., B]
    labels = np.where(first > second, A, np.where(second > first, B, EQUAL))
    return np.where(counts.sum(axis=-1) > 0, labels, NONE)


def indicators(labels: ArrayLike, values: int = 3) -> Array:
    """Return a one in the column of each item's label: ``[items]`` to ``[items, values]``; zeros
    where it has none.
    """
    labels = np.asarray(labels, np.int64)
    return (labels[..., None] == np.arange(values)).astype(np.float64)


def confusion_cells(rows: ArrayLike, columns: ArrayLike, values: int) -> Array:
    """Return each item's own confusion table, flat: two ``[items]`` to ``[items, values²]``.

    A one stands where both have a label below ``values``; an item whose label is −1, or too high,
    has zeros. With two values the ties are so left out.
    """
    table = indicators(rows, values)[..., :, None] * indicators(columns, values)[..., None, :]
    return table.reshape(*table.shape[:-2], values * values)


def square_tables(sums: ArrayLike) -> Array:
    """Return flat confusion tables as squares: ``[..., values²]`` to ``[..., values, values]``."""
    sums = np.asarray(sums, np.float64)
    values = round(sums.shape[-1] ** 0.5)
    return sums.reshape(*sums.shape[:-1], values, values)


# -------------------------------------------------------------------- people among themselves


def fleiss_sums(counts: ArrayLike) -> Array:
    """Return what Fleiss' κ is made of: ``[items, 3]`` counts to ``[items, 5]``.

    The share of pairs of raters who agree, a one, and the counts; zeros of an item with fewer than
    two raters, which has no pair.
    """
    counts = np.asarray(counts, np.float64)
    raters = counts.sum(axis=-1)
    agreeing = ratio((counts * (counts - 1)).sum(axis=-1), raters * (raters - 1))
    has_pair = raters > 1
    columns = [np.where(has_pair, agreeing, 0.0), has_pair, *np.moveaxis(counts, -1, 0)]
    return np.stack([np.where(has_pair, column, 0.0) for column in columns], axis=-1)


def fleiss_of_sums(sums: ArrayLike) -> Array:
    """Return Fleiss' κ of summed :func:`fleiss_sums`: ``[..., 5]`` to ``[...]``.

    It equals :func:`jaxmodpo.statistics.agreement.fleiss_kappa` of the same counts. NaN where no
    item has two raters, or where all answers are the same.
    """
    sums = np.asarray(sums, np.float64)
    observed = ratio(sums[..., 0], sums[..., 1])
    votes = sums[..., 2:]
    share = ratio(votes, votes.sum(axis=-1, keepdims=True))
    by_chance = (share**2).sum(axis=-1)
    return ratio(observed - by_chance, 1 - by_chance)


def pair_sums(counts: ArrayLike) -> Array:
    """Return how many pairs of raters agree on an item and how many there are: ``[items, 3]`` to
    ``[items, 2]``.
    """
    counts = np.asarray(counts, np.float64)
    raters = counts.sum(axis=-1)
    agreeing = (counts * (counts - 1)).sum(axis=-1) / 2
    return np.stack([agreeing, raters * (raters - 1) / 2], axis=-1)


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
    others = counts[:, None, :] - indicators(choices).astype(np.int64)
    majority_of_others = majority_labels(others)
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
    says = indicators(judge)
    same = (counts * says).sum(axis=-1)
    asked = counts.sum(axis=-1) * says.sum(axis=-1)
    return np.stack([same, asked], axis=-1)


def consensus(counts: ArrayLike) -> Array:
    """Return the share of the majority among the votes for a or b: ``[..., 3]`` to ``[...]``.

    From 0.5 of a tie to 1 of a consensus; NaN where nobody preferred either reply.
    """
    counts = np.asarray(counts, np.float64)
    return ratio(counts[..., :EQUAL].max(axis=-1), counts[..., :EQUAL].sum(axis=-1))


def preference_scores(labels: ArrayLike) -> Array:
    """Return 1 for a, 0.5 for equal, 0 for b and NaN for none: ``[...]`` to ``[...]``."""
    labels = np.asarray(labels, np.int64)
    # NONE is −1 and picks the last one.
    return np.array([1.0, 0.0, 0.5, np.nan])[labels]


def mean_scores(counts: ArrayLike) -> Array:
    """Return the mean of the raters' scores, 1 for a and 0.5 for equal: ``[..., 3]`` to ``[...]``;
    NaN where nobody answered.
    """
    counts = np.asarray(counts, np.float64)
    return ratio(counts[..., A] + counts[..., EQUAL] / 2, counts.sum(axis=-1))
