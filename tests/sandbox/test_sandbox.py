"""The sandbox's language and survey, the count of malformed replies, and what the demo claims."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxmodpo.artifacts import Response, read_json, write_responses
from jaxmodpo.errors import UserError
from jaxmodpo.personas.survey import read_surveys
from jaxmodpo.personas.synthetic import write_survey
from jaxmodpo.sandbox import grammar
from jaxmodpo.sandbox.check import CheckConfig, check
from jaxmodpo.sandbox.demo import DemoConfig, demo, expectations, mean_of, table
from jaxmodpo.sandbox.world import distinct_posts


@pytest.mark.parametrize("kind", grammar.SENTENCES)
def test_every_sentence_is_known_by_its_kind(kind):
    generator = np.random.default_rng(0)
    drawn = {grammar.sentence(kind, generator) for _ in range(30)}
    assert len(drawn) == 2 and all(grammar.parse(text) == [kind] for text in drawn)


def test_every_reply_parses_and_kinds_vary_independently():
    generator = np.random.default_rng(0)
    replies = [grammar.reply(generator) for _ in range(2000)]
    parsed = [grammar.parse(reply) for reply in replies]
    assert all(kinds is not None and len(kinds) in (3, 4) for kinds in parsed)
    shares = [np.mean([kind in (kinds or []) for kinds in parsed]) for kind in grammar.SENTENCES]
    assert max(shares) < 1.3 * min(shares)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "You are not alone.",
        "You are not alone here. and",
        "You are not alone here. You are not alone here.",
        "You are not alone here you must forget it.",
        " ".join(["You are not alone here. What do you need most today? Your own pace is best here."] * 2),
        "You are not alone here. You are not alone in this. Try a walk before bed. You must forget it. "
        "Your own pace is fine here.",
    ],
)
def test_a_reply_outside_the_grammar_is_malformed(text):
    assert grammar.parse(text) is None


def test_posts_are_distinct_and_too_many_are_refused():
    posts = distinct_posts(500, np.random.default_rng(0))
    assert len(set(posts)) == 500
    with pytest.raises(UserError, match="no 20000 different posts"):
        distinct_posts(20_000, _Repeating())  # pyright: ignore[reportArgumentType]


class _Repeating:
    """Draws the first of everything."""

    def integers(self, *_: int) -> int:
        return 0


def test_the_survey_is_its_seeds_and_reads_as_one(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_survey(tmp_path / f"{name}.csv", participants=335, seed=seed)
    same, again, other = ((tmp_path / f"{name}.csv").read_bytes() for name in "abc")
    assert same == again != other
    people = read_surveys([tmp_path / "a.csv"])
    assert len(people) == 335 and sum(p.texts["population"] == "UCLA" for p in people) == 124


def test_check_counts_malformed_replies_and_kinds(tmp_path):
    texts = ["You are not alone here.", "You are not alone here. You must forget it.", "You are", ""]
    write_responses(tmp_path / "r.csv", [Response("q", "post", str(n), text) for n, text in enumerate(texts)])
    check(CheckConfig(responses=tmp_path / "r.csv", output_dir=tmp_path / "out"))
    counted = read_json(tmp_path / "out" / "malformed.json")
    assert (counted["malformed"], counted["replies"]) == (0.5, 4)
    assert (counted["sentences_per_reply"]["company"], counted["sentences_per_reply"]["directive"]) == (0.5, 0.25)


def outcome() -> dict[str, Any]:
    rates = {
        "base": (0.40, 0.45),
        "sft_empathy": (0.50, 0.42),
        "dpo_empathy": (0.65, 0.35),
        "dpo_safety": (0.30, 0.75),
        "modpo_empathy": (0.60, 0.48),
        "dpo_soup": (0.50, 0.55),
        "joint_loss_dpo": (0.55, 0.60),
    }
    models = {name: {"empathy": e, "safety": s} for name, (e, s) in rates.items()}
    intervals = {n: {c: [v - 0.02, v + 0.02] for c, v in rate.items()} for n, rate in models.items()}
    zeros = dict.fromkeys(rates, 0.0)
    return {"models": models, "intervals": intervals, "pairwise": {}, "kl": zeros, "malformed": zeros, "seed": 0}


def failed(changes: dict[str, tuple[float, float]]) -> list[int]:
    results = copy.deepcopy(outcome())
    for name, (empathy, safety) in changes.items():
        results["models"][name] = {"empathy": empathy, "safety": safety}
        results["intervals"][name] = {c: [v - 0.02, v + 0.02] for c, v in results["models"][name].items()}
    return [number for number, e in enumerate(expectations(results)) if not e.holds]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"sft_empathy": (0.66, 0.42)}, [0]),
        ({"modpo_empathy": (0.68, 0.48)}, []),
        ({"modpo_empathy": (0.70, 0.48)}, [0]),
        ({"modpo_empathy": (0.60, 0.38)}, [1]),
        ({"joint_loss_dpo": (0.55, 0.38)}, [2]),
        ({"base": (0.52, 0.45)}, [3]),
        ({"dpo_soup": (0.50, 0.76)}, [4]),
        ({"dpo_soup": (0.66, 0.55)}, [0, 4]),
    ],
)
def test_each_expectation_can_fail(changes, expected):
    assert failed(changes) == expected


def test_over_seeds_an_expectation_holds_only_where_all_do():
    one, two = outcome(), outcome()
    two["models"]["base"]["empathy"] = 0.60
    for seed, results in enumerate((one, two)):
        results["seed"] = seed
        results["expectations"] = [e._asdict() for e in expectations(results)]
    two["expectations"].reverse()  # they are known by their statements
    mean = mean_of([one, two])
    assert mean["models"]["base"]["empathy"] == pytest.approx(0.5)
    assert mean["intervals"]["base"]["empathy"] == pytest.approx([0.4, 0.6])
    assert [e["holds"] for e in mean["expectations"]] == [True, True, True, False, True]
    said = table(mean)
    assert "seed 0, 1" in said and said.count("  yes  ") == 4 and said.count("  NO   ") == 1


def test_a_rate_of_one_question_is_shown_without_an_interval():
    results = outcome()
    results["intervals"] = {name: dict.fromkeys(rates) for name, rates in results["models"].items()}
    results["expectations"] = [e._asdict() for e in expectations(results)]
    assert not results["expectations"][1]["holds"]
    assert "[" not in table(results)


def test_no_seeds_are_refused(tmp_path):
    with pytest.raises(UserError, match="--seeds must be at least 1"):
        demo(DemoConfig(output_dir=tmp_path, seeds=0))


@pytest.mark.slow(seconds=600)
@pytest.mark.timeout(2400)
def test_the_demo_shows_what_a_working_system_shows(tmp_path: Path):
    demo(DemoConfig(output_dir=tmp_path / "demo"))
    results = read_json(tmp_path / "demo" / "results.json")
    assert set(results["models"]) == set(outcome()["models"])
    assert all(0 <= rate <= 1 for rates in results["models"].values() for rate in rates.values())
    assert [e["statement"] for e in results["expectations"] if not e["holds"]] == []
    assert results["malformed"]["base"] < 0.3 and results["kl"]["dpo_empathy"] < 5
    report = (tmp_path / "demo" / "report" / "report.html").read_text(encoding="utf-8")
    assert "no clinical meaning" in report and "modpo_empathy" in report
