"""One day for a run, whatever day it is resumed on, and for what is sampled from its adapter."""

from __future__ import annotations

import dataclasses
import datetime
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from jaxmodpo.data.prompting import FILE
from jaxmodpo.methods.dpo import DPOConfig
from jaxmodpo.phase import Phase
from jaxmodpo.policy.prompts import _day, on_one_day

TODAY = datetime.date.today().isoformat()


@dataclasses.dataclass(frozen=True)
class _Settings:
    prompt_style: str = "chat"


def test_a_run_keeps_its_first_day_an_adapter_its_own_and_the_settings_come_first(tmp_path: Path):
    first = Phase.open("test", _Settings(), tmp_path / "run", {})
    assert _day(None, None, first) == TODAY
    first.remember(prompt_date="2020-01-02")
    assert first._lock is not None
    first._lock.release()
    resumed = Phase.open("test", _Settings(), tmp_path / "run", {})
    assert _day(None, None, resumed) == "2020-01-02"
    (tmp_path / FILE).write_text(json.dumps({"prompt_date": "2019-03-04"}))
    assert _day(None, tmp_path, None) == "2019-03-04"
    assert _day("2018-05-06", tmp_path, resumed) == "2018-05-06"
    resumed.finish()
    assert (
        json.loads((tmp_path / "run" / "manifest.json").read_text())["prompt_date"] == "2020-01-02"
    )


@pytest.mark.parametrize("style", ["instruct", "chat"])
def test_the_runs_of_a_search_name_one_day(tmp_path: Path, style):
    config = DPOConfig(model=tmp_path, pairs=tmp_path, output_dir=tmp_path, prompt_style=style)
    remembered = {}
    phase = SimpleNamespace(
        manifest=SimpleNamespace(prompt_date="2020-01-02"),
        remember=lambda **facts: remembered.update(facts),
    )
    settled = on_one_day(config, phase)  # type: ignore[arg-type]
    assert (settled.prompt_date, remembered) == (
        ("2020-01-02", {"prompt_date": "2020-01-02"}) if style == "chat" else (None, {})
    )
