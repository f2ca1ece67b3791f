"""What a sweep measures of its models, several in one sampling run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import TINY_POLICY, WORDS, tiny_adapter, tiny_mistral

from jaxmodpo.files import read_json
from jaxmodpo.methods import divergence
from jaxmodpo.policy import loaded
from jaxmodpo.records import Question, write_questions
from jaxmodpo.search.measuring import Measure, SweptModel, _groups
from jaxmodpo.search.sweep_settings import SweepConfig
from jaxmodpo.training import session as session_module
from jaxmodpo.training.session import Session


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measuring")
    write_questions(folder / "q.csv", [Question(f"q{n}", WORDS[n % 8]) for n in range(4)])
    tiny_mistral(folder / "model", gain=8.0, vocab_size=16, num_key_value_heads=1)
    for seed in (1, 2):
        tiny_adapter(folder / f"adapter{seed}", folder / "model", seed)
    return folder / "model"


def swept(model: Path) -> list[SweptModel]:
    first, second = (model.parent / f"adapter{seed}" for seed in (1, 2))
    return [
        SweptModel("modpo", first, (0.5, 0.5)),
        SweptModel("soup", second, (0.5, 0.5)),
        SweptModel("soup_scaled_0", second, (0.5, 0.5), 0.5),
    ]


def make_measure(model: Path, output_dir: Path, models_at_once: int) -> Measure:
    settings: dict[str, Any] = {
        **TINY_POLICY, "model": model, "pairs": model, "margin": ("length=column:m",), "score": (),
        "questions": model.parent / "q.csv", "output_dir": output_dir, "samples": 3,
        "max_new_tokens": 8, "max_prompt_length": 32, "sample_batch_size": 5,
        "models_at_once": models_at_once,
    }  # fmt: skip

    def length(_: str) -> Any:
        return lambda questions, texts: np.array([float(len(text)) for text in texts])

    return Measure(SweepConfig(**settings), {"length": length}, Session())


@pytest.mark.slow(seconds=20)
def test_models_measured_in_one_run_get_the_numbers_of_runs_of_their_own(
    model, tmp_path, monkeypatch
):
    runs: list[list[str]] = []
    run = divergence.Engine.run

    def counted(engine: Any, asks: Any, hand_out: Any) -> None:
        runs.append([ask.name for ask in asks])
        run(engine, asks, hand_out)

    monkeypatch.setattr(divergence.Engine, "run", counted)
    loads: list[Path] = []
    load_policy = loaded.load_policy

    def loaded_once(folder: Path, **settings: Any) -> Any:
        loads.append(folder)
        return load_policy(folder, **settings)

    monkeypatch.setattr(session_module, "load_policy", loaded_once)
    together = make_measure(model, tmp_path / "together", 3)(swept(model))
    assert (len(runs), len(runs[0]), len(loads)) == (1, 3 * 12, 1)
    alone = make_measure(model, tmp_path / "alone", 1)(swept(model))
    assert [len(asks) for asks in runs[1:]] == [12, 12, 12]
    # To the bit.
    assert together == alone
    assert len({measured.kl for measured in together}) == 3 and together[0].kl > 0
    for measured in together:
        path = Path("points") / f"{measured.label}.json"
        assert read_json(tmp_path / "together" / path) == read_json(tmp_path / "alone" / path)

    # What is measured is read; the model whose file is gone is measured again, in the same shapes.
    (tmp_path / "together" / "points" / "soup.json").unlink()
    again = make_measure(model, tmp_path / "together", 3)(swept(model))
    assert again == together and len(runs[-1]) == 12
    assert (tmp_path / "together" / "sampled.jsonl").read_text() == ""


def test_groups_are_few_and_even():
    models = [SweptModel(str(number), None, None) for number in range(9)]
    assert [len(group) for group in _groups(models, 4)] == [3, 3, 3]
    assert [len(group) for group in _groups(models, 9)] == [9]
    assert [len(group) for group in _groups(models[:5], 4)] == [2, 3]
    assert [model for group in _groups(models, 2) for model in group] == models
