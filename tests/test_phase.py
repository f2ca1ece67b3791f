"""A phase's folder: skipped when finished, resumed when not, refused when it is another's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from jaxmodpo.errors import UserError
from jaxmodpo.files import (
    read_json,
    write_text,
)
from jaxmodpo.phase import Phase


@dataclass(frozen=True)
class Settings:
    output_dir: Path
    steps: int = 3
    api_key_env: str = "KEY"


def test_a_phase_is_skipped_when_finished_resumed_when_not_and_refused_when_different(tmp_path):
    write_text(tmp_path / "input", "1")
    inputs = {"pairs": tmp_path / "input"}
    out = tmp_path / "out"

    def opened(command: str = "align", **changes) -> Phase:
        return Phase.open(command, Settings(out, **changes), out, inputs)

    phase = opened()
    assert not phase.finished and read_json(out / "manifest.json")["status"] == "running"
    assert not opened(api_key_env="OTHER").finished
    # A start that made nothing claims no folder: settings may still be mended.
    assert not opened(steps=4).finished and not opened().finished
    write_text(out / "adapter", "weights")
    with pytest.raises(UserError, match="steps was 3, is 4"):
        opened(steps=4)
    phase.finish(pairs=7)
    manifest = read_json(out / "manifest.json")
    assert manifest["status"] == "finished" and manifest["results"] == {"pairs": 7}
    assert opened().finished and opened().results == {"pairs": 7}
    with pytest.raises(UserError, match="steps was 3, is 4"):
        opened(steps=4)
    with pytest.raises(UserError, match="command"):
        opened("reward")
    write_text(tmp_path / "input", "2")
    with pytest.raises(UserError, match="the input pairs has changed"):
        opened()


def test_what_became_of_a_phase_is_said_even_where_a_finished_one_goes_on(tmp_path):
    """A search with more trials, say, finishes a second time."""
    settings = Settings(tmp_path / "out")
    phase = Phase.open("x", settings, settings.output_dir, {})
    assert phase.ending == ""
    phase.finish()
    assert phase.ending == f"finished: {settings.output_dir}"
    again = Phase.open("x", settings, settings.output_dir, {})
    assert again.ending == f"{settings.output_dir} was finished before; there is nothing to do"
    again.finish()
    assert again.ending == f"finished: {settings.output_dir}"
    follower = Phase(settings.output_dir, again.manifest, False, writes=False)
    follower.finish()
    assert follower.ending == ""


def test_a_refused_folder_says_of_an_input_whether_it_is_new_or_left_out(tmp_path):
    """A report on one more run, say."""
    settings = Settings(tmp_path / "out")
    files = {name: tmp_path / name for name in ("first", "second")}
    for name, path in files.items():
        write_text(path, name)
    Phase.open("report", settings, settings.output_dir, {"first": files["first"]}).finish()
    with pytest.raises(UserError, match="the input second is new"):
        Phase.open("report", settings, settings.output_dir, files)
    with pytest.raises(UserError, match="the input first is left out"):
        Phase.open("report", settings, settings.output_dir, {})
