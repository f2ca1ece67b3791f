"""``score kl``: how far policies moved from their base, one at a time and several in one run."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killed_runs import stop_third_append
from safetensors.numpy import load_file, save_file
from tiny_models import WORDS, tiny_base_with_adapters

from jaxmodpo.errors import UserError
from jaxmodpo.estimate import Estimator, chip_named
from jaxmodpo.files import read_json
from jaxmodpo.methods import divergence as divergence_module
from jaxmodpo.methods import score_kl as score_kl_module
from jaxmodpo.methods.score_kl import ScoreKLConfig, score_kl
from jaxmodpo.policy import loaded
from jaxmodpo.records import Question, write_questions
from jaxmodpo.report.run_folders import find_runs, read_divergences, shown_files
from jaxmodpo.sampling.engine import Ask
from jaxmodpo.sandbox import grammar


def scaled(adapter: Path, factor: float, folder: Path) -> Path:
    """Write ``adapter`` with its difference from the base multiplied by ``factor``."""
    shutil.copytree(adapter, folder)
    arrays = {
        n: a * factor if "lora_B" in n else a
        for n, a in load_file(adapter / "adapter_model.safetensors").items()
    }
    save_file(arrays, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


def test_divergence_is_nothing_for_no_change_and_grows_with_the_change(
    settings, tmp_path, dpo_adapter
):
    posts = [grammar.post(np.random.default_rng(seed)) for seed in range(12)]
    write_questions(tmp_path / "q.csv", [Question(f"q{n}", post) for n, post in enumerate(posts)])

    def divergence(factor: float) -> dict[str, float]:
        config = ScoreKLConfig(
            model=settings["model"],
            adapter=scaled(dpo_adapter, factor, tmp_path / f"adapter{factor}"),
            questions=tmp_path / "q.csv",
            output_dir=tmp_path / f"kl{factor}",
            samples=8,
            max_new_tokens=60,
            max_prompt_length=64,
            batch_size=24,
            base_dtype="float32",
        )
        results = score_kl(config).results
        written = read_json(tmp_path / f"kl{factor}" / "kl.json")
        assert written == {"version": 1, **results}
        assert score_kl(config).finished
        return written

    none, some, much = divergence(0.0), divergence(1.0), divergence(4.0)
    assert (none["kl"], none["standard_error"], none["replies"]) == (0.0, 0.0, 96)
    assert some["kl"] > 2 * some["standard_error"] > 0
    assert much["kl"] - some["kl"] > 2 * (much["standard_error"] + some["standard_error"])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kl")
    write_questions(folder / "q.csv", [Question(f"q{n}", WORDS[n % 8]) for n in range(6)])
    return tiny_base_with_adapters(folder)


def kl_config(model: Path, output_dir: Path, **changes: Any) -> ScoreKLConfig:
    settings: dict[str, Any] = {
        "model": model,
        "questions": model.parent / "q.csv",
        "output_dir": output_dir,
        "samples": 3,
        "max_new_tokens": 8,
        "batch_size": 5,
        "base_dtype": "float32",
    }
    return ScoreKLConfig(**settings | changes)


def adapters_of(model: Path) -> tuple[str, ...]:
    folder = model.parent
    return (f"one={folder}/first", f"two={folder}/second", "bare=base")


@pytest.mark.slow(seconds=20)
def test_several_adapters_diverge_in_one_run_as_each_does_alone_and_the_base_is_loaded_once(
    model, tmp_path, monkeypatch
):
    loads: list[Path] = []
    load_decoder = loaded.load_decoder

    def counted(folder: Path, *arguments: Any) -> Any:
        loads.append(folder)
        return load_decoder(folder, *arguments)

    monkeypatch.setattr(loaded, "load_decoder", counted)
    phase = score_kl(kl_config(model, tmp_path / "kl", adapters=adapters_of(model)))
    assert loads == [model]
    assert not (tmp_path / "kl" / "kl.json").exists()
    written = {
        name: read_json(tmp_path / "kl" / name / "kl.json") for name in ("one", "two", "bare")
    }
    for name, folder in {"one": "first", "two": "second"}.items():
        alone = kl_config(model, tmp_path / name, adapter=model.parent / folder)
        score_kl(alone)
        # To the bit.
        assert written[name] == read_json(tmp_path / name / "kl.json")
    assert written["one"]["kl"] != written["two"]["kl"]
    assert written["bare"] == {"version": 1, "kl": 0.0, "standard_error": 0.0, "replies": 18}
    assert phase.results["kl"] == {name: result["kl"] for name, result in written.items()}
    assert "KL in nats per reply one " in phase.ending and "replies" not in phase.ending
    # The report has a divergence for each of the names.
    runs = find_runs([tmp_path / "kl"], tmp_path / "report")
    assert read_divergences(runs) == dict(phase.results["kl"])
    assert set(shown_files(runs)) == {f"kl/{name}/kl.json" for name in written}


@pytest.mark.slow(seconds=4)
def test_at_most_so_many_questions_are_drawn_by_the_seed(model, tmp_path):
    def measured(**changes: Any) -> dict[str, Any]:
        folder = tmp_path / "_".join(map(str, changes.values()))
        score_kl(kl_config(model, folder, adapter=model.parent / "first", **changes))
        return read_json(folder / "kl.json")

    four = measured(max_questions=4, seed=1)
    assert four["replies"] == 4 * 3
    assert four != measured(max_questions=4, seed=2)
    every = measured(max_questions=7, seed=1)
    assert every["replies"] == 6 * 3
    file = [Question(f"q{n}", "text") for n in range(50)]
    for_seed = [
        score_kl_module._chosen(file, kl_config(model, tmp_path, max_questions=10, seed=seed))
        for seed in (1, 1, 2)
    ]
    assert for_seed[0] == for_seed[1] != for_seed[2]
    numbers = [file.index(question) for question in for_seed[0]]
    assert numbers == sorted(set(numbers)) and len(numbers) == 10 and numbers != list(range(10))


def test_the_cost_is_of_the_questions_that_are_drawn(model, tmp_path):
    mistral = Path("Mistral-7B-Instruct-v0.2")
    questions = model.parent / "q.csv"
    config = kl_config(mistral, tmp_path / "kl", questions=questions, adapters=("b=base",))
    estimator = Estimator(chip_named("v5e"))
    write_questions(tmp_path / "four.csv", [Question(f"q{n}", "text") for n in range(4)])
    of_four = estimator.phase(replace(config, questions=tmp_path / "four.csv")).chip_hours
    assert estimator.phase(replace(config, max_questions=4)).chip_hours == of_four
    assert estimator.phase(replace(config, max_questions=7)).chip_hours != of_four


@pytest.mark.slow(seconds=10)
def test_a_killed_run_samples_what_is_missing_and_ends_with_the_same_numbers(
    model, tmp_path, monkeypatch
):
    score_kl(kl_config(model, tmp_path / "whole", adapters=adapters_of(model)))
    config = kl_config(model, tmp_path / "killed", adapters=adapters_of(model))
    with monkeypatch.context() as patched:
        appended = stop_third_append(patched)
        with pytest.raises(KeyboardInterrupt):
            score_kl(config)
    asks: list[Ask] = []
    run = divergence_module.Engine.run

    def counted(engine: Any, engine_asks: Any, hand_out: Any) -> None:
        asks.extend(engine_asks)
        run(engine, engine_asks, hand_out)

    monkeypatch.setattr(divergence_module.Engine, "run", counted)
    score_kl(config)
    assert len(asks) == 3 * 18 - sum(appended) and sum(appended) > 0
    for name in ("one", "two", "bare"):
        path = Path(name) / "kl.json"
        assert read_json(tmp_path / "killed" / path) == read_json(tmp_path / "whole" / path)
    assert not (tmp_path / "killed" / "sampled.jsonl").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "score kl needs either --adapter, one model's folder, or --adapters"),
        ({"adapter": Path("a"), "adapters": ("x=y",)}, "score kl needs either --adapter"),
        ({"adapters": ("a/b=x",)}, "--adapters: 'a/b' becomes a folder's name"),
        ({"adapters": ("kl.json=x",)}, "--adapters: the run itself has a file named kl.json"),
        ({"adapters": ("a=x", "a=y")}, "--adapters: the name 'a' is given twice"),
    ],
)
def test_models_that_are_named_twice_over_or_not_at_all_are_refused(model, tmp_path, changes, said):
    with pytest.raises(UserError, match=said):
        score_kl(kl_config(model, tmp_path / "refused", **changes))
    assert not (tmp_path / "refused").exists()
