"""Our training step, prepared to be timed by ``bench step`` and ``bench scale``.

One update of every pair of two replies::

    task = StepTask(shape=shape, lora=lora, questions=questions, places=every_pair(2), mesh=mesh)
    contender = prepared(task, base, Way())
    seconds = contender.run()
"""

from __future__ import annotations

import functools
import time
from dataclasses import asdict, dataclass
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxmodpo import __version__
from jaxmodpo.bench.contender import Contender
from jaxmodpo.bench.machine import cores
from jaxmodpo.data.batches import Batches, Batching
from jaxmodpo.data.examples import Examples
from jaxmodpo.data.reference_lengths import comparing
from jaxmodpo.methods.dpo import DPO
from jaxmodpo.models import flops
from jaxmodpo.models.attention import Attention, Backend
from jaxmodpo.models.decoder import parameter_table
from jaxmodpo.models.decoder_config import DecoderConfig
from jaxmodpo.models.lora import LoraConfig, adapter_table
from jaxmodpo.models.parameters import Parameters, initialize
from jaxmodpo.models.quantized import BaseDtype
from jaxmodpo.models.remat import Remat
from jaxmodpo.policy.loaded import check_attention
from jaxmodpo.policy.mesh import place_batch, row_shards, shardings
from jaxmodpo.training.policy_loss import PolicyLoss
from jaxmodpo.training.step import OptimizerSettings, initial_state, places_of, train_step

Reference = Literal["precomputed", "in_step"]
Unit = Literal["question", "pair"]
_NAMES: dict[Unit, str] = {"question": "", "pair": "pair by pair, "}


@dataclass(frozen=True, kw_only=True)
class StepTask:
    """What is trained, in whichever way.

    Attributes:
        shape: the model's.
        lora: the adapter's settings.
        questions: with their distinct replies.
        places: of each pair's two replies among a question's, ``[pairs, 2]``.
        mesh: the devices.
        base_dtype: type of the base weights.
        batch_size: questions in memory at a time.
        accumulation: batches of an update.
        updates: that are timed.
        planned_updates: of the run whose first updates they are, at least as many. Rows of a few
            lengths are planned only for a run that is long enough to earn each one's compiling.
        attention: which implementation.
    """

    shape: DecoderConfig
    lora: LoraConfig
    questions: Examples
    places: np.ndarray
    mesh: Mesh
    base_dtype: BaseDtype = "float32"
    batch_size: int = 1
    accumulation: int = 1
    updates: int = 1
    planned_updates: int = 1
    attention: Backend = "auto"


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way of computing it: see the settings of ``bench step``."""

    unit: Unit = "question"
    batching: Batching = "packed"
    reference: Reference = "precomputed"
    remat: Remat = "none"
    row_lengths: int = 1

    @property
    def name(self) -> str:
        """Its name in a table that tells ways apart by all but what is recomputed."""
        rows = self.batching if self.row_lengths == 1 else f"{self.batching} ({self.row_lengths})"
        return f"{_NAMES[self.unit]}{rows}, reference {self.reference.replace('_', ' ')}"


def pairs_of(questions: Examples, places: np.ndarray) -> Examples:
    """Return each pair of a question's replies as an example with two sequences of its own."""
    count = len(questions) * len(places)
    return Examples(
        tokens=questions.tokens[:, places].reshape(count, 2, -1),
        prompt_lengths=questions.prompt_lengths[:, places].reshape(count, 2),
        lengths=questions.lengths[:, places].reshape(count, 2),
        fields={},
    )


def batches_of(task: StepTask, way: Way) -> Batches:
    """Return the same pairs an update, as questions or each with replies of its own."""
    if way.unit == "question":
        examples = comparing(task.questions, task.places)
        batch_size = task.batch_size
    else:
        examples = comparing(pairs_of(task.questions, task.places), np.array([[0, 1]]))
        batch_size = task.batch_size * len(task.places)
    if way.reference == "precomputed":
        # Their values do not change the time.
        reference_logps = np.zeros(examples.lengths.shape, np.float32)
        examples = examples.with_fields(reference_logps=reference_logps)
    return Batches(
        examples,
        batch_size=batch_size,
        accumulation=task.accumulation,
        # Every pass has all questions, and the first one is what is timed.
        epochs=max(1, -(-task.planned_updates // task.updates)),
        batching=way.batching,
        row_shards=row_shards(task.mesh),
        cost=functools.partial(flops.token_cost, task.shape),
        most_lengths=way.row_lengths,
    )


class TimedStep:
    """A compiled training step with its state, ready to make updates.

    Args:
        task: what is trained.
        base: the frozen weights, on the task's mesh.
        way: how it is computed.

    Attributes:
        seconds_to_compile: CPU seconds, of all threads, for tracing, lowering and compiling the
            step, once for each length of rows.
        peak: bytes that a device needs, at the longest of them.
        lengths: tokens of a row, of the different ones among the timed updates.
    """

    def __init__(self, task: StepTask, base: Parameters, way: Way):
        self._task = task
        self._base = base
        self._batches = batches_of(task, way)
        attention = Attention(task.attention, task.mesh)
        check_attention(attention, task.shape, task.base_dtype)
        loss = PolicyLoss(
            task.shape,
            task.lora,
            DPO(0.1),
            attention,
            way.remat,
            way.reference == "in_step",
            has_dropout=task.lora.dropout > 0,
        )
        everywhere = NamedSharding(task.mesh, PartitionSpec())
        self._constants = {"loss": loss, "optimizer": OptimizerSettings(0.01, 1.0)}
        self._key = jax.jit(lambda: jax.random.key(0), out_shardings=everywhere)()
        self._state = initial_state(self._constants["optimizer"], _fresh_adapter(task))
        timed_lengths = self._batches.row_lengths[: task.updates]
        self.lengths, first_updates = np.unique(timed_lengths, return_index=True)
        # Compiled once, here, so that its memory can be asked for.
        started = time.process_time()
        self._compiled: dict[int, Any] = {}
        for length, step in zip(self.lengths.tolist(), first_updates.tolist(), strict=True):
            arguments = self._arguments(step)
            lowered = train_step.lower(
                self._state, *arguments, **self._constants, places=places_of(self._state)
            )
            self._compiled[length] = lowered.compile()
        self.seconds_to_compile = time.process_time() - started
        peaks = [
            peak_bytes(compiled.memory_analysis(), task.mesh)
            for compiled in self._compiled.values()
        ]
        self.peak = max(peaks)
        # The first update of a program is slower than the others and is not timed.
        for step in first_updates.tolist():
            self._update(step)
        jax.block_until_ready(self._state)

    def run(self) -> float:
        """Make the updates, from the first batch on, and return their seconds."""
        started = time.perf_counter()
        for step in range(self._task.updates):
            self._update(step)
        # Updates are only queued here: the clock stops when the devices are done.
        jax.block_until_ready(self._state)
        return time.perf_counter() - started

    def _update(self, step: int) -> None:
        compiled = self._compiled[int(self._batches.row_lengths[step])]
        self._state, _ = compiled(self._state, *self._arguments(step), **self._constants)

    def _arguments(self, step: int) -> tuple[Any, ...]:
        batch = place_batch(self._task.mesh, self._batches.at(step), self._batches.by_rows)
        return self._base, batch, self._key, np.int32(step), np.float32(5e-6)


def _fresh_adapter(task: StepTask) -> Parameters:
    table = adapter_table(parameter_table(task.shape), task.lora)
    make = jax.jit(lambda key: initialize(table, key), out_shardings=shardings(task.mesh)(table))
    return make(jax.random.key(1))


def peak_bytes(memory: Any, mesh: Mesh) -> int:
    """Return a device's peak by the compiler's analysis of a program."""
    # XLA's peak leaves out temporaries on a CPU.
    peak = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    if mesh.devices.flat[0].platform != "cpu":
        peak = getattr(memory, "peak_memory_in_bytes", 0) or peak
    return int(peak)


def prepared(task: StepTask, base: Parameters, way: Way, name: str | None = None) -> Contender:
    """Return a way as a contender, compiled and warmed up; by default of the way's own name."""
    step = TimedStep(task, base, way)
    questions = task.questions
    return Contender(
        name=name or way.name,
        pairs=len(questions) * len(task.places),
        # A reply that is computed again for another pair is no more useful than padding.
        tokens=int(questions.lengths.sum()),
        operations=flops.training(
            task.shape, task.lora, questions.lengths, way.reference == "in_step"
        ),
        peak=step.peak,
        run=step.run,
        settings={
            "jaxmodpo": __version__,
            "jax": jax.__version__,
            **asdict(way),
            "tokens of a row": step.lengths.tolist(),
            "base": task.base_dtype,
            "adapter rank": task.lora.rank,
            "questions in memory": task.batch_size,
            "accumulation": task.accumulation,
            "attention": task.attention,
            "threads": cores(),
            "device": task.mesh.devices.flat[0].device_kind,
        },
    )
