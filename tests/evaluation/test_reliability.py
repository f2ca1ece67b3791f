"""What is said of judges: which votes count, and how far positions decide."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from brute_force import alpha_by_pairs
from scipy import stats
from simulated_judges import asked, judging, leaning, only, said_of, shaped, stored, vote

from jaxmodpo.errors import UserError
from jaxmodpo.evaluation.judge_table import judges_table
from jaxmodpo.evaluation.judges import draw_judges
from jaxmodpo.evaluation.vote_table import together
from jaxmodpo.judging.votes import Vote
from jaxmodpo.statistics.intervals import wilson_interval


def test_rows_are_numbered_together_even_where_the_product_does_not_fit():
    rng = np.random.default_rng(4)
    columns = [rng.integers(2**31, size=50) for _ in range(5)]
    columns = [np.concatenate([column, column]) for column in columns]
    code = together(*columns)
    assert len(np.unique(code)) == 50 and (code[:50] == code[50:]).all()


def test_ties_and_failed_votes_are_counted_and_nothing_else(tmp_path):
    votes = [
        vote(1, 1, ["a", "b"], ["a"]),
        vote(1, 2, ["b", "a"], ["b"]),
        vote(1, 3, ["a", "b"], ["a"]),
        vote(1, 4, ["b", "a"], []),
        vote(1, 5, ["a", "b"], None, status="refusal"),
        vote(2, 1, ["c", "d"], ["d"]),
        vote(2, 2, ["d", "c"], [], model="m"),
        vote(2, 5, ["c", "d"], None, status="parse_error", model=""),
    ]
    results = said_of(stored(tmp_path / "v.sqlite", votes))
    row = only(results["position"])
    assert (row["votes"], row["first"], row["second"], row["ties"]) == (6, 3, 1, 2)
    assert row["first_share"]["value"] == 0.75
    assert row["wilson"] == pytest.approx(wilson_interval(3, 4))
    assert results["counts"] == {"votes": 8, "valid": 6, "failed": 2, "superseded": 0}
    missing = results["missing"]
    assert missing["statuses"] == {"refusal": 1, "parse_error": 1}
    assert only(missing["by_criterion"])["failed_share"]["value"] == 0.25
    assert missing["personas_most_affected"] == [{"name": "p5", "votes": 2, "failed": 2}]
    assert missing["by_model"] == [
        {"name": "", "votes": 1, "failed": 1},
        {"name": "m", "votes": 7, "failed": 1},
    ]
    # Each pair counted both ways round: a a b tie and d tie.
    units = [[0, 0, 1, 2], [1, 1, 0, 2], [1, 2], [0, 2]]
    personas = only(results["personas"])
    assert personas["alpha"]["value"] == pytest.approx(alpha_by_pairs(units, "nominal"), rel=1e-12)
    assert personas["votes"] == 6 and personas["units"] == 2
    assert [judge["name"] for judge in results["judges"]] == ["m"]


def test_newest_valid_vote_counts_once(tmp_path):
    again = {"status": "valid"}
    votes = [
        vote(1, 1, ["a", "b"], None, status="error"),
        vote(1, 1, ["a", "b"], ["b"], **again),
        vote(1, 1, ["a", "b"], ["a"], **again),
        vote(1, 1, ["a", "b"], None, status="error"),
        vote(1, 2, ["a", "b"], None, status="refusal"),
        vote(1, 2, ["a", "b"], None, status="expired"),
    ]
    results = said_of(stored(tmp_path / "v.sqlite", votes))
    assert results["counts"] == {"votes": 2, "valid": 1, "failed": 1, "superseded": 4}
    assert only(results["position"])["first"] == 1 and results["missing"]["statuses"] == {
        "expired": 1
    }


def test_other_texts_under_the_same_ids_are_other_votes(tmp_path):
    """Two runs that share a ledger, and ids, but not texts: neither replaces, repeats or turns the
    other's votes.
    """
    first_run = list(asked(judging(1), questions=8, personas=5))
    second_run = list(asked(judging(1), questions=8, seed=3, run="s"))
    same_ids = [v._replace(key=f"other {v.key}") for v in second_run]
    own_ids = [
        v._replace(
            shown=tuple(f"x{i}" for i in v.shown), order=tuple(f"x{i}" for i in v.order or ())
        )
        for v in same_ids
    ]
    expected = said_of(stored(tmp_path / "apart.sqlite", [*first_run, *own_ids]))
    assert expected["counts"] == {"votes": 200, "valid": 200, "failed": 0, "superseded": 0}
    results = said_of(stored(tmp_path / "same.sqlite", [*first_run, *same_ids]))
    # Asked again, the same key is still one vote.
    again = said_of(stored(tmp_path / "again.sqlite", [*first_run, *same_ids, *first_run]))
    assert (
        again["counts"] == expected["counts"] | {"superseded": 40}
        and results["counts"] == expected["counts"]
    )
    for section in ("position", "both_orders", "repeats", "personas"):
        assert results[section] == again[section] == expected[section]
    assert (
        results["repeats"] == results["both_orders"] == []
        and only(results["personas"])["units"] == 16
    )


def test_a_ledger_of_failed_votes_says_so(tmp_path):
    votes = [
        vote(1, 1, order, None, status="refusal", model="")
        for order in (["a", "b"], ["a", "b", "c"])
    ]
    results = said_of(stored(tmp_path / "v.sqlite", votes))
    assert results["judges"] == results["position"] == results["personas"] == []
    assert (
        results["missing"]["failed"] == 2
        and draw_judges(shaped(results)) == []
        and "2 votes, 2 failed (2 refusal)" in judges_table(shaped(results))
    )


def test_only_the_named_run_is_read(tmp_path):
    votes = [vote(1, 1, ["a", "b"], ["a"]), vote(1, 2, ["a", "b"], ["a"], run="other")]
    path = stored(tmp_path / "v.sqlite", votes)
    assert (
        said_of(path)["counts"]["votes"] == 2 and said_of(path, run="other")["counts"]["votes"] == 1
    )
    with pytest.raises(UserError, match="no votes of the run nothing"):
        said_of(path, run="nothing")


@pytest.mark.parametrize("share", [0.5, 0.6, 0.9])
def test_known_position_bias_is_recovered(tmp_path, share):
    row = only(said_of(stored(tmp_path / "v.sqlite", asked(leaning(share))))["position"])
    low, high = row["first_share"]["interval"]
    assert low < share < high and high - low < 0.08
    assert row["wilson"][0] < share < row["wilson"][1]
    # Positions are balanced, so that being first adds twice what its share has above a half.
    assert row["effect"]["value"] == pytest.approx(2 * row["first_share"]["value"] - 1, abs=1e-9)


def test_effect_of_position_is_recovered_where_positions_are_not_balanced(tmp_path):
    """Response 0 is better and mostly shown first; the judge looks at worth alone."""
    rng = np.random.default_rng(5)
    votes = []
    for question, persona in itertools.product(range(100), range(20)):
        order = ["a", "b"] if rng.random() < 0.8 else ["b", "a"]
        votes.append(vote(question, persona, order, ["a" if rng.random() < 0.8 else "b"]))
    row = only(said_of(stored(tmp_path / "v.sqlite", votes))["position"])
    assert row["first_share"]["interval"][0] > 0.6
    assert row["effect"]["interval"][0] < 0 < row["effect"]["interval"][1]


def test_effect_equals_mantel_and_haenszels_difference(tmp_path):
    votes = list(asked(judging(1, 0.7), questions=8, personas=7))
    row = only(said_of(stored(tmp_path / "v.sqlite", votes))["position"])
    over = under = 0.0
    for _, unit in itertools.groupby(votes, key=lambda v: v.question_id):
        cells = Counter((v.shown[0] < v.shown[1], v.order == (min(v.shown),)) for v in unit)
        n1, n2 = cells[True, True] + cells[True, False], cells[False, True] + cells[False, False]
        over += (cells[True, True] / n1 - cells[False, True] / n2) * n1 * n2 / (n1 + n2)
        under += n1 * n2 / (n1 + n2)
    assert row["effect"]["value"] == pytest.approx(over / under, rel=1e-12)


def test_one_order_for_all_personas_is_said(tmp_path):
    votes = [vote(q, p, ["a", "b"], ["a"]) for q in range(3) for p in range(4)]
    row = only(said_of(stored(tmp_path / "v.sqlite", votes))["position"])
    assert row["units_in_one_order"] == row["units"] == 3
    assert row["effect"]["undefined"] == "no two personas saw a pair in different orders"
    ranks = [vote(q, p, ["a", "b", "c"], ["a", "b", "c"]) for q in range(3) for p in range(4)]
    assert only(said_of(stored(tmp_path / "r.sqlite", ranks))["position"])["p_value"] is None


def test_mean_rank_by_position_and_its_test(tmp_path):
    votes = list(asked(judging(1, 0.5), shown=4, questions=30, personas=10))
    row = only(said_of(stored(tmp_path / "v.sqlite", votes))["position"])
    assert all(v.order is not None for v in votes)
    ranks = np.array([[v.order.index(name) + 1 for name in v.shown] for v in votes])  # type: ignore[union-attr]
    assert [mean["value"] for mean in row["mean_ranks"]] == pytest.approx(ranks.mean(axis=0))
    assert [top["value"] for top in row["first_places"]] == pytest.approx((ranks == 1).mean(axis=0))
    theirs = stats.friedmanchisquare(*ranks.T)
    assert (row["friedman"], row["p_value"]) == pytest.approx(
        (theirs.statistic, theirs.pvalue), rel=1e-9
    )


def test_position_test_of_an_unbiased_judge_is_significant_as_often_as_it_says(tmp_path):
    small = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        votes = []
        for question, persona in itertools.product(range(10), range(8)):
            order = [str(n) for n in rng.permutation(3)]
            # Strong worth, so that votes of a question are alike; positions are drawn for each.
            felt = np.array([float(name) for name in order]) + rng.gumbel(size=3)
            votes.append(vote(question, persona, order, [order[n] for n in np.argsort(-felt)]))
        small += (
            only(said_of(stored(tmp_path / f"{seed}.sqlite", votes), resamples=2)["position"])[
                "p_value"
            ]
            < 0.1
        )
    assert 1 <= small <= 14  # 6 expected, standard deviation 2.3


def test_both_orders_are_told_apart(tmp_path):
    def twice(persona: int, one: Sequence[str], other: Sequence[str]) -> list[Vote]:
        return [vote(1, persona, ["a", "b"], one), vote(1, persona, ["b", "a"], other)]

    votes = [
        *twice(1, ["a"], ["a"]),
        *twice(2, ["a"], ["b"]),
        *twice(3, ["b"], ["a"]),
        *twice(4, [], []),
        *twice(5, ["a"], []),
        vote(1, 6, ["a", "b"], ["a"]),
        vote(1, 7, ["a", "b"], ["a"]),
        vote(1, 7, ["b", "a"], None, status="error"),
    ]
    results = said_of(stored(tmp_path / "v.sqlite", votes))
    row = only(results["both_orders"])
    assert (row["pairs"], row["consistent"]["value"]) == (5, 0.4)
    assert (row["first_both_times"], row["second_both_times"], row["tie_once"]) == (1, 1, 1)
    # One verdict a persona, as in the evaluation: a, tie, tie, tie, tie, a, and none of the
    # seventh.
    personas = only(results["personas"])
    assert personas["votes"] == 6
    units = [[0, 2, 2, 2, 2, 0], [1, 2, 2, 2, 2, 1]]
    assert personas["alpha"]["value"] == pytest.approx(alpha_by_pairs(units, "nominal"), rel=1e-12)
