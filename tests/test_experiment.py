"""Experiment files: phases in order, checked before the first starts, finished ones skipped."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from jaxmodpo.artifacts import read_json
from jaxmodpo.config import builtin
from jaxmodpo.errors import UserError
from jaxmodpo.experiment import RunConfig, read_experiment, run, run_experiment

TWO = """
name: two
seed: 5
shared:
  s: &s {test_size: 8, seed: $seed}
phases:
  - {name: first, command: questions, settings: {<<: *s, input: [$out/posts.csv]}}
  - {name: deep/second, command: questions, settings: {<<: *s, input: [$out/posts.csv], test_size: 12}}
"""


def experiment(folder: Path, text: str = TWO) -> Path:
    posts = "".join(f"s{n},a post {'word ' * (1 + n)}\n" for n in range(40))
    (folder / "out").mkdir(exist_ok=True)
    (folder / "out" / "posts.csv").write_text("sp_id,seeker_post\n" + posts)
    (folder / "e.yaml").write_text(text)
    return folder / "e.yaml"


def test_an_experiment_that_is_not_there_is_called_one():
    with pytest.raises(UserError, match=r"^no experiment file 'phase3' here; did you mean 'phase[12]'"):
        run(RunConfig(experiment="phase3"))


def test_phases_write_to_folders_of_their_name_with_out_and_seed_filled_in(tmp_path):
    run_experiment(experiment(tmp_path), tmp_path / "out")
    first, second = (read_json(tmp_path / "out" / name / "manifest.json") for name in ("first", "deep/second"))
    assert (first["results"]["test"], second["results"]["test"]) == (8, 12)
    assert first["identity"]["settings"]["seed"] == 5
    run_experiment(experiment(tmp_path), tmp_path / "out")
    assert read_json(tmp_path / "out" / "first" / "manifest.json") == first
    with pytest.raises(UserError, match="seed was 5, is 6"):
        run_experiment(experiment(tmp_path), tmp_path / "out", seed=6)


def test_a_dry_run_prints_every_phase_and_runs_none(tmp_path, capsys):
    run(RunConfig(experiment=str(experiment(tmp_path)), output_dir=tmp_path / "out", dry_run=True))
    said = capsys.readouterr().out
    assert "[1/2] first (questions)" in said and "[2/2] deep/second (questions)" in said and "test_size: 12" in said
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["posts.csv"]


def test_a_phase_that_is_there_already_says_so(tmp_path, caplog):
    run_experiment(experiment(tmp_path), tmp_path / "out")
    caplog.set_level(logging.INFO)
    run_experiment(experiment(tmp_path), tmp_path / "out")
    assert caplog.text.count("is finished") == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: deep/second, command: questions", "name: b, command: question", "no command 'question'; did you mean"),
        ("name: deep/second", "name: first", "two phases are named 'first'"),
        ("test_size: 12", "test_siz: 12", "unknown setting 'test_siz'; did you mean 'test_size'"),
        ("$out/posts.csv], test_size", "$outt/posts.csv], test_size", r"only \$out, \$seed"),
        ("seed: 5", "sede: 5", "unknown key 'sede'; did you mean 'seed'"),
        ("name: deep/second, ", "", "phase 2: a phase needs a name and a command"),
        ("test_size: 12", "test_size: many", "many"),
    ],
)
def test_a_mistake_in_the_last_phase_stops_the_first(tmp_path, old, new, message):
    assert old in TWO
    with pytest.raises(UserError, match=message):
        run_experiment(experiment(tmp_path, TWO.replace(old, new)), tmp_path / "out")
    assert not (tmp_path / "out" / "first").exists()


def test_the_demo_is_an_experiment_of_known_commands():
    demo = read_experiment(builtin(".", "demo"))
    assert demo.name == "demo" and {"align modpo", "align joint", "soup", "evaluate"} <= {
        phase.command for phase in demo.phases
    }


@pytest.mark.parametrize(
    ("command", "settings", "message"),
    [
        ("sweep", {"weights": "5..1"}, "weights"),
        ("sweep", {"score": ["empathy=rubric", "warmth=rubric"]}, "--score must name"),
        ("sweep", {"soup": ["safety=a", "empathy=b"]}, "--soup must name empathy, safety"),
        ("tune modpo", {"trials": 0}, "--trials of at least 1"),
        ("tune modpo", {"space": "papre"}, "no tune file 'papre' here; did you mean 'paper'"),
    ],
)
def test_searches_and_sweeps_that_cannot_run_stop_the_first_phase(tmp_path, command, settings, message):
    common = {"pairs": "$out/pairs.json", "margin": ["safety=column:m"], "model": "$out/model"}
    if command == "sweep":
        common |= {"questions": "$out/q.csv", "score": ["empathy=rubric", "safety=rubric"]}
    else:
        common |= {"weights": ["0.5", "0.5"]}
    last = json.dumps({"name": "last", "command": command, "settings": common | settings})
    with pytest.raises(UserError, match=message):
        run_experiment(experiment(tmp_path, f"{TWO.rstrip()}\n  - {last}\n"), tmp_path / "out")
    assert not (tmp_path / "out" / "first").exists()
