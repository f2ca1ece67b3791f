"""Assignment is balanced, order is not an argument, and sums are those done by hand."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmodpo.criteria import Criterion
from jaxmodpo.errors import UserError
from jaxmodpo.judging.judge import Request
from jaxmodpo.judging.votes import Vote
from jaxmodpo.judging.voting import (
    Aggregate,
    Missingness,
    Tally,
    aggregate,
    asked_again,
    assign_personas,
    both_orders,
    head_to_head_positions,
    position_weights,
    preference_pairs,
    shown_order,
    tally,
    with_repeats,
)
from jaxmodpo.records import Candidate
from jaxmodpo.results.versioned import plain


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
            0,
            tuple(sorted(order or "")),
            None if order is None else tuple(order),
            "parse_error" if order is None else "valid",
            "",
            "m",
        )
        for n, order in enumerate(orders)
    ]


# --------------------------------------------------------------------------- assignment and order


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 12), st.integers(0, 10**6))
def test_every_persona_serves_equally_often_up_to_one(questions, personas, wanted, seed):
    wanted = min(wanted, personas)
    assigned = assign_personas(ids("q", questions), ids("p", personas), wanted, seed)
    assert list(assigned) == ids("q", questions)
    personas_each = wanted or personas
    assert all(len(set(voters)) == len(voters) == personas_each for voters in assigned.values())
    served = Counter(dict.fromkeys(ids("p", personas), 0))
    served.update(p for voters in assigned.values() for p in voters)
    assert max(served.values()) - min(served.values()) <= 1


def test_the_assignment_hangs_on_the_seed_and_not_on_the_list_orders():
    first = assign_personas(ids("q", 40), ids("p", 10), 3, seed=1)
    assert first != assign_personas(ids("q", 40), ids("p", 10), 3, seed=2)
    reverse = assign_personas(ids("q", 40)[::-1], ids("p", 10)[::-1], 3, seed=1)
    assert {q: set(chosen) for q, chosen in reverse.items()} == {
        q: set(chosen) for q, chosen in first.items()
    }


def test_more_personas_than_there_are_is_the_users_mistake():
    with pytest.raises(UserError, match="--personas-per-question is 4, but there are 3 personas"):
        assign_personas(["q"], ids("p", 3), 4, seed=0)
    with pytest.raises(UserError, match="-1"):
        assign_personas(["q"], ids("p", 3), -1, seed=0)


def test_the_shown_order_is_a_permutation_blind_to_the_given_order():
    order = shown_order("abcde", "q", "p", seed=3)
    assert sorted(order) == list("abcde")
    assert order == shown_order("edcba", "q", "p", seed=3)
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
    # Of an odd number the draw says which side has one more.
    assert len(first) in {personas // 2, (personas + 1) // 2}
    assert first <= set(ids("p", personas))


def test_of_an_odd_number_either_side_has_one_more_as_often():
    more = sum(len(head_to_head_positions(f"u{n}", ids("p", 5), seed=1)) == 3 for n in range(1000))
    # Standard deviation of a binomial(1000, 1/2): 15.8.
    assert abs(more - 500) < 5 * 15.8


def test_the_side_of_a_persona_hangs_on_seed_and_unit_and_not_on_the_lists_order():
    personas = ids("p", 20)
    first = head_to_head_positions("u", personas, seed=1)
    assert first == head_to_head_positions("u", personas[::-1], seed=1)
    assert len({head_to_head_positions("u", personas, seed) for seed in range(20)}) == 20


def test_the_official_code_shows_all_personas_the_same_first_by_one_draw():
    personas = ids("p", 9)
    positions = [head_to_head_positions(f"u{n}", personas, 7, "official-code") for n in range(400)]
    assert set(positions) == {frozenset(), frozenset(personas)}
    # Standard deviation of a binomial(400, 1/2): 10.
    assert abs(positions.count(frozenset()) - 200) < 50
    assert shown_order("dbca", "q", "p", 3, "official-code") == tuple("dbca")


def test_positions_vary_by_unit_so_that_no_persona_keeps_one():
    personas = ids("p", 50)
    times = Counter(
        p for n in range(600) for p in head_to_head_positions(f"u{n}", personas, seed=42)
    )
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
    result = aggregate(
        ranked("abcde", "bacde", None, "acbed"), "abcde", position_weights(5), seed=0
    )
    assert result is not None
    # a: 10 + 5 + 10; b: 5 + 10 + 0; c: 0 + 0 + 5; d: -5 - 5 - 10; e: -10 - 10 - 5.
    assert result.points == {"a": 25, "b": 15, "c": 5, "d": -20, "e": -25}
    assert result.ranking == (("a",), ("b",), ("c",), ("d",), ("e",))
    assert (result.valid_votes, result.has_ties) == (3, False)
    assert preference_pairs(result, "best-worst", "drop") == [("a", "e")]


def test_weights_of_the_users_own_are_exact_and_must_fit():
    assert position_weights(3, (1.0, 0.5, 0.0)) == (1, Fraction(1, 2), 0)
    assert position_weights(3, (5.0, 5.0, -1.0)) == (5, 5, -1), "two ranks may be worth the same"
    with pytest.raises(
        UserError, match="--position-weights has 3 numbers, but a question has 2 responses"
    ):
        position_weights(2, (1.0, 0.5, 0.0))
    for rising in ((0.0, 1.0), (1.0, 1.0)):
        with pytest.raises(
            UserError, match="--position-weights must fall from the first rank to the last"
        ):
            position_weights(2, rising)


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
        result = aggregate(votes, "abcd", weights, seed=seed)
        result_reversed = aggregate(votes[::-1], "dcba", weights, seed=seed)
        assert result is not None and result_reversed is not None
        assert result.has_ties and [set(group) for group in result.ranking] == [
            {"a", "b"},
            {"c", "d"},
        ]
        assert result.order == result_reversed.order
        winners[result.order[0]] += 1
    # Standard deviation of a binomial(400, 1/2): 10.
    assert abs(winners["a"] - 200) < 50


def test_the_official_code_breaks_ties_by_the_lists_order():
    votes, weights = ranked("abcd", "badc"), position_weights(4)
    for names in ("abcd", "dcba", "bdac"):
        result = aggregate(votes, names, weights, seed=5, protocol="official-code")
        assert result is not None
        assert result.order == (*sorted("ab", key=names.index), *sorted("cd", key=names.index))


def test_equal_points_share_a_rank():
    assert Aggregate("q", {}, (("a", "b"), ("c",), ("d", "e", "f"), ("g",)), 1).ranks == (
        1,
        1,
        3,
        4,
        4,
        4,
        7,
    )
    assert Aggregate("q", {}, (("a",), ("b",)), 1).ranks == (1, 2)
    assert Aggregate("q", {}, (("a", "b"),), 1).ranks == (1, 1)


@settings(deadline=None)
@given(st.lists(st.permutations("abcde"), min_size=1, max_size=4))
def test_a_rank_is_one_more_than_how_many_are_better(orders):
    result = aggregate(ranked(*("".join(o) for o in orders)), "abcde", position_weights(5), seed=1)
    assert result is not None
    better = [sum(p > result.points[name] for p in result.points.values()) for name in result.order]
    assert list(result.ranks) == [1 + n for n in better]


def test_ties_for_first_or_last_drop_the_pair_only_if_told_to():
    result = aggregate(ranked("abcd", "bacd"), "abcd", position_weights(4), seed=0)
    assert result is not None
    ((chosen_id, rejected),) = preference_pairs(result, "best-worst", "seed")
    assert chosen_id in "ab" and rejected == "d"
    assert preference_pairs(result, "best-worst", "drop") == []


def test_all_responses_tied_never_make_a_pair():
    result = aggregate(ranked("abc", "cba"), "abc", position_weights(3), seed=0)
    assert result is not None and len(result.ranking) == 1
    assert (
        preference_pairs(result, "best-worst", "seed")
        == preference_pairs(result, "all", "seed")
        == []
    )


def test_all_pairs_leave_out_only_what_is_tied():
    result = Aggregate("q", {}, (("a",), ("b", "c"), ("d",)), 1)
    assert set(preference_pairs(result, "all", "seed")) == {
        ("a", "b"), ("a", "c"), ("a", "d"), ("b", "d"), ("c", "d")
    }  # fmt: skip


def test_below_the_minimum_of_valid_votes_there_is_no_result():
    votes = ranked("abc", None, "abc")
    assert aggregate(votes, "abc", position_weights(3), seed=0, min_valid_votes=3) is None
    assert aggregate(votes, "abc", position_weights(3), seed=0, min_valid_votes=2) is not None
    assert (
        aggregate(ranked(None, None), "abc", position_weights(3), seed=0, min_valid_votes=0) is None
    )


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
    result = aggregate(votes, "abcd", position_weights(4), seed=7)
    assert result is not None
    assert result == aggregate(votes[::-1], "abcd", position_weights(4), seed=7)
    assert sum(result.points.values()) == 0


# --------------------------------------------------------------------------- comparisons


def verdicts(*winners: str | None) -> list[tuple[str, ...] | None]:
    """What votes between a and b say: the winner, "" for a tie, None for a failed vote."""
    return [vote.order for vote in ranked(*winners)]


def test_the_count_of_a_comparison():
    assert tally(verdicts("a", "b", "a", "", None), "a", "b") == Tally(a=2, b=1, ties=1, failed=1)
    assert tally([], "a", "b") == Tally(0, 0, 0, 0)


def test_a_vote_for_somebody_else_is_not_counted_in_silence():
    with pytest.raises(ValueError, match="neither a nor b"):
        tally(verdicts("a", "c"), "a", "b")


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ("a", "a", ("a",)),
        ("b", "b", ("b",)),
        ("a", "b", ()),
        ("", "", ()),
        ("a", "", ()),
        ("", "b", ()),
        ("a", None, None),
        (None, "b", None),
        (None, None, None),
        ("", None, None),
    ],
)
def test_of_both_orders_only_what_wins_in_both_wins_and_half_an_answer_is_none(
    first, second, verdict
):
    assert both_orders(*ranked(first, second)) == verdict
    assert both_orders(*ranked(second, first)) == verdict


# --------------------------------------------------------------------------- second askings


def asked(n: int, persona: str = "p") -> Request:
    candidates = (Candidate("a", "x"), Candidate("b", "y"))
    return Request(
        "compare",
        f"q{n}",
        "post",
        persona,
        "profile",
        (Criterion("empathy", "d", "b", "w"),),
        candidates,
    )


def test_the_share_that_is_asked_again_is_the_one_asked_for_and_drawn_by_the_seed():
    requests = [asked(n) for n in range(4000)]
    again = [asked_again(r, 0.1, seed=1) for r in requests]
    # Standard deviation of a binomial(4000, 1/10): 19.
    assert abs(sum(again) - 400) < 5 * 19
    assert again == [asked_again(r, 0.1, seed=1) for r in requests]
    assert again != [asked_again(r, 0.1, seed=2) for r in requests]
    # A larger share asks the same ones and more.
    assert all(
        more
        for request_again, more in zip(
            again, (asked_again(r, 0.3, seed=1) for r in requests), strict=True
        )
        if request_again
    )
    assert all(asked_again(r, 1.0, seed=1) for r in requests) and not any(
        asked_again(r, 0.0, 1) for r in requests
    )


def test_a_second_asking_follows_its_first_and_differs_in_nothing_else():
    requests = [asked(n) for n in range(50)]
    repeated = list(with_repeats(requests, 0.3, seed=1))
    assert [r for r in repeated if r.repeat == 0] == requests
    for first, second in itertools.pairwise(repeated):
        if second.repeat:
            assert second == dataclasses.replace(first, repeat=1)
    assert 0 < sum(r.repeat for r in repeated) < 50
    assert list(with_repeats(requests, 0.0, seed=1)) == requests


# --------------------------------------------------------------------------- counts


def test_votes_are_counted_by_criterion_persona_and_model_and_never_made_up_for():
    missing = Missingness()
    votes = ranked("ab", None, None) + ranked("ab", criterion="safety")
    for vote in [*votes, votes[1]._replace(model="", status="error")]:
        missing.add(vote)
    assert plain(missing.by_criterion()) == {
        "empathy": {"asked": 4, "valid": 1, "failed": {"error": 1, "parse_error": 2}},
        "safety": {"asked": 1, "valid": 1, "failed": {}},
    }
    assert plain(missing.summary()) == {
        "personas_with_failed_votes": {
            "p1": {"asked": 2, "valid": 0, "failed": {"error": 1, "parse_error": 1}},
            "p2": {"asked": 1, "valid": 0, "failed": {"parse_error": 1}},
        },
        "models": {
            "m": {"asked": 4, "valid": 2, "failed": {"parse_error": 2}},
            "none": {"asked": 1, "valid": 0, "failed": {"error": 1}},
        },
    }
