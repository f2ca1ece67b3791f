"""``responses`` with the local engine: files, records, several adapters, kills."""

from __future__ import annotations

import csv
import json
import logging
import signal
from pathlib import Path

import pytest
from forked_programs import COMMAND, ForkedPrograms
from responses_settings import responses_config
from tiny_models import WORDS, tiny_adapter, tiny_mistral

from jaxmodpo.errors import UserError
from jaxmodpo.files import read_json
from jaxmodpo.models.adapters import BASE_FILE
from jaxmodpo.records import Question, read_responses, write_questions
from jaxmodpo.sampling.command import responses


def test_every_question_gets_its_replies_under_unique_ids(model: Path, tmp_path: Path):
    phase = responses(responses_config(model, tmp_path, model_name="base"))
    rows = read_responses(tmp_path / "out" / "responses.csv")
    assert [r.response_id for r in rows] == [f"q{n}_{k}" for n in range(10) for k in range(3)]
    assert {r.model_name for r in rows} == {"base"} and phase.results["responses"] == 30
    assert len({r.response_text for r in rows}) > 5


KILLER = """
import os, signal, sys
import jaxmodpo.sampling.local as local
real, calls = local.Engine._harvest, 0
def harvest(*a, **k):
    global calls
    calls += 1
    if calls == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*a, **k)
local.Engine._harvest = harvest
from jaxmodpo.cli import main
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_killed_sampling_resumes_to_the_same_bytes(
    model: Path, tmp_path: Path, forked_programs: ForkedPrograms
):
    config = responses_config(model, tmp_path)
    responses(config)
    flags = (
        f"responses --model {model} --questions {config.questions} --output-dir"
        f" {tmp_path / 'killed'} --samples 3 --max-new-tokens 8 --batch-size 4 --base-dtype float32"
    ).split()
    ((code, output),) = forked_programs.endings([forked_programs.start(KILLER, flags)])
    assert code == -signal.SIGKILL, output[-2000:]
    journal = tmp_path / "killed" / "sampled.jsonl"
    assert 0 < len(journal.read_text().splitlines()) < 30
    with journal.open("a") as file:
        file.write('{"response_text": "torn')
    forked_programs.run(COMMAND, flags)
    assert (tmp_path / "killed" / "responses.csv").read_bytes() == (
        tmp_path / "out" / "responses.csv"
    ).read_bytes()
    assert read_json(tmp_path / "killed" / "manifest.json")["status"] == "finished"


@pytest.mark.parametrize(
    "changes",
    [
        {"samples": 0},
        {"temperature": -1.0},
        {"top_p": 0.0},
        {"max_new_tokens": 0},
        {"batch_size": 0},
    ],
)
def test_settings_that_cannot_sample_are_refused(model: Path, tmp_path: Path, changes: dict):
    with pytest.raises(UserError):
        responses(responses_config(model, tmp_path, **changes))


def records(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow(seconds=10)
def test_each_reply_is_recorded_with_what_made_it(model: Path, tmp_path: Path):
    adapter = tiny_adapter(tmp_path / "adapter", model, seed=1)
    phase = responses(responses_config(model, tmp_path, adapter=adapter, seed=3))
    rows = records(tmp_path / "out" / "responses.csv")
    assert set(rows[0]) == {
        "question_id",
        "question_text",
        "response_id",
        "response_text",
        "number",
        "model",
        "adapter",
        "settings",
        "seed",
        "finish_reason",
        "tokens",
        "prompt_tokens",
    }
    assert {row["model"] for row in rows} == {model.name}
    assert [row["number"] for row in rows] == ["0", "1", "2"] * 10
    assert all(int(row["prompt_tokens"]) > 4 for row in rows)
    assert {row["seed"] for row in rows} == {"3"}
    assert len({row["adapter"] for row in rows} | {""}) == 2
    reasons = [row["finish_reason"] for row in rows]
    assert set(reasons) == {"end", "length"}
    assert all(int(row["tokens"]) == 8 for row in rows if row["finish_reason"] == "length")
    assert all(1 <= int(row["tokens"]) <= 8 for row in rows)
    assert phase.results["cut_at_max_new_tokens"] == reasons.count("length")


@pytest.mark.slow(seconds=15)
def test_several_adapters_reply_in_one_run_as_each_does_alone(model: Path, tmp_path: Path):
    first = tiny_adapter(tmp_path / "first", model, seed=1)
    second = tiny_adapter(tmp_path / "second", model, seed=2)
    phase = responses(
        responses_config(
            model, tmp_path, adapters=(f"one={first}", f"two={second}", "bare=base"), samples=2
        )
    )
    cut_by_model = phase.results["cut_at_max_new_tokens_by_model"]
    assert sum(cut_by_model.values()) == phase.results["cut_at_max_new_tokens"] > 0
    for name, adapter in {"one": first, "two": second, "bare": None}.items():
        together = read_responses(tmp_path / "out" / name / "responses.csv")
        assert cut_by_model[name] == sum(reply.finish_reason == "length" for reply in together)
        assert {reply.model_name for reply in together} == {name}
        alone = tmp_path / f"alone_{name}"
        responses(
            responses_config(
                model, tmp_path, adapter=adapter, samples=2, output_dir=alone, model_name=name
            )
        )
        expected = read_responses(alone / "responses.csv")
        assert [reply.response_text for reply in together] == [
            reply.response_text for reply in expected
        ]
    assert not (tmp_path / "out" / "responses.csv").exists()


def test_a_stop_string_is_left_out_and_named_as_the_reason(model: Path, tmp_path: Path):
    free = tmp_path / "free"
    responses(responses_config(model, tmp_path, output_dir=free))
    responses(responses_config(model, tmp_path, stop=(WORDS[3],)))
    stopped = 0
    for whole, row in zip(
        records(free / "responses.csv"), records(tmp_path / "out" / "responses.csv"), strict=True
    ):
        text, stop_text, _ = whole["response_text"].partition(WORDS[3])
        assert row["response_text"] == text.rstrip()
        assert (row["finish_reason"] == "stop") == bool(stop_text)
        stopped += bool(stop_text)
    assert stopped > 3


def test_an_adapter_of_other_weights_is_refused_though_it_fits(model: Path, tmp_path: Path):
    other = tiny_mistral(tmp_path / "other", gain=7.0, vocab_size=16, num_key_value_heads=1)
    adapter = tiny_adapter(tmp_path / "adapter", other, seed=1)
    with pytest.raises(UserError, match="was trained on other weights than those of"):
        responses(responses_config(model, tmp_path, adapter=adapter))
    # What is refused makes nothing, and the folder is free for other settings.
    assert [path.name for path in (tmp_path / "out").iterdir() if path.suffix == ".jsonl"] == []
    (adapter / BASE_FILE).write_text(json.dumps({"weights": 5}))
    with pytest.raises(UserError, match="must hold"):
        responses(responses_config(model, tmp_path, adapter=adapter))


def test_an_adapter_that_records_no_weights_is_warned_of(model: Path, tmp_path: Path, caplog):
    adapter = tiny_adapter(tmp_path / "adapter", model, seed=1)
    (adapter / BASE_FILE).unlink()
    with caplog.at_level(logging.WARNING):
        responses(responses_config(model, tmp_path, adapter=adapter, samples=1))
    assert "does not record which weights it was trained on" in caplog.text


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"adapters": ("a=x", "a=y")}, "the name 'a' is given twice"),
        ({"adapters": ("a/b=x",)}, "becomes a folder's name"),
        ({"adapters": ("..=x",)}, "becomes a folder's name"),
        ({"adapters": (".shares=x",)}, "'.shares' would be a hidden folder"),
        ({"adapters": (".lock=x",)}, "'.lock' would be a hidden folder"),
        ({"adapters": ("checkpoints=x",)}, "'checkpoints' is like the name of a database"),
        ({"adapters": ("my.db=x",)}, "'my.db' is like the name of a database"),
        ({"adapters": ("a=x",), "model_name": "b"}, "give no --adapter and no --model-name"),
        ({"adapters": ("sampled.jsonl=x",)}, "the run itself has a file named"),
        ({"max_new_tokens": 140_000}, "go beyond the 131072 positions"),
        ({"mesh": (3, 1, 1)}, "--mesh 3 1 1 needs 3 devices"),
        ({"stop": ("",)}, "--stop holds an empty text"),
        ({"dry_run": True}, "--dry-run of responses is for --engine endpoint"),
    ],
)
def test_what_cannot_be_sampled_is_refused_in_one_sentence(
    model: Path, tmp_path: Path, changes: dict, sentence: str
):
    with pytest.raises(UserError, match=sentence):
        responses(responses_config(model, tmp_path, **changes))


def test_an_end_token_that_the_model_lacks_is_refused(tmp_path: Path):
    folder = tiny_mistral(tmp_path / "model", gain=8.0, vocab_size=16, num_key_value_heads=1)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 99]}))
    with pytest.raises(UserError, match=r"the end token 99 .* beyond the model's 16 tokens"):
        responses(responses_config(folder, tmp_path))


def test_a_question_without_text_is_refused(model: Path, tmp_path: Path):
    config = responses_config(model, tmp_path)
    write_questions(config.questions, [Question("q1", "a"), Question("q2", "  ")])
    with pytest.raises(UserError, match="the question q2 has no text to reply to"):
        responses(config)
    assert not (tmp_path / "out" / "sampled.jsonl").exists()


def test_another_way_of_drawing_in_the_models_folder_is_told(model: Path, tmp_path: Path, caplog):
    folder = tiny_mistral(tmp_path / "model", gain=8.0, vocab_size=16, num_key_value_heads=1)
    (folder / "generation_config.json").write_text(
        json.dumps({"temperature": 0.8, "top_k": 50, "eos_token_id": 2})
    )
    with caplog.at_level(logging.INFO):
        responses(responses_config(folder, tmp_path, samples=1))
    assert "asks for top_k 50 in its generation_config.json" in caplog.text
