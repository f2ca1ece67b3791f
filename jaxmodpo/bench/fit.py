"""``fit``: whether a step fits devices that are not here, how fast it can be at best, and what a run would take."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxmodpo.bench.table import table
from jaxmodpo.data.batches import Batches, Batching
from jaxmodpo.data.examples import LENGTH_MULTIPLE, Examples
from jaxmodpo.data.reference_lengths import full_examples, reference_examples
from jaxmodpo.errors import UserError
from jaxmodpo.methods.dpo import DPO
from jaxmodpo.methods.joint import JointDPO
from jaxmodpo.methods.modpo import MODPO
from jaxmodpo.methods.reward import RewardLoss
from jaxmodpo.methods.sft import SFT
from jaxmodpo.models import flops
from jaxmodpo.models.attention import Backend
from jaxmodpo.models.lora import LoraConfig
from jaxmodpo.models.quantised import BaseDtype
from jaxmodpo.models.remat import Remat
from jaxmodpo.models.roberta import parameter_table as encoder_table
from jaxmodpo.models.shapes import decoder_shape, encoder_shape
from jaxmodpo.ranges import Count, Settings
from jaxmodpo.schema import Range
from jaxmodpo.training.ahead import (
    Compiled,
    abstract,
    abstract_policy,
    compile_policy_step,
    compile_scoring,
    compile_step,
    topology_devices,
)
from jaxmodpo.training.hardware import Chip, chip_of
from jaxmodpo.training.mesh import make_mesh, spread
from jaxmodpo.training.policy_loss import Method
from jaxmodpo.training.roofline import Work, policy_training, reward_training, scoring

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class FitConfig(Settings):
    """Compile a step for a TPU or GPU topology, without the devices and without weights."""

    topology: str = "v5e:4x4"
    """TPU chips, such as v5e:4x4 or v5p:2x2x4 (needs libtpu, the tpu extra), or GPUs, such as cuda:1x1x8 for one host
    of 8 (needs JAX's CUDA plugin, the cuda extra)"""
    target_config: Path | None = None
    """for GPUs, XLA's description of them: a GpuTargetConfigProto as text"""
    model: str = "mistral-7b-v0.1"
    """a published model's name, a config.json, or a model folder"""
    step: Literal["train", "score", "reward"] = "train"
    """train an adapter, score with it, or train a reward model"""
    method: Literal["sft", "dpo", "modpo", "joint"] = "dpo"
    """what the adapter is trained by"""
    objectives: Count = 2
    """how many objectives modpo and joint have"""
    mesh: tuple[Count, Count, Count] | None = None
    """devices along data, fsdp and tensor; by default all on fsdp, with a copy for each GPU host"""
    batch_size: Count = 16
    """examples in memory at a time (pairs, for preference losses), over all devices"""
    gradient_accumulation: Count = 1
    """batches that are added up for one update"""
    length: Annotated[int, Range(least=8)] = 1024
    """most tokens of prompt and response"""
    lengths: Literal["full", "reference"] = "full"
    """full: every sequence is as long as can be; reference: as long as real posts and replies, some 360 tokens"""
    batching: Batching = "packed"
    """packed: sequences end to end in rows; padded: one a row"""
    base_dtype: BaseDtype = "bfloat16"
    """of the frozen base weights"""
    lora_rank: Count = 64
    """of the adapter on all seven projections"""
    remat: Remat = "full"
    """what the backward pass computes again"""
    attention: Backend = "auto"
    """which implementation"""
    reference: Literal["precomputed", "in_step"] = "precomputed"
    """where the reference's log-probabilities come from"""
    examples: Count = 2379
    """of the experiment whose cost is estimated"""
    epochs: Count = 3
    """passes over these examples"""
    search: bool = False
    """find the largest batch that fits, on the meshes that promise most"""
    search_meshes: Count = 3
    """how many meshes a search tries"""
    json: bool = False
    """print one JSON object instead of a table"""


@dataclass(frozen=True)
class Answer:
    """What is known of a configuration; sizes in bytes per chip, operations and times per update.

    Attributes:
        fits: whether the step compiles and its peak is within the chip's memory.
        hbm_bytes: the chip's memory; None where it is not known.
        over_bytes: by how much it is too large, at least; 0 if it fits.
        useful_flops: that real tokens need, on one chip.
        executed_flops: with padding and what is computed again, on one chip.
        moved_bytes: read and written in memory.
        network_bytes: received from other chips.
        roofline_seconds: the least an update can take; None for an unknown chip, like all that follow.
        bound: what sets it: arithmetic, memory or network.
        half_mfu_seconds: an update at 50% model FLOPs utilisation.
        updates: of the experiment.
        roofline_chip_hours: of the experiment, with the reference's scoring.
        half_mfu_chip_hours: likewise.
        advice: what to try where it does not fit.
    """

    model: str
    step: str
    method: str
    topology: str
    chip: str
    chips: int
    mesh: tuple[int, int, int]
    batch_size: int
    gradient_accumulation: int
    rows: int
    row_length: int
    padding_waste: float
    fits: bool
    argument_bytes: int
    temporary_bytes: int
    peak_bytes: int
    hbm_bytes: int | None
    over_bytes: int
    compile_seconds: float
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
    advice: tuple[str, ...] = ()

    @property
    def pairs_per_second(self) -> float:
        """At the roofline; 0 where that is not known."""
        examples = self.batch_size * self.gradient_accumulation
        return examples / self.roofline_seconds if self.roofline_seconds else 0.0


def fit(config: FitConfig) -> None:
    """Run ``fit``."""
    config.check()
    (encoder_shape if config.step == "reward" else decoder_shape)(config.model)  # before the compiler is started
    devices = topology_devices(config.topology, config.target_config)
    try:
        answers, best = _answers(config, devices)
    except RuntimeError as error:
        if "cuDNN" not in str(error):
            raise
        raise UserError(f"{error} It comes with 'jaxmodpo[cuda]'; --attention xla does without") from error
    if config.json:
        print(json.dumps(dataclasses.asdict(best)))
        return
    if answers:
        print(_compared(answers) + "\n")
    print(_described(config, best))


def _answers(config: FitConfig, devices: list[Any]) -> tuple[list[Answer], Answer]:
    """Return what a search found on each mesh, none without one, and the answer."""
    if config.search:
        answers = list(search(config, devices))
        fitting = [answer for answer in answers if answer.fits]
        return answers, max(fitting or answers, key=lambda answer: (answer.pairs_per_second, answer.batch_size))
    return [], answer(config, make_mesh(config.mesh, devices))


def answer(config: FitConfig, mesh: Mesh) -> Answer:
    """Compile the step for a mesh and say what it needs."""
    batches = _batches(config, mesh)
    found, work, before = _compiled_step(config, batches, mesh)
    chip = chip_of(mesh.devices.flat[0].device_kind)
    hbm = int(chip.hbm_gib * GIB) if chip else None
    fits = found.fits and (hbm is None or found.peak <= hbm)
    data, fsdp, tensor = (int(size) for size in mesh.shape.values())
    bounds = work.bounds(chip) if chip else {}
    bound = max(bounds, key=lambda name: bounds[name]) if bounds else None
    half = work.seconds_at(0.5, chip) if chip else None

    def hours(seconds: float | None, once: float) -> float | None:
        return None if seconds is None else mesh.size * (seconds * batches.steps + once) / 3600

    once_roofline = max(before.bounds(chip).values()) * batches.steps_per_epoch if before and chip else 0.0
    once_half = before.seconds_at(0.5, chip) * batches.steps_per_epoch if before and chip else 0.0
    return Answer(
        model=config.model,
        step=config.step,
        method=config.method if config.step == "train" else config.step,
        topology=config.topology,
        chip=chip.name if chip else str(mesh.devices.flat[0].device_kind),
        chips=mesh.size,
        mesh=(data, fsdp, tensor),
        batch_size=config.batch_size,
        gradient_accumulation=batches.accumulation,
        rows=batches.shape.rows,
        row_length=batches.shape.length,
        padding_waste=round(batches.waste, 4),
        fits=fits,
        argument_bytes=found.arguments,
        temporary_bytes=found.temporary,
        peak_bytes=found.peak,
        hbm_bytes=found.available or hbm,
        over_bytes=0 if fits else max(0, found.peak - (found.available or hbm or 0)),
        compile_seconds=round(found.seconds, 1),
        useful_flops=work.useful / mesh.size,
        executed_flops=work.executed / mesh.size,
        moved_bytes=work.memory,
        network_bytes=work.network,
        roofline_seconds=bounds[bound] if bound else None,
        bound=bound,
        half_mfu_seconds=half,
        updates=batches.steps,
        roofline_chip_hours=hours(bounds[bound] if bound else None, once_roofline),
        half_mfu_chip_hours=hours(half, once_half),
        advice=() if fits else tuple(_advice(config, mesh)),
    )


def _batches(config: FitConfig, mesh: Mesh) -> Batches:
    """Return batches of examples as long as the configuration says, with all that the method reads."""
    sequences = {"sft": 1, "joint": 2 * config.objectives}.get(config.method, 2) if config.step != "reward" else 2
    if config.lengths == "full":
        examples = full_examples(config.examples, config.length, sequences)
    else:
        # Of independent lengths: what a benchmark's pairs have, as often as the method needs.
        made = [reference_examples(config.examples, seed=n) for n in range(-(-sequences // 2))]
        prompts, lengths = (
            np.minimum(np.concatenate([getattr(e, name) for e in made], axis=1)[:, :sequences], config.length)
            for name in ("prompt_lengths", "lengths")
        )
        longest = -(-int(lengths.max()) // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
        tokens = np.zeros((config.examples, sequences, longest), np.int32)
        examples = Examples(tokens, prompts, lengths, {})
    fields = {"reference_logps": np.zeros((config.examples, sequences), np.float32)}
    if config.method == "modpo":
        fields["reward_margins"] = np.zeros((config.examples, config.objectives - 1), np.float32)
    settings: dict[str, Any] = {"batching": "padded"}
    if config.step == "reward":
        fields = {}
    else:
        settings = {
            "batching": config.batching,
            "cost": functools.partial(flops.token_cost, decoder_shape(config.model)),
        }
    return Batches(
        examples.with_fields(**fields),
        batch_size=config.batch_size,
        accumulation=1 if config.step == "score" else config.gradient_accumulation,
        epochs=1 if config.step == "score" else config.epochs,
        spread=spread(mesh),
        **settings,
    )


def _compiled_step(config: FitConfig, batches: Batches, mesh: Mesh) -> tuple[Compiled, Work, Work | None]:
    """Return the compiled step, its work, and the work of a batch that is scored before training, if any."""
    if config.step == "reward":
        encoder = encoder_shape(config.model)
        parameters = abstract(encoder_table(encoder), jnp.float32, mesh)
        found = compile_step(RewardLoss(encoder, config.remat, encoder.dropout > 0), parameters, {}, batches, mesh)
        return found, reward_training(encoder, batches, mesh, remat=config.remat), None
    decoder, lora = decoder_shape(config.model), LoraConfig(config.lora_rank, 2.0 * config.lora_rank, 0.05)
    shared: dict[str, Any] = {"base_dtype": config.base_dtype, "attention": config.attention}
    scored = scoring(decoder, lora, batches, mesh, base_dtype=config.base_dtype)
    if config.step == "score":
        return compile_scoring(decoder, lora, batches, mesh, **shared), scored, None
    in_step = config.reference == "in_step" and config.method != "sft"
    found = compile_policy_step(
        decoder, lora, _method(config), batches, mesh, remat=config.remat, reference_in_step=in_step, **shared
    )
    work = policy_training(
        decoder, lora, batches, mesh, base_dtype=config.base_dtype, remat=config.remat, reference_in_step=in_step
    )
    return found, work, None if in_step or config.method == "sft" else scored


def _method(config: FitConfig) -> Method:
    weights = (1 / config.objectives,) * config.objectives
    methods: dict[str, Method] = {
        "sft": SFT(),
        "dpo": DPO(0.1, 0.0),
        "modpo": MODPO(0.1, weights),
        "joint": JointDPO(0.1, weights),
    }
    return methods[config.method]


def _advice(config: FitConfig, mesh: Mesh) -> Iterator[str]:
    """Say what would make a step smaller, the cheapest first."""
    if config.step != "score" and config.remat != "full":
        yield "--remat full"
    if config.batch_size > spread(mesh):
        yield "a smaller --batch-size, with a larger --gradient-accumulation"
    if mesh.shape["data"] > 1:
        yield "a --mesh with fewer copies (its first number) and more parts"
    if config.step != "reward" and config.base_dtype in ("float32", "bfloat16"):
        yield "--base-dtype int8 or nf4"
    yield "a topology of more chips"
    yield "a smaller --length"


# ---------------------------------------------------------------------- the search


def search(config: FitConfig, devices: list[Any]) -> Iterator[Answer]:
    """Find the largest batch that fits on each of the meshes that promise most; yields one answer for each mesh.

    Memory grows linearly with the batch, so that two compilations tell where it ends and a third or fourth
    confirms it.
    """
    chip = chip_of(devices[0].device_kind)
    if chip is None:
        raise UserError(f"the memory of {devices[0].device_kind} is not known (configs/hardware/chips.yaml)")
    meshes = _promising(config, devices, chip)
    if not meshes:
        raise UserError("no mesh of these devices can hold the model; choose a topology of more chips")
    for mesh in meshes[: config.search_meshes]:
        yield _largest(config, mesh, chip)


def _promising(config: FitConfig, devices: list[Any], chip: Chip) -> list[Mesh]:
    """Return meshes on which the weights leave room, the fastest by the roofline first."""
    ranked = []
    for shape in _shapes(len(devices)):
        try:
            mesh = make_mesh(shape, devices)
            if _argument_bytes(config, mesh) > 0.9 * chip.hbm_gib * GIB:
                continue
            batches = _batches(dataclasses.replace(config, batch_size=_unit(config, mesh) * 2), mesh)
        except UserError:
            continue  # the model does not divide this mesh
        if config.step == "reward":
            work = reward_training(encoder_shape(config.model), batches, mesh, remat=config.remat)
        else:
            lora = LoraConfig(config.lora_rank, 2.0 * config.lora_rank, 0.05)
            decoder = decoder_shape(config.model)
            work = policy_training(decoder, lora, batches, mesh, base_dtype=config.base_dtype, remat=config.remat)
        bounds = work.bounds(chip)
        # As fast as each other by two digits: then the one that leaves more room.
        pace = float(f"{max(bounds.values()) / batches.examples_per_update:.1e}")
        ranked.append(((pace, _argument_bytes(config, mesh)), mesh))
    return [mesh for _, mesh in sorted(ranked, key=lambda pair: pair[0])]


def _shapes(devices: int) -> Iterator[tuple[int, int, int]]:
    for tensor in (1, 2, 4, 8):
        if devices % tensor == 0:
            for data in range(1, devices // tensor + 1):
                if devices // tensor % data == 0:
                    yield data, devices // tensor // data, tensor


def _argument_bytes(config: FitConfig, mesh: Mesh) -> float:
    """Return the bytes of weights, adapter and moments on one chip."""
    if config.step == "reward":
        encoder = abstract(encoder_table(encoder_shape(config.model)), jnp.float32, mesh)
        return 3 * _shard_bytes(encoder)
    lora = LoraConfig(config.lora_rank, 2.0 * config.lora_rank, 0.05)
    base, adapter = abstract_policy(decoder_shape(config.model), lora, mesh, config.base_dtype)
    return _shard_bytes(base) + 3 * _shard_bytes(adapter)


def _shard_bytes(arrays: dict[str, Any]) -> float:
    return sum(math.prod(a.sharding.shard_shape(a.shape)) * a.dtype.itemsize for a in arrays.values())


def _unit(config: FitConfig, mesh: Mesh) -> int:
    """Return what batch sizes should be multiples of, so that every device has the same number of sequences."""
    if config.step != "reward" and config.batching == "packed" and config.method != "sft":
        return max(1, spread(mesh) // 2)
    return spread(mesh)


def _largest(config: FitConfig, mesh: Mesh, chip: Chip) -> Answer:
    update, unit = config.batch_size * config.gradient_accumulation, _unit(config, mesh)
    room = chip.hbm_gib * GIB
    tried: dict[int, Answer] = {}

    def attempt(size: int) -> Answer:
        if size not in tried:
            parts = max(1, round(update / size))
            tried[size] = answer(dataclasses.replace(config, batch_size=size, gradient_accumulation=parts), mesh)
            found = tried[size]
            said = "fits" if found.fits else "does not fit"
            print(
                f"mesh {' '.join(map(str, found.mesh))}, batch {size}: {said}, {found.peak_bytes / GIB:.2f} GiB",
                file=sys.stderr,
            )
        return tried[size]

    first = attempt(unit)
    if not first.fits:
        return first
    second = attempt(2 * unit)
    low, high = unit, None
    if second.fits:
        low = 2 * unit
    else:
        high = 2 * unit
    for _ in range(5):
        sizes = sorted(tried)[-2:]
        slope = (tried[sizes[1]].peak_bytes - tried[sizes[0]].peak_bytes) / (sizes[1] - sizes[0])
        guess = low + int((room - tried[low].peak_bytes) / max(slope, 1.0))
        guess = min(guess, 8 * low, config.examples)
        guess -= guess % unit
        if high is not None:
            guess = min(guess, high - unit)
        if guess <= low:
            break
        if attempt(guess).fits:
            low = guess
        else:
            high = guess
    return tried[low]


# ---------------------------------------------------------------------- what is printed


def _compared(answers: list[Answer]) -> str:
    rows = [
        [
            " ".join(map(str, a.mesh)),
            str(a.batch_size) if a.fits else "none",
            f"{a.peak_bytes / GIB:.2f}",
            f"{a.pairs_per_second:.1f}",
            a.bound or "",
        ]
        for a in answers
    ]
    return table(["mesh", "largest batch", "peak GiB", "examples/s at the roofline", "bound"], rows)


def _described(config: FitConfig, a: Answer) -> str:
    head = [
        f"{a.model}: {a.method} step on {a.topology}, {a.chips} × {a.chip}, mesh data {a.mesh[0]} × fsdp {a.mesh[1]} × "
        f"tensor {a.mesh[2]}",
        f"update of {a.batch_size * a.gradient_accumulation} examples: {a.gradient_accumulation} × {a.rows} rows of "
        f"{a.row_length:,} tokens, {a.padding_waste:.1%} padding",
        "",
    ]
    memory = f"{a.peak_bytes / GIB:.2f}" + (f" of {a.hbm_bytes / GIB:.2f} GiB" if a.hbm_bytes else " GiB")
    if a.fits:
        verdict = "fits"
    else:
        verdict = f"does not fit: at least {a.over_bytes / GIB:.2f} GiB too much" if a.over_bytes else "does not fit"
    rows = [
        ["peak memory", f"{memory}: {verdict}"],
        ["arguments", f"{a.argument_bytes / GIB:.2f} GiB" if a.argument_bytes else ""],
        ["temporaries", f"{a.temporary_bytes / GIB:.2f} GiB" if a.temporary_bytes else ""],
        ["useful arithmetic", f"{a.useful_flops / 1e12:.2f} TFLOP"],
        ["executed arithmetic", f"{a.executed_flops / 1e12:.2f} TFLOP"],
        ["memory traffic", f"{a.moved_bytes / 1e9:.1f} GB"],
        ["received from other chips", f"{a.network_bytes / 1e9:.1f} GB"],
    ]
    if a.roofline_seconds is not None and a.half_mfu_seconds is not None:
        rows += [
            ["update at the roofline", f"{a.roofline_seconds:.3f} s, bound by {a.bound}"],
            ["update at 50% MFU", f"{a.half_mfu_seconds:.3f} s"],
            [
                f"{config.examples:,} examples × {1 if a.step == 'score' else config.epochs}",
                f"{a.updates} updates: {a.roofline_chip_hours:.2f} chip-hours at the roofline, "
                f"{a.half_mfu_chip_hours:.2f} at 50% MFU",
            ],
        ]
    rows.append(["compiled here in", f"{a.compile_seconds:.0f} s"])
    tail = ["", "To make it fit, try: " + "; ".join(a.advice) + "."] if a.advice else []
    return "\n".join([*head, table(["for one chip and update", ""], rows), *tail])
