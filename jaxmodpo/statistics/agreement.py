"""Coefficients of agreement: pure functions of counts.

Every coefficient but Fleiss' is a function of sums, and sums add up over questions: a table of sums
with one row per question holds all that an estimate and its bootstrap need
(:func:`jaxmodpo.statistics.bootstrap.estimate`), however many votes there are. The coefficients are
our own because the packages that have them want equal raters, pin old numerics or have another
license; the tests check them against published values and brute force.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from jaxmodpo.statistics.arrays import Array, ratio


def coincidences(counts: ArrayLike) -> Array:
    """Return how often values meet within units, ``[units, values]`` counts to ``[units, values,
    values]``.

    With n_c votes for c among a unit's m, o_ck = n_c (n_k − [c = k]) / (m − 1): each vote is met
    with the unit's others and weighs one in all. Units with fewer than two votes give zeros, so
    that missing votes need no care.

    References:
        Krippendorff, *Content Analysis*, 3rd edition, section 11.2.
    """
    counts = np.asarray(counts, np.float64)
    values = counts.shape[-1]
    votes = counts.sum(axis=-1)
    # Ordered pairs of votes, less each vote's pair with itself, which lies on the diagonal.
    all_pairs = counts[..., :, None] * counts[..., None, :]
    with_itself = counts[..., None] * np.eye(values)
    # A unit of one vote has no pair and so no weight; the maximum only avoids a division by zero.
    weight = np.where(votes > 1, 1 / np.maximum(votes - 1, 1), 0)
    return (all_pairs - with_itself) * weight[..., None, None]


def krippendorff_alpha(coincidence_sums: ArrayLike, level: Literal["nominal", "ordinal"]) -> Array:
    """Return Krippendorff's α of summed :func:`coincidences`: ``[..., values, values]`` to
    ``[...]``.

    α = 1 − D_o / D_e with D_o = Σ o_ck δ²_ck and D_e = Σ n_c n_k δ²_ck / (n − 1), where n_c = Σ_k
    o_ck. δ² is 1 between any two different values (nominal), or the square of how many votes lie
    between two values, half of each one's own included (ordinal). NaN where all votes are the same
    or none meet.

    References:
        Krippendorff, *Content Analysis*, 3rd edition, section 11.3.
    """
    coincidence_sums = np.asarray(coincidence_sums, np.float64)
    votes = coincidence_sums.sum(axis=-1)
    total = votes.sum(axis=-1)
    distance = _nominal_distance(votes) if level == "nominal" else _ordinal_distance(votes)
    observed = (coincidence_sums * distance).sum(axis=(-2, -1))
    # As often as values would meet if the votes were shuffled over all units.
    by_chance = votes[..., :, None] * votes[..., None, :]
    expected = (by_chance * distance).sum(axis=(-2, -1))
    # Where all votes are the same, nothing differs and by chance nothing would: 0 / 0. The
    # coefficient is NaN and not 1, since there was no variation to agree on.
    return 1 - ratio(observed * (total - 1), expected)


def _nominal_distance(votes: Array) -> Array:
    """Return δ² between every two values that are only the same or not: ``[values, values]``."""
    return 1 - np.eye(votes.shape[-1])


def _ordinal_distance(votes: Array) -> Array:
    """Return δ² between every two values in an order: ``[..., values]`` votes to ``[..., values,
    values]``.
    """
    # Values on a line of all votes, each value at the middle of its own: two ranks that hardly
    # anybody gives are closer together than two that everybody gives.
    middle = np.cumsum(votes, axis=-1) - votes / 2
    return (middle[..., :, None] - middle[..., None, :]) ** 2


def raw_agreement(confusion: ArrayLike) -> Array:
    """Return the share on the diagonal: ``[..., values, values]`` to ``[...]``; NaN of nothing."""
    confusion = np.asarray(confusion, np.float64)
    agreed = np.trace(confusion, axis1=-2, axis2=-1)
    return ratio(agreed, confusion.sum(axis=(-2, -1)))


def confusion(a: Iterable[Any], b: Iterable[Any], values: Sequence[Any]) -> NDArray[np.int64]:
    """Count how often two judges gave each pair of values: two ``[items]`` to ``[values, values]``.

    Row i, column j counts the items that ``a`` gave the i-th value and ``b`` the j-th. An item that
    either judge left without a value (NaN or None) does not count. The table is what
    :func:`cohen_kappa` and :func:`gwet_ac1` take.

    Args:
        a: the first judge's value of each item.
        b: the second judge's, of the same items in the same order.
        values: all values there may be, in the order of the table; each once.

    Raises:
        ValueError: unequal numbers of items, or a value that ``values`` does not name.
    """
    rows = _value_numbers(a, values)
    columns = _value_numbers(b, values)
    if rows.shape != columns.shape:
        raise ValueError(f"one judge has {len(rows)} items and the other {len(columns)}")
    both_valued = (rows >= 0) & (columns >= 0)
    cells = rows[both_valued] * len(values) + columns[both_valued]
    counts = np.bincount(cells, minlength=len(values) ** 2)
    return counts.reshape(len(values), len(values))


def _value_numbers(items: Iterable[Any], values: Sequence[Any]) -> NDArray[np.int64]:
    """Return the number of each item's value among ``values``; −1 of an item without one."""
    number_of_value = {value: number for number, value in enumerate(values)}
    if len(number_of_value) != len(values):
        raise ValueError(f"a value stands twice among {list(values)}")
    numbers: list[int] = []
    for item in items:
        # NaN is the one value that does not equal itself.
        is_missing = item is None or item != item
        if is_missing:
            numbers.append(-1)
        elif item in number_of_value:
            numbers.append(number_of_value[item])
        else:
            raise ValueError(f"{item!r} is none of the values {list(values)}")
    return np.array(numbers, dtype=np.int64)


def cohen_kappa(confusion: ArrayLike) -> Array:
    """Return Cohen's κ = (p_o − p_e) / (1 − p_e), p_e = Σ_c p_c q_c: ``[..., values, values]`` to
    ``[...]``.

    p and q are the two judges' shares of each value. Zero where one judge only ever gives one
    value, NaN where both do, and the same.

    References:
        Cohen, "A Coefficient of Agreement for Nominal Scales", 1960.
    """
    confusion = np.asarray(confusion, np.float64)
    total = confusion.sum(axis=(-2, -1))
    first_judge = confusion.sum(axis=-1)
    second_judge = confusion.sum(axis=-2)
    by_chance = (first_judge * second_judge).sum(axis=-1)
    agreed = np.trace(confusion, axis1=-2, axis2=-1)
    # Numerator and denominator are multiplied by total², so that counts are divided only once and
    # the degenerate cases are exact zeros.
    return ratio(agreed * total - by_chance, total**2 - by_chance)


def gwet_ac1(confusion: ArrayLike) -> Array:
    """Return Gwet's AC1 = (p_o − p_e) / (1 − p_e), p_e = Σ_c π_c (1 − π_c) / (C − 1): as
    :func:`cohen_kappa`.

    π_c is the mean of the two judges' shares of c among C values. NaN of nothing.

    AC1 stands beside κ because κ falls to zero where both judges prefer one value, however well
    they agree: two judges who say "first" 95 times of 100 have a chance agreement of 0.9 by κ's
    p_e and of 0.1 by AC1's.

    References:
        Gwet, "Computing inter-rater reliability and its variance in the presence of high
        agreement", 2008.
    """
    confusion = np.asarray(confusion, np.float64)
    values = confusion.shape[-1]
    total = confusion.sum(axis=(-2, -1))
    votes = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    fraction = ratio(votes, 2 * total[..., None])
    by_chance = (fraction * (1 - fraction)).sum(axis=-1) / (values - 1)
    return ratio(raw_agreement(confusion) - by_chance, 1 - by_chance)


def fleiss_kappa(counts: ArrayLike) -> Array:
    """Return Fleiss' κ = (p_o − p_e) / (1 − p_e): ``[..., items, categories]`` counts to ``[...]``.

    p_o is the mean over items of the share of pairs of raters who agree, and p_e = Σ_c p_c² with
    p_c the share of all ratings that say c. With as many raters for every item this is Fleiss'
    own coefficient. With unequal numbers an item of m raters still has Σ_c n_c (n_c − 1) of
    m (m − 1) ordered pairs, and items weigh alike, as Fleiss and colleagues have it; items with
    fewer than two raters have no pair and are left out. NaN where no item has two raters, or all
    ratings are the same.

    References:
        Fleiss, "Measuring nominal scale agreement among many raters", 1971;
        Fleiss, Levin and Paik, *Statistical Methods for Rates and Proportions*, 3rd edition,
        section 18.3.
    """
    counts = np.asarray(counts, np.float64)
    raters = counts.sum(axis=-1)
    has_pair = raters > 1
    pairs_agreeing = (counts * (counts - 1)).sum(axis=-1)
    agreement_of_item = ratio(pairs_agreeing, raters * (raters - 1))
    items = has_pair.sum(axis=-1)
    observed = ratio(np.where(has_pair, agreement_of_item, 0.0).sum(axis=-1), items)
    votes = np.where(has_pair[..., None], counts, 0.0).sum(axis=-2)
    share = ratio(votes, votes.sum(axis=-1, keepdims=True))
    by_chance = (share**2).sum(axis=-1)
    # Where everybody says the same, chance agrees always, and 0 / 0 says nothing.
    return ratio(observed - by_chance, 1 - by_chance)


def both_ways(confusion: ArrayLike) -> Array:
    """Add the same with the first two values exchanged: ``[..., values, values]``, of values a, b
    (and a tie).

    Which of two replies is called a means nothing. Counted both ways, neither has a larger share by
    its name, and chance is a fair coin.
    """
    confusion = np.asarray(confusion, np.float64)
    exchanged = [1, 0, *range(2, confusion.shape[-1])]
    rows_exchanged = confusion[..., exchanged, :]
    return confusion + rows_exchanged[..., exchanged]


def orientations(values: ArrayLike) -> NDArray[np.int8]:
    """Return for every two items which has the higher value: ``[..., items]`` to ``[..., pairs]``
    of −1, 0, 1.

    The mean product of two rankings' orientations is Kendall's τ_a.
    """
    values = np.asarray(values)
    pairs = itertools.combinations(range(values.shape[-1]), 2)
    first_items, second_items = np.array(list(pairs), int).reshape(-1, 2).T
    first = values[..., first_items]
    second = values[..., second_items]
    # Ranks are unsigned, so a difference would wrap around below zero.
    return (first > second).astype(np.int8) - (first < second).astype(np.int8)


def friedman(mean_ranks: ArrayLike, votes: int) -> tuple[float, float]:
    """Test whether mean ranks differ more than chance would have it; return χ² and its p value.

    χ² = 12 N / (k (k + 1)) Σ (R̄_j − (k + 1) / 2)², k − 1 degrees of freedom, for N independent
    rankings of k without ties.

    References:
        Friedman, "The Use of Ranks to Avoid the Assumption of Normality", 1937.
    """
    ranks = np.asarray(mean_ranks, np.float64)
    count = len(ranks)
    # From the mean of the ranks 1 to k, which all would have if the order meant nothing.
    deviations = ranks - (count + 1) / 2
    statistic = 12 * votes / (count * (count + 1)) * float((deviations**2).sum())
    return statistic, float(stats.chi2.sf(statistic, df=count - 1))
