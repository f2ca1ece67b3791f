"""How far repeats, personas and judges agree: coefficients against brute force, known judges
recovered.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pytest
from brute_force import tau_of
from simulated_judges import asked, coin, judging, leaning, only, said_of, shaped, stored, vote
from sklearn.metrics import cohen_kappa_score

from jaxmodpo.evaluation.judge_table import judges_table
from jaxmodpo.evaluation.sums import ALL
from jaxmodpo.judging.votes import Vote
from jaxmodpo.statistics import agreement


def test_repeats_are_compared_with_each_other_alone(tmp_path):
    votes = [
        *(vote(1, 1, ["a", "b"], order, repeat=n) for n, order in enumerate((["a"], ["a"], ["b"]))),
        *(vote(1, 2, ["a", "b"], order, repeat=n) for n, order in enumerate(([], []))),
        vote(1, 3, ["a", "b"], ["a"]),
        vote(1, 3, ["b", "a"], ["b"], repeat=1),  # another order is another request
        vote(2, 1, ["a", "b"], ["a"]),
        vote(2, 1, ["a", "b"], None, repeat=1),
    ]
    results = said_of(stored(tmp_path / "v.sqlite", votes))
    row = only(results["repeats"])
    assert (row["requests"], row["pairs"]) == (2, 4)
    assert row["same"]["value"] == 0.5
    assert only(results["position"])["votes"] == 4  # a repeat is no further vote


def test_repeats_of_rankings_give_kendalls_tau(tmp_path):
    rng = np.random.default_rng(6)
    names = ["a", "b", "c", "d"]
    votes = [
        vote(q, p, names, [names[n] for n in rng.permutation(4)], repeat=r)
        for q in range(4)
        for p in range(3)
        for r in range(2 + p)
    ]
    row = only(said_of(stored(tmp_path / "v.sqlite", votes))["repeats"])
    groups = defaultdict(list)
    for v in votes:
        groups[v.question_id, v.persona_id].append([v.order.index(name) for name in names])  # type: ignore[union-attr]
    pairs = [pair for group in groups.values() for pair in itertools.combinations(group, 2)]
    assert row["pairs"] == len(pairs)
    assert row["tau"]["value"] == pytest.approx(np.mean([tau_of(*pair) for pair in pairs]))
    assert row["same"]["value"] == pytest.approx(sum(a == b for a, b in pairs) / len(pairs))
    assert row["same_best"]["value"] == pytest.approx(
        np.mean([a.index(0) == b.index(0) for a, b in pairs])
    )


def test_a_fair_coin_has_alpha_zero_and_a_position_is_no_agreement(tmp_path):
    results = said_of(stored(tmp_path / "coin.sqlite", asked(coin)))
    low, high = only(results["personas"])["alpha"]["interval"]
    assert low < 0.01 and high > -0.01 and abs(only(results["personas"])["alpha"]["value"]) < 0.02
    first = said_of(stored(tmp_path / "first.sqlite", asked(leaning(1.0))))
    assert only(first["personas"])["alpha"]["value"] == pytest.approx(-1 / 19, abs=2e-3)


def test_alpha_recovers_how_much_personas_share(tmp_path):
    """Each vote is the unit's own verdict with probability p, else a coin: α is p²."""
    shared = 0.6

    def says(rng, question, numbers):
        mine = int(np.random.default_rng(question).integers(2))
        return [mine if rng.random() < shared else int(rng.integers(2))]

    row = only(said_of(stored(tmp_path / "v.sqlite", asked(says, questions=200)))["personas"])
    assert row["alpha"]["interval"][0] < shared**2 < row["alpha"]["interval"][1]
    assert row["alpha"]["value"] == pytest.approx(2 * row["agreement"]["value"] - 1, abs=2e-3)


def test_alpha_of_whole_rankings_is_the_mean_spearman_correlation(tmp_path):
    votes = list(asked(judging(1), shown=5, questions=12, personas=6))
    row = only(said_of(stored(tmp_path / "v.sqlite", votes))["personas"])
    by_question = defaultdict(list)
    for v in votes:
        by_question[v.question_id].append([v.order.index(name) for name in sorted(v.shown)])  # type: ignore[union-attr]
    pairs = [pair for ranks in by_question.values() for pair in itertools.combinations(ranks, 2)]
    spearman = float(np.mean([np.corrcoef(*pair)[0, 1] for pair in pairs]))
    count = 12 * 6 * 5
    assert row["alpha"]["value"] == pytest.approx(
        1 - (1 - spearman) * (count - 1) / count, rel=1e-9
    )
    assert row["level"] == "ordinal"


def test_alpha_without_two_votes_or_without_variation_says_why(tmp_path):
    alone = [vote(q, 1, ["a", "b"], ["a"]) for q in range(3)]
    row = only(said_of(stored(tmp_path / "a.sqlite", alone))["personas"])
    assert row["alpha"]["undefined"] == "no unit has two votes" and row["units_with_one_vote"] == 3
    ties = [vote(q, p, ["a", "b"], []) for q in range(3) for p in range(2)]
    row = only(said_of(stored(tmp_path / "t.sqlite", ties))["personas"])
    assert row["alpha"]["undefined"] == "all votes are the same" and row["agreement"]["value"] == 1


def test_judges_are_compared_on_what_they_share(tmp_path):
    ours = [v for v in asked(judging(1), questions=10, personas=6) if v.persona_id != "p0"]
    theirs = [
        v for v in asked(judging(1), questions=12, personas=5, seed=1) if v.question_id != "q3"
    ]
    a = stored(tmp_path / "a" / "votes.sqlite", ours)
    b = stored(tmp_path / "b" / "votes.sqlite", theirs)
    results = said_of(a, b)
    assert [judge["name"] for judge in results["judges"]] == [
        "m (a/votes.sqlite)",
        "m (b/votes.sqlite)",
    ]
    row = only(results["judges_compared"])
    vote_of = {(v.question_id, v.persona_id): v for v in theirs}
    pairs = [
        (v, vote_of[v.question_id, v.persona_id])
        for v in ours
        if (v.question_id, v.persona_id) in vote_of
    ]
    assert row["votes"]["shared"] == len(pairs) == 9 * 4
    labels = [[v.order != (one.shown[0],) for v in (one, other)] for one, other in pairs]
    assert row["votes"]["raw"]["value"] == pytest.approx(np.mean([x == y for x, y in labels]))
    assert row["votes"]["kappa"]["value"] == pytest.approx(
        cohen_kappa_score(*zip(*labels, strict=True))
    )
    same = both = 0
    for question in {v.question_id for v in ours} & {v.question_id for v in theirs}:
        names = [f"{question}-0", f"{question}-1"]
        x, y = (
            np.sign(
                sum(
                    {names[0]: 1, names[1]: -1}[v.order[0]]
                    for v in votes
                    if v.question_id == question and v.order
                )
            )
            for votes in (ours, theirs)
        )
        same, both = same + (x == y), both + 1
    assert row["majorities"]["shared"] == both == 9
    assert row["majorities"]["raw"]["value"] == pytest.approx(same / both)


def test_two_judges_that_only_see_positions_do_not_agree_beyond_chance(tmp_path):
    votes = [*asked(leaning(1.0), model="a", judge="A"), *asked(leaning(1.0), model="b", judge="B")]
    row = only(said_of(stored(tmp_path / "v.sqlite", votes))["judges_compared"])
    assert (row["a"], row["b"]) == ("a", "b")
    assert row["votes"]["raw"]["value"] == 1
    assert row["votes"]["kappa"]["undefined"] == "both judges gave one answer only"
    assert row["votes"]["ac1"]["value"] == 1
    assert row["majorities"]["decided"] == 0  # as many for each
    assert row["majorities"]["kappa"]["undefined"] == "nothing is decided by both"
    biased = [
        *asked(leaning(0.8), model="a", judge="A"),
        *asked(leaning(0.8), model="b", judge="B", seed=1),
    ]
    votes = only(said_of(stored(tmp_path / "w.sqlite", biased))["judges_compared"])["votes"]
    assert votes["agreement"]["value"] == pytest.approx(0.68, abs=0.05)
    assert votes["kappa"]["interval"][0] < 0 < votes["kappa"]["interval"][1]


def test_judges_with_nothing_in_common_say_so(tmp_path):
    votes = [vote(1, 1, ["a", "b"], ["a"]), vote(2, 1, ["a", "b"], ["a"], judge="other", model="n")]
    results = said_of(stored(tmp_path / "v.sqlite", votes))
    row = only(results["judges_compared"])
    assert row["votes"]["shared"] == 0 and row["votes"]["kappa"]["undefined"] == "nothing is shared"
    assert "nothing" not in judges_table(shaped(results)) and json.dumps(results, allow_nan=False)


def test_judges_rankings_are_compared_by_kendalls_tau(tmp_path):
    ours = list(asked(judging(1), shown=4, questions=6, personas=5, judge="A", model="a"))
    theirs = list(asked(judging(1), shown=4, questions=6, personas=5, judge="B", model="b", seed=1))
    row = only(said_of(stored(tmp_path / "v.sqlite", [*ours, *theirs]))["judges_compared"])

    def ranks(v: Vote) -> list[int]:
        return [v.order.index(name) for name in sorted(v.shown)]  # type: ignore[union-attr]

    taus = [tau_of(ranks(x), ranks(y)) for x, y in zip(ours, theirs, strict=True)]
    assert row["votes"]["tau"]["value"] == pytest.approx(np.mean(taus))

    def totals(votes: Sequence[Vote], question: int) -> np.ndarray:
        return np.sum([ranks(v) for v in votes if v.question_id == f"q{question}"], axis=0)

    signs = [
        (agreement.orientations(totals(ours, q)) * agreement.orientations(totals(theirs, q))).mean()
        for q in range(6)
    ]
    assert row["majorities"]["tau"]["value"] == pytest.approx(np.mean(signs))


def test_criteria_are_apart_and_together(tmp_path):
    votes = [*asked(leaning(0.9)), *asked(leaning(0.5), criterion="safety", seed=1)]
    results = said_of(stored(tmp_path / "v.sqlite", votes))
    rows = {row["criterion"]: row for row in results["position"]}
    assert rows.keys() == {"empathy", "safety", ALL}
    assert rows[ALL]["first"] == rows["empathy"]["first"] + rows["safety"]["first"]
    assert (
        rows["empathy"]["first_share"]["value"] > 0.85
        and rows["safety"]["first_share"]["value"] < 0.55
    )
