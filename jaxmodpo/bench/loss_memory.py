"""``bench losses --topology``: what a loss needs of the memory of a device that is not here, and
the least time that its data sheet allows.

The compiler gets shapes and no numbers, as in :mod:`jaxmodpo.training.ahead`::

    device = topology_devices("v5p:2x2x1")[0]
    task = LossTask(loss="dpo", tokens=4096, vocabulary=151_936, width=4096)
    compile_for(task, device).peak_bytes
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from jaxmodpo.bench.loss_contenders import LossTask, program
from jaxmodpo.bench.table import text_table
from jaxmodpo.training.ahead import compile_lowered
from jaxmodpo.training.fit import GIB
from jaxmodpo.training.hardware import Chip

_BYTES = 2
"""of a bfloat16 number"""


@dataclass(frozen=True, kw_only=True)
class LossMemory:
    """One loss, compiled for a device; the unembedding is frozen, as under LoRA.

    Attributes:
        task: which loss, of which shape.
        input_bytes: hidden states, unembedding and targets.
        peak_bytes: what is needed besides them, the gradient included; None where all of it does
            not fit the device.
    """

    task: LossTask
    input_bytes: int
    peak_bytes: int | None

    @property
    def least_traffic(self) -> float:
        """Bytes of the unembedding that both products read for all chunks of positions."""
        chunks = math.ceil(self.task.tokens / self.task.chunk)
        return 2.0 * chunks * _BYTES * self.task.width * self.task.vocabulary


def compile_for(task: LossTask, device: Any) -> LossMemory:
    """Compile a loss and its gradient in bfloat16 for one device, which need not be here."""
    sharding = SingleDeviceSharding(device)

    def placed(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    hidden = placed((task.sequences, task.tokens, task.width), jnp.bfloat16)
    unembedding = placed((task.width, task.vocabulary), jnp.bfloat16)
    targets = placed((task.sequences, task.tokens), jnp.int32)
    inputs = (hidden, unembedding, targets)
    lowered = program("jaxmodpo", task).lower(*inputs)
    compiled, executable = compile_lowered(lowered, time.perf_counter())
    peak = None
    if executable is not None:
        peak = compiled.temporary + executable.memory_analysis().output_size_in_bytes
    input_bytes = sum(array.size * array.dtype.itemsize for array in inputs)
    return LossMemory(task=task, input_bytes=input_bytes, peak_bytes=peak)


def memory_table(rows: Sequence[LossMemory], chip: Chip | None) -> str:
    """Return the table of losses: memory, and what arithmetic and memory take at least on a chip
    whose data sheet is known.
    """
    header = ["loss", "tokens", "vocabulary", "chunk", "inputs, GiB", "besides, GiB"]
    if chip is not None:
        header += ["arithmetic, ms", "reading the unembedding, ms"]
    cells: list[list[str]] = []
    for row in rows:
        task = row.task
        line = [
            task.loss,
            f"{task.sequences} × {task.tokens:,}",
            f"{task.vocabulary:,}",
            f"{task.chunk:,}",
            f"{row.input_bytes / GIB:.2f}",
            "does not fit" if row.peak_bytes is None else f"{row.peak_bytes / GIB:.2f}",
        ]
        if chip is not None:
            line.append(f"{1000 * task.operations / chip.flops:,.1f}")
            line.append(f"{1000 * row.least_traffic / chip.bandwidth:,.1f}")
        cells.append(line)
    return text_table(header, cells)
