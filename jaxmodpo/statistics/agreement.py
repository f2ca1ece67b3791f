"""Coefficients of agreement: pure functions of counts.

Every coefficient but Fleiss' is a function of sums, and sums add up over questions: a table of sums
with one row per question holds all that an estimate and its bootstrap need
(:func:`jaxmodpo.statistics.bootstrap.estimate`), however many votes there are. The coefficients are
our own because the packages that have them want equal raters, pin old numerics or have another
license; the tests check them against published values and brute force.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from jaxmodpo.statistics.arrays import Array, ratio

_TABLE_AXES = (-2, -1)
"""the axes of a table of values by values; axes before them hold further tables"""


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
    # Ordered pairs of votes, less each vote's pair with itself, which lies on the diagonal.
    with_itself = counts[..., None] * np.eye(values)
    pairs_of_votes = _products_of_all_pairs(counts) - with_itself  # [units, values, values]
    votes = counts.sum(axis=-1)  # [units]
    # A unit of one vote has no pair and so no weight; the maximum only avoids a division by zero.
    other_votes = np.maximum(votes - 1, 1)
    weight = np.where(votes > 1, 1 / other_votes, 0)
    return pairs_of_votes * weight[..., None, None]


def _products_of_all_pairs(values: Array) -> Array:
    """Return the product of every two entries: ``[..., values]`` to ``[..., values, values]``."""
    rows = values[..., :, None]
    columns = values[..., None, :]
    return rows * columns


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
    votes = coincidence_sums.sum(axis=-1)  # [..., values]
    total = votes.sum(axis=-1)
    distance = _nominal_distance(votes) if level == "nominal" else _ordinal_distance(votes)
    observed = np.sum(coincidence_sums * distance, axis=_TABLE_AXES)
    # As often as values would meet if the votes were shuffled over all units.
    by_chance = _products_of_all_pairs(votes)
    expected = np.sum(by_chance * distance, axis=_TABLE_AXES)
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
    row_middle = middle[..., :, None]
    column_middle = middle[..., None, :]
    return (row_middle - column_middle) ** 2


def raw_agreement(confusion: ArrayLike) -> Array:
    """Return the share on the diagonal: ``[..., values, values]`` to ``[...]``; NaN of nothing."""
    confusion = np.asarray(confusion, np.float64)
    total = confusion.sum(axis=_TABLE_AXES)
    return ratio(_items_agreed(confusion), total)


def _items_agreed(confusion: Array) -> Array:
    """Return how many items both judges gave the same value: the sum of the diagonal, ``[...]``."""
    row_axis, column_axis = _TABLE_AXES
    return np.trace(confusion, axis1=row_axis, axis2=column_axis)


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
    # Each item's cell when the table is read row by row, so that one count of numbers fills it.
    width = len(values)
    cells = rows[both_valued] * width + columns[both_valued]
    counts = np.bincount(cells, minlength=width**2)
    return counts.reshape(width, width)


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
    total = confusion.sum(axis=_TABLE_AXES)
    agreed = _items_agreed(confusion)
    first_judge = confusion.sum(axis=-1)  # [..., values]
    second_judge = confusion.sum(axis=-2)
    by_chance = np.sum(first_judge * second_judge, axis=-1)
    # Numerator and denominator are multiplied by total², so that counts are divided only once and
    # the degenerate cases are exact zeros.
    beyond_chance = agreed * total - by_chance
    most_beyond_chance = total**2 - by_chance
    return ratio(beyond_chance, most_beyond_chance)


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
    items = confusion.sum(axis=_TABLE_AXES)
    # Both judges' votes for each value together, as shares of the two votes that every item has.
    first_judge = confusion.sum(axis=-1)  # [..., values]
    second_judge = confusion.sum(axis=-2)
    votes = 2 * items
    fraction = ratio(first_judge + second_judge, votes[..., None])
    not_the_value = 1 - fraction
    by_chance = np.sum(fraction * not_the_value, axis=-1) / (values - 1)
    agreement = raw_agreement(confusion)
    return ratio(agreement - by_chance, 1 - by_chance)


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
    raters = counts.sum(axis=-1)  # [..., items]
    has_pair = raters > 1
    # Each of n raters who say the same agrees with the n − 1 others.
    pairs = raters * (raters - 1)
    pairs_agreeing = np.sum(counts * (counts - 1), axis=-1)
    # An item without a pair has no agreement, which is NaN; a 0 in its place adds nothing.
    share_agreeing = ratio(pairs_agreeing, pairs)
    agreement_of_item = np.where(has_pair, share_agreeing, 0.0)
    items = has_pair.sum(axis=-1)
    observed = ratio(agreement_of_item.sum(axis=-1), items)
    counts_with_pair = np.where(has_pair[..., None], counts, 0.0)
    votes = counts_with_pair.sum(axis=-2)  # [..., categories]
    total_votes = votes.sum(axis=-1, keepdims=True)
    share = ratio(votes, total_votes)
    by_chance = np.sum(share**2, axis=-1)
    # Where everybody says the same, chance agrees always, and 0 / 0 says nothing.
    return ratio(observed - by_chance, 1 - by_chance)


def both_ways(confusion: ArrayLike) -> Array:
    """Add to a table the same table with its first two values exchanged.

    Shape ``[..., values, values]``, of the values a, b and perhaps a tie.

    Which of two replies is called a means nothing. Counted both ways, neither has a larger share by
    its name, and chance is a fair coin.
    """
    confusion = np.asarray(confusion, np.float64)
    values = confusion.shape[-1]
    exchanged = [1, 0, *range(2, values)]
    rows_exchanged = confusion[..., exchanged, :]
    both_exchanged = rows_exchanged[..., exchanged]
    return confusion + both_exchanged


def orientations(values: ArrayLike) -> NDArray[np.int8]:
    """Return for every two items which has the higher value: ``[..., items]`` to ``[..., pairs]``
    of −1, 0, 1.

    The mean product of two rankings' orientations is Kendall's τ_a.
    """
    values = np.asarray(values)
    items = values.shape[-1]
    # Every two items once, in the order of itertools.combinations.
    first_items, second_items = np.triu_indices(items, k=1)
    first = values[..., first_items]
    second = values[..., second_items]
    # Ranks are unsigned, so a difference would wrap around below zero.
    first_is_higher = (first > second).astype(np.int8)
    second_is_higher = (first < second).astype(np.int8)
    return first_is_higher - second_is_higher


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
    mean_rank = (count + 1) / 2
    squares = float(np.sum((ranks - mean_rank) ** 2))
    statistic = 12 * votes / (count * (count + 1)) * squares
    p_value = float(stats.chi2.sf(statistic, df=count - 1))
    return statistic, p_value
