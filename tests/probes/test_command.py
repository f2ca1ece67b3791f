"""``probes`` end to end: files and models, killed runs, rates counted by hand, and wrong inputs."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import yaml
from killed_runs import stop_third_append
from tiny_models import WORDS, tiny_base_with_adapters

from jaxmodpo.cli import main
from jaxmodpo.errors import UserError
from jaxmodpo.estimate import Estimator, chip_named
from jaxmodpo.files import read_json, read_table, write_json
from jaxmodpo.probes.command import probes
from jaxmodpo.probes.probe_set import load_probe_set
from jaxmodpo.probes.rubric import SCREEN
from jaxmodpo.probes.settings import ProbesConfig
from jaxmodpo.probes.verdict import FALSE_ALARM, HARMS
from jaxmodpo.probes.verdict import GOOD as GOOD_CHECKS
from jaxmodpo.records import Response, read_questions, read_responses, write_responses
from jaxmodpo.results.manifest import read_manifest
from jaxmodpo.results.probes import CONTROL_CHECKS, RISK_CHECKS, ProbeResults
from jaxmodpo.results.versioned import read_result
from jaxmodpo.sampling.engine import Engine
from jaxmodpo.statistics.intervals import wilson_interval
from jaxmodpo.verify import VerifyConfig, verify

GOOD = "I am so sorry. Please call 988 or 911 now."
CALM = "Make a list and begin with the smallest task."


def small_set(folder: Path) -> Path:
    """Write two risks of one kind, one of another and a control, whose words a tiny model knows."""
    items = [
        ("a", "suicide", "explicit", "risk", "a b"),
        ("b", "suicide", "indirect", "risk", "c d"),
        ("c", "abuse", "explicit", "risk", "e f"),
        ("d", "suicide", "worry", "control", "g h"),
    ]
    names = ("id", "kind", "form", "expects", "text")
    path = folder / "small.yaml"
    probe_list = [dict(zip(names, item, strict=True)) for item in items]
    path.write_text(yaml.safe_dump({"version": 1, "probes": probe_list}))
    return path


def write_replies(folder: Path, name: str, texts: dict[str, list[str]]) -> str:
    probe_of = {probe.id: probe for probe in load_probe_set(small_set(folder)).probes}
    responses: list[Response] = []
    for probe_id, replies in texts.items():
        for number, text in enumerate(replies):
            text_of_probe = probe_of[probe_id].text if probe_id in probe_of else "?"
            responses.append(Response(probe_id, text_of_probe, f"{probe_id}{number}", text))
    write_responses(folder / f"{name}.csv", responses)
    return f"{name}={folder / name}.csv"


def test_rates_of_replies_in_files_are_those_counted_by_hand(tmp_path):
    good = write_replies(tmp_path, "good", {"a": [GOOD], "b": [GOOD], "c": [GOOD], "d": [CALM]})
    mixed = {"a": [GOOD, CALM], "b": [CALM, CALM], "c": ["You deserved it.", ""], "d": [GOOD, CALM]}
    config = ProbesConfig(
        output_dir=tmp_path / "out",
        probes=str(small_set(tmp_path)),
        responses=(good, write_replies(tmp_path, "mixed", mixed)),
    )
    phase = probes(config)
    results = read_result(tmp_path / "out" / "probes.json", ProbeResults)
    model = results.models["mixed"]
    counts = {check: rate.count for check, rate in model.risk.rates.items()}
    assert (model.risk.probes, model.risk.replies, model.empty) == (3, 6, 1)
    assert counts == {
        "passed": 1,
        "acknowledgement": 1,
        "resource": 1,
        "help": 1,
        "any_harm": 1,
        "method_details": 0,
        "agreement": 1,
        "dismissal": 0,
    }
    # Two replies to one probe, one of which passes, are half a success of one trial.
    assert model.risk.rates["passed"].interval == wilson_interval(0.5, 3)
    assert model.controls.rates["crisis_script"].count == 1
    assert model.controls.rates["crisis_script"].interval == wilson_interval(0.5, 1)
    assert list(model.risk_by_kind) == ["suicide", "abuse"]
    assert model.risk_by_kind["suicide"].rates["passed"].interval == wilson_interval(0.5, 2)
    assert list(model.risk_by_form) == ["explicit", "indirect"]
    assert model.risk_by_form["explicit"].replies == 4
    assert results.models["good"].risk.rates["passed"].count == 3
    assert results.note.startswith(SCREEN) and "searches for English phrases" in results.note
    assert phase.results["passed"] == {"good": 3, "mixed": 1}
    assert phase.results["false_alarms"] == {"good": 0, "mixed": 1}


def test_verdicts_and_table_hold_every_reply_and_rate_with_the_warning(tmp_path):
    good = write_replies(tmp_path, "good", {"a": [GOOD], "b": [CALM], "c": [GOOD], "d": [CALM]})
    probes(
        ProbesConfig(
            output_dir=tmp_path / "out", probes=str(small_set(tmp_path)), responses=(good,)
        )
    )
    verdicts = read_table(tmp_path / "out" / "verdicts.csv", ["note"])
    assert [(row["probe_id"], row["passed"], row["help"]) for row in verdicts] == [
        ("a", "yes", "yes"),
        ("b", "no", "no"),
        ("c", "yes", "yes"),
        ("d", "yes", "no"),
    ]
    assert verdicts[0]["response_text"] == GOOD and "resource: 988" in verdicts[0]["evidence"]
    table = read_table(tmp_path / "out" / "tables" / "probes.csv", ["share", "low", "high"])
    assert {row["note"] for row in [*verdicts, *table]} == {SCREEN}
    (passed,) = [
        row
        for row in table
        if (row["expects"], row["by"], row["check"]) == ("risk", "all", "passed")
    ]
    low, high = wilson_interval(2, 3) or (0, 0)
    assert (passed["count"], passed["replies"], passed["probes"]) == ("2", "3", "3")
    assert [float(passed[name]) for name in ("share", "low", "high")] == [2 / 3, low, high]
    assert verify(VerifyConfig(folders=(tmp_path / "out",))).exit_code == 0


def test_what_is_counted_are_the_checks_of_a_verdict():
    assert ("passed", *GOOD_CHECKS, "any_harm", *HARMS) == RISK_CHECKS
    assert ("passed", FALSE_ALARM, "any_harm", *HARMS) == CONTROL_CHECKS


def test_results_that_lack_a_rate_are_refused(tmp_path):
    good = write_replies(tmp_path, "good", {"a": [GOOD], "b": [CALM], "c": [GOOD], "d": [CALM]})
    out = tmp_path / "out"
    probes(ProbesConfig(output_dir=out, probes=str(small_set(tmp_path)), responses=(good,)))
    content = read_json(out / "probes.json")
    del content["models"]["good"]["risk_by_kind"]["abuse"]["rates"]["help"]
    write_json(out / "probes.json", content)
    with pytest.raises(UserError, match=r"probes\.json: models, good, risk, rates lacks 'help'"):
        read_result(out / "probes.json", ProbeResults)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base_with_adapters(tmp_path_factory.mktemp("probed"))


def sampling_config(model: Path, folder: Path, **changes: Any) -> ProbesConfig:
    settings: dict[str, Any] = {
        "model": model,
        "adapter": (f"one={model.parent}/first", f"two={model.parent}/second", "bare=base"),
        "probes": str(small_set(model.parent)),
        "output_dir": folder,
        "max_new_tokens": 6,
        "batch_size": 4,
        "base_dtype": "float32",
    }
    return ProbesConfig(**settings | changes)


@pytest.mark.slow(seconds=15)
def test_adapters_are_sampled_in_one_pass_and_a_killed_run_goes_on(model, tmp_path, monkeypatch):
    probes(sampling_config(model, tmp_path / "whole"))
    results = read_result(tmp_path / "whole" / "probes.json", ProbeResults)
    assert list(results.models) == ["one", "two", "bare"]
    texts = {
        name: [
            reply.response_text
            for reply in read_responses(tmp_path / "whole" / name / "responses.csv")
        ]
        for name in results.models
    }
    assert len(set(map(tuple, texts.values()))) == 3 and {len(t) for t in texts.values()} == {4}
    assert results.models["one"].risk.replies == 3
    with monkeypatch.context() as patched:
        appended = stop_third_append(patched)
        with pytest.raises(KeyboardInterrupt):
            probes(sampling_config(model, tmp_path / "killed"))
    asked_counts: list[int] = []
    run = Engine.run

    def counted(engine: Engine, asks: Any, hand_out: Any) -> None:
        asked_counts.append(len(asks))
        run(engine, asks, hand_out)

    monkeypatch.setattr(Engine, "run", counted)
    probes(sampling_config(model, tmp_path / "killed"))
    assert asked_counts == [12 - sum(appended)] and 0 < sum(appended) < 12
    for name in ("probes.json", "verdicts.csv", "one/responses.csv", "bare/responses.csv"):
        written = (tmp_path / "killed" / name).read_bytes()
        if name == "probes.json" or name == "verdicts.csv":
            assert written == (tmp_path / "whole" / name).read_bytes()
    assert not (tmp_path / "killed" / "sampled.jsonl").exists()
    # A finished folder is left as it is.
    assert probes(sampling_config(model, tmp_path / "killed")).was_finished


def test_the_base_alone_is_named_base_and_a_dry_run_counts_its_replies(model, tmp_path):
    config = sampling_config(model, tmp_path, adapter=())
    assert config.models() == {"base": None}
    cost = Estimator(chip_named("v5e")).phase(config)
    assert cost.disk == 4 * 2_000 and cost.chip_hours is not None and cost.chip_hours > 0
    absent = sampling_config(tmp_path / "absent", tmp_path, adapter=(), probes=config.probes)
    cost = Estimator(chip_named("v5e")).phase(absent)
    assert cost.chip_hours is None and "is not there" in cost.unknown[0]
    assert set(sampling_config(model, tmp_path).input_paths()) == {
        *("model", "adapter.one", "adapter.two", "probes", "rubric"),
    }


def test_questions_alone_are_written_for_an_endpoint(tmp_path):
    main(["probes", "--questions-only", "--output-dir", str(tmp_path / "q")])
    questions = read_questions(tmp_path / "q" / "questions.csv")
    assert len(questions) == 180 and questions[0].question_id == "suicide-explicit-1"
    assert read_manifest(tmp_path / "q" / "manifest.json").is_finished


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (
            {"a": [GOOD], "b": [GOOD], "c": [GOOD], "d": [CALM], "dd": [CALM]},
            "row 5: the question_id 'dd' is no probe",
        ),
        ({"a": [GOOD], "c": [GOOD]}, "2 of 4 probes have no reply, the first of them b"),
    ],
)
def test_wrong_files_of_replies_are_refused_with_file_and_row(tmp_path, texts, sentence):
    replies = write_replies(tmp_path, "x", texts)
    config = ProbesConfig(
        output_dir=tmp_path / "out", probes=str(small_set(tmp_path)), responses=(replies,)
    )
    with pytest.raises(UserError) as refused:
        probes(config)
    assert str(refused.value).startswith(f"{tmp_path}/x.csv") and sentence in str(refused.value)


def test_a_reply_to_another_wording_is_refused(tmp_path):
    replies = write_replies(tmp_path, "x", {"a": [GOOD], "b": [GOOD], "c": [GOOD], "d": [CALM]})
    path = tmp_path / "x.csv"
    rows = list(csv.DictReader(path.open()))
    path.write_text(path.read_text().replace(rows[1]["question_text"], "other words"))
    with pytest.raises(
        UserError, match=r"x\.csv, row 2: the question_text is not that of the probe b"
    ):
        probes(
            ProbesConfig(
                output_dir=tmp_path / "out", probes=str(small_set(tmp_path)), responses=(replies,)
            )
        )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "probes needs --model, a folder whose replies are sampled, or --responses"),
        ({"adapter": ("x=y",)}, "--adapter needs --model"),
        ({"model": Path("m"), "adapter": ("x",)}, "--adapter: 'x' must be NAME=VALUE"),
        ({"model": Path("m"), "adapter": ("a/b=x",)}, "--adapter: 'a/b' becomes a folder's name"),
        (
            {"model": Path("m"), "adapter": ("tables=x",)},
            "--adapter: the run itself has a file named tables",
        ),
        (
            {"model": Path("m"), "responses": ("base=x",)},
            "--responses: the name 'base' is also a sampled",
        ),
        ({"responses": ("a=x", "a=y")}, "--responses: the name 'a' is given twice"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, changes, sentence):
    with pytest.raises(UserError) as refused:
        probes(ProbesConfig(output_dir=tmp_path / "out", **changes))
    assert sentence in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_words_of_a_tiny_model_are_those_of_the_small_set(tmp_path):
    words = {
        word for probe in load_probe_set(small_set(tmp_path)).probes for word in probe.text.split()
    }
    assert words <= set(WORDS)
