"""Whether a judge favors the place in which a response is shown."""

from __future__ import annotations

import numpy as np

from jaxmodpo.evaluation.sums import Estimator, Row, add_up, by_question, counted, fraction
from jaxmodpo.evaluation.vote_table import Numbers, VoteTable, together
from jaxmodpo.statistics import agreement
from jaxmodpo.statistics.intervals import wilson_interval


def position(votes: VoteTable, estimator: Estimator) -> Row:
    """Return what the position shown does to one judge's votes.

    ``units_in_one_order`` counts units (a question, its responses, a criterion) that all personas
    saw in the same order: there a response's worth cannot be told from its place.
    """
    unit = together(votes.unit, votes.criterion)
    unit_and_order = np.stack([unit, votes.order], axis=1)
    distinct = np.unique(unit_and_order, axis=0)
    units, orders_seen = np.unique(distinct[:, 0], return_counts=True)
    in_one_order = int(np.sum(orders_seen == 1))
    counts = counted(votes) | {"units": len(units), "units_in_one_order": in_one_order}
    if votes.kind == "compare":
        return counts | _compared(votes, unit, estimator)
    return counts | _ranked(votes, estimator)


def first_shown_won(votes: VoteTable) -> tuple[Numbers, Numbers]:
    """Return of each comparison whether the first shown won, and whether either did."""
    # The numbers of the responses that stood first and second: 0 and 1, or 1 and 0.
    first = (votes.positions[:, 0] != 0).astype(int)
    second = 1 - first
    rows = np.arange(len(votes))
    rank_of_first = votes.ranks[rows, first]
    rank_of_second = votes.ranks[rows, second]
    first_won = rank_of_first < rank_of_second
    decided = rank_of_first != rank_of_second
    return first_won, decided


def _compared(votes: VoteTable, unit: Numbers, estimator: Estimator) -> Row:
    """Return the first shown's fraction of decided votes, and what being first adds to a response's
    fraction.

    The effect compares a unit's two halves: P(a wins | a first) − P(a wins | a second), averaged
    over units with Mantel and Haenszel's weights n₁n₂ / (n₁ + n₂). It holds where positions are not
    balanced.
    """
    first_won, decided = first_shown_won(votes)
    firsts = int(first_won.sum())
    total = int(decided.sum())
    wilson = wilson_interval(firsts, total)
    first_sums = by_question(votes.question, first_won, decided)
    effect_sums = _effect_sums(votes, unit, first_won, decided)
    why_no_effect = "no two personas saw a pair in different orders"
    return {
        "first": firsts,
        "second": total - firsts,
        "ties": len(votes) - total,
        "first_share": estimator(first_sums, fraction, "no vote is decided"),
        "wilson": None if wilson is None else list(wilson),
        "effect": estimator(effect_sums, fraction, why_no_effect),
    }


def _effect_sums(votes: VoteTable, unit: Numbers, first_won: Numbers, decided: Numbers) -> Numbers:
    """Return numerator and denominator of the position's effect, by question.

    The fraction of first places alone would mislead where the better response happens to be shown
    first more often. Here a response is compared with itself, shown first to some personas and
    second to others. With w of n the wins of a, a unit's term is its weight times the difference,

        n₁n₂ / (n₁ + n₂) · (w₁ / n₁ − w₂ / n₂) = (w₁n₂ − w₂n₁) / (n₁ + n₂),

    which needs no case for n₁ or n₂ = 0: a unit seen in one order has the weight 0.
    """
    # Response a is the first by id.
    a_first = votes.positions[:, 0] == 0
    a_second = ~a_first
    a_won = first_won == a_first
    cells = np.stack([a_first, a_second, a_first & a_won, a_second & a_won], axis=1)
    decided_cells = cells & decided[:, None]
    _, first_row, unit_index = np.unique(unit, return_index=True, return_inverse=True)
    unit_counts = add_up(unit_index, decided_cells, len(first_row))
    # n₁, n₂, w₁ and w₂ of each unit.
    seen_first, seen_second, won_first, won_second = unit_counts.T
    # A unit without a decided vote has 0 in both sums; the 1 only avoids a division by zero.
    times_shown = np.maximum(seen_first + seen_second, 1)
    difference = won_first * seen_second - won_second * seen_first
    weight = seen_first * seen_second
    question = votes.question[first_row]
    return by_question(question, difference / times_shown, weight / times_shown)


def _ranked(votes: VoteTable, estimator: Estimator) -> Row:
    """Return the mean rank given to each position, 1 the best, and Friedman's test against equal
    ones.

    The test takes votes as independent, so it is left out for several criteria together, whose
    votes share an order, and where all personas saw one order.
    """
    # positions[v, r] is where response r stood; the ranks move there, from by-response to by-place.
    rank_by_position = np.empty((len(votes), votes.shown), np.int16)
    np.put_along_axis(
        rank_by_position,
        votes.positions.astype(np.int64),
        votes.ranks.astype(np.int16) + 1,
        axis=1,
    )
    ones = np.ones(len(votes))
    rank_sums = by_question(votes.question, rank_by_position, ones)
    top_sums = by_question(votes.question, rank_by_position == 1, ones)
    means: list[Row] = []
    tops: list[Row] = []
    for number in range(votes.shown):
        # The last column of the sums counts the votes.
        means.append(estimator(rank_sums[:, [number, -1]], fraction, "no votes"))
        tops.append(estimator(top_sums[:, [number, -1]], fraction, "no votes"))
    friedman: float | None = None
    p_value: float | None = None
    if _orders_vary(votes) and len(np.unique(votes.criterion)) == 1:
        mean_ranks = [mean["value"] for mean in means]
        friedman, p_value = agreement.friedman(mean_ranks, len(votes))
    return {
        "mean_ranks": means,
        "first_places": tops,
        "friedman": friedman,
        "p_value": p_value,
    }


def _orders_vary(votes: VoteTable) -> bool:
    """Return whether two personas saw a unit in different orders."""
    unit = together(votes.unit, votes.criterion)
    unit_and_order = together(unit, votes.order)
    return len(np.unique(unit_and_order)) > len(np.unique(unit))


def both_orders(votes: VoteTable, estimator: Estimator) -> list[Row]:
    """Return how often a persona that saw a pair in both orders kept to its verdict; nothing where
    none did.
    """
    if votes.kind != "compare":
        return []
    voter = together(votes.unit, votes.criterion, votes.persona)
    # Sorted by voter, a voter's two votes stand next to each other.
    rows = np.argsort(voter, kind="stable")
    sorted_voter = voter[rows]
    is_next_the_same = sorted_voter[:-1] == sorted_voter[1:]
    first_of_pair = np.flatnonzero(is_next_the_same)
    if not len(first_of_pair):
        return []
    once = votes.where(rows[first_of_pair])
    again = votes.where(rows[first_of_pair + 1])
    equal = (once.ranks == again.ranks).all(axis=1)
    first_won, decided = first_shown_won(once)
    first_won_again, decided_again = first_shown_won(again)
    # A persona that decides twice and differently has both times named the same place.
    changed = decided & decided_again & ~equal
    row = counted(once)
    row["pairs"] = row.pop("votes")
    equal_sums = by_question(once.question, equal, np.ones(len(once)))
    row["consistent"] = estimator(equal_sums, fraction, "nobody saw both orders")
    first_both_times = changed & first_won & first_won_again
    second_both_times = changed & ~first_won & ~first_won_again
    tie_once = decided != decided_again
    row["first_both_times"] = int(first_both_times.sum())
    row["second_both_times"] = int(second_both_times.sum())
    row["tie_once"] = int(tie_once.sum())
    return [row]
