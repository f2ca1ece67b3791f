"""``fit`` answers for the policy that a run would choose, and its search finds the fastest policy,
mesh and batch together.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import jax
import pytest

from jaxmodpo.bench import fit as bench_fit
from jaxmodpo.bench import fit_search, fit_step
from jaxmodpo.bench.fit import fit
from jaxmodpo.bench.fit_examples import batches_of
from jaxmodpo.bench.fit_settings import FitConfig
from jaxmodpo.models.remat import Remat
from jaxmodpo.policy.mesh import make_mesh
from jaxmodpo.training.ahead import Compiled
from jaxmodpo.training.fit import GIB
from jaxmodpo.training.hardware import Chip, chips

SHAPE = {
    "model_type": "llama",
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}

# So slow at arithmetic that nothing else counts.
CHIP = dataclasses.replace(chips()[0], hbm_gib=10.0, flops=1e9)

Pretend = Callable[[dict[Remat, float]], list[tuple[Remat, int]]]


@pytest.fixture
def pretend(monkeypatch) -> Pretend:
    """Return what makes the compiler say that a step needs 1 GiB, and of each policy so many for a
    question; it returns what is then compiled.
    """

    def begin(gib_of_a_question: dict[Remat, float]) -> list[tuple[Remat, int]]:
        attempts: list[tuple[Remat, int]] = []

        def compiled_step(config, batches, mesh, remat):
            attempts.append((remat, config.batch_size))
            peak = int((1 + gib_of_a_question[remat] * config.batch_size) * GIB)
            compiled = Compiled(peak <= 10 * GIB, 1, 1, peak, 0, 0.0)
            return compiled, fit_step.training_work(config, batches, mesh, remat), None

        monkeypatch.setattr(fit_step, "_compiled_step", compiled_step)
        return attempts

    def chip_of(kind: str) -> Chip:
        return CHIP

    monkeypatch.setattr(fit_step, "chip_of", chip_of)
    monkeypatch.setattr(fit_search, "chip_of", chip_of)
    monkeypatch.setattr(bench_fit, "topology_devices", lambda *_: jax.devices())
    return begin


@pytest.fixture
def settings(tmp_path) -> dict[str, Any]:
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(SHAPE))
    return {
        "model": str(path),
        "length": 64,
        "lora_rank": 4,
        "examples": 200,
        "batching": "padded",
        "json": True,
    }


def answered(capsys, **settings: Any) -> dict[str, Any]:
    fit(FitConfig(**settings))
    return json.loads(capsys.readouterr().out)


def test_the_policy_is_the_first_that_leaves_a_tenth_of_the_memory_free(pretend, settings, capsys):
    attempts = pretend({"none": 2.0, "dots": 1.1, "attention": 0.9, "full": 0.1})
    found = answered(capsys, batch_size=8, **settings)
    assert attempts == [("none", 8), ("dots", 8), ("attention", 8)]
    assert found["remat"] == "attention" and found["fits"]
    assert answered(capsys, batch_size=8, remat="dots", **settings)["fits"]


@pytest.mark.parametrize(("full", "fits"), [(1.12, True), (1.2, False)])
def test_where_none_leaves_it_free_the_policy_is_the_one_that_needs_least(
    pretend, settings, capsys, full, fits
):
    pretend({"none": 3.0, "dots": 2.0, "attention": 1.3, "full": full})
    found = answered(capsys, batch_size=8, **settings)
    assert (found["remat"], found["fits"]) == ("full", fits)
    assert bool(found["advice"]) is not fits


@pytest.mark.parametrize(
    "gib_of_a_question",
    [
        {"none": 20.0, "dots": 0.5, "attention": 0.2, "full": 0.1},
        {"none": 0.5, "dots": 0.3, "attention": 0.2, "full": 0.1},
        {"none": 20.0, "dots": 20.0, "attention": 20.0, "full": 0.1},
    ],
)
def test_the_search_finds_the_fastest_policy_and_compiles_none_that_cannot_win(
    pretend, settings, capsys, gib_of_a_question
):
    attempts = pretend(gib_of_a_question)
    found = answered(capsys, search=True, **settings)
    best = 0.0
    mesh = make_mesh()
    for remat, gib in gib_of_a_question.items():
        for size in (1, 2, 5, 8, 16, 40, 80, 200):
            if 1 + gib * size <= 0.9 * 10:
                config = FitConfig(batch_size=size, **settings)
                batches = batches_of(config, mesh)
                work = fit_step.training_work(config, batches, mesh, remat)
                pace = batches.examples_per_update / max(work.bounds(CHIP).values())
                best = max(best, pace)
    examples = found["batch_size"] * found["gradient_accumulation"]
    assert found["fits"]
    assert examples / found["roofline_seconds"] == pytest.approx(best, rel=1e-3)
    compiled = {remat for remat, _ in attempts}
    ladder = list(gib_of_a_question)
    winner = ladder.index(found["remat"])
    assert compiled == set(ladder[: winner + 1])
