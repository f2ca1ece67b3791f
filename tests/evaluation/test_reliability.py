"""What is said of judges: coefficients against published values and brute force, known judges
recovered.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from brute_force import alpha_by_pairs, tau_of
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from jaxmodpo.cli import main
from jaxmodpo.errors import UserError
from jaxmodpo.evaluation import agreement
from jaxmodpo.evaluation.judges import JudgesConfig, draw, judges, open_ledgers, table
from jaxmodpo.evaluation.reliability import analyse
from jaxmodpo.evaluation.report import ReportConfig, report
from jaxmodpo.evaluation.sums import ALL
from jaxmodpo.evaluation.vote_table import short_names, together
from jaxmodpo.intervals import wilson_interval
from jaxmodpo.judging.ledger import Ledger
from jaxmodpo.judging.votes import Vote
from jaxmodpo.phase import Phase

# --------------------------------------------------------------------------- coefficients


def test_rows_are_numbered_together_even_where_the_product_does_not_fit():
    rng = np.random.default_rng(4)
    columns = [rng.integers(2**31, size=50) for _ in range(5)]
    columns = [np.concatenate([column, column]) for column in columns]
    code = together(*columns)
    assert len(np.unique(code)) == 50 and (code[:50] == code[50:]).all()


# --------------------------------------------------------------------------- ledgers


def vote(
    question: int, persona: int, shown: Sequence[str], order: Sequence[str] | None, **more: object
) -> Vote:
    settings: dict[str, object] = {
        "kind": "compare" if len(shown) == 2 else "rank",
        "criterion": "empathy",
        "repeat": 0,
        "status": "error" if order is None else "valid",
        "raw": "said",
        "model": "m",
        "judge": "endpoint m",
        "run": "r",
        **more,
    }
    key = (
        f"{question} {persona} {shown} {settings['criterion']} {settings['repeat']}"
        f" {settings['judge']}"
    )
    return Vote(
        key=key,
        question_id=f"q{question}",
        persona_id=f"p{persona}",
        shown=tuple(shown),
        order=None if order is None else tuple(order),
        **settings,  # type: ignore[arg-type]
    )


def stored(path: Path, votes: Iterable[Vote]) -> Path:
    with Ledger(path) as ledger:
        ledger.add(list(votes))
    return path


def said_of(*paths: Path, run: str | None = None, resamples: int = 400):
    with open_ledgers([str(path) for path in paths]) as ledgers:
        return analyse(ledgers, run=run, resamples=resamples)


def only(rows: Sequence[dict], **names: object) -> dict:
    found = [row for row in rows if all(row[name] == value for name, value in names.items())]
    assert len(found) == 1
    return found[0]


Says = Callable[[np.random.Generator, int, Sequence[int]], Sequence[int]]
"""of a generator, the question and the responses' numbers as shown: the order, best first"""


def asked(
    says: Says,
    *,
    shown: int = 2,
    questions: int = 60,
    personas: int = 20,
    seed: int = 0,
    **more: object,
):
    """Votes of a simulated judge, positions drawn for each persona."""
    rng, places = np.random.default_rng(seed), np.random.default_rng(99)
    for question, persona in itertools.product(range(questions), range(personas)):
        numbers = [int(n) for n in places.permutation(shown)]
        if shown == 2:
            numbers = [0, 1] if (persona + question) % 2 else [1, 0]
        order = says(rng, question, numbers)
        names = [f"q{question}-{number}" for number in range(shown)]
        yield vote(
            question, persona, [names[n] for n in numbers], [names[n] for n in order], **more
        )


def coin(rng, question, numbers):
    return [numbers[int(rng.integers(2))]]


def leaning(share: float) -> Says:
    return lambda rng, question, numbers: [numbers[int(rng.random() >= share)]]


def judging(strength: float, first: float = 0.0) -> Says:
    """A judge that feels a response's worth, position and noise."""

    def says(rng, question, numbers):
        worth = np.random.default_rng(question).normal(size=len(numbers))
        felt = strength * worth[list(numbers)] + rng.gumbel(size=len(numbers))
        felt[0] += first
        order = [numbers[n] for n in np.argsort(-felt)]
        return order[:1] if len(numbers) == 2 else order

    return says


# --------------------------------------------------------------------------- position


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
    said = said_of(stored(tmp_path / "v.sqlite", votes))
    row = only(said["position"])
    assert (row["votes"], row["first"], row["second"], row["ties"]) == (6, 3, 1, 2)
    assert row["first_share"]["value"] == 0.75
    assert row["wilson"] == pytest.approx(wilson_interval(3, 4))
    assert said["counts"] == {"votes": 8, "valid": 6, "failed": 2, "superseded": 0}
    missing = said["missing"]
    assert missing["statuses"] == {"refusal": 1, "parse_error": 1}
    assert only(missing["by_criterion"])["failed_share"]["value"] == 0.25
    assert missing["personas_most_affected"] == [{"name": "p5", "votes": 2, "failed": 2}]
    assert missing["by_model"] == [
        {"name": "", "votes": 1, "failed": 1},
        {"name": "m", "votes": 7, "failed": 1},
    ]
    # Each pair counted both ways round: a a b tie and d tie.
    units = [[0, 0, 1, 2], [1, 1, 0, 2], [1, 2], [0, 2]]
    personas = only(said["personas"])
    assert personas["alpha"]["value"] == pytest.approx(alpha_by_pairs(units, "nominal"), rel=1e-12)
    assert personas["votes"] == 6 and personas["units"] == 2
    assert [judge["name"] for judge in said["judges"]] == ["m"]


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
    said = said_of(stored(tmp_path / "v.sqlite", votes))
    assert said["counts"] == {"votes": 2, "valid": 1, "failed": 1, "superseded": 4}
    assert only(said["position"])["first"] == 1 and said["missing"]["statuses"] == {"expired": 1}


def test_other_texts_under_the_same_ids_are_other_votes(tmp_path):
    """Two runs that share a ledger, and ids, but not texts: neither replaces, repeats or turns the
    other's votes.
    """
    one = list(asked(judging(1), questions=8, personas=5))
    other = list(asked(judging(1), questions=8, seed=3, run="s"))
    same_ids = [dataclasses.replace(v, key=f"other {v.key}") for v in other]
    own_ids = [
        dataclasses.replace(
            v, shown=tuple(f"x{i}" for i in v.shown), order=tuple(f"x{i}" for i in v.order or ())
        )
        for v in same_ids
    ]
    expected = said_of(stored(tmp_path / "apart.sqlite", [*one, *own_ids]))
    assert expected["counts"] == {"votes": 200, "valid": 200, "failed": 0, "superseded": 0}
    said = said_of(stored(tmp_path / "same.sqlite", [*one, *same_ids]))
    # Asked again, the same key is still one vote.
    again = said_of(stored(tmp_path / "again.sqlite", [*one, *same_ids, *one]))
    assert (
        again["counts"] == expected["counts"] | {"superseded": 40}
        and said["counts"] == expected["counts"]
    )
    for part in ("position", "both_orders", "repeats", "personas"):
        assert said[part] == again[part] == expected[part]
    assert said["repeats"] == said["both_orders"] == [] and only(said["personas"])["units"] == 16


def test_a_ledger_of_failed_votes_says_so(tmp_path):
    votes = [
        vote(1, 1, shown, None, status="refusal", model="")
        for shown in (["a", "b"], ["a", "b", "c"])
    ]
    said = said_of(stored(tmp_path / "v.sqlite", votes))
    assert said["judges"] == said["position"] == said["personas"] == []
    assert (
        said["missing"]["failed"] == 2
        and draw(said) == []
        and "2 votes, 2 failed (2 refusal)" in table(said)
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
        shown = ["a", "b"] if rng.random() < 0.8 else ["b", "a"]
        votes.append(vote(question, persona, shown, ["a" if rng.random() < 0.8 else "b"]))
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
            shown = [str(n) for n in rng.permutation(3)]
            # Strong worth, so that votes of a question are alike; positions are drawn for each.
            felt = np.array([float(name) for name in shown]) + rng.gumbel(size=3)
            votes.append(vote(question, persona, shown, [shown[n] for n in np.argsort(-felt)]))
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
    said = said_of(stored(tmp_path / "v.sqlite", votes))
    row = only(said["both_orders"])
    assert (row["pairs"], row["consistent"]["value"]) == (5, 0.4)
    assert (row["first_both_times"], row["second_both_times"], row["tie_once"]) == (1, 1, 1)
    # One verdict a persona, as in the evaluation: a, tie, tie, tie, tie, a, and none of the
    # seventh.
    personas = only(said["personas"])
    assert personas["votes"] == 6
    units = [[0, 2, 2, 2, 2, 0], [1, 2, 2, 2, 2, 1]]
    assert personas["alpha"]["value"] == pytest.approx(alpha_by_pairs(units, "nominal"), rel=1e-12)


# --------------------------------------------------------------------------- repeats


def test_repeats_are_compared_with_each_other_alone(tmp_path):
    votes = [
        *(vote(1, 1, ["a", "b"], order, repeat=n) for n, order in enumerate((["a"], ["a"], ["b"]))),
        *(vote(1, 2, ["a", "b"], order, repeat=n) for n, order in enumerate(([], []))),
        vote(1, 3, ["a", "b"], ["a"]),
        vote(1, 3, ["b", "a"], ["b"], repeat=1),  # another order is another request
        vote(2, 1, ["a", "b"], ["a"]),
        vote(2, 1, ["a", "b"], None, repeat=1),
    ]
    said = said_of(stored(tmp_path / "v.sqlite", votes))
    row = only(said["repeats"])
    assert (row["requests"], row["pairs"]) == (2, 4)
    assert row["same"]["value"] == 0.5
    assert only(said["position"])["votes"] == 4  # a repeat is no further vote


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


# --------------------------------------------------------------------------- personas


def test_a_fair_coin_has_alpha_zero_and_a_position_is_no_agreement(tmp_path):
    said = said_of(stored(tmp_path / "coin.sqlite", asked(coin)))
    low, high = only(said["personas"])["alpha"]["interval"]
    assert low < 0.01 and high > -0.01 and abs(only(said["personas"])["alpha"]["value"]) < 0.02
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


# --------------------------------------------------------------------------- judges


def test_judges_are_compared_on_what_they_share(tmp_path):
    ours = [v for v in asked(judging(1), questions=10, personas=6) if v.persona_id != "p0"]
    theirs = [
        v for v in asked(judging(1), questions=12, personas=5, seed=1) if v.question_id != "q3"
    ]
    a = stored(tmp_path / "a" / "votes.sqlite", ours)
    b = stored(tmp_path / "b" / "votes.sqlite", theirs)
    said = said_of(a, b)
    assert [judge["name"] for judge in said["judges"]] == [
        "m (a/votes.sqlite)",
        "m (b/votes.sqlite)",
    ]
    row = only(said["judges_compared"])
    found = {(v.question_id, v.persona_id): v for v in theirs}
    pairs = [
        (v, found[v.question_id, v.persona_id])
        for v in ours
        if (v.question_id, v.persona_id) in found
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
    said = said_of(stored(tmp_path / "v.sqlite", votes))
    row = only(said["judges_compared"])
    assert row["votes"]["shared"] == 0 and row["votes"]["kappa"]["undefined"] == "nothing is shared"
    assert "nothing" not in table(said) and json.dumps(said, allow_nan=False)


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
    said = said_of(stored(tmp_path / "v.sqlite", votes))
    rows = {row["criterion"]: row for row in said["position"]}
    assert rows.keys() == {"empathy", "safety", ALL}
    assert rows[ALL]["first"] == rows["empathy"]["first"] + rows["safety"]["first"]
    assert (
        rows["empathy"]["first_share"]["value"] > 0.85
        and rows["safety"]["first_share"]["value"] < 0.55
    )


# --------------------------------------------------------------------------- command and report


def test_command_writes_file_figures_and_table(tmp_path, capsys):
    a = stored(
        tmp_path / "a" / "votes.sqlite",
        [*asked(judging(1), questions=6), *asked(judging(1), shown=3)],
    )
    b = stored(
        tmp_path / "b" / "votes.sqlite",
        [*asked(judging(1), seed=1), *asked(judging(1), shown=3, seed=1)],
    )
    config = JudgesConfig(ledger=(str(a), str(b)), output_dir=tmp_path / "out", bootstrap=50)
    judges(config)
    said = json.loads((tmp_path / "out" / "judges.json").read_text())
    assert {path.stem for path in (tmp_path / "out").glob("*.png")} == {
        drawn.name for drawn in draw(said)
    }
    assert len(draw(said)) == 5
    printed = capsys.readouterr().out
    assert "first shown wins" in printed and "m (a/votes.sqlite) and m (b/votes.sqlite)" in printed
    judges(config)
    assert capsys.readouterr().out == ""  # finished


def test_votes_added_since_are_counted_even_while_a_run_is_open(tmp_path):
    path, out = tmp_path / "v.sqlite", tmp_path / "out"
    config = JudgesConfig(ledger=(str(path),), output_dir=out, bootstrap=50)
    with Ledger(path) as writing:  # what it adds lies beside the file until it is closed
        writing.add(list(asked(judging(1), questions=4)))
        for questions in (4, 8):
            judges(config)
            assert (
                json.loads((out / "judges.json").read_text())["counts"]["votes"] == questions * 20
            )
            if questions == 4:
                writing.add(
                    [v for v in asked(judging(1), questions=8) if int(v.question_id[1:]) >= 4]
                )
    before = (out / "judges.json").stat().st_mtime_ns
    judges(config)
    assert (out / "judges.json").stat().st_mtime_ns == before, (
        "the file has changed, its votes have not"
    )
    other = stored(tmp_path / "w.sqlite", asked(judging(1), questions=4))
    with pytest.raises(UserError, match="counted of other ledgers"):
        judges(JudgesConfig(ledger=(str(other),), output_dir=out, bootstrap=50))


@pytest.mark.parametrize(
    ("order", "shown"),
    [(["c"], ["a", "b"]), (["a", "b"], ["a", "b"]), (["a", "b"], ["a", "b", "c"])],
)
def test_a_valid_vote_that_is_no_answer_is_refused(tmp_path, order, shown):
    with pytest.raises(UserError, match="is recorded as valid, but its order"):
        said_of(stored(tmp_path / "v.sqlite", [vote(1, 1, shown, order)]))
    with pytest.raises(UserError, match="its status is 'bogus'"):
        said_of(stored(tmp_path / "w.sqlite", [vote(1, 1, ["a", "b"], None, status="bogus")]))


def test_what_a_user_can_mend_is_said(tmp_path, capsys):
    path = str(stored(tmp_path / "v.sqlite", []))
    out = tmp_path / "out"
    (tmp_path / "x").mkdir()
    with pytest.raises(UserError, match=r"there is no ledger .*nowhere\.sqlite"):
        judges(JudgesConfig(ledger=(str(tmp_path / "nowhere.sqlite"),), output_dir=out))
    assert not (tmp_path / "nowhere.sqlite").exists()
    with pytest.raises(UserError, match="number 2 is already given"):
        judges(JudgesConfig(ledger=(path, str(tmp_path / "x" / ".." / "v.sqlite")), output_dir=out))
    with pytest.raises(UserError, match="no votes in"):
        judges(JudgesConfig(ledger=(path,), output_dir=out))
    with pytest.raises(UserError, match="--bootstrap must be at least 1, not 0"):
        judges(JudgesConfig(ledger=(path,), output_dir=out, bootstrap=0))
    with pytest.raises(SystemExit):
        main(["judges", "--ledger", path, "--output-dir", str(out), "--seed", "-1"])
    assert "--seed must be from 0 to" in capsys.readouterr().err
    assert not out.exists(), "what failed stands in nobody's way"
    with pytest.raises(UserError, match=r"there is no ledger .*nowhere\.sqlite"):
        judges(JudgesConfig(ledger=(f"sqlite:///{tmp_path}/nowhere.sqlite",), output_dir=out))
    assert not (tmp_path / "nowhere.sqlite").exists()
    with pytest.raises(UserError, match="number 2 is already given"):
        judges(JudgesConfig(ledger=(path, f"sqlite:///{path}"), output_dir=out))


def test_files_are_named_by_what_tells_them_apart():
    assert short_names(["/x/a/v.sqlite", "/x/b/v.sqlite"]) == ["a/v.sqlite", "b/v.sqlite"]
    assert short_names(["/x/a/v.sqlite"]) == ["v.sqlite"]


def judged(folder: Path, **settings: object) -> Path:
    phase = Phase.open("preferences", JudgesConfig(ledger=(), output_dir=folder), folder, {})
    stored(folder / "votes.sqlite", asked(judging(1, 1.0), questions=8, personas=6, **settings))  # type: ignore[arg-type]
    phase.finish()
    return folder / "votes.sqlite"


def page(work: Path) -> str:
    report(ReportConfig(inputs=(work,), output_dir=work / "report"))
    return (work / "report" / "report.html").read_text()


def test_report_counts_the_votes_of_a_judged_folder_and_is_the_same_again(tmp_path):
    judged(tmp_path / "preferences")
    first = page(tmp_path)
    share = said_of(tmp_path / "preferences" / "votes.sqlite", resamples=2000)["position"][0][
        "first_share"
    ]
    assert "<h2>Judges: preferences</h2>" in first and f"{100 * share['value']:.1f}%" in first
    assert (tmp_path / "report" / "preferences-judge-compare-2.png").is_file()
    (tmp_path / "report" / "manifest.json").unlink()
    assert page(tmp_path) == first


def test_report_shows_what_judges_wrote_and_not_the_same_votes_twice(tmp_path):
    ledgers = tuple(
        str(judged(tmp_path / name, seed=n, model=name)) for n, name in enumerate(("one", "two"))
    )
    judges(JudgesConfig(ledger=ledgers, output_dir=tmp_path / "judges", bootstrap=50))
    text = page(tmp_path)
    assert "<h2>Judges: judges</h2>" in text and "Judges: one" not in text
    assert "one and two" in text and "Gwet" in text
