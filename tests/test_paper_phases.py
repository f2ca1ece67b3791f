"""Both phases of the paper at tiny size, from posts to report, with a server of its own as judge
and as GPT-4o.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from local_http import JSONHandler, LocalServer
from safetensors.numpy import load_file, save_file

from jaxmodpo.cli import main
from jaxmodpo.experiment import read_experiment
from jaxmodpo.files import read_json, write_json
from jaxmodpo.records import read_responses
from jaxmodpo.report import gallery

ROOT = Path(__file__).parents[1]
SIZES = {
    "test_size": 12, "select": 12, "train": 8, "min_quality": 0.5, "personas_per_question": 3, "samples": 3,
    "max_new_tokens": 12, "lora_rank": 4, "lora_alpha": 8, "epochs": 1, "batch_size": 2, "accumulation": 1,
    "reward_epochs": 1, "reward_batch_size": 4, "reward_accumulation": 1,
}  # fmt: skip
PHASE_1 = (
    "base",
    "gpt_4o",
    "sft_empathy",
    "dpo_empathy",
    "modpo_empathy",
    "dpo_soup",
    "joint_loss_dpo",
)
PHASE_2 = ("base", "modpo_survey", "modpo_survey4", "modpo_maxim")


class _Chat(JSONHandler):
    """Judges where a schema asks for it, by a draw that hangs on what it reads, and else replies to
    a post.
    """

    asked: dict[str, list[dict[str, Any]]]

    def do_POST(self) -> None:
        body = json.loads(self.body())
        self.asked.setdefault(body["model"], []).append(body)
        message = {"role": "assistant", "content": _answer(body)}
        completion = {
            "id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": f"{body['model']}-2026",
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
        }  # fmt: skip
        self.reply(completion)


def _answer(body: dict[str, Any]) -> str:
    chance = random.Random(json.dumps(body["messages"]))
    if "response_format" not in body:
        return (
            f"I am sorry to hear that. Please tell me more about number {chance.randrange(1000)}."
        )
    answer: dict[str, Any] = {}
    for name, property_schema in body["response_format"]["json_schema"]["schema"][
        "properties"
    ].items():
        choices = (
            property_schema["items"]["enum"]
            if property_schema["type"] == "array"
            else property_schema["enum"]
        )
        order = chance.sample(choices, len(choices))
        answer[name] = order if property_schema["type"] == "array" else order[0]
    return json.dumps(answer)


@pytest.fixture
def chat() -> Iterator[tuple[str, dict[str, list[dict[str, Any]]]]]:
    """The server's URL, and what each model there was asked."""
    bodies_of_model: dict[str, list[dict[str, Any]]] = {}
    with LocalServer(type("Chat", (_Chat,), {"asked": bodies_of_model})) as server:
        yield server.url, bodies_of_model


def one_layer(model: Path, folder: Path) -> None:
    """Copy a model without the layers above its first, since most of the test's time goes into
    compiling them.
    """
    shutil.copytree(model, folder)
    write_json(folder / "config.json", read_json(folder / "config.json") | {"num_hidden_layers": 1})
    tensors = load_file(folder / "model.safetensors")
    settings = {
        name: tensor for name, tensor in tensors.items() if not re.search(r"\.layers?\.[1-9]", name)
    }
    save_file(settings, folder / "model.safetensors", {"format": "pt"})


def documented() -> list[tuple[str, list[str], list[str]]]:
    """What docs/files.md says: a command, the files that it always leaves, and those that it
    may.
    """
    table = (
        (ROOT / "docs" / "files.md")
        .read_text(encoding="utf-8")
        .split("| command | leaves | may leave |")[1]
        .split("\n\n")[0]
    )
    rows = [line.strip("|").split("|") for line in table.splitlines()[2:]]
    return [(row[0].strip(" `"), _names(row[1]), _names(row[2])) for row in rows]


def _names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def places(pattern: str, folder: Path) -> list[Path]:
    return [
        path for path in folder.glob(re.sub(r"\{\w+\}", "*", pattern.rstrip("/"))) if path.exists()
    ]


def check_files(command: str, folder: Path) -> None:
    """Every file that the docs name is there, and every file that is there has a name in the
    docs.
    """
    known_patterns = []
    for name, always, perhaps in documented():
        if name != "every command" and name not in (command, command.split()[0]):
            continue
        known_patterns += [*always, *perhaps]
        assert [pattern for pattern in always if not places(pattern, folder)] == [], (
            f"{command} leaves no such file"
        )
    named = [known_path for pattern in known_patterns for known_path in places(pattern, folder)]
    for path in folder.rglob("*"):
        if path.is_file() and path.name != ".lock":
            assert any(
                path == known_path or path.is_relative_to(known_path) for known_path in named
            ), f"{path} is not in docs/files.md"


def replies_of(out: Path, model: str) -> Path:
    """Return a model's file of test replies, whether it was sampled alone or beside others."""
    (path,) = (out / "test").rglob(f"{model}/responses.csv")
    return path


def votes_of(out: Path, models: tuple[str, ...]) -> int:
    """How many votes the paper's rule asks of three personas on two criteria: replies that are
    equal are a tie.
    """
    texts = [
        [reply.response_text for reply in read_responses(replies_of(out, model))]
        for model in models
    ]
    return (
        2
        * 3
        * sum(
            a != b
            for text, other_text in itertools.combinations(texts, 2)
            for a, b in zip(text, other_text, strict=True)
        )
    )


@pytest.mark.slow(seconds=140)
@pytest.mark.timeout(1800)
def test_both_phases_run_from_posts_to_report_and_once(tiny_world, tmp_path, chat, monkeypatch):
    url, bodies_of_model = chat
    monkeypatch.setenv("OPENAI_API_KEY", "a key")
    monkeypatch.setenv("JAXMODPO_CACHE", str(tmp_path / "cache"))
    # To embed TrueType fonts takes half the time of a figure; tests/report looks at those.
    monkeypatch.setitem(gallery._VECTOR, "pdf.fonttype", 3)
    for name in ("mistral", "roberta"):
        one_layer(tiny_world / name, tmp_path / name)
    files = {"mistral": tmp_path / "mistral", "roberta": tmp_path / "roberta"}
    files |= {"posts": tiny_world / "posts.csv", "survey": tiny_world / "survey.csv"}
    common = SIZES | files | {"judge": "gpt-5-mini", "judge_url": url}
    out = tmp_path / "out"

    def run(name: str, **more: str) -> None:
        variables = [f"{key}={value}" for key, value in (common | more).items()]
        main(
            [
                "run",
                str(ROOT / "configs" / f"{name}.yaml"),
                "--output-dir",
                str(out),
                "--set",
                *variables,
            ]
        )

    run("phase1", gpt_url=url)
    first = len(bodies_of_model["gpt-5-mini"])
    run("phase2")
    phases = {
        phase.name: phase
        for name in ("phase1", "phase2")
        for phase in read_experiment(_file(name)).phases
    }
    for phase in phases.values():
        folders = [out / phase.name]
        if phase.name.startswith("reward_"):
            folders = [out / phase.name / criterion for criterion in phase.settings["only"]]
        if phase.command == "responses" and "adapters" in phase.settings:
            assert read_json(out / phase.name / "manifest.json")["status"] == "finished"
            files = {path.name for path in (out / phase.name).iterdir()}
            assert files == {"manifest.json", *phase.settings["adapters"]}
            continue
        for part in folders:
            assert read_json(part / "manifest.json")["status"] == "finished", part
            check_files(phase.command, part)

    assert (
        bodies_of_model.keys() == {"gpt-5-mini", "gpt-4o"} and len(bodies_of_model["gpt-4o"]) == 12
    )
    assert {body["top_p"] for body in bodies_of_model["gpt-4o"]} == {0.95}
    assert not any("temperature" in body for body in bodies_of_model["gpt-5-mini"]), (
        "the family takes none"
    )
    for name, criteria in (("preferences", 2), ("preferences_survey", 4), ("preferences_maxim", 4)):
        results = read_json(out / name / "manifest.json")["results"]
        assert results["votes_asked"] == results["votes_valid"] == 28 * 3 * criteria
        for criterion, counts in results["criteria"].items():
            assert len(read_json(out / name / f"{criterion}_pairs.json")) == counts["pairs"]
            assert counts["pairs"] == 28 - counts["questions_without_pair"]
    for number, models in ((1, PHASE_1), (2, PHASE_2)):
        folder = out / f"evaluation_phase{number}"
        results = read_json(folder / "manifest.json")["results"]
        assert results["questions"] == results["questions_judged"] == 12
        assert results["votes_asked"] == results["valid"] == votes_of(out, models)
        assert set(read_json(folder / "results.json")["models"]) == set(models)
        report = (out / f"report_phase{number}" / "report.html").read_text(encoding="utf-8")
        assert [model for model in models if model not in report] == []
        assert [m for m in {*PHASE_1, *PHASE_2} - {*models} if f"evaluation_{m}" in report] == []
    assert first < len(bodies_of_model["gpt-5-mini"])

    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    calls = {model: len(bodies) for model, bodies in bodies_of_model.items()}
    run("phase1", gpt_url=url)
    run("phase2")
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before
    assert {model: len(bodies) for model, bodies in bodies_of_model.items()} == calls


def _file(name: str) -> Path:
    return ROOT / "configs" / f"{name}.yaml"
