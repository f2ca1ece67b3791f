"""``bench losses`` measures what it says, and compares only what computes the same."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxmodpo.bench import loss_memory, losses
from jaxmodpo.bench.loss_contenders import SEQUENCES, LossTask, prepare
from jaxmodpo.bench.loss_memory import compile_for, memory_table
from jaxmodpo.bench.losses import BenchLossesConfig, bench_losses, peak_bytes
from jaxmodpo.errors import UserError
from jaxmodpo.training.hardware import chips

SMALL: dict[str, Any] = {"lengths": (16,), "vocabularies": (64,), "width": 8, "rounds": 2}


def test_every_loss_is_timed_beside_its_products_and_trls_where_trl_has_it(
    capsys, monkeypatch, tmp_path
):
    pytest.importorskip("trl", reason="compares with TRL")
    monkeypatch.setattr(losses, "peak_bytes", lambda contender, task: 2**20)
    bench_losses(BenchLossesConfig(**SMALL, against="trl", json=tmp_path / "losses.json"))
    printed = capsys.readouterr().out
    for loss in SEQUENCES:
        lines = [line for line in printed.splitlines() if line.startswith(f"| {loss} ")]
        assert len(lines) == (3 if loss in ("sft", "dpo") else 2)
    record = json.loads((tmp_path / "losses.json").read_text())
    assert {"jax", "torch", "trl"} <= record["machine"]["versions"].keys()
    assert all(len(row["seconds"]) == 2 for row in record["measured"])


def test_another_gradient_is_no_rival():
    task = LossTask(loss="dpo", tokens=4, vocabulary=8, width=2)
    right = np.ones((2, 4, 2), np.float32)
    losses._refuse_other_gradients(task, {"jaxmodpo": right, "trl": right})
    with pytest.raises(UserError, match=r"dpo: the gradient differs from TRL's by 0\.5"):
        losses._refuse_other_gradients(task, {"jaxmodpo": right, "trl": right / 2})
    # Sums over many tokens are rounded by more, on either side.
    long_task = dataclasses.replace(task, tokens=4096, vocabulary=128_256)
    losses._refuse_other_gradients(long_task, {"jaxmodpo": right, "trl": 1.002 * right})
    # SFT's gradient follows no sum.
    for strict_task in (task, dataclasses.replace(long_task, loss="sft")):
        with pytest.raises(UserError, match="differs from TRL"):
            losses._refuse_other_gradients(strict_task, {"jaxmodpo": right, "trl": 1.002 * right})


def test_the_products_are_logits_and_their_way_back():
    task = LossTask(loss="sft", tokens=10, vocabulary=16, width=4, chunk=4)
    hidden, unembedding, _ = task.inputs()
    expected = hidden @ unembedding @ unembedding.T
    np.testing.assert_allclose(prepare("products", task)(), expected, rtol=1e-4, atol=1e-5)
    assert task.operations == 2 * 2 * 2 * 10 * 4 * 16


def test_our_memory_is_what_the_compiler_counts_besides_the_inputs():
    # The gradient alone takes 4 MiB, and the logits of all positions would take 64.
    task = LossTask(loss="dpo", tokens=1024, vocabulary=8192, width=512, chunk=64)
    assert 2 * 2**20 < peak_bytes("jaxmodpo", task) < 48 * 2**20


@pytest.mark.slow(seconds=10)
def test_trls_memory_is_that_of_one_run_above_its_inputs(monkeypatch):
    pytest.importorskip("trl", reason="compares with TRL")
    # There, tests' processes find a machine without torch; this one is about torch.
    folders = os.environ["PYTHONPATH"].split(os.pathsep)
    others = [folder for folder in folders if Path(folder).name != "without_torch"]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(others))
    # It keeps the logits of all positions, 64 MiB, and their gradient.
    task = LossTask(loss="dpo", tokens=1024, vocabulary=8192, width=512, chunk=64)
    assert 64 * 2**20 < peak_bytes("trl", task) < 6 * 64 * 2**20


def test_for_another_device_memory_is_compiled_and_time_bounded_by_its_data_sheet():
    device = jax.devices()[0]
    task = LossTask(loss="dpo", tokens=1024, vocabulary=8192, width=512, chunk=64)
    row = compile_for(task, device)
    # Hidden states and unembedding in bfloat16, and targets of four bytes.
    assert row.input_bytes == 2 * (2 * 1024 * 512 + 512 * 8192) + 4 * 2 * 1024
    # The logits of all positions would take 64 MiB.
    assert row.peak_bytes is not None and 2 * 2**20 <= row.peak_bytes < 48 * 2**20
    h100 = next(chip for chip in chips() if chip.name == "H100 SXM")
    # Both products read the unembedding for each of 16 chunks.
    assert row.least_traffic == 2 * 16 * 2 * 512 * 8192
    large = dataclasses.replace(row, task=dataclasses.replace(task, vocabulary=819_200))
    arithmetic, reading = memory_table([large], h100).splitlines()[-1].split("|")[-3:-1]
    assert float(arithmetic) == pytest.approx(1000 * large.task.operations / 989e12, abs=0.05)
    assert float(reading) == pytest.approx(1000 * large.least_traffic / 3.35e12, abs=0.05)


def test_what_does_not_fit_a_device_is_a_row_and_no_error(monkeypatch):
    class TooLarge:
        def lower(self, *arrays):
            return self

        def compile(self):
            raise RuntimeError("RESOURCE_EXHAUSTED: Used 31.2G of 15.75G hbm.")

    monkeypatch.setattr(loss_memory, "program", lambda contender, task: TooLarge())
    task = LossTask(loss="dpo", tokens=16, vocabulary=64, width=8)
    row = compile_for(task, jax.devices()[0])
    assert row.peak_bytes is None
    assert memory_table([row], None).splitlines()[-1].split("|")[-2].strip() == "does not fit"


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (
            {"topology": "v5p:2x2x1", "against": "trl"},
            "--against trl is timed, and --topology only compiles",
        ),
        ({"target_config": Path("h100.txt")}, "--target-config describes the GPU of a --topology"),
    ],
)
def test_flags_that_say_nothing_together_are_refused(flags, sentence):
    with pytest.raises(UserError, match=sentence):
        BenchLossesConfig(**SMALL, **flags).check()
