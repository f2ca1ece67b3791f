"""Damaged and misshapen files: whatever they hold, reading them succeeds or ends in a UserError.

Small right files are changed at random, with a seed: a value becomes one of another type, a key
goes or stands twice, the text is cut or bytes are put into it. ``WRONG_SHAPES=5000`` in the
environment tries as many changes of each file.
"""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from right_results import RIGHT_RESULTS

from jaxmodpo.bench.injection_trials import load_trials
from jaxmodpo.config import as_mapping, builtin, load_yaml
from jaxmodpo.criteria import load_criteria
from jaxmodpo.data.pairs import load_pairs
from jaxmodpo.data.questions import QuestionsConfig
from jaxmodpo.endpoints.families import Families
from jaxmodpo.errors import UserError
from jaxmodpo.experiment import read_experiment, resolve
from jaxmodpo.flags.parse import parse
from jaxmodpo.journals import Journal
from jaxmodpo.judging.batch_files import BatchFiles
from jaxmodpo.judging.export import read_votes
from jaxmodpo.judging.prompts import Prompts
from jaxmodpo.methods.sft import SFTConfig
from jaxmodpo.models.adapter_config import read_adapter_config
from jaxmodpo.models.checkpoint import tensor_files
from jaxmodpo.models.decoder import parameter_table
from jaxmodpo.models.decoder_config import DecoderConfig
from jaxmodpo.models.model_folder import read_end_tokens, read_model_config
from jaxmodpo.models.roberta_config import RobertaConfig
from jaxmodpo.models.shapes import SHAPES
from jaxmodpo.personas.mapping import load_mapping
from jaxmodpo.phase import Phase
from jaxmodpo.probes.probe_set import load_probe_set
from jaxmodpo.ranges import incidental
from jaxmodpo.records import Question, read_personas, read_questions, read_rankings, read_responses
from jaxmodpo.report.run_folders import read_metrics
from jaxmodpo.results.versioned import Result, plain, read_result
from jaxmodpo.sampling.journal import PlannedReply, row, sampled
from jaxmodpo.search.space import load_space
from jaxmodpo.toxicity.question import load_question

TRIES = int(os.environ.get("WRONG_SHAPES", "25"))

# --------------------------------------------------------------------------- right files

_REPLY = {"response_id": "r1", "response_text": "I hear you."}
_OTHER = {"response_id": "r2", "response_text": "Get over it."}
_PAIR = {
    "question_id": "q1",
    "question_text": "I cannot sleep.",
    "chosen": _REPLY,
    "rejected": _OTHER,
}
_RANKED = [_REPLY | {"rank": 1}, _OTHER | {"rank": 2}]
_VOTE = {
    **{
        "key": "k",
        "kind": "compare",
        "question_id": "q",
        "persona_id": "p",
        "criterion": "safety",
        "repeat": 0,
    },
    **{
        "shown": ["r1", "r2"],
        "order": ["r1"],
        "status": "valid",
        "raw": "{}",
        "model": "m",
        "judge": "j",
        "run": "r",
    },
    **{
        "call": "c",
        "prompt_tokens": 1.0,
        "cached_tokens": 0.0,
        "completion_tokens": 2.0,
        "cost": None,
    },
    **{"request_id": "", "time": "2026-01-01T00:00:00Z"},
    "score": None,
}
_ADAPTER = {
    **{
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": 4,
        "lora_alpha": 8,
        "lora_dropout": 0.05,
        "bias": "none",
    },
    **{
        "target_modules": ["q_proj", "v_proj"],
        "use_rslora": False,
        "init_lora_weights": True,
        "eva_config": None,
    },
}
_EXPERIMENT = {
    "name": "one",
    "seed": 5,
    "variables": {"size": 8, "posts": "posts.csv"},
    "phases": [
        {
            "name": "first",
            "command": "questions",
            "settings": {"input": ["$posts"], "test_size": "$size"},
        }
    ],
}
_CONFIG = QuestionsConfig(input=(Path("a.csv"),), test_size=8, output_dir=Path("out"))
_QUESTIONS = {
    name: value
    for name, value in as_mapping(_CONFIG).items()
    if name not in incidental(type(_CONFIG))
}
_ENVIRONMENT = {"versions": {"jaxmodpo": "0.1"}, "platform": "Linux"}
_MANIFEST = {
    "version": 1,
    "status": "finished",
    "identity": {"command": "questions", "settings": _QUESTIONS, "inputs": {}},
    "outputs": {"a.csv": {"bytes": 0, "sha256": "0"}},
    "input_paths": {},
    "started": "2026-01-02T03:04:05Z",
    "environment": _ENVIRONMENT,
    "lives": [{"started": "2026-01-02T03:04:05Z", "process": 1, "environment": _ENVIRONMENT}],
    "removed": ["sampled.jsonl"],
    "results": {"test": 8},
}
_HEADER = {"identity": "i", "model": "m", "round": 1}
_ASKED = {
    **{"key": "k", "kind": "rank", "question_id": "q", "persona_id": "p", "criteria": ["safety"]},
    **{"responses": ["r1", "r2"], "ties": False, "yes_no": False, "repeat": 0},
}
_SAMPLED = row(PlannedReply(Question("q", "text"), 0), "s") | {
    "response_text": "I hear you.",
    "finish_reason": "end",
    "tokens": 4,
}


# --------------------------------------------------------------------------- readers


def _read_experiment(path: Path) -> None:
    experiment = read_experiment(path)
    for phase in experiment.phases:
        if phase.command == "questions":
            resolve(
                phase, Path("out"), experiment.seed, "e.yaml", {"size": "8", "posts": "posts.csv"}
            )


def _open_phase(path: Path) -> None:
    phase = Phase.open("questions", _CONFIG, path.parent, {})
    if phase._lock is not None:
        phase._lock.release()


def _read_batch(path: Path) -> None:
    files = BatchFiles(path.parent, "t")
    files.header()
    list(files.calls())


def _read_sampled(path: Path) -> None:
    journal = Journal(path)
    sampled(journal, "s")
    journal.close()


def _read_encoder(path: Path) -> None:
    RobertaConfig.from_mapping(read_model_config(path.parent), "config.json")


def _read_decoder(path: Path) -> None:
    parameter_table(DecoderConfig.from_mapping(read_model_config(path.parent), "config.json"))


def _versioned(result: Result) -> Any:
    return {"version": result.VERSION, **plain(result)}


def _read_as(result: Result) -> Callable[[Path], Any]:
    return lambda path: read_result(path, type(result))


RIGHT: dict[str, tuple[Any, Callable[[Path], Any]]] = {
    "experiment.yaml": (_EXPERIMENT, _read_experiment),
    "config.yaml": (
        {"input": ["a.csv"], "test_size": 8, "seed": 1, "output_dir": "out"},
        lambda path: parse(QuestionsConfig, ["--config", str(path)], "questions"),
    ),
    "criteria.yaml": (load_yaml(builtin("criteria", "gricean")), load_criteria),
    "prompts.yaml": (load_yaml(builtin("judging", "prompts")), Prompts.load),
    "scores.yaml": (load_yaml(builtin("judging", "scores")), Prompts.load),
    "yes_no.yaml": (load_yaml(builtin("judging", "harm_yes_no")), load_question),
    "models.yaml": (load_yaml(builtin("judging", "models")), Families.load),
    "injections.yaml": (
        {"posts": [{"post": "p", "honest": ["h"], "poor": "x"}], "personas": ["a"], "injections": {"i": "$reply"}},
        lambda path: list(load_trials(path, "safety", 1)),
    ),
    "probes.yaml": (
        {"version": 1, "probes": [
            {"id": "a", "kind": "suicide", "form": "explicit", "expects": "risk", "text": "I want out."}]},
        load_probe_set,
    ),
    "mapping.yaml": (load_yaml(builtin("personas", "canonical")), load_mapping),
    "space.yaml": (
        {"sft": {"learning_rate": {"low": 1e-6, "high": 1e-4, "log": True}, "epochs": [1, 2], "lora_rank": [8, 16]}},
        lambda path: load_space(str(path), "sft", SFTConfig),
    ),
    "train_personas.json": ({"p1": "You are 30.", "p2": "You are 40."}, read_personas),
    "pairs.json": ([_PAIR, _PAIR | {"question_id": 7}], load_pairs),
    "pairs.jsonl": ([{"prompt": "p", "chosen": "a", "rejected": "b"}, _PAIR], load_pairs),
    "chats.jsonl": (
        [{"chosen": [{"role": "user", "content": "p"}, {"role": "assistant", "content": w}], "rejected": [
            {"role": "user", "content": "p"}, {"role": "assistant", "content": "l"}]} for w in "ab"],
        load_pairs,
    ),
    "safety_rankings.json": (
        [{"question_id": "q1", "question_text": "I cannot sleep.", "ranking": _RANKED}],
        lambda path: (read_rankings(path), load_pairs(path, "all")),
    ),
    "config.json": (SHAPES["llama-3.2-1b"] | {"rope_theta": 5e5, "id2label": {"0": "a"}}, _read_decoder),
    "mistral/config.json": (SHAPES["mistral-7b-v0.1"], _read_decoder),
    "roberta/config.json": (
        SHAPES["roberta-base"] | {"id2label": {"0": "a"}, "hidden_dropout_prob": 0.1},
        _read_encoder,
    ),
    "generation_config.json": ({"eos_token_id": [1, 2]}, lambda path: read_end_tokens(path.parent, 2)),
    "model.safetensors.index.json": (
        {"weight_map": {"a": "model-1.safetensors"}},
        lambda path: tensor_files(path.parent),
    ),
    "adapter_config.json": (_ADAPTER, lambda path: read_adapter_config(path.parent)),
    "manifest.json": (_MANIFEST, _open_phase),
    "metrics.jsonl": ([{"step": 1, "loss": 0.5}, {"step": 2, "eval_loss": None}], read_metrics),
    **{name: (_versioned(result), _read_as(result)) for name, result in RIGHT_RESULTS.items()},
    "votes.jsonl": ([_VOTE], lambda path: list(read_votes(path))),
    "sampled.jsonl": ([_SAMPLED], _read_sampled),
    "t.requests.jsonl": ([_HEADER, _ASKED], _read_batch),
    "questions.csv": ("question_id,question_text\nq1,I cannot sleep.\nq2,\"a, b\"\n", read_questions),
    "responses.csv": (
        "question_id,question_text,response_id,response_text\nq1,I cannot sleep.,r1,I hear you.\n",
        read_responses,
    ),
}  # fmt: skip

# --------------------------------------------------------------------------- changes

OTHER_VALUES: list[Any] = [
    *(
        None,
        0,
        -1,
        5,
        1.5,
        1e308,
        10**400,
        float("nan"),
        float("inf"),
        True,
        False,
        "",
        "abc",
        "1e-5",
        "5",
        "../x",
    ),
    *("--seed", "$", "$out", "a\0b", "\ud800", "[{'role': 'user'}]", "x" * 5000),
    *([], {}, [None], [[1]], ["a"], {"a": 1}, {"": None}, {"a": {"b": [1]}}, list(range(100))),
]
BYTES = [
    b"\x00",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\r",
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"\n",
    b"- ",
    b"&a *a",
    b"\\",
]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each container with each of its keys."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def _changed(right: Any, draw: random.Random) -> Any:
    """Return a value with one to three places changed: another value, no key, a copy under another
    key.
    """
    value = copy.deepcopy(right)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        places = list(_places(value)) if isinstance(value, dict | list) else []
        if not places or draw.random() < 0.03:
            return copy.deepcopy(draw.choice(OTHER_VALUES))
        container, key = draw.choice(places)
        kind = draw.random()
        if kind < 0.7:
            container[key] = copy.deepcopy(draw.choice(OTHER_VALUES))
        elif kind < 0.85:
            del container[key]
        elif isinstance(container, dict):
            container[draw.choice([5, None, True, 1.5, "new", "Name"])] = container[key]
        else:
            container.append(copy.deepcopy(container[key]))
    return value


def _written(value: Any, name: str) -> bytes:
    if isinstance(value, str) and name.endswith(".csv"):
        text = value
    elif name.endswith(".yaml"):
        text = yaml.safe_dump(value, allow_unicode=True)
    elif name.endswith(".jsonl"):
        text = "".join(
            json.dumps(part) + "\n" for part in (value if isinstance(value, list) else [value])
        )
    else:
        text = json.dumps(value)
    return text.encode("utf-8", "surrogatepass")


def _damaged(content: bytes, draw: random.Random) -> bytes:
    """Return bytes cut, with others put into them, or with a line twice."""
    kind, at = draw.random(), draw.randrange(len(content) + 1)
    if kind < 0.3:
        return content[:at]
    if kind < 0.8:
        return content[:at] + draw.choice(BYTES) + content[at:]
    lines = content.splitlines(keepends=True) or [b""]
    at = draw.randrange(len(lines))
    return b"".join([*lines[: at + 1], *lines[at:]])


def _wrong(right: Any, name: str, draw: random.Random) -> bytes:
    if isinstance(right, str) or draw.random() < 0.25:
        return _damaged(_written(right, name), draw)
    try:
        return _written(_changed(right, draw), name)
    except (TypeError, ValueError):
        # Keys that JSON cannot have, and numbers too long to be written.
        return _damaged(_written(right, name), draw)


@pytest.mark.parametrize("name", RIGHT)
def test_a_wrong_file_is_read_or_refused_in_a_sentence(name, tmp_path):
    right, read = RIGHT[name]
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if name == "manifest.json":
        (tmp_path / "a.csv").touch()
    path.write_bytes(_written(right, name))
    if name != "model.safetensors.index.json":
        read(path)
    for seed in range(TRIES):
        content = _wrong(right, name, random.Random(f"{name} {seed}"))
        path.write_bytes(content)
        try:
            read(path)
        except UserError as error:
            assert "\n" not in str(error).strip(), (seed, str(error))
        except Exception as error:
            pytest.fail(f"seed {seed}: {type(error).__name__}: {error}; {content[:2000]!r}")
