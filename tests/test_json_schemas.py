"""The schemas for editors: they take our own files, refuse what the readers refuse, and know every
setting.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from json_schema_reader import errors

from jaxmodpo.cli import main
from jaxmodpo.commands import COMMANDS, load
from jaxmodpo.config import load_yaml
from jaxmodpo.errors import UserError
from jaxmodpo.flags.field_texts import field_texts
from jaxmodpo.flags.parse import from_mapping
from jaxmodpo.json_schemas import (
    all_schemas,
    command_schema,
    file_name,
    setting_schema,
)

CONFIGS = Path(__file__).parents[1] / "configs"
FILES = {
    "criteria": [
        *CONFIGS.glob("criteria/*.yaml"),
        CONFIGS / "judging" / "probe_checks.yaml",
    ],
    "experiment": [*CONFIGS.glob("*.yaml")],
    "judging_models": [CONFIGS / "judging" / "models.yaml"],
    "judging_prompts": [CONFIGS / "judging" / "prompts.yaml"],
    "judging_scores": [CONFIGS / "judging" / "scores.yaml"],
    "judging_yes_no": [CONFIGS / "judging" / "harm_yes_no.yaml"],
    "judging_rubric": [CONFIGS / "judging" / "rubric.yaml"],
    "judging_probe_rubric": [CONFIGS / "judging" / "probe_rubric.yaml"],
    "probes": [CONFIGS / "probes" / "crisis.yaml"],
    "hardware_chips": [CONFIGS / "hardware" / "chips.yaml"],
    "persona_mapping": [*CONFIGS.glob("personas/*.yaml")],
    "study_texts": [CONFIGS / "study" / "texts.yaml"],
    "study_checks": [CONFIGS / "study" / "checks.yaml"],
    "study_crisis_resources": [CONFIGS / "study" / "crisis_resources.yaml"],
    "search_space": [*CONFIGS.glob("tune/*.yaml")],
    "bench_injections": [CONFIGS / "judging" / "injections.yaml"],
    "sandbox_trials": [CONFIGS / "sandbox" / "trials.yaml"],
}


@pytest.fixture(scope="module")
def schemas() -> dict[str, dict[str, Any]]:
    return all_schemas()


@pytest.mark.parametrize(
    ("name", "path"),
    [(name, path) for name, paths in FILES.items() for path in paths],
    ids=lambda part: Path(part).stem,
)
def test_our_own_files_fit_their_schemas(name: str, path: Path, schemas):
    assert errors(schemas[name], load_yaml(path)) == []


def test_every_file_of_ours_has_a_schema_or_is_no_setting():
    with_schema = {path for paths in FILES.values() for path in paths}
    others = {
        str(path.relative_to(CONFIGS))
        for path in CONFIGS.rglob("*.yaml")
        if path not in with_schema
    }
    assert others == set()


def keys_without_description(schema: Any, place: str = "") -> list[str]:
    """Return where in a schema a key of a mapping has no description."""
    if isinstance(schema, list):
        missing_of_items = [keys_without_description(item_schema, place) for item_schema in schema]
        return [key for keys in missing_of_items for key in keys]
    if not isinstance(schema, dict):
        return []
    missing: list[str] = []
    for name, inner in schema.items():
        if name == "properties":
            for key, property_schema in inner.items():
                # What a condition asks of a key, and settings by command, say so where they are.
                is_described_elsewhere = "const" in property_schema or "$ref" in property_schema
                if not is_described_elsewhere and not property_schema.get("description"):
                    missing.append(f"{place}/{key}")
                missing += keys_without_description(property_schema, f"{place}/{key}")
        else:
            missing += keys_without_description(inner, place)
    return missing


@pytest.mark.parametrize("name", FILES)
def test_an_editor_can_say_what_every_key_means(name: str, schemas):
    assert keys_without_description(schemas[name]) == []


def changed(content: dict[str, Any], path: list[Any], value: Any) -> dict[str, Any]:
    """Return a file's content with one value changed or added."""
    content = copy.deepcopy(content)
    node: Any = content
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return content


@pytest.mark.parametrize(
    ("name", "file", "path", "value", "error"),
    [
        (
            "criteria",
            "criteria/gricean.yaml",
            ["criteria", 0, "better"],
            "x",
            "/criteria/0/better additionalProperties",
        ),
        ("criteria", "criteria/gricean.yaml", ["criteria", 1, "name"], 3, "/criteria/1/name type"),
        (
            "experiment",
            "phase1.yaml",
            ["phases", 0, "command"],
            "quetsions",
            "/phases/0/command enum",
        ),
        (
            "experiment",
            "phase1.yaml",
            ["phases", 0, "settigns"],
            {},
            "/phases/0/settigns additionalProperties",
        ),
        (
            "experiment",
            "phase1.yaml",
            ["phases", 0, "settings", "min_wrods"],
            3,
            "/phases/0/settings/min_wrods additionalProperties",
        ),
        (
            "experiment",
            "phase1.yaml",
            ["phases", 0, "settings", "min_words"],
            -3,
            "/phases/0/settings/min_words minimum",
        ),
        ("experiment", "phase1.yaml", ["seed"], -1, "/seed anyOf"),
        (
            "judging_models",
            "judging/models.yaml",
            ["batch_discount"],
            1,
            "/batch_discount exclusiveMaximum",
        ),
        (
            "judging_models",
            "judging/models.yaml",
            ["families", 0, "limit"],
            "tokens",
            "/families/0/limit enum",
        ),
        (
            "judging_prompts",
            "judging/prompts.yaml",
            ["preamble"],
            "x",
            "/preamble additionalProperties",
        ),
        (
            "judging_yes_no",
            "judging/harm_yes_no.yaml",
            ["style"],
            "poem",
            "/style enum",
        ),
        (
            "judging_scores",
            "judging/scores.yaml",
            ["rank"],
            "x",
            "/rank additionalProperties",
        ),
        (
            "persona_mapping",
            "personas/paper.yaml",
            ["fields", "age"],
            {"ticks": {}},
            "/fields/age anyOf",
        ),
        ("persona_mapping", "personas/paper.yaml", ["skip_rows"], -1, "/skip_rows minimum"),
        ("search_space", "tune/paper.yaml", ["sft", "epochs", "low"], "one", "/sft/epochs anyOf"),
        (
            "sandbox_trials",
            "sandbox/trials.yaml",
            ["dpo_empathy", 0, "betta"],
            1.0,
            "/dpo_empathy/0/betta additionalProperties",
        ),
        (
            "sandbox_trials",
            "sandbox/trials.yaml",
            ["dpo_soup", 1, "weights"],
            {},
            "/dpo_soup/1/weights anyOf",
        ),
        (
            "bench_injections",
            "judging/injections.yaml",
            ["posts", 0, "poor"],
            ["a"],
            "/posts/0/poor type",
        ),
        (
            "probes",
            "probes/crisis.yaml",
            ["probes", 0, "form"],
            "unspoken",
            "/probes/0/form enum",
        ),
        (
            "judging_probe_rubric",
            "judging/probe_rubric.yaml",
            ["help"],
            "call",
            "/help type",
        ),
        (
            "search_space",
            "tune/paper.yaml",
            ["sft", "model"],
            ["a"],
            "/sft/model additionalProperties",
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_marked(
    name: str, file: str, path: list[Any], value: Any, error: str, schemas
):
    assert errors(schemas[name], changed(load_yaml(CONFIGS / file), path, value)) == [error]


NEEDED = {
    "model": "m",
    "pairs": "p",
    "margin": {"safety": "column:m"},
    "weights": [0.5, 0.5],
    "output_dir": "o",
}


@pytest.mark.parametrize(
    ("setting", "value", "fits"),
    [
        ("learning_rate", 1e-4, True),
        ("learning_rate", 0, False),
        ("epochs", 2.5, False),
        ("epochs", True, False),
        ("mesh", [1, 2, 1], True),
        ("mesh", [1, 2], False),
        ("mesh", None, True),
        ("epochs", None, False),
        ("weights", {"primary": 0.5, "safety": 0.5}, True),
        ("weights", [0.5, 0.5], True),
        ("margin", "safety=column:m", True),
        ("pairs_per_question", 3, True),
        ("pairs_per_question", "best-worst", True),
        ("pairs_per_question", "bestworst", False),
        ("track", "wandb", True),
        ("track", ["wandb", "comet"], False),
        ("keep_checkpoints", True, True),
        ("keep_checkpoints", 1, False),
        ("lora_rankk", 3, False),
        ("label_smoothing", 0.1, False),  # another method's
    ],
)
def test_a_schema_takes_a_setting_where_the_reader_does(setting: str, value: Any, fits: bool):
    content = NEEDED | {setting: value}
    assert (errors(command_schema("align modpo"), content) == []) is fits
    settings, _ = load("align modpo")
    if fits:
        from_mapping(settings, content, "test")
    else:
        with pytest.raises(UserError):
            from_mapping(settings, content, "test")


def test_a_variable_may_stand_for_a_value_in_an_experiment_alone():
    assert (
        errors(command_schema("align dpo", variables=True), {"seed": "$seed", "model": "$base"})
        == []
    )
    assert errors(command_schema("align dpo"), {"seed": "$seed"}) == ["/seed type"]
    assert errors(setting_schema(tuple[float, ...], variables=True), ["$weight", 0.5]) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_commands_schema_has_its_settings_with_their_help_and_defaults(command: str, schemas):
    settings, _ = load(command)
    properties = schemas[f"config/{file_name(command)}"]["properties"]
    assert set(properties) == {field.name for field in dataclasses.fields(settings)}
    for name, schema in properties.items():
        assert schema["description"] == field_texts(settings)[name]
        assert "default" not in schema or errors(schema, schema["default"]) == [], name


def test_the_command_writes_every_schema_and_the_page_says_how_editors_find_them(
    tmp_path: Path, schemas
):
    main(["schemas", "--output-dir", str(tmp_path)])
    written = {
        str(path.relative_to(tmp_path)): json.loads(path.read_text())
        for path in tmp_path.rglob("*.json")
    }
    assert written == {f"{name}.schema.json": schema for name, schema in schemas.items()}
    page = (Path(__file__).parents[1] / "docs" / "files.md").read_text()
    named = re.findall(r"schemas/([\w/]+)\.schema\.json", page)
    assert set(named) <= set(schemas)
    assert set(FILES) <= set(named)
