"""The fastest policy whose step fits is taken, in one compilation, and kept."""

from __future__ import annotations

import functools
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodpo import free_memory
from jaxmodpo.data.batches import Batches
from jaxmodpo.data.examples import Examples
from jaxmodpo.errors import Preempted, UserError
from jaxmodpo.models.remat import LADDER, Remat
from jaxmodpo.policy.mesh import make_mesh
from jaxmodpo.training import recomputation
from jaxmodpo.training.ahead import Compiled
from jaxmodpo.training.problem import with_remat
from jaxmodpo.training.recomputation import GIB, Choice, choose
from jaxmodpo.training.settings import TrainingConfig
from jaxmodpo.training.step import LossTerms
from jaxmodpo.training.trainer import Trained, train


@functools.partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["remat"])
@dataclass(frozen=True)
class Pull:
    """Mean of (w − y)², under a policy that changes nothing."""

    remat: Remat

    def __call__(self, trainable, frozen, batch, dropout_key) -> LossTerms:
        weights = batch["row_weights"]
        total = jnp.sum(weights)
        return LossTerms(jnp.sum((trainable["w"][0] - batch["y"]) ** 2 * weights), total, {}, total)


def run(folder: Path, on_evaluation=None, width: int = 1, **changes) -> Trained:
    ones = np.ones((8, 1), np.int32)
    examples = Examples(
        np.ones((8, 1, 8), np.int32), 0 * ones, 8 * ones, {"y": np.ones(8, np.float32)}
    )
    settings: dict[str, Any] = {
        "epochs": 2,
        "eval_every": 1,
        "save_every": 1,
        "keep_checkpoints": True,
    }
    config = TrainingConfig(output_dir=folder, **(settings | changes))
    problem = with_remat(Pull, "auto", {"w": jnp.zeros(width)}, {}, make_mesh())
    held_out = Batches(examples, batch_size=2)
    batches = Batches(examples, batch_size=2, epochs=config.epochs)
    return train(problem, batches, config, held_out, on_evaluation, cache_dir=folder / "cache")


@pytest.fixture
def pod(monkeypatch):
    """Devices of 10 GiB, and a compiler that says what it is told to say; what it was asked
    stands in ``asked``.
    """
    answers = SimpleNamespace(asked=[], peaks={})
    monkeypatch.setattr(recomputation, "_platform", lambda mesh: "tpu")
    monkeypatch.setattr(recomputation, "device_memory", lambda mesh: 10 * GIB)

    def compile_lowered(policy, started):
        answers.asked.append(policy)
        peak = answers.peaks[policy]
        return Compiled(peak <= 10, 0, 0, int(peak * GIB), 0, 0.0), None

    monkeypatch.setattr(recomputation, "compile_lowered", compile_lowered)
    return answers


def choice(folder: Path, batch: int = 4, before: Choice | None = None) -> Choice:
    arguments = {"tokens": jax.ShapeDtypeStruct((batch, 8), jnp.int32)}

    def lower(loss: Any) -> Remat:
        return loss.remat

    return choose(Pull, lower, arguments, make_mesh(), folder, before)


def test_the_first_policy_that_leaves_a_tenth_free_is_taken_and_no_other_is_compiled(
    pod, tmp_path, caplog
):
    pod.peaks = {"none": 20.5, "dots": 9.5, "attention": 8.9, "full": 2.0}
    with caplog.at_level(logging.INFO):
        choice_now = choice(tmp_path)
    assert choice_now.policy == "attention" and pod.asked == ["none", "dots", "attention"]
    (line,) = caplog.messages
    assert line == (
        "remat: attention: it needs 8.90 GiB of the 10.00 GiB of a device, a tenth of which stays"
        " free; none needs at least 20.50 GiB, dots needs 9.50 GiB"
    )


def test_a_choice_is_kept_for_what_it_depends_on(pod, tmp_path, caplog):
    pod.peaks = dict.fromkeys(LADDER, 20.0) | {"full": 2.0}
    first = choice(tmp_path)
    pod.asked.clear()
    with caplog.at_level(logging.INFO):
        assert choice(tmp_path) == first
    assert pod.asked == [] and "remat: full, as was chosen before: it needs" in caplog.text
    assert choice(tmp_path, batch=8).key != first.key
    pod.asked.clear()
    (kept_file,) = [path for path in tmp_path.iterdir() if first.key[:32] in path.name]
    kept_file.write_text(json.dumps({"policy": "some"}))
    assert choice(tmp_path) == first and pod.asked == list(LADDER[:4])


def test_a_run_that_goes_on_keeps_its_policy_unless_its_step_is_another(pod, tmp_path):
    pod.peaks = dict.fromkeys(LADDER, 2.0)
    begun = Choice("full", "", choice(tmp_path).key)
    pod.asked.clear()
    assert choice(tmp_path, before=begun) is begun and pod.asked == []
    assert choice(tmp_path, batch=16, before=begun).policy == "none"


def test_what_leaves_too_little_free_is_taken_where_nothing_needs_less(pod, tmp_path):
    pod.peaks = {"none": 30, "dots": 20, "attention": 9.8, "full": 9.6, "offload": 9.7}
    choice_now = choice(tmp_path)
    assert choice_now.policy == "full" and "none leaves more room" in choice_now.reason


def test_a_step_that_fits_under_no_policy_is_refused_with_what_it_needs(pod, tmp_path):
    pod.peaks = {"none": 30, "dots": 20, "attention": 14, "full": 12.25, "offload": 11.5}
    with pytest.raises(UserError, match=r"full needs at least 12.25 GiB, offload.*--batch-size"):
        choice(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_compiler_that_cannot_move_arrays_to_the_host_leaves_the_others_to_choose_from(
    pod, tmp_path, monkeypatch, caplog
):
    pod.peaks = {"none": 30, "dots": 20, "attention": 9.8, "full": 9.6}
    pretended = recomputation.compile_lowered

    def without_offload(policy, started):
        if policy == "offload":
            raise jax.errors.JaxRuntimeError("UNIMPLEMENTED: pinned_host")
        return pretended(policy, started)

    monkeypatch.setattr(recomputation, "compile_lowered", without_offload)
    assert choice(tmp_path).policy == "full"
    assert "offload cannot be compiled for these devices: UNIMPLEMENTED" in caplog.text


def test_devices_of_unknown_memory_compute_whole_layers_again(pod, tmp_path, monkeypatch):
    monkeypatch.setattr(recomputation, "device_memory", lambda mesh: None)
    choice_now = choice(tmp_path)
    assert choice_now.policy == "full" and "is not known" in choice_now.reason and pod.asked == []


@pytest.mark.slow(seconds=2)
def test_a_run_compiles_its_step_once_and_records_the_policy(tmp_path, caplog):
    compiled: list[str] = []

    def note(event: str, duration_secs: float, **details: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(str(details["fun_name"]))

    jax.monitoring.register_event_duration_secs_listener(note)
    with caplog.at_level(logging.INFO, "jaxmodpo"):
        # No other test has a step of this shape, which this process could have compiled before.
        trained = run(tmp_path, width=7)
    assert trained.report["remat"] == "none"
    assert compiled.count("jit(train_step)") == 1
    assert sum(line.startswith("remat: none: ") for line in caplog.messages) == 1
    # Free memory is another every time.
    assert not list(tmp_path.glob("cache/remat-*"))


@pytest.mark.slow(seconds=3)
def test_a_processor_keeps_half_of_the_free_memory_free_and_an_interrupted_run_its_policy(
    tmp_path, monkeypatch
):
    evaluations = []

    # A run is evaluated before its checkpoint is written: after the second evaluation there is one.
    def stop_at_the_second(epoch, values):
        evaluations.append(epoch)
        if len(evaluations) == 2:
            raise Preempted("asked to end")

    # A step that needs nothing at all fits, and no other.
    monkeypatch.setattr(recomputation, "free_memory", lambda: 0)
    needed = {"none": 3, "dots": 2, "attention": 2, "full": 1}
    monkeypatch.setattr(recomputation, "compile_lowered", pretended := PretendedCompiler(needed))
    with pytest.raises(Preempted):
        run(tmp_path, stop_at_the_second)
    assert pretended.calls == 4
    monkeypatch.setattr(recomputation, "free_memory", lambda: 2**40)
    assert run(tmp_path).report["remat"] == "full"
    assert run(tmp_path / "fresh").report["remat"] == "none"


class PretendedCompiler:
    """Says of policies, in the order of the ladder, what temporary memory they need."""

    def __init__(self, needed: dict[str, int]):
        self.needed = list(needed.values())
        self.calls = 0

    def __call__(self, lowered, started):
        temporary = self.needed[self.calls % len(self.needed)]
        self.calls += 1
        return Compiled(True, 0, temporary, temporary, 0, 0.0), None


def test_free_memory_is_what_the_machine_and_its_container_leave(tmp_path, monkeypatch):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 4096 kB\nMemFree: 1 kB\nMemAvailable: 2048 kB\n")
    monkeypatch.setattr(free_memory, "_MEMINFO", meminfo)
    monkeypatch.setattr(free_memory, "_CONTAINER", tmp_path)
    assert free_memory.free_memory() == 2 * 2**20
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 1000\n")
    assert free_memory.free_memory() == 2 * 2**20
    (tmp_path / "memory.max").write_text("10000\n")
    assert free_memory.free_memory() == 6000
