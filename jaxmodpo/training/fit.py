"""Whether a compiled step fits a chip, how fast it can be there at best, and the largest batch that
fits.

What a step needs is compiled by :mod:`jaxmodpo.training.ahead` and counted by
:mod:`jaxmodpo.training.roofline`; here both are held against a chip::

    compiled = compile_policy_step(config, lora, DPO(0.1), batches, mesh)
    work = policy_training(config, lora, batches, mesh, base_dtype="bfloat16")
    question = Question("mistral-7b", "train", "dpo", "v5e:4x4", batch_size=16)
    chip = chip_of("TPU v5 lite")
    answer = answer_of(question, compiled, work, None, batches, mesh, chip, advice=())
    answer.fits, answer.roofline_seconds, answer.bound
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from jax.sharding import Mesh

from jaxmodpo.data.batches import Batches
from jaxmodpo.models.remat import Remat
from jaxmodpo.training.ahead import Compiled
from jaxmodpo.training.hardware import Chip
from jaxmodpo.training.roofline import Work

GIB = 2**30


@dataclass(frozen=True)
class Question:
    """What is asked about, as the user named it.

    Attributes:
        model: a published model's name, or a file or folder.
        step: train, score or reward.
        method: what the adapter is trained by.
        topology: of the chips.
        batch_size: questions in memory at a time.
        remat: what the backward pass computes again; None of a step without one.
    """

    model: str
    step: str
    method: str
    topology: str
    batch_size: int
    remat: Remat | None = None


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What a step needs of a chip's memory, in bytes per chip.

    Attributes:
        fits: whether the step compiles and its peak is within the chip's memory, or the share of it
            that was asked for.
        argument_bytes: weights, adapter, moments and batch.
        temporary_bytes: what lives within the step.
        peak_bytes: the most at any moment.
        hbm_bytes: the chip's memory; None where it is not known.
        over_bytes: by how much it is too large, at least; 0 if it fits.
        compile_seconds: how long compiling took here.
    """

    fits: bool
    argument_bytes: int
    temporary_bytes: int
    peak_bytes: int
    hbm_bytes: int | None
    over_bytes: int
    compile_seconds: float


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What an update asks of one chip, and how long it and the whole experiment take at best.

    The times are None for an unknown chip.

    Attributes:
        useful_flops: operations that real tokens need.
        executed_flops: with padding and what is computed again.
        moved_bytes: read and written in memory.
        network_bytes: received from other chips.
        roofline_seconds: the least an update can take.
        bound: what sets it: arithmetic, memory or network.
        half_mfu_seconds: an update at 50% model FLOPs utilization.
        updates: of the experiment.
        roofline_chip_hours: of the experiment, with the reference's scoring.
        half_mfu_chip_hours: likewise.
    """

    useful_flops: float
    executed_flops: float
    moved_bytes: float
    network_bytes: float
    roofline_seconds: float | None
    bound: str | None
    half_mfu_seconds: float | None
    updates: int
    roofline_chip_hours: float | None
    half_mfu_chip_hours: float | None


@dataclass(frozen=True, kw_only=True)
class Answer(Pace, Memory, Question):
    """All that is known of a configuration, in one flat record, as ``fit --json`` prints it.

    Attributes:
        chip: its name.
        chips: how many there are.
        mesh: devices along data, fsdp and tensor.
        gradient_accumulation: microbatches of an update.
        rows: of a microbatch.
        row_length: tokens of a row.
        padding_waste: share of the rows' tokens that are padding.
        advice: what to try where it does not fit.
    """

    chip: str
    chips: int
    mesh: tuple[int, int, int]
    gradient_accumulation: int
    rows: int
    row_length: int
    padding_waste: float
    advice: tuple[str, ...] = ()

    @property
    def questions_per_second(self) -> float:
        """Questions a second at the roofline; 0 where that is not known."""
        examples = self.batch_size * self.gradient_accumulation
        return examples / self.roofline_seconds if self.roofline_seconds else 0.0


def answer_of(
    question: Question,
    compiled: Compiled,
    work: Work,
    scoring_work: Work | None,
    batches: Batches,
    mesh: Mesh,
    chip: Chip | None,
    advice: tuple[str, ...],
    share: float = 1.0,
) -> Answer:
    """Hold a compiled step against a chip.

    Args:
        question: what is asked about.
        compiled: what the compiler says of the step.
        work: what an update asks of the chips.
        scoring_work: of a batch that is scored once before training, if any is.
        batches: of the experiment whose cost is estimated.
        mesh: the chips.
        chip: their data sheet; None for an unknown one.
        advice: what to try where it does not fit.
        share: of a chip's memory that the step may need.
    """
    memory = memory_of(compiled, chip, share)
    pace = pace_of(work, scoring_work, batches, chip)
    data, fsdp, tensor = (int(size) for size in mesh.shape.values())
    return Answer(
        **vars(question),
        **vars(memory),
        **vars(pace),
        chip=chip.name if chip else str(mesh.devices.flat[0].device_kind),
        chips=mesh.size,
        mesh=(data, fsdp, tensor),
        gradient_accumulation=batches.accumulation,
        rows=batches.shape.rows,
        row_length=batches.shape.length,
        padding_waste=round(batches.waste, 4),
        advice=() if memory.fits else advice,
    )


def memory_of(compiled: Compiled, chip: Chip | None, share: float = 1.0) -> Memory:
    """Hold a compiled step's memory against a share of a chip's."""
    # Of an unknown chip, all that can be said is whether its compiler refused.
    hbm = int(chip.hbm_gib * GIB) if chip else None
    fits = compiled.fits and (hbm is None or compiled.peak <= share * hbm)
    # The compiler's own number is lower than the data sheet's, by what the runtime takes.
    available = compiled.available or hbm
    return Memory(
        fits=fits,
        argument_bytes=compiled.arguments,
        temporary_bytes=compiled.temporary,
        peak_bytes=compiled.peak,
        hbm_bytes=available,
        over_bytes=0 if fits else max(0, compiled.peak - (available or 0)),
        compile_seconds=round(compiled.seconds, 1),
    )


def pace_of(work: Work, scoring_work: Work | None, batches: Batches, chip: Chip | None) -> Pace:
    """Return how long an update and the whole experiment take at best; see :func:`answer_of`."""
    # The roofline: arithmetic, memory and network overlap at best, so that the slowest of them
    # alone sets the time.
    bounds = work.bounds(chip) if chip else {}
    bound = max(bounds, key=lambda name: bounds[name]) if bounds else None
    roofline_seconds = bounds[bound] if bound else None
    half_mfu_seconds = work.seconds_at(0.5, chip) if chip else None
    # The reference's log-probabilities are computed once for the whole data set, before training.
    scoring_roofline = 0.0
    scoring_half_mfu = 0.0
    if scoring_work is not None and chip is not None:
        scoring_roofline = max(scoring_work.bounds(chip).values()) * batches.steps_per_epoch
        scoring_half_mfu = scoring_work.seconds_at(0.5, chip) * batches.steps_per_epoch

    def chip_hours(update_seconds: float | None, scoring_seconds: float) -> float | None:
        if update_seconds is None:
            return None
        return work.chips * (update_seconds * batches.steps + scoring_seconds) / 3600

    return Pace(
        useful_flops=work.useful / work.chips,
        executed_flops=work.executed / work.chips,
        moved_bytes=work.memory,
        network_bytes=work.network,
        roofline_seconds=roofline_seconds,
        bound=bound,
        half_mfu_seconds=half_mfu_seconds,
        updates=batches.steps,
        roofline_chip_hours=chip_hours(roofline_seconds, scoring_roofline),
        half_mfu_chip_hours=chip_hours(half_mfu_seconds, scoring_half_mfu),
    )


def mesh_shapes(devices: int) -> Iterator[tuple[int, int, int]]:
    """Yield the shapes (data, fsdp, tensor) in which so many devices can be arranged, with at most
    8 along tensor.

    Activations are summed over ``tensor`` twice in every layer. Beyond 8 devices, which is what a
    host has at most, these sums would cross hosts.
    """
    for tensor in (1, 2, 4, 8):
        if devices % tensor != 0:
            continue
        rest = devices // tensor
        for data in range(1, rest + 1):
            if rest % data == 0:
                yield data, rest // data, tensor


def largest_batch(
    attempt: Callable[[int], Answer], unit: int, largest_size: int, room: float
) -> Answer:
    """Return the answer for the largest batch that fits, or for the smallest where none does.

    Memory grows about linearly with the batch: two sizes tell the slope, the slope tells where the
    room ends, and each further attempt corrects the guess. A compiler may change its plan with the
    size, so that a guess that does not fit bounds those that follow.

    Args:
        attempt: compiles the step for a batch size; a size is answers once.
        unit: sizes are multiples of it.
        largest_size: the largest size that makes sense.
        room: bytes of a chip's memory.
    """
    answers: dict[int, Answer] = {}

    def fits(size: int) -> bool:
        if size not in answers:
            answers[size] = attempt(size)
        return answers[size].fits

    if not fits(unit):
        return answers[unit]
    fitting = unit
    too_large: int | None = None
    if fits(2 * unit):
        fitting = 2 * unit
    else:
        too_large = 2 * unit
    # An attempt compiles the step, which is slow, and the first few come close.
    for _ in range(5):
        smaller, larger = sorted(answers)[-2:]
        further_bytes = answers[larger].peak_bytes - answers[smaller].peak_bytes
        slope = further_bytes / (larger - smaller)
        bytes_left = room - answers[fitting].peak_bytes
        guess = fitting + int(bytes_left / max(slope, 1.0))
        # Not too far from what was measured, where the line may bend.
        guess = min(guess, 8 * fitting, largest_size)
        guess -= guess % unit
        if too_large is not None:
            guess = min(guess, too_large - unit)
        if guess <= fitting:
            break
        if fits(guess):
            fitting = guess
        else:
            too_large = guess
    return answers[fitting]
