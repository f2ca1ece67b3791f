"""Soups of folders that are no adapters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jaxmodpo.errors import UserError
from jaxmodpo.methods.soup import SoupConfig, soup
from jaxmodpo.models.adapter_config import read_adapter_config

PLAIN = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}


def adapter(folder: Path, settings: Any) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"target_modules": None}, "target_modules must be a list of projections, not None"),
        ({"target_modules": [1]}, "target_modules must be a list of projections"),
        (
            {"target_modules": "all-linear"},
            "target_modules must be a list of projections, not a pattern",
        ),
        ({"r": None}, "the field 'r' is missing"),
        ({"lora_alpha": "8"}, 'lora_alpha must be a number above 0, not "8"'),
        ({"lora_dropout": "none"}, "lora_dropout must be a number"),
    ],
)
def test_an_adapters_settings_that_are_missing_or_of_another_type_are_named(
    tmp_path, changes, said
):
    settings = {name: value for name, value in (PLAIN | changes).items() if value is not None}
    with pytest.raises(UserError, match=f"adapter_config.json: {said}"):
        read_adapter_config(adapter(tmp_path / "a", settings))
    assert read_adapter_config(adapter(tmp_path / "plain", PLAIN)).rank == 4


def test_a_soup_of_what_is_no_adapter_is_refused(tmp_path):
    good = adapter(tmp_path / "good", PLAIN)
    listed = adapter(tmp_path / "listed", [1])
    (tmp_path / "empty").mkdir()
    for number, (other, said) in enumerate(
        (
            (listed, "adapter_config.json must hold a mapping of settings, not list"),
            (tmp_path / "empty", "empty is not a PEFT adapter: it has no adapter_config.json"),
            (good, "the adapters name no base model"),
        )
    ):
        with pytest.raises(UserError, match=said):
            soup(
                SoupConfig(
                    adapters=(good, other),
                    weights=(0.5, 0.5),
                    output_dir=tmp_path / f"soup{number}",
                )
            )
