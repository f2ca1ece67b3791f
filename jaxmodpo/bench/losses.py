"""``bench losses``: time and memory of every loss, from a model's last hidden states to their
gradient, beside TRL's and beside the bare matrix products.

The logits of all positions are a batch's largest array, and their two matrix products (forward, and
back to the hidden states) are work that nobody can leave out. The table therefore says how much of
each loss's time the products alone would take.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from jaxmodpo.bench.loss_contenders import (
    BETA,
    TRL_LOSSES,
    Contender,
    Loss,
    LossTask,
    compiled_bytes,
    import_trl,
    prepare,
)
from jaxmodpo.bench.loss_memory import compile_for, memory_table
from jaxmodpo.bench.machine import cores_and_load, this_machine
from jaxmodpo.bench.table import text_table
from jaxmodpo.errors import UserError
from jaxmodpo.files import write_json
from jaxmodpo.flags.help_groups import HelpGroup
from jaxmodpo.ranges import Count, Seed, Unestimated
from jaxmodpo.training.ahead import topology_devices
from jaxmodpo.training.hardware import chip_of

_MMAP_THRESHOLD = -3
"""the number of ``mallopt``'s M_MMAP_THRESHOLD: bytes from which on memory is mapped by itself"""


@dataclass(frozen=True, kw_only=True)
class BenchLossesConfig(Unestimated, help_group="measurement"):
    """Time every loss with its gradient on random hidden states in float32, and measure its peak
    memory in a process of its own.
    """

    losses: tuple[Loss, ...] = ("sft", "dpo", "modpo", "joint")
    """Losses that are measured."""
    lengths: tuple[Count, ...] = (256, 1024)
    """Numbers of tokens of a sequence; all of them count as completion."""
    vocabularies: tuple[Count, ...] = (32_000,)
    """Sizes of the vocabulary, which are columns of the unembedding."""
    width: Count = 1024
    """Width of the hidden states."""
    chunk: Count = 128
    """Number of positions of each sequence whose logits exist at a time."""
    rounds: Count = 5
    """Number of times that each is run, all in turns; the table has medians."""
    topology: Annotated[str | None, HelpGroup("devices")] = None
    """Device to compile for and not to run on, such as v5p:2x2x1 or cuda:1x1x1: prints what each
    loss needs of its memory, in bfloat16. By default everything is timed on this machine."""
    target_config: Annotated[Path | None, HelpGroup("devices")] = None
    """File with XLA's description of the GPU, a GpuTargetConfigProto as text; TPUs need none."""
    against: Literal["trl"] | None = None
    """Other implementation that is measured as well: trl is what TRL's trainers compute, on
    PyTorch, and needs torch and trl."""
    seed: Annotated[Seed, HelpGroup("measurement")] = 0
    """Seed of the hidden states, the unembedding and the targets."""
    json: Annotated[Path | None, HelpGroup("output")] = None
    """File for the figures with the machine, the versions and both sides' settings."""

    def check(self) -> None:
        super().check()
        if not (self.losses and self.lengths and self.vocabularies):
            raise UserError("bench losses needs a loss, a length and a vocabulary at least")
        if self.target_config and not self.topology:
            raise UserError("--target-config describes the GPU of a --topology such as cuda:1x1x1")
        if self.topology and self.against:
            raise UserError(
                "--against trl is timed, and --topology only compiles: give one of them"
            )


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One contender on one task.

    Attributes:
        contender: which.
        task: on what.
        seconds: of each round.
        peak_bytes: that it needed besides its inputs.
    """

    contender: Contender
    task: LossTask
    seconds: tuple[float, ...]
    peak_bytes: int

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def bench_losses(config: BenchLossesConfig) -> None:
    """Run ``bench losses``."""
    config.check()
    if config.topology is not None:
        _compile_elsewhere(config, config.topology)
        return
    if config.against:
        import_trl()
    measured: list[Measured] = []
    for task in _tasks(config):
        print(
            f"{task.loss}, {task.sequences} × {task.tokens:,} tokens, vocabulary"
            f" {task.vocabulary:,}",
            file=sys.stderr,
        )
        measured += _measure(task, _contenders(config, task), config.rounds)
        # Written after each task: the next one may need more memory than there is.
        if config.json is not None:
            _write(config.json, config, measured)
    print(
        f"width {config.width:,}, float32, value and gradient of the hidden states, medians of"
        f" {config.rounds} rounds in turns, {cores_and_load()}\n"
    )
    print(_table(measured))


def _write(file: Path, config: BenchLossesConfig, measured: Sequence[Measured]) -> None:
    """Write every round's figures so far, with the machine."""
    rivals = ("torch", "trl") if config.against else ()
    rows = [_as_row(row) for row in measured]
    write_json(file, {"machine": this_machine(*rivals), "measured": rows})


def _compile_elsewhere(config: BenchLossesConfig, topology: str) -> None:
    """Print what the losses need on a device that is not here, and what bounds their time there."""
    device = topology_devices(topology, config.target_config)[0]
    chip = chip_of(device.device_kind)
    compiled = [compile_for(task, device) for task in _tasks(config)]
    chip_name = chip.name if chip else device.device_kind
    print(
        f"{topology}, one {chip_name}, width {config.width:,}, bfloat16, value and gradient of the"
        " hidden states, compiled here and not run\n"
    )
    print(memory_table(compiled, chip))
    if config.json is not None:
        rows = [asdict(row) for row in compiled]
        write_json(config.json, {"machine": this_machine(), "topology": topology, "compiled": rows})


def _tasks(config: BenchLossesConfig) -> Iterator[LossTask]:
    for vocabulary in config.vocabularies:
        for tokens in config.lengths:
            for loss in config.losses:
                yield LossTask(
                    loss=loss,
                    tokens=tokens,
                    vocabulary=vocabulary,
                    width=config.width,
                    chunk=config.chunk,
                    seed=config.seed,
                )


def _contenders(config: BenchLossesConfig, task: LossTask) -> tuple[Contender, ...]:
    if config.against and task.loss in TRL_LOSSES:
        return ("products", "jaxmodpo", "trl")
    return ("products", "jaxmodpo")


def _measure(task: LossTask, contenders: Sequence[Contender], rounds: int) -> list[Measured]:
    """Time the contenders in turns, so that other programs slow all of them, and compare their
    gradients.
    """
    peaks = {contender: peak_bytes(contender, task) for contender in contenders}
    runs = {contender: prepare(contender, task) for contender in contenders}
    gradients = {contender: run() for contender, run in runs.items()}
    if "trl" in gradients:
        _refuse_other_gradients(task, gradients)
    seconds: dict[Contender, list[float]] = {contender: [] for contender in contenders}
    for _ in range(rounds):
        for contender, run in runs.items():
            started = time.perf_counter()
            run()
            seconds[contender].append(time.perf_counter() - started)
    return [
        Measured(
            contender=contender,
            task=task,
            seconds=tuple(seconds[contender]),
            peak_bytes=peaks[contender],
        )
        for contender in contenders
    ]


def _refuse_other_gradients(task: LossTask, gradients: Mapping[Contender, np.ndarray]) -> None:
    """Refuse to compare the speed of two computations with different results."""
    ours = gradients["jaxmodpo"]
    theirs = gradients["trl"]
    largest = np.abs(theirs).max()
    difference = np.abs(ours - theirs).max()
    tolerance = 1e-3
    if task.loss != "sft":
        # The gradient follows the difference of two sums of log-probabilities. Of 4,096 tokens
        # these are about -48,000, where float32 has steps of 0.004: each side is a few of them off.
        step_of_sum = np.spacing(np.float32(task.tokens * np.log(task.vocabulary)))
        tolerance += BETA * 4 * step_of_sum
    if difference > tolerance * largest:
        raise UserError(
            f"{task.loss}: the gradient differs from TRL's by {difference:.2g}, where its largest"
            f" element is {largest:.2g}"
        )


# ---------------------------------------------------------------------- memory


def peak_bytes(contender: Contender, task: LossTask) -> int:
    """Return what a contender needs besides its inputs.

    Of our programs the compiler knows it. Of TRL's it is how far the memory of a process of its own
    rises, since memory that was used before may be used again unseen.
    """
    if contender != "trl":
        return compiled_bytes(contender, task)
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_send_peak, args=(contender, task, sending))
    process.start()
    sending.close()
    try:
        peak = receiving.recv()
    except EOFError:
        raise UserError(
            f"{contender} on {task.loss} with {task.tokens:,} tokens and a vocabulary of"
            f" {task.vocabulary:,} ended without a result; it may need more memory than there is"
        ) from None
    finally:
        process.join()
    return int(peak)


def _send_peak(contender: Contender, task: LossTask, sending: Connection) -> None:
    _give_freed_memory_back()
    run = prepare(contender, task)
    # Once unseen, since what compiling left behind is freed meanwhile.
    run()
    # Linux forgets the peak so far when a 5 is written here.
    Path("/proc/self/clear_refs").write_text("5")
    before = _status_bytes("VmRSS")
    run()
    sending.send(_status_bytes("VmHWM") - before)


def _give_freed_memory_back() -> None:
    """Let large arrays be mapped, and unmapped when they are freed.

    Otherwise the C library keeps what the first run freed, and the run that is measured lies in it
    without any sign of it.
    """
    library = ctypes.CDLL(None)
    # Not every C library has it; the figures may then be too low.
    if hasattr(library, "mallopt"):
        library.mallopt(_MMAP_THRESHOLD, 2**18)


def _status_bytes(key: str) -> int:
    """Return a figure of this process's memory, as Linux counts it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    raise UserError(f"this system does not say {key} of a process, which takes Linux")


# ---------------------------------------------------------------------- output


def _table(measured: Sequence[Measured]) -> str:
    header = ["loss", "tokens", "vocabulary", "by", "ms", "of the products", "peak MiB", "GFLOP/s"]
    rows: list[list[str]] = []
    products: Callable[[LossTask], float] = {
        row.task: row.median for row in measured if row.contender == "products"
    }.__getitem__
    names: dict[Contender, str] = {
        "products": "products alone",
        "jaxmodpo": "jaxmodpo",
        "trl": "TRL",
    }
    for row in measured:
        rows.append(
            [
                row.task.loss,
                f"{row.task.sequences} × {row.task.tokens:,}",
                f"{row.task.vocabulary:,}",
                names[row.contender],
                f"{1000 * row.median:,.1f}",
                f"{row.median / products(row.task):.2f}×",
                f"{row.peak_bytes / 2**20:,.0f}",
                f"{row.task.operations / row.median / 1e9:,.0f}",
            ]
        )
    return text_table(header, rows)


def _as_row(row: Measured) -> dict[str, Any]:
    return {
        "contender": row.contender,
        **asdict(row.task),
        "seconds": row.seconds,
        "median": row.median,
        "peak_bytes": row.peak_bytes,
    }
