"""Evaluations of several trainings together, ranks that ratings give, and lengths."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import scipy.stats
from right_results import EVALUATION

from jaxmodpo.phase import Phase
from jaxmodpo.report.blocks import Picture, Section, tables_of
from jaxmodpo.report.gallery import Gallery
from jaxmodpo.report.groups import group_sections
from jaxmodpo.report.lengths import length_sections
from jaxmodpo.report.ratings import first_place, rating_sections
from jaxmodpo.report.run_folders import find_runs
from jaxmodpo.report.seeds import seed_sections
from jaxmodpo.report.sources import Sources
from jaxmodpo.report.table_files import csv_of
from jaxmodpo.results.evaluation import EvaluationResults
from jaxmodpo.results.inference import (
    GroupRates,
    LengthBin,
    LengthControlledRate,
    ModelRating,
    Ratings,
)
from jaxmodpo.results.versioned import write_result
from jaxmodpo.statistics.intervals import student_interval


@dataclass(frozen=True, kw_only=True)
class SomeConfig:
    seed: int = 0


def evaluated(root: Path, name: str, rate: float, replies: str) -> None:
    """Write a finished evaluation in which x wins at a rate against y, on certain replies."""
    file = root / f"{name}.csv"
    file.write_text(replies)
    phase = Phase.open("evaluate", SomeConfig(), root / "runs" / name, {"responses.x": file})
    results = replace(EVALUATION, models={"x": {"safety": rate}, "y": {"safety": 1 - rate}})
    write_result(root / "runs" / name / "results.json", results)
    phase.finish()


def sections_of(root: Path) -> list[Section]:
    return seed_sections(Sources(find_runs([root / "runs"], root / "report")), Gallery())


def test_the_spread_over_trainings_stands_beside_that_over_questions(tmp_path):
    rates = [0.40, 0.46, 0.52]
    for number, rate in enumerate(rates):
        evaluated(tmp_path, f"seed{number}", rate, replies=str(number))
    [section] = sections_of(tmp_path)
    [table] = tables_of(section.blocks)
    expected = scipy.stats.t.interval(0.95, 2, loc=0.46, scale=scipy.stats.sem(rates))
    low, high = (f"{100 * end:.1f}" for end in expected)
    assert csv_of(table).splitlines()[1] == (
        f'"x","46.0","{low}–{high}","6.0","40.0 to 52.0","10.0"'
    )


def test_one_training_or_the_same_replies_judged_again_have_no_spread(tmp_path):
    evaluated(tmp_path, "seed0", 0.4, replies="same")
    assert sections_of(tmp_path) == []
    evaluated(tmp_path, "again", 0.5, replies="same")
    assert sections_of(tmp_path) == []


def test_students_interval_is_scipys_and_needs_two_values():
    values = [0.1, 0.5, 0.4, 0.45]
    expected = scipy.stats.t.interval(0.95, 3, scipy.stats.tmean(values), scipy.stats.sem(values))
    assert student_interval(values) == pytest.approx(expected, rel=1e-12)
    assert student_interval([1.0]) is None and student_interval([2.0, 2.0]) == (2.0, 2.0)


def rated() -> EvaluationResults:
    x = ModelRating(
        rating=0.5, interval=(0.1, 0.9), best_rank=1, worst_rank=2, probability_of_best=0.875
    )
    y = ModelRating(rating=None, interval=None, best_rank=2, worst_rank=2, probability_of_best=None)
    ratings = Ratings(models={"x": x, "y": y}, first="x", challenger="y", questions_to_turn=3)
    return replace(EVALUATION, ratings={"safety": ratings})


def test_ranks_are_shown_with_what_the_first_place_hangs_on(tmp_path):
    evaluated(tmp_path, "run", 0.4, replies="")
    write_result(tmp_path / "runs" / "run" / "results.json", rated())
    [section] = rating_sections(
        Sources(find_runs([tmp_path / "runs"], tmp_path / "report")), Gallery()
    )
    [table] = tables_of(section.blocks)
    assert csv_of(table).splitlines()[1:] == [
        '"x","+0.50","+0.10 to +0.90","1–2","87.5"',
        '"y","–","no finite rating","2","–"',
    ]
    ratings = rated().ratings["safety"]
    assert first_place(ratings) == (
        "x is first; if 3 questions went, the ones that favor it most, y would be."
    )
    sure = replace(ratings, challenger=None, questions_to_turn=None)
    assert first_place(sure) == "x would be first whichever questions went."


def test_win_rates_at_equal_length_stand_beside_win_rates_or_a_reason_does(tmp_path):
    evaluated(tmp_path, "run", 0.4, replies="")
    sources = Sources(find_runs([tmp_path / "runs"], tmp_path / "report"))
    assert length_sections(sources, Gallery()) == []
    rate = LengthControlledRate(a="x", b="y", win_rate=0.55, interval=(0.5, 0.61), slope=-0.3)
    reason = "all replies are equally long"
    none = replace(rate, win_rate=None, interval=None, slope=None, undefined=reason)
    few = LengthBin(low=20, high=None, units=4, rate=None, interval=None)
    many = LengthBin(low=0, high=20, units=40, rate=0.625, interval=(0.5, 0.75))
    results = replace(
        EVALUATION,
        mean_tokens={"x": 212.04},
        length_controlled={"safety": (rate, none)},
        length_bins={"safety": (many, few)},
    )
    write_result(tmp_path / "runs" / "run" / "results.json", results)
    sources = Sources(find_runs([tmp_path / "runs"], tmp_path / "report"))
    [section] = length_sections(sources, Gallery())
    tokens, bins, rates = tables_of(section.blocks)
    assert csv_of(bins).splitlines()[1:] == [
        '"1–19","40","62.5","50.0–75.0"',
        '"20 or more","4","–","fewer than 5 comparisons"',
    ]
    [picture] = [block for block in section.blocks if isinstance(block, Picture)]
    assert "1–19 tokens longer, 62.5% of 40; 20 or more tokens" in picture.alternative
    assert csv_of(tokens).splitlines()[1:] == ['"x","212.0"']
    assert csv_of(rates).splitlines()[1:] == [
        '"x","y","safety","40.0","55.0","50.0–61.0","-0.30"',
        '"x","y","safety","40.0","–","all replies are equally long","–"',
    ]


def test_groups_are_shown_with_counts_and_small_ones_with_the_reason_alone(tmp_path):
    evaluated(tmp_path, "run", 0.4, replies="")
    old = GroupRates(
        dimension="age_group",
        group="65+",
        model="x",
        personas=12,
        votes=1200,
        rate=0.625,
        interval=(0.5, 0.75),
    )
    small = replace(old, personas=2, rate=None, interval=None, hidden="fewer than 5 personas")
    results = replace(EVALUATION, groups={"safety": (old, small)})
    write_result(tmp_path / "runs" / "run" / "results.json", results)
    sources = Sources(find_runs([tmp_path / "runs"], tmp_path / "report"))
    [section] = group_sections(sources, Gallery())
    [table] = tables_of(section.blocks)
    assert csv_of(table).splitlines()[1:] == [
        '"age group","65+","x","12","1,200","62.5","50.0–75.0"',
        '"age group","65+","x","2","1,200","–","fewer than 5 personas"',
    ]
