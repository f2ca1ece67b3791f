"""The sandbox's language and survey, the count of malformed replies, and the demo's end."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from quick_compilation import with_optimization

from jaxmodpo.errors import UserError
from jaxmodpo.files import read_json
from jaxmodpo.judging.rubric import RubricJudge
from jaxmodpo.personas.survey import read_surveys
from jaxmodpo.personas.synthetic import write_survey
from jaxmodpo.records import Response, write_responses
from jaxmodpo.results.demo import WorldResults
from jaxmodpo.results.versioned import read_result
from jaxmodpo.sandbox import grammar
from jaxmodpo.sandbox.check import CheckConfig, check
from jaxmodpo.sandbox.demo import DemoConfig, demo
from jaxmodpo.sandbox.expectations import EMPATHY
from jaxmodpo.sandbox.world import distinct_posts


def every_reply() -> Iterator[tuple[tuple[grammar.Kind, ...], str]]:
    """Yield every filling of the four places, with a reply of it."""
    generator = np.random.default_rng(0)
    for kinds in itertools.product(grammar.SENTENCES, repeat=grammar.PLACES):
        sentences = [
            grammar.sentence(kind, position, generator) for position, kind in enumerate(kinds)
        ]
        yield kinds, " ".join(sentences)


def test_every_reply_is_parsed_and_judged_by_its_kinds_exactly():
    judge = RubricJudge(seed=0, noise=0.0)
    replies = list(every_reply())
    assert len(replies) == 4**4
    for kinds, text in replies:
        assert grammar.parse(text) == list(kinds)
        for criterion, good in (("empathy", "warm"), ("safety", "safe")):
            expected = (kinds.count(good) - kinds.count("bad")) / 4
            assert judge.score(text, criterion) == expected, text


def test_replies_are_drawn_from_dirichlet_mixes():
    """Of counts from a Dirichlet mix the mean and the variance are known
    (Dirichlet-multinomial).
    """
    generator = np.random.default_rng(0)
    parsed = [grammar.parse(grammar.reply(generator)) for _ in range(5000)]
    total, positions = sum(grammar.MIX.values()), grammar.PLACES
    for kind, parameter in grammar.MIX.items():
        share = parameter / total
        counts = np.array([(kinds or []).count(kind) for kinds in parsed])
        variance = positions * share * (1 - share) * (positions + total) / (1 + total)
        assert counts.mean() == pytest.approx(positions * share, abs=4 * np.sqrt(variance / 5000))
        assert counts.var() == pytest.approx(variance, rel=0.1)


GOOD = (
    "I am so sorry you are facing this.",
    "Try a walk before bed.",
    "What do you need most today?",
    "You are not alone here.",
)


@pytest.mark.parametrize(
    "sentences",
    [
        (),
        GOOD[:3],
        (*GOOD, "You are not alone in this."),
        (*GOOD, "and"),
        (GOOD[1], GOOD[0], *GOOD[2:]),
        (*GOOD[:3], "You are not alone."),
        (*GOOD[:3], "You are not alone here"),
        (GOOD[0], "Try a walk before bed what do you need most today?", *GOOD[2:]),
    ],
)
def test_a_reply_outside_the_grammar_is_malformed(sentences):
    assert grammar.parse(" ".join(GOOD)) == ["warm", "plain", "plain", "warm"]
    assert grammar.parse(" ".join(sentences)) is None


def test_posts_are_distinct_and_too_many_are_refused():
    posts = distinct_posts(500, np.random.default_rng(0))
    assert len(set(posts)) == 500
    with pytest.raises(UserError, match="no 20000 different posts"):
        distinct_posts(20_000, _Repeating())  # pyrefly: ignore


class _Repeating:
    """Draws the first of everything."""

    def integers(self, *_: int) -> int:
        return 0


def test_the_survey_is_its_seeds_and_reads_as_one(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_survey(tmp_path / f"{name}.csv", participants=335, seed=seed)
    same, again, other_seed = ((tmp_path / f"{name}.csv").read_bytes() for name in "abc")
    assert same == again != other_seed
    people = read_surveys([tmp_path / "a.csv"])
    assert len(people) == 335 and sum(p.texts["population"] == "UCLA" for p in people) == 124


def test_check_counts_malformed_replies_and_kinds(tmp_path):
    texts = [" ".join(GOOD), " ".join([*GOOD[:3], "Stop whining and have a drink."]), GOOD[0], ""]
    write_responses(
        tmp_path / "r.csv", [Response("q", "post", str(n), text) for n, text in enumerate(texts)]
    )
    check(CheckConfig(responses=tmp_path / "r.csv", output_dir=tmp_path / "out"))
    malformed = read_json(tmp_path / "out" / "malformed.json")
    assert (malformed["malformed"], malformed["replies"]) == (0.5, 4)
    assert malformed["sentences_per_reply"] == {
        "warm": 0.75,
        "safe": 0.0,
        "plain": 1.0,
        "bad": 0.25,
    }


def test_no_seeds_are_refused(tmp_path):
    with pytest.raises(UserError, match="--seeds must be at least 1"):
        demo(DemoConfig(output_dir=tmp_path, seeds=0))


@pytest.mark.slow(seconds=600)
@pytest.mark.timeout(2400)
def test_the_demo_shows_what_a_working_system_shows(tmp_path: Path):
    demo_command = [sys.executable, "-m", "jaxmodpo.cli", "demo", "--output-dir", tmp_path / "demo"]
    subprocess.run(demo_command, env=with_optimization(), check=True)
    results = read_result(tmp_path / "demo" / "results.json", WorldResults)
    assert set(results.models) == {*EMPATHY, "dpo_safety"}
    assert all(0 <= rate <= 1 for rates in results.models.values() for rate in rates.values())
    assert [e.statement for e in results.required if not e.holds] == []
    assert len(results.figure_2) == 30
    assert results.malformed["base"] < 0.01 and results.kl["dpo_empathy"] < 10
    report = (tmp_path / "demo" / "report" / "report.html").read_text(encoding="utf-8")
    assert "no clinical meaning" in report and "modpo_empathy" in report
