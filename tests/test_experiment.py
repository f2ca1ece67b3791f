"""Experiment files: phases in order, checked before the first starts, finished ones skipped."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from jaxmodpo import experiment as experiment_module
from jaxmodpo.commands import load
from jaxmodpo.config import builtin
from jaxmodpo.errors import UserError
from jaxmodpo.experiment import read_experiment, resolve_all, run_experiment
from jaxmodpo.files import read_json, write_text
from jaxmodpo.methods.dpo import DPOConfig
from jaxmodpo.run import RunConfig, run
from jaxmodpo.search.settings import TuneDPOConfig

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
    with pytest.raises(
        UserError, match=r"^no experiment file 'phase3' here; did you mean 'phase[12]'"
    ):
        run(RunConfig(experiment="phase3"))


def test_phases_write_to_folders_of_their_name_with_out_and_seed_filled_in(tmp_path):
    run_experiment(experiment(tmp_path), tmp_path / "out")
    first, second = (
        read_json(tmp_path / "out" / name / "manifest.json") for name in ("first", "deep/second")
    )
    assert (first["results"]["test"], second["results"]["test"]) == (8, 12)
    assert first["identity"]["settings"]["seed"] == 5
    run_experiment(experiment(tmp_path), tmp_path / "out")
    assert read_json(tmp_path / "out" / "first" / "manifest.json") == first
    with pytest.raises(UserError, match="seed was 5, is 6"):
        run_experiment(experiment(tmp_path), tmp_path / "out", seed=6)


def test_a_dry_run_prints_every_phase_and_runs_none(tmp_path, capsys):
    run(RunConfig(experiment=str(experiment(tmp_path)), output_dir=tmp_path / "out", dry_run=True))
    printed = capsys.readouterr().out
    assert (
        "[1/2] first (questions)" in printed
        and "[2/2] deep/second (questions)" in printed
        and "test_size: 12" in printed
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["posts.csv"]


def test_a_dry_run_refuses_a_test_set_that_the_posts_do_not_fill(tmp_path):
    path = experiment(tmp_path, TWO.replace("test_size: 12", "test_size: 600"))
    message = (
        r"e\.yaml, phase deep/second: --test-size 600 does not fit 40 posts: test and training set"
        r" need at least 4"
    )
    with pytest.raises(UserError, match=message):
        run(RunConfig(experiment=str(path), output_dir=tmp_path / "out", dry_run=True))


def test_a_phase_that_is_there_already_says_so(tmp_path, caplog):
    run_experiment(experiment(tmp_path), tmp_path / "out")
    caplog.set_level(logging.INFO)
    run_experiment(experiment(tmp_path), tmp_path / "out")
    assert caplog.text.count("already finished") == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "name: deep/second, command: questions",
            "name: b, command: question",
            "no command 'question'; did you mean",
        ),
        ("name: deep/second", "name: first", "two phases are named 'first'"),
        ("test_size: 12", "test_siz: 12", "unknown setting 'test_siz'; did you mean 'test_size'"),
        ("$out/posts.csv], test_size", "$outt/posts.csv], test_size", r"only \$out, \$seed"),
        ("seed: 5", "sede: 5", "unknown key 'sede'; did you mean 'seed'"),
        ("name: deep/second, ", "", "phases, item 2 lacks the field 'name'"),
        (
            "test_size: 12",
            "test_size: [1, 2]",
            r"deep/second: test_size takes one value, but is \[1, 2\]",
        ),
        ("test_size: 12", "test_size: {a: 1}", r"test_size takes no mapping, but is "),
        ("test_size: 12", "test_size: true", "test_size is no switch, and takes no true"),
        ("test_size: 12", "test_size:", "test_size is empty; give a value, or leave it out"),
        (
            "$out/posts.csv], test_size",
            "[x]], test_size",
            r"input, item 1 must be a text or .*, not \[",
        ),
        ("$out/posts.csv], test_size", "{a: b}], test_size", "input, item 1 must be a text or"),
        (
            "$out/posts.csv], test_size",
            "--seed], test_size",
            'input is "--seed", and no value may begin with two',
        ),
        ("$out/posts.csv], test_size", '"a\\0"], test_size', "--input holds a zero byte"),
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
        ("tune modpo", {"trials": 0}, "--trials must be at least 1"),
        ("tune modpo", {"space": "papre"}, "no tune file 'papre' here; did you mean 'paper'"),
    ],
)
def test_searches_and_sweeps_that_cannot_run_stop_the_first_phase(
    tmp_path, command, settings, message
):
    common = {"pairs": "$out/pairs.json", "margin": ["safety=column:m"], "model": "$out/model"}
    if command == "sweep":
        common |= {"questions": "$out/q.csv", "score": ["empathy=rubric", "safety=rubric"]}
    else:
        common |= {"weights": ["0.5", "0.5"]}
    last = json.dumps({"name": "last", "command": command, "settings": common | settings})
    with pytest.raises(UserError, match=message):
        run_experiment(experiment(tmp_path, f"{TWO.rstrip()}\n  - {last}\n"), tmp_path / "out")
    assert not (tmp_path / "out" / "first").exists()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("seed: abc", "seed must be a whole number from 0 to 4294967295 or null, not \"abc\""),
        ("seed: -1", "seed must be a whole number from 0 to 4294967295, not -1"),
        ("name: [a]", "name must be a text or a whole number or null, not [\"a\"]"),
        ("name: ../../elsewhere", "no part of an experiment's name may be empty or begin with a dot"),
        ("variables: [a]", "variables must be a mapping with texts as keys or null, not [\"a\"]"),
        ("variables: {a: [1]}", "variables, a must be a text or a number or true or false or null, not [1]"),
        ("variables: {a b: 1}", "variables, a b: a variable's name is made of letters, digits and underscores, and is "
         "neither out nor seed"),
        ("phases: 5", "phases must be a list, not 5"),
        ("phases: [1, 2]", "phases, item 1 must be a mapping with texts as keys, not 1"),
        ("phases: []", "has no phases"),
        ("phases: [{name: a, command: [x]}]", "phases, item 1, command must be a text, not [\"x\"]"),
        ("phases: [{name: [a], command: x}]", "phases, item 1, name must be a text or a whole number, not [\"a\"]"),
        ("phases: [{name: a, command: questions, settings: abc}]",
         "phases, item 1, settings must be a mapping with texts as keys or null, not \"abc\""),
        ("phases: [{name: a, command: questions, 5: x}]",
         "phases, item 1 must be a mapping with texts as keys, not {\"name\": \"a\""),
        ("phases: [{name: a, command: run, settings: {experiment: e.yaml}}]",
         "phase a: an experiment cannot be a phase of one; list its phases here"),
        ("shared: \"\\ud800\"", "half of a surrogate pair"),
    ],
)  # fmt: skip
def test_a_file_of_another_shape_is_refused_by_its_key(tmp_path, text, sentence):
    path = tmp_path / "e.yaml"
    phases = "" if "phases" in text else "phases: [{name: a, command: questions}]\n"
    path.write_text(f"{text}\n{phases}")
    with pytest.raises(UserError) as refused:
        read_experiment(path)
    assert sentence in str(refused.value) and str(path) in str(refused.value)


SEARCHED = """
phases:
  - name: tuned
    command: tune dpo
    settings: {model: $out/model, pairs: $out/pairs.json, beta: 0.2, epochs: 1, trials: 2}
  - name: dpo
    command: align dpo
    config: $out/tuned/best.yaml
    settings: {epochs: 4}
"""


def searched(folder: Path, text: str = SEARCHED) -> list[Any]:
    (folder / "e.yaml").write_text(text)
    return resolve_all(folder / "e.yaml", folder / "out", 3, {})[2]


def test_a_phase_takes_the_best_settings_of_a_search_where_its_own_say_nothing(tmp_path):
    search, before = searched(tmp_path)
    assert isinstance(before, DPOConfig), "until the search has ended, what it begins with"
    assert (before.beta, before.epochs, before.output_dir) == (0.2, 4, tmp_path / "out" / "dpo")
    write_text(
        search.output_dir / "best.yaml",
        "model: m\npairs: p.json\nbeta: 0.37\nlora-rank: 8\nepochs: 2\n",
    )
    after = searched(tmp_path)[1]
    assert (after.beta, after.lora_rank, after.epochs, after.model) == (0.37, 8, 4, Path("m"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "$out/tuned/best",
            "$out/tunde/best",
            "phase dpo: config: there is no file .*tunde/best.yaml, and no search",
        ),
        (
            "align dpo",
            "align sft",
            "phase dpo: config: .*best.yaml will hold the settings of another command",
        ),
        ("{epochs: 4}", "{epoch: 4}", "unknown setting 'epoch'; did you mean 'epochs'"),
        ("config: $out", "confg: $out", "unknown key 'confg'; did you mean 'config'"),
    ],
)
def test_a_phases_config_that_cannot_be_is_refused(tmp_path, old, new, message):
    assert old in SEARCHED
    with pytest.raises(UserError, match=message):
        searched(tmp_path, SEARCHED.replace(old, new))


def test_best_settings_are_read_when_their_phase_begins(tmp_path, monkeypatch):
    """The search ends after the run has begun, and what it found is what the next phase trains
    with.
    """
    ran = []

    def run_phase(config: Any) -> None:
        ran.append(config)
        if isinstance(config, TuneDPOConfig):
            write_text(config.output_dir / "best.yaml", "model: m\npairs: p.json\nbeta: 0.37\n")

    monkeypatch.setattr(experiment_module, "load", lambda name: (load(name)[0], run_phase))
    searched(tmp_path)
    run_experiment(tmp_path / "e.yaml", tmp_path / "out")
    assert [(type(c).__name__, c.beta) for c in ran] == [
        ("TuneDPOConfig", 0.2),
        ("DPOConfig", 0.37),
    ]


def test_only_the_named_phases_run_and_a_wrong_name_names_the_nearest(tmp_path):
    with pytest.raises(UserError, match=r"--only: .* has no phase 'frist'; did you mean 'first'\?"):
        run_experiment(experiment(tmp_path), tmp_path / "out", only=["frist"])
    assert not (tmp_path / "out" / "first").exists()
    run_experiment(experiment(tmp_path), tmp_path / "out", only=["first"])
    assert (tmp_path / "out" / "first" / "manifest.json").is_file()
    assert not (tmp_path / "out" / "deep").exists()
