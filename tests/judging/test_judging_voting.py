"""Assignment is balanced, order is not an argument, and sums are those done by hand."""

from __future__ import annotations

import itertools
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmodpo.errors import UserError
from jaxmodpo.judging.ledger import Vote
from jaxmodpo.judging.voting import (
    Aggregate,
    Tally,
    aggregate,
    assign_personas,
    count_votes,
    head_to_head_positions,
    majority,
    position_weights,
    preference_pairs,
    shown_order,
    tally,
)


def ids(letter: str, count: int) -> list[str]:
    return [f"{letter}{n}" for n in range(count)]


def ranked(*orders: str | None, question: str = "q", criterion: str = "empathy") -> list[Vote]:
    """Votes that rank single-letter responses, "abc" being best to worst; None is a failed vote."""
    return [
        Vote(
            f"k{n}",
            "rank",
            question,
            f"p{n}",
            criterion,
            tuple(sorted(order or "")),
            None if order is None else tuple(order),
            "parse_error" if order is None else "valid",
            "",
            "m",
            0,
        )
        for n, order in enumerate(orders)
    ]


def compared(*winners: str | None) -> list[Vote]:
    """Votes between a and b: the winner, "" for a tie, None for a failed vote."""
    return ranked(*winners)


# --------------------------------------------------------------------------- assignment and order


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 12), st.integers(0, 10**6))
def test_every_persona_serves_equally_often_up_to_one(questions, personas, wanted, seed):
    wanted = min(wanted, personas)
    assigned = assign_personas(ids("q", questions), ids("p", personas), wanted, seed)
    assert list(assigned) == ids("q", questions)
    each = wanted or personas
    assert all(len(set(chosen)) == len(chosen) == each for chosen in assigned.values())
    served = Counter(dict.fromkeys(ids("p", personas), 0))
    served.update(p for chosen in assigned.values() for p in chosen)
    assert max(served.values()) - min(served.values()) <= 1


def test_the_assignment_hangs_on_the_seed_and_not_on_the_list_orders():
    first = assign_personas(ids("q", 40), ids("p", 10), 3, seed=1)
    assert first != assign_personas(ids("q", 40), ids("p", 10), 3, seed=2)
    reverse = assign_personas(ids("q", 40)[::-1], ids("p", 10)[::-1], 3, seed=1)
    assert {q: set(chosen) for q, chosen in reverse.items()} == {q: set(chosen) for q, chosen in first.items()}


def test_more_personas_than_there_are_is_the_users_mistake():
    with pytest.raises(UserError, match="--personas-per-question is 4, but there are 3 personas"):
        assign_personas(["q"], ids("p", 3), 4, seed=0)
    with pytest.raises(UserError, match="-1"):
        assign_personas(["q"], ids("p", 3), -1, seed=0)


def test_the_shown_order_is_a_permutation_blind_to_the_given_order():
    shown = shown_order("abcde", "q", "p", seed=3)
    assert sorted(shown) == list("abcde")
    assert shown == shown_order("edcba", "q", "p", seed=3)
    others = {shown_order("abcde", "q", f"p{n}", seed=3) for n in range(50)}
    assert len(others) > 30


def test_no_response_is_shown_first_more_often_than_chance_allows():
    first = Counter(shown_order("abcde", f"q{n}", "p", seed=0)[0] for n in range(5000))
    # Standard deviation of a binomial(5000, 1/5): 28.3.
    assert all(abs(first[name] - 1000) < 5 * 28.3 for name in "abcde")


@settings(deadline=None)
@given(st.integers(0, 51), st.text(max_size=5), st.integers(0, 10**6))
def test_exactly_half_of_the_personas_see_a_first(personas, unit, seed):
    first = head_to_head_positions(unit, ids("p", personas), seed)
    assert len(first) == personas // 2
    assert first <= set(ids("p", personas))


def test_positions_vary_by_unit_so_that_no_persona_keeps_one():
    personas = ids("p", 50)
    times = Counter(p for n in range(600) for p in head_to_head_positions(f"u{n}", personas, seed=42))
    # Standard deviation of a binomial(600, 1/2): 12.2.
    assert all(abs(times[p] - 300) < 5 * 12.2 for p in personas)


# --------------------------------------------------------------------------- points


def test_five_responses_get_the_papers_points():
    assert position_weights(5) == (10, 5, 0, -5, -10)


@settings(deadline=None)
@given(st.integers(2, 40))
def test_points_are_symmetric_linear_and_sum_to_zero(count):
    weights = position_weights(count)
    assert (weights[0], weights[-1], sum(weights)) == (10, -10, 0)
    assert len({a - b for a, b in itertools.pairwise(weights)}) == 1


def test_points_of_a_hand_computed_example():
    result = aggregate(ranked("abcde", "bacde", None, "acbed"), "abcde", position_weights(5), seed=0)
    assert result is not None
    # a: 10 + 5 + 10; b: 5 + 10 + 0; c: 0 + 0 + 5; d: -5 - 5 - 10; e: -10 - 10 - 5.
    assert result.points == {"a": 25, "b": 15, "c": 5, "d": -20, "e": -25}
    assert result.ranking == (("a",), ("b",), ("c",), ("d",), ("e",))
    assert (result.valid_votes, result.has_ties) == (3, False)
    assert preference_pairs(result, "best-worst", "drop") == [("a", "e")]


def test_other_weights_are_taken_as_given():
    result = aggregate(ranked("abc", "abc", "bca"), "abc", (1, 0.5, 0), seed=0)
    assert result is not None
    assert result.points == {"a": 2, "b": 2, "c": Fraction(1, 2)}


def test_thirds_do_not_break_a_tie():
    # a: 10 - 10; b: 10/3 - 10/3, which floats, with ranks worth 10 - 20 r / 3, miss by 9e-16.
    result = aggregate(ranked("abcd", "cdba"), "abcd", position_weights(4), seed=0)
    assert result is not None
    assert result.points == {"a": 0, "b": 0, "c": Fraction(20, 3), "d": Fraction(-20, 3)}
    assert [set(group) for group in result.ranking] == [{"c"}, {"a", "b"}, {"d"}]


def test_ties_are_reported_and_broken_by_the_seed_alone():
    votes = ranked("abcd", "badc")
    weights = position_weights(4)
    winners = Counter()
    for seed in range(400):
        one = aggregate(votes, "abcd", weights, seed=seed)
        other = aggregate(votes[::-1], "dcba", weights, seed=seed)
        assert one is not None and other is not None
        assert one.has_ties and [set(group) for group in one.ranking] == [{"a", "b"}, {"c", "d"}]
        assert one.order == other.order
        winners[one.order[0]] += 1
    # Standard deviation of a binomial(400, 1/2): 10.
    assert abs(winners["a"] - 200) < 50


def test_ties_for_first_or_last_drop_the_pair_only_if_told_to():
    result = aggregate(ranked("abcd", "bacd"), "abcd", position_weights(4), seed=0)
    assert result is not None
    ((chosen, rejected),) = preference_pairs(result, "best-worst", "seed")
    assert chosen in "ab" and rejected == "d"
    assert preference_pairs(result, "best-worst", "drop") == []


def test_all_responses_tied_never_make_a_pair():
    result = aggregate(ranked("abc", "cba"), "abc", position_weights(3), seed=0)
    assert result is not None and len(result.ranking) == 1
    assert preference_pairs(result, "best-worst", "seed") == preference_pairs(result, "all", "seed") == []


def test_all_pairs_leave_out_only_what_is_tied():
    result = Aggregate("q", {}, (("a",), ("b", "c"), ("d",)), 1)
    assert set(preference_pairs(result, "all", "seed")) == {
        ("a", "b"), ("a", "c"), ("a", "d"), ("b", "d"), ("c", "d")
    }  # fmt: skip


def test_below_the_minimum_of_valid_votes_there_is_no_result():
    votes = ranked("abc", None, "abc")
    assert aggregate(votes, "abc", position_weights(3), seed=0, min_valid_votes=3) is None
    assert aggregate(votes, "abc", position_weights(3), seed=0, min_valid_votes=2) is not None
    assert aggregate(ranked(None, None), "abc", position_weights(3), seed=0, min_valid_votes=0) is None


def test_votes_that_do_not_belong_together_are_refused():
    mixed = ranked("ab") + ranked("ab", question="other")
    with pytest.raises(ValueError, match="several questions"):
        aggregate(mixed, "ab", position_weights(2), seed=0)
    with pytest.raises(ValueError, match="3 weights for 2"):
        aggregate(ranked("ab"), "ab", position_weights(3), seed=0)
    with pytest.raises(ValueError, match="at least two"):
        position_weights(1)


@settings(deadline=None)
@given(st.lists(st.permutations("abcd"), min_size=1, max_size=8))
def test_points_do_not_depend_on_who_voted_first(orders):
    votes = ranked(*("".join(order) for order in orders))
    one = aggregate(votes, "abcd", position_weights(4), seed=7)
    assert one is not None
    assert one == aggregate(votes[::-1], "abcd", position_weights(4), seed=7)
    assert sum(one.points.values()) == 0


# --------------------------------------------------------------------------- comparisons and counts


def test_the_majority_of_a_comparison():
    assert tally(compared("a", "b", "a", "", None), "a", "b") == Tally(a=2, b=1, ties=1, failed=1)
    assert majority(compared("a", "b", "a"), "a", "b") == "a"
    assert majority(compared("b", "", None), "a", "b") == "b"
    assert majority(compared("a", "b", None), "a", "b") == "tie"
    assert majority(compared("", ""), "a", "b") == "tie"


def test_a_unit_without_a_valid_vote_has_no_winner():
    assert majority(compared(None, None), "a", "b") is None
    assert majority([], "a", "b") is None


def test_a_vote_for_somebody_else_is_not_counted_in_silence():
    with pytest.raises(ValueError, match="neither a nor b"):
        tally(compared("a", "c"), "a", "b")


def test_votes_are_counted_by_criterion_and_status():
    votes = ranked("ab", None, None) + ranked("ab", criterion="safety")
    assert count_votes(votes) == {
        "empathy": {"asked": 3, "valid": 1, "failed": {"parse_error": 2}},
        "safety": {"asked": 1, "valid": 1, "failed": {}},
    }
