"""The sweep: its grid, its comparisons, and one small run of the command."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import TINY_POLICY

from jaxmodpo.errors import UserError
from jaxmodpo.files import read_json
from jaxmodpo.methods.dpo import DPOConfig, dpo
from jaxmodpo.records import Candidate, Question, Ranking, write_questions, write_rankings
from jaxmodpo.results.sweep import Measured, Sweep
from jaxmodpo.results.versioned import plain, read_result
from jaxmodpo.sandbox import grammar
from jaxmodpo.sandbox.front_comparison import combine
from jaxmodpo.sandbox.front_report import fronts_table
from jaxmodpo.search.comparison import compare, sweep_table
from jaxmodpo.search.sweep import _dpo_settings, _modpo_settings, sweep
from jaxmodpo.search.sweep_settings import SweepConfig, grid, point_name


def test_every_setting_that_a_sweep_shares_with_a_training_reaches_it():
    changes: dict[str, Any] = {
        "beta": 0.3,
        "epochs": 7,
        "lora_rank": 3,
        "base_dtype": "int8",
        "max_length": 700,
    }
    changes |= {"pairs_per_question": 2, "margin_scale": "none", "margin_gain": 2.5, "seed": 9}
    config = SweepConfig(
        model=Path("base"),
        pairs=Path("pairs.json"),
        margin=("safety=column:margin",),
        questions=Path("questions.json"),
        score=("empathy=rubric", "safety=rubric"),
        output_dir=Path("sweep"),
        **changes,
    )
    modpo_settings = _modpo_settings(config, (0.25, 0.75), Path("sweep/modpo/a"))
    dpo_settings = _dpo_settings(config, Path("safety.json"), Path("sweep/dpo/safety"))
    assert (modpo_settings.weights, modpo_settings.output_dir) == (
        (0.25, 0.75),
        Path("sweep/modpo/a"),
    )
    assert (dpo_settings.pairs, dpo_settings.output_dir) == (
        Path("safety.json"),
        Path("sweep/dpo/safety"),
    )
    # What differs from one training to the next is not the sweep's to say.
    for settings, own_settings in (
        (modpo_settings, {"weights", "output_dir"}),
        (dpo_settings, {"pairs", "output_dir"}),
    ):
        shared = {field.name for field in fields(settings)} & {f.name for f in fields(config)}
        for name in shared - own_settings:
            assert getattr(settings, name) == getattr(config, name), name


def test_the_grid_is_the_simplex_within_its_ends():
    assert [p[0] for p in grid("0.1..0.9", 0.1, 2)] == pytest.approx(
        [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    )
    three = grid("0.2..0.6", 0.2, 3)
    assert len(set(three)) == 6 and all(sum(p) == pytest.approx(1) for p in three)
    for weights, step, message in (
        ("0.1-0.9", 0.1, "LOW..HIGH"),
        ("0..0.9", 0.1, "LOW..HIGH"),
        ("0.6..0.9", 0.1, "sum to 1"),
        ("0.1..inf", 0.1, "LOW..HIGH"),
        ("0.1..0.9", 0.0, "--step above 0"),
    ):
        with pytest.raises(UserError, match=message):
            grid(weights, step, 2)


@pytest.mark.parametrize(
    ("weights", "step"), [("0.1..0.65", 0.1), ("0.2..0.75", 0.2), ("0.3..0.7", 0.05)]
)
def test_no_weight_lies_beyond_the_ends_of_the_grid(weights, step):
    low, high = map(float, weights.split(".."))
    distinct_weights = sorted({weight for p in grid(weights, step, 2) for weight in p})
    assert distinct_weights[0] >= low and distinct_weights[-1] <= high
    if high == 0.7:
        assert distinct_weights == pytest.approx(np.linspace(0.3, 0.7, 9)), (
            "a range of whole steps has both its ends"
        )


@pytest.mark.parametrize("step", [0.1, 0.05, 0.005, 0.0025])
def test_no_two_points_share_a_folder(step):
    points = grid("0.1..0.9", step, 2)
    assert len(points) == round(0.8 / step) + 1 and len({point_name(p) for p in points}) == len(
        points
    )
    assert (
        point_name((0.5, 0.5)) == "0.50_0.50" and point_name((0.995, 0.005), "/") == "0.995/0.005"
    )


def point(
    weights: tuple[float, ...] | None, first: float, second: float, kl: float, questions: int = 40
) -> Measured:
    generator = np.random.default_rng(int(100 * (first + second + kl)))
    scores = {
        "a": first + generator.normal(0, 0.01, questions),
        "b": second + generator.normal(0, 0.01, questions),
    }
    ids = [str(number) for number in range(questions)]
    return Measured(
        label="x",
        adapter=None,
        scale=1.0,
        weights=weights,
        scores={name: float(values.mean()) for name, values in scores.items()},
        kl=kl,
        kl_standard_error=0.1,
        per_question={
            name: dict(zip(ids, values.tolist(), strict=True)) for name, values in scores.items()
        },
    )


def test_a_front_above_the_other_has_the_larger_hypervolume_and_intervals_say_so():
    base = point(None, 0.0, 0.0, 0.0)
    above = [point((0.7, 0.3), 1.0, 0.4, 1.0), point((0.3, 0.7), 0.4, 1.0, 1.0)]
    below = [point((0.7, 0.3), 0.9, 0.3, 1.0), point((0.3, 0.7), 0.3, 0.9, 1.0)]
    result = compare(
        ["a", "b"], base, {"modpo": above, "soup": below}, list(zip(above, below, strict=True))
    )
    difference = result.hypervolume["modpo - soup"]
    assert difference.value == pytest.approx(
        (1 * 0.4 + 0.4 * 0.6) - (0.9 * 0.3 + 0.3 * 0.6), abs=0.02
    )
    assert difference.interval[0] > 0
    assert result.equal_weights is not None
    weighted = result.equal_weights[0].differences["weighted"]
    assert weighted.value == pytest.approx(0.1, abs=0.01) and weighted.interval[0] > 0.05
    assert "per_question" not in plain(result)["fronts"]["modpo"][0]
    assert "matched kl 0.70/0.30" in sweep_table(result)

    over = combine({"best_worst": [result] * 3, "all_pairs": [result] * 3}).arms["best_worst"]
    assert over.hypervolume.difference.seeds_above == 3
    assert over.hypervolume.modpo.mean == pytest.approx(result.hypervolume["modpo"].value)
    assert over.equal_weights[0].differences["weighted"].mean == pytest.approx(weighted.value)


def with_question_order_turned(measured: Measured) -> Measured:
    turned = {name: dict(reversed(list(of.items()))) for name, of in measured.per_question.items()}
    return replace(measured, per_question=turned)


def test_points_are_compared_by_weights_and_questions_and_not_by_their_places():
    base = point(None, 0.0, 0.0, 0.0)
    modpo = [point((0.7, 0.3), 1.0, 0.4, 1.0), point((0.3, 0.7), 0.4, 1.0, 1.0)]
    soup = [point((0.7, 0.3), 0.9, 0.3, 1.0), point((0.3, 0.7), 0.3, 0.9, 1.0)]
    expected = compare(["a", "b"], base, {"modpo": modpo, "soup": soup})
    turned = [with_question_order_turned(measured) for measured in soup[::-1]]
    result = compare(["a", "b"], base, {"modpo": modpo, "soup": turned})
    assert result.equal_weights == expected.equal_weights
    assert result.hypervolume["soup"].value == pytest.approx(expected.hypervolume["soup"].value)
    other_point = point((0.3, 0.7), 0.3, 0.9, 1.0)
    scores_of_a = dict(other_point.per_question["a"])
    scores_of_a["another"] = scores_of_a.pop("7")
    other_point = replace(other_point, per_question={**other_point.per_question, "a": scores_of_a})
    with pytest.raises(UserError, match="x was measured on other questions than the base"):
        compare(["a", "b"], base, {"modpo": modpo, "soup": [soup[0], other_point]})
    for wrong in (soup[:1], [soup[0]] * 2):
        with pytest.raises(
            UserError, match="compared at equal weights were made at different ones"
        ):
            compare(["a", "b"], base, {"modpo": modpo, "soup": wrong})


def test_arms_are_compared_above_one_reference_point():
    weights = ((0.7, 0.3), (0.3, 0.7))

    def swept(base: float, modpo: tuple[float, float], soup: tuple[float, float]) -> Sweep:
        fronts = {
            method: [point(weights[0], high, low, 1.0), point(weights[1], low, high, 1.0)]
            for method, (high, low) in (("modpo", modpo), ("soup", soup))
        }
        return compare(
            ["a", "b"],
            point(None, base, base, 0.0),
            fronts,
            list(zip(fronts["modpo"], fronts["soup"], strict=True)),
        )

    low, high = swept(0.0, (0.8, 0.3), (0.7, 0.2)), swept(0.2, (1.0, 0.4), (0.9, 0.3))
    results = combine({"best_worst": [low, low], "all_pairs": [high, high]})
    volume = results.arms["all_pairs"].hypervolume
    # Above (0, 0), the lower arm's point, not above its own (0.2, 0.2).
    assert volume.modpo.mean == pytest.approx(0.4 + 0.4 * 0.6, abs=0.02)
    assert volume.soup.mean == pytest.approx(0.9 * 0.3 + 0.3 * 0.6, abs=0.02)
    over_modpo = results.between["modpo"]
    over_soup = results.between["soup"]
    assert over_modpo.hypervolume.mean == pytest.approx(0.64 - (0.8 * 0.3 + 0.3 * 0.5), abs=0.02)
    assert over_soup.hypervolume.seeds_above == 2
    assert [w.mean for w in over_modpo.weighted] == pytest.approx([0.17, 0.17], abs=0.01)
    assert [w.mean for w in over_soup.weighted] == pytest.approx([0.27, 0.27], abs=0.01)
    table = fronts_table(results)
    assert "MODPO above on 2 seeds" in table and "- soups from best-worst pairs" in table


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("folder/notes.txt", "", "folder is neither a PEFT adapter .* nor what datasets'"),
        ("folder/adapter_config.json", "[1]", "adapter_config.json must hold a mapping"),
        ("file.txt", "", "pairs are read from .json"),
        ("file.json", '[{"question_id": "a"}]', "row 1"),
    ],
)
def test_a_soup_of_neither_adapters_nor_pairs_is_refused_before_anything_is_measured(
    tmp_path, monkeypatch, file, content, said
):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    for name in ("model", "pairs.json", "questions.csv"):
        (tmp_path / name).touch()
    souped = tmp_path / Path(file).parts[0]
    config = SweepConfig(
        model=tmp_path / "model", pairs=tmp_path / "pairs.json", questions=tmp_path / "questions.csv",
        margin=("safety=column:m",), score=("empathy=rubric", "safety=rubric"),
        soup=(f"empathy={tmp_path}/later", f"safety={souped}"), output_dir=tmp_path / "sweep", distributed="off",
    )  # fmt: skip
    if souped.is_dir():
        with pytest.raises(UserError, match=f"--soup safety: .*{said}"):
            config.check()
    else:
        config.check()  # phases before it may write what is not there yet
    config = replace(config, soup=(f"empathy={souped}", f"safety={souped}"))
    monkeypatch.setattr("jaxmodpo.search.sweep.Session", None)
    with pytest.raises(UserError, match=f"--soup empathy: .*{said}"):
        sweep(config)


@pytest.mark.slow(seconds=60)
def test_a_sweep_measures_models_and_soups_and_compares_them_at_equal_divergence(
    tiny_world, tmp_path
):
    generator = np.random.default_rng(0)
    questions = [Question(f"q{n}", grammar.post(generator)) for n in range(12)]
    write_questions(tmp_path / "questions.csv", questions)
    for name in ("empathy", "safety"):
        rankings = [
            Ranking(
                q.question_id,
                q.question_text,
                tuple(
                    Candidate(f"{q.question_id}_{n}", grammar.reply(generator)) for n in range(3)
                ),
            )
            for q in questions
        ]
        write_rankings(tmp_path / f"{name}_rankings.json", rankings)
    shared: dict[str, Any] = {
        **TINY_POLICY, "model": tiny_world / "mistral",
        "lora_dropout": 0.0, "learning_rate": 2e-2, "beta": 0.5, "batch_size": 12,
        "max_prompt_length": 64, "max_length": 128, "validation_fraction": 0.0,
        "cache_dir": tmp_path / "cache", "pairs_per_question": "all",
    }  # fmt: skip
    dpo(
        DPOConfig(
            pairs=tmp_path / "safety_rankings.json",
            output_dir=tmp_path / "dpo_safety",
            epochs=1,
            **(shared | {"learning_rate": 2e-3}),
        )
    )
    config = SweepConfig(
        pairs=tmp_path / "empathy_rankings.json",
        margin=(f"safety=adapter:{tmp_path}/dpo_safety/adapter",),
        margin_gain=2.0,
        weights="0.5..0.5",
        step=0.5,
        epochs=3,
        soup=(f"empathy={tmp_path}/empathy_rankings.json", f"safety={tmp_path}/dpo_safety/adapter"),
        questions=tmp_path / "questions.csv",
        score=("empathy=rubric", "safety=rubric"),
        samples=2,
        max_new_tokens=16,
        sample_batch_size=24,
        output_dir=tmp_path / "sweep",
        **shared,
    )
    refusals: tuple[tuple[dict[str, Any], str], ...] = (
        (
            {"score": ("safety=rubric", "empathy=rubric")},
            "--score must name the primary objective and then safety",
        ),
        ({"soup": ("empathy=x",)}, "--soup must name empathy, safety"),
        ({"samples": 0}, "--samples must be at least 1, not 0"),
    )
    for changes, message in refusals:
        with pytest.raises(UserError, match=message):
            sweep(replace(config, output_dir=tmp_path / "refused", **changes))
    sweep(config)
    result = read_result(tmp_path / "sweep" / "sweep.json", Sweep)
    assert [len(result.fronts[method]) for method in ("modpo", "soup")] == [1, 1]
    assert result.base.kl == 0.0 and result.fronts["modpo"][0].kl > 0.05
    assert result.matched_kl is not None and result.equal_weights is not None
    matched, equal = result.matched_kl[0], result.equal_weights[0]
    apart_matched, apart_equal = (abs(row.kl["modpo"] - row.kl["soup"]) for row in (matched, equal))
    assert apart_matched < 0.5 * apart_equal and min(matched.scale.values()) < 1
    assert (tmp_path / "sweep" / "fronts.png").is_file()
    average = read_json(
        tmp_path / "sweep" / "soup" / "0.50_0.50" / "adapter" / "adapter_config.json"
    )
    assert average["r"] == 8, "the soup is exact: the ranks of both add up"
    assert sweep(config).finished
