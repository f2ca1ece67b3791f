"""``fit``: whether a step fits devices that are not here, how fast it can be at best, and what a
run would take.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jax.numpy as jnp
from jax.sharding import Mesh

from jaxmodpo.bench.fit_examples import batches_of, replies_of
from jaxmodpo.bench.fit_sampling import described_sampling, fit_sampling
from jaxmodpo.bench.fit_tables import compared, described
from jaxmodpo.data.batches import Batches, Batching
from jaxmodpo.errors import UserError
from jaxmodpo.flags.help_groups import HelpGroup
from jaxmodpo.methods.dpo import DPO
from jaxmodpo.methods.joint import JointDPO
from jaxmodpo.methods.modpo import MODPO
from jaxmodpo.methods.reward_model import RewardLoss
from jaxmodpo.methods.sft import SFT
from jaxmodpo.models.attention import Backend
from jaxmodpo.models.lora import LoraConfig
from jaxmodpo.models.quantized import BaseDtype
from jaxmodpo.models.remat import Remat
from jaxmodpo.models.roberta import parameter_table as encoder_table
from jaxmodpo.models.shapes import decoder_shape, encoder_shape
from jaxmodpo.policy.mesh import make_mesh, row_shards
from jaxmodpo.ranges import Count, Unestimated
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
from jaxmodpo.training.fit import GIB, Answer, Question, answer_of, largest_batch, mesh_shapes
from jaxmodpo.training.hardware import Chip, chip_of
from jaxmodpo.training.policy_loss import Method
from jaxmodpo.training.roofline import Work, policy_training, reward_training, scoring

logger = logging.getLogger(__name__)

DEFAULT_TOPOLOGY = "v5e:4x4"


@dataclass(frozen=True, kw_only=True)
class FitConfig(Unestimated, help_group="model"):
    """Compile a step for a TPU or GPU topology, without the devices and without weights."""

    topology: Annotated[str, HelpGroup("devices")] = DEFAULT_TOPOLOGY
    """Devices that are compiled for: TPU chips, such as v5e:4x4 or v5p:2x2x4, which need libtpu
    (the tpu extra), or GPUs, such as cuda:1x1x8 for one host of 8, which need JAX's CUDA plugin
    (the cuda extra)."""
    target_config: Annotated[Path | None, HelpGroup("devices")] = None
    """File with XLA's description of the GPUs, a GpuTargetConfigProto as text; TPUs need none."""
    model: str = "mistral-7b-v0.1"
    """Shape of the model: a published model's name, a config.json, or a model folder."""
    step: Annotated[Literal["train", "score", "reward", "sample"], HelpGroup("objective")] = "train"
    """What is compiled: a step that trains an adapter, one that scores with it, one that trains a
    reward model, or the sampler's loop."""
    method: Annotated[Literal["sft", "dpo", "modpo", "joint"], HelpGroup("objective")] = "dpo"
    """Method that the adapter is trained by."""
    objectives: Annotated[Count, HelpGroup("objective")] = 2
    """Number of objectives of modpo and joint."""
    mesh: Annotated[tuple[Count, Count, Count] | None, HelpGroup("devices")] = None
    """Number of devices along the mesh axes data, fsdp and tensor; by default all are on fsdp, with
    a copy of the model for each GPU host."""
    batch_size: Annotated[Count, HelpGroup("batch")] = 16
    """Number of questions in memory at a time, over all devices; of the sampler, the replies under
    way."""
    replies: Annotated[Count | None, HelpGroup("batch")] = None
    """Number of a question's replies, each of which is computed once; every two of them are a pair.
    By default two, of sft one, of joint two for each objective."""
    gradient_accumulation: Annotated[Count, HelpGroup("batch")] = 1
    """Number of batches whose gradients are added up for one update."""
    length: Annotated[int, Range(least=8), HelpGroup("batch")] = 1024
    """Maximum number of tokens of a prompt and its response."""
    lengths: Annotated[Literal["full", "reference"], HelpGroup("batch")] = "full"
    """Lengths of the sequences: full makes every one as long as can be, reference as long as real
    posts and replies, some 360 tokens."""
    batching: Annotated[Batching, HelpGroup("computation")] = "packed"
    """Layout of a batch: packed puts several sequences into a row, padded one."""
    base_dtype: BaseDtype = "bfloat16"
    """Type of the frozen base weights; int8 and nf4 are quantized."""
    lora_rank: Count = 64
    """Rank of the adapter, which lies on all seven projections."""
    adapters: Count = 1
    """Number of adapters of this rank that the sampler has side by side."""
    remat: Annotated[Remat, HelpGroup("computation")] = "full"
    """What the backward pass computes again to save memory: whole layers (full), everything but
    matrix products (dots), or nothing (none)."""
    attention: Annotated[Backend, HelpGroup("computation")] = "auto"
    """Implementation of attention; auto takes splash on TPUs and cuDNN on GPUs where they can, and
    XLA otherwise."""
    reference: Annotated[Literal["precomputed", "in_step"], HelpGroup("computation")] = (
        "precomputed"
    )
    """Source of the reference's log-probabilities: precomputed takes them from the disk, in_step
    computes them in every update."""
    examples: Annotated[Count, HelpGroup("batch")] = 2379
    """Number of questions of the run whose cost is estimated."""
    epochs: Annotated[Count, HelpGroup("batch")] = 3
    """Number of passes over these examples."""
    search: Annotated[bool, HelpGroup("search")] = False
    """Search the largest batch that fits, on the meshes that promise most."""
    search_meshes: Annotated[Count, HelpGroup("search")] = 3
    """Maximum number of meshes that a search tries."""
    json: Annotated[bool, HelpGroup("output")] = False
    """Print one JSON object instead of a table."""

    def check(self) -> None:
        super().check()
        if self.step == "sample" and self.search:
            raise UserError("--search is for steps that train; give --step sample a --batch-size")
        if self.step != "sample" and self.adapters > 1:
            raise UserError("--adapters is for --step sample; the other steps have one adapter")
        if self.replies == 1 and (self.method != "sft" or self.step == "reward"):
            raise UserError("--replies 1 makes no pair; only --method sft learns from one reply")


def fit(config: FitConfig) -> None:
    """Run ``fit``."""
    config.check()
    # A model that is not known is refused here, before the compiler is started.
    if config.step == "reward":
        encoder_shape(config.model)
    else:
        decoder_shape(config.model)
    devices = topology_devices(config.topology, config.target_config)
    logger.info(
        "compiling for %s, %d × %s%s",
        config.topology,
        len(devices),
        devices[0].device_kind,
        ", the default; --topology names others" if config.topology == DEFAULT_TOPOLOGY else "",
    )
    if config.step == "sample":
        print_sampling(config, devices)
        return
    try:
        answers, best = _answers(config, devices)
    except RuntimeError as error:
        if "cuDNN" not in str(error):
            raise
        raise UserError(
            f"{error} It comes with 'jaxmodpo[cuda]'; --attention xla does without"
        ) from error
    if config.json:
        print(json.dumps(dataclasses.asdict(best)))
        return
    if answers:
        print(compared(answers) + "\n")
    print(described(best, config.examples, config.epochs))


def print_sampling(config: FitConfig, devices: list[Any]) -> None:
    """Compile the sampler's loop and print what it needs."""
    sampling = fit_sampling(
        config.model,
        devices,
        topology=config.topology,
        mesh_shape=config.mesh,
        slots=config.batch_size,
        length=config.length,
        lora_rank=config.lora_rank,
        adapters=config.adapters,
        base_dtype=config.base_dtype,
    )
    print(json.dumps(dataclasses.asdict(sampling)) if config.json else described_sampling(sampling))


def _answers(config: FitConfig, devices: list[Any]) -> tuple[list[Answer], Answer]:
    """Return what a search found on each mesh, none without one, and the answer."""
    if not config.search:
        return [], answer(config, make_mesh(config.mesh, devices))
    answers = list(search(config, devices))
    # Where none fits, the fastest that does not still says what is missing.
    candidates = [answer for answer in answers if answer.fits] or answers
    best = max(candidates, key=lambda answer: (answer.questions_per_second, answer.batch_size))
    return answers, best


def answer(config: FitConfig, mesh: Mesh) -> Answer:
    """Compile the step for a mesh and say what it needs."""
    batches = batches_of(config, mesh)
    compiled, work, scoring_work = _compiled_step(config, batches, mesh)
    question = Question(
        model=config.model,
        step=config.step,
        method=config.method if config.step == "train" else config.step,
        topology=config.topology,
        batch_size=config.batch_size,
    )
    chip = chip_of(mesh.devices.flat[0].device_kind)
    advice = tuple(_advice(config, mesh))
    return answer_of(question, compiled, work, scoring_work, batches, mesh, chip, advice)


def _compiled_step(
    config: FitConfig, batches: Batches, mesh: Mesh
) -> tuple[Compiled, Work, Work | None]:
    """Return the compiled step, its work, and the work of a batch that is scored before training,
    if any.
    """
    if config.step == "reward":
        encoder = encoder_shape(config.model)
        parameters = abstract(encoder_table(encoder), jnp.float32, mesh)
        loss = RewardLoss(encoder, config.remat, encoder.dropout > 0)
        compiled = compile_step(loss, parameters, {}, batches, mesh)
        return compiled, reward_training(encoder, batches, mesh, remat=config.remat), None
    decoder = decoder_shape(config.model)
    lora = _lora(config)
    shared: dict[str, Any] = {"base_dtype": config.base_dtype, "attention": config.attention}
    scored = scoring(decoder, lora, batches, mesh, base_dtype=config.base_dtype)
    if config.step == "score":
        return compile_scoring(decoder, lora, batches, mesh, **shared), scored, None
    # Supervised fine-tuning has no reference, whatever the setting says.
    in_step = config.reference == "in_step" and config.method != "sft"
    compiled = compile_policy_step(
        decoder,
        lora,
        _method(config),
        batches,
        mesh,
        remat=config.remat,
        reference_in_step=in_step,
        **shared,
    )
    work = policy_training(
        decoder,
        lora,
        batches,
        mesh,
        base_dtype=config.base_dtype,
        remat=config.remat,
        reference_in_step=in_step,
    )
    has_scoring_before = config.method != "sft" and not in_step
    return compiled, work, scored if has_scoring_before else None


def _lora(config: FitConfig) -> LoraConfig:
    """Return the adapter that trainings have by default, of the rank that the settings say."""
    return LoraConfig(config.lora_rank, 2.0 * config.lora_rank, 0.05)


def _method(config: FitConfig) -> Method:
    """Return the method that the settings name, with equal weights."""
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
    if config.batch_size > row_shards(mesh):
        yield "a smaller --batch-size, with a larger --gradient-accumulation"
    if mesh.shape["data"] > 1:
        yield "a --mesh with fewer copies (its first number) and more parts"
    if config.step != "reward" and config.base_dtype in ("float32", "bfloat16"):
        yield "--base-dtype int8 or nf4"
    yield "a topology of more chips"
    yield "a smaller --length"


# ---------------------------------------------------------------------- the search


def search(config: FitConfig, devices: list[Any]) -> Iterator[Answer]:
    """Find the largest batch that fits on each of the meshes that promise most; yields one answer
    for each mesh.

    Memory grows linearly with the batch, so that two compilations tell where it ends and a third or
    fourth confirms it.
    """
    chip = chip_of(devices[0].device_kind)
    if chip is None:
        raise UserError(
            f"the memory of {devices[0].device_kind} is not known (configs/hardware/chips.yaml)"
        )
    meshes = _promising(config, devices, chip)
    if not meshes:
        raise UserError(
            "no mesh of these devices can hold the model; choose a topology of more chips"
        )
    for mesh in meshes[: config.search_meshes]:
        yield _largest(config, mesh, chip)


def _promising(config: FitConfig, devices: list[Any], chip: Chip) -> list[Mesh]:
    """Return meshes on which the weights leave room, the fastest by the roofline first."""
    meshes: list[Mesh] = []
    ranks: list[tuple[float, float]] = []
    for shape in mesh_shapes(len(devices)):
        try:
            mesh = make_mesh(shape, devices)
            # A tenth of the memory at least is for activations. Compiling takes minutes, and this
            # takes none.
            if _argument_bytes(config, mesh) > 0.9 * chip.hbm_gib * GIB:
                continue
            small = dataclasses.replace(config, batch_size=_unit(config, mesh) * 2)
            batches = batches_of(small, mesh)
        except UserError:
            continue  # the model does not divide this mesh
        # The roofline is known without compiling, and is good enough to choose by.
        slowest_bound = max(_training_work(config, batches, mesh).bounds(chip).values())
        # As fast as each other by two digits: then the one that leaves more room.
        pace = float(f"{slowest_bound / batches.examples_per_update:.1e}")
        meshes.append(mesh)
        ranks.append((pace, _argument_bytes(config, mesh)))
    order = sorted(range(len(meshes)), key=ranks.__getitem__)
    return [meshes[number] for number in order]


def _training_work(config: FitConfig, batches: Batches, mesh: Mesh) -> Work:
    """Return what an update asks of a mesh, whatever the method."""
    if config.step == "reward":
        return reward_training(encoder_shape(config.model), batches, mesh, remat=config.remat)
    return policy_training(
        decoder_shape(config.model),
        _lora(config),
        batches,
        mesh,
        base_dtype=config.base_dtype,
        remat=config.remat,
    )


def _argument_bytes(config: FitConfig, mesh: Mesh) -> float:
    """Return the bytes of weights, adapter and moments on one chip."""
    if config.step == "reward":
        encoder = abstract(encoder_table(encoder_shape(config.model)), jnp.float32, mesh)
        # Adam keeps two moments of every trained weight.
        return 3 * _shard_bytes(encoder)
    decoder = decoder_shape(config.model)
    base, adapter = abstract_policy(decoder, _lora(config), mesh, config.base_dtype)
    return _shard_bytes(base) + 3 * _shard_bytes(adapter)


def _shard_bytes(arrays: dict[str, Any]) -> float:
    """Return the bytes of arrays on one chip."""
    total = 0
    for array in arrays.values():
        total += math.prod(array.sharding.shard_shape(array.shape)) * array.dtype.itemsize
    return total


def _unit(config: FitConfig, mesh: Mesh) -> int:
    """Return what batch sizes should be multiples of, so that every device has the same number of
    sequences.
    """
    # Rows are divided among the devices by sequences, of which a question has one for each reply.
    return max(1, row_shards(mesh) // replies_of(config))


def _largest(config: FitConfig, mesh: Mesh, chip: Chip) -> Answer:
    """Return the answer for the largest batch that fits on a mesh; an update keeps about as many
    examples.
    """
    examples_per_update = config.batch_size * config.gradient_accumulation

    def attempt(size: int) -> Answer:
        microbatches = max(1, round(examples_per_update / size))
        changed = dataclasses.replace(config, batch_size=size, gradient_accumulation=microbatches)
        attempted = answer(changed, mesh)
        verdict = "fits" if attempted.fits else "does not fit"
        print(
            f"mesh {' '.join(map(str, attempted.mesh))}, batch {size}: {verdict},"
            f" {attempted.peak_bytes / GIB:.2f} GiB",
            file=sys.stderr,
        )
        return attempted

    return largest_batch(attempt, _unit(config, mesh), config.examples, chip.hbm_gib * GIB)
