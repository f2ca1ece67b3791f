"""Every kind of result file: it comes back as it was written, and no key of it may be missing or
unknown.
"""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest
from right_results import EVALUATION, RIGHT_RESULTS, SWEEP, VALIDATION, WORLD

from jaxmodpo.errors import UserError
from jaxmodpo.results.demo import WorldResults
from jaxmodpo.results.evaluation import EvaluationResults
from jaxmodpo.results.reward import Validation
from jaxmodpo.results.sweep import Sweep
from jaxmodpo.results.versioned import read_result, write_result
from jaxmodpo.schema import key_of

POINT = SWEEP.fronts["modpo"][0]

every_kind = pytest.mark.parametrize("name", RIGHT_RESULTS)


@every_kind
def test_a_result_comes_back_as_it_was_written(tmp_path, name):
    result = RIGHT_RESULTS[name]
    write_result(tmp_path / name, result)
    assert read_result(tmp_path / name, type(result)) == result


@every_kind
def test_every_key_is_needed_unless_it_has_a_default(tmp_path, name):
    result = RIGHT_RESULTS[name]
    write_result(tmp_path / name, result)
    written = json.loads((tmp_path / name).read_text())
    required = [
        key_of(field)
        for field in dataclasses.fields(result)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    assert required
    for key in required:
        rest = {other: value for other, value in written.items() if other != key}
        (tmp_path / name).write_text(json.dumps(rest))
        with pytest.raises(UserError, match=f"{name} lacks the field '{key}'"):
            read_result(tmp_path / name, type(result))


@every_kind
def test_another_version_and_an_unknown_key_are_refused(tmp_path, name):
    result = RIGHT_RESULTS[name]
    write_result(tmp_path / name, result)
    written = json.loads((tmp_path / name).read_text())
    (tmp_path / name).write_text(json.dumps(written | {"version": 99}))
    with pytest.raises(UserError, match=f"{name} has version 99, and this jaxmodpo reads version"):
        read_result(tmp_path / name, type(result))
    (tmp_path / name).write_text(json.dumps(written | {"zzz": 1}))
    with pytest.raises(UserError, match=f"{name}: unknown key 'zzz'"):
        read_result(tmp_path / name, type(result))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"models": {}}, "holds no models or no criteria; write it with 'jaxmodpo evaluate'"),
        ({"models": {"x": {}, "y": {}}}, "models, x lacks 'safety'"),
        ({"intervals": {}}, "intervals, x lacks 'safety'"),
        ({"pairwise": {}}, "pairwise lacks 'safety'"),
        ({"pairwise": {"safety": {"x": {}}}}, "pairwise, safety lacks 'y'"),
        ({"tests": {}}, "tests lacks 'safety'"),
        ({"empty_replies": {"x": 0}}, "empty_replies lacks 'y'"),
        (
            {"tests": {"safety": (dataclasses.replace(EVALUATION.tests["safety"][0], b="z"),)}},
            "models, beside tests, safety, item 1, lacks 'z'",
        ),
    ],
)
def test_an_evaluation_whose_parts_do_not_belong_together_is_refused(tmp_path, changes, sentence):
    path = tmp_path / "results.json"
    write_result(path, dataclasses.replace(EVALUATION, **changes))
    with pytest.raises(UserError, match=rf"results\.json.*{re.escape(sentence)}"):
        read_result(path, EvaluationResults)


def test_rewards_whose_bins_and_edges_do_not_belong_together_are_refused(tmp_path):
    rewards = dataclasses.replace(VALIDATION.rewards, histogram_edges=(0.0, 0.5, 1.0))
    write_result(tmp_path / "validation.json", dataclasses.replace(VALIDATION, rewards=rewards))
    with pytest.raises(UserError, match="rewards, best, histogram must have one bin less than"):
        read_result(tmp_path / "validation.json", Validation)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"base": dataclasses.replace(SWEEP.base, scores={"a": 0.1})}, "base, scores lacks 'b'"),
        ({"fronts": {"modpo": ()}}, "fronts, modpo holds no point"),
        (
            {"fronts": {"modpo": (dataclasses.replace(POINT, scores={"a": 0.1}),)}},
            "fronts, modpo, item 1, scores lacks 'b'",
        ),
        (
            {"fronts": {"modpo": (dataclasses.replace(POINT, weights=(1.0,)),)}},
            "fronts, modpo, item 1: as many weights and scores are needed as the base has scores",
        ),
    ],
)
def test_a_sweep_whose_points_lack_a_score_or_a_weight_is_refused(tmp_path, changes, sentence):
    path = tmp_path / "sweep.json"
    write_result(path, dataclasses.replace(SWEEP, **changes))
    with pytest.raises(UserError, match=rf"sweep\.json: {re.escape(sentence)}"):
        read_result(path, Sweep)


@pytest.mark.parametrize("key", ["kl", "malformed"])
def test_a_world_with_a_model_that_was_not_measured_is_refused(tmp_path, key):
    lacking: dict[str, Any] = {key: {"x": 0.0}}
    write_result(tmp_path / "results.json", dataclasses.replace(WORLD, **lacking))
    with pytest.raises(UserError, match=rf"results\.json: {key} lacks 'y'"):
        read_result(tmp_path / "results.json", WorldResults)


def test_a_sweep_says_how_far_modpo_is_ahead_under_the_key_of_the_difference(tmp_path):
    write_result(tmp_path / "sweep.json", SWEEP)
    written = json.loads((tmp_path / "sweep.json").read_text())
    (row,) = written["equal_weights"]
    assert list(row) == ["weights", "kl", "scale", "modpo - soup"]
    assert row["modpo - soup"]["a"] == {"value": 0.0, "interval": [-0.1, 0.1]}
