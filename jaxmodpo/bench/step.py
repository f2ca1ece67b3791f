"""``bench step``: how fast DPO trains, with the reference precomputed or not, packed or padded, and
against TRL.
"""

from __future__ import annotations

import functools
import itertools
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxmodpo.bench.contender import Contender
from jaxmodpo.bench.table import text_table
from jaxmodpo.bench.trl_step import TrlRun, import_trl, trl_contenders
from jaxmodpo.data.batches import Batches, Batching
from jaxmodpo.data.examples import Examples
from jaxmodpo.data.reference_lengths import comparing, every_pair, reference_examples
from jaxmodpo.flags.help_groups import HelpGroup
from jaxmodpo.methods.dpo import DPO
from jaxmodpo.models import flops
from jaxmodpo.models.attention import Attention, Backend
from jaxmodpo.models.decoder import parameter_table
from jaxmodpo.models.decoder_config import DecoderConfig
from jaxmodpo.models.loading import dtype_named
from jaxmodpo.models.lora import LoraConfig, adapter_table
from jaxmodpo.models.parameters import Parameters, Spec, initialize
from jaxmodpo.models.quantized import BaseDtype, is_projection, is_quantized, quantize, stored_table
from jaxmodpo.models.remat import Remat
from jaxmodpo.models.shapes import settings
from jaxmodpo.policy.loaded import check_attention
from jaxmodpo.policy.mesh import check_heads, make_mesh, place_batch, row_shards, shardings
from jaxmodpo.ranges import Count, Probability, Unestimated
from jaxmodpo.schema import Range
from jaxmodpo.training.hardware import peak_flops
from jaxmodpo.training.policy_loss import PolicyLoss
from jaxmodpo.training.step import OptimizerSettings, initial_state, train_step

Reference = Literal["precomputed", "in_step"]
Unit = Literal["question", "pair"]
_NAMES: dict[Unit, str] = {"question": "", "pair": "pair by pair, "}


@dataclass(frozen=True, kw_only=True)
class BenchStepConfig(Unestimated, help_group="measurement"):
    """Train random weights of a model's shape by DPO on every pair of replies as long as real ones,
    and print the speed.
    """

    model: Annotated[str, HelpGroup("model")] = "tiny-mistral"
    """Shape of the model: a published model's name, a config.json, or a model folder."""
    base_dtype: Annotated[BaseDtype | None, HelpGroup("model")] = None
    """Type of the frozen base weights; by default float32 on a CPU and bfloat16 elsewhere."""
    lora_rank: Annotated[Count, HelpGroup("model")] = 16
    """Rank of the adapter, which lies on all seven projections."""
    batch_size: Annotated[Count, HelpGroup("batch")] = 8
    """Number of questions in memory at a time, over all devices."""
    replies: Annotated[int, Range(least=2), HelpGroup("batch")] = 2
    """Number of replies to a question; every two of them are a pair."""
    units: Annotated[tuple[Unit, ...], HelpGroup("computation")] = ("question",)
    """What a batch consists of: question computes each of a question's replies once, pair has two
    sequences for each pair, as other trainers do. An update has the same pairs."""
    gradient_accumulation: Annotated[Count, HelpGroup("batch")] = 1
    """Number of batches whose gradients are added up for one update."""
    length_share: Annotated[Probability | None, HelpGroup("batch")] = None
    """Share of the reference lengths that sequences have; by default a quarter on a CPU and the
    whole elsewhere."""
    references: Annotated[tuple[Reference, ...], HelpGroup("computation")] = (
        "precomputed",
        "in_step",
    )
    """Sources of the reference's log-probabilities that are timed: precomputed takes them from the
    disk, in_step computes them in every update."""
    batchings: Annotated[tuple[Batching, ...], HelpGroup("computation")] = ("packed", "padded")
    """Layouts that are timed: packed puts several sequences into a row, padded one."""
    remat: Annotated[Remat, HelpGroup("computation")] = "none"
    """What the backward pass computes again to save memory: whole layers (full), everything but
    matrix products (dots), or nothing (none)."""
    attention: Annotated[Backend, HelpGroup("computation")] = "auto"
    """Implementation of attention; auto takes splash on TPUs and cuDNN on GPUs where they can, and
    XLA otherwise."""
    mesh: Annotated[tuple[Count, Count, Count] | None, HelpGroup("devices")] = None
    """Number of devices along the mesh axes data, fsdp and tensor."""
    updates: Count = 16
    """Number of updates that are timed, after those that compile."""
    rounds: Count = 3
    """Number of times that the updates are timed, all configurations in turn; the fastest round
    counts, for TRL likewise."""
    against: Literal["trl"] | None = None
    """Other trainer that is timed as well: trl times TRL's DPOTrainer in float32, at its defaults
    and with precomputed references, and needs torch, trl and peft."""


def bench_step(config: BenchStepConfig) -> None:
    """Run ``bench step``."""
    config.check()
    shape = DecoderConfig.from_mapping(settings(config.model), config.model)
    if config.against:
        # Before anything is compiled: whoever lacks torch should not wait to be told so.
        import_trl()
    mesh = make_mesh(config.mesh)
    check_heads(shape, mesh)
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    share = config.length_share or (0.25 if on_cpu else 1.0)
    base_dtype: BaseDtype = config.base_dtype or ("float32" if on_cpu else "bfloat16")
    per_update = config.batch_size * config.gradient_accumulation
    questions = reference_examples(
        per_update * config.updates,
        replies=config.replies,
        share=share,
        vocab_size=shape.vocab_size,
    )
    pairs = _pairs_of(questions)
    pairs_per_question = len(every_pair(config.replies))
    lora = LoraConfig(config.lora_rank, 2.0 * config.lora_rank, 0.0)
    with tempfile.TemporaryDirectory() as temporary:
        contenders = _our_contenders(config, shape, lora, questions, mesh, base_dtype)
        if config.against:
            run = TrlRun(
                model=config.model,
                batch_size=config.batch_size * pairs_per_question,
                gradient_accumulation=config.gradient_accumulation,
                updates=config.updates,
                folder=Path(temporary),
            )
            contenders += trl_contenders(run, shape, lora, pairs)
        best = _fastest_rounds(contenders, config.rounds)
    peak = peak_flops(mesh.devices.flat[0].device_kind)
    rivals = [contender for contender in contenders if contender.name.startswith("TRL")]
    device_kind = mesh.devices.flat[0].device_kind
    rows = [_row(contender, best, rivals, mesh.size, peak) for contender in contenders]
    padded_tokens = questions.tokens.size / questions.lengths.sum()
    print(
        f"{config.model}, {base_dtype}, rank {config.lora_rank}, updates of {per_update} questions"
        f" with {config.replies} replies and {pairs_per_question} pairs each,"
        f" {questions.lengths.mean():.0f} tokens a reply on average and {questions.lengths.max()}"
        f" at most (padding to one length: {padded_tokens:.2f}× the tokens), {mesh.size} ×"
        f" {device_kind}\n"
    )
    header = ["", "pairs/s", "tokens/s", "TFLOP/s a device", "MFU", "peak MiB"]
    print(text_table(header + [f"against {rival.name}" for rival in rivals], rows))


def _fastest_rounds(contenders: Sequence[Contender], rounds: int) -> dict[str, float]:
    """Time all contenders in turn, several times; return the fewest seconds of each, by name."""
    # In turn, since a machine is slower at times: whoever has the bad minutes has them in one round
    # only. The fastest round counts, since nothing makes a machine faster than it is.
    fewest_seconds: dict[str, float] = {}
    for number in range(rounds):
        for contender in contenders:
            print(f"round {number + 1} of {rounds}: {contender.name}", file=sys.stderr)
            seconds = contender.run()
            fewest_seconds[contender.name] = min(
                seconds, fewest_seconds.get(contender.name, np.inf)
            )
    return fewest_seconds


def _row(
    contender: Contender,
    best: Mapping[str, float],
    rivals: Sequence[Contender],
    devices: int,
    peak: float | None,
) -> list[str]:
    """Return a contender's row of the table.

    Args:
        contender: the configuration.
        best: the fewest seconds of each, by name.
        rivals: those that everyone is compared with.
        devices: how many devices computed.
        peak: FLOP/s that a device can do at most, or None.
    """
    # Speeds are of real tokens: padding costs time and counts for nothing.
    seconds = best[contender.name]
    pairs_per_second = contender.pairs / seconds
    flops_per_device = contender.operations / seconds / devices
    cells = [
        contender.name,
        f"{pairs_per_second:.2f}",
        f"{contender.tokens / seconds:,.0f}",
        f"{flops_per_device / 1e12:.3g}",
        f"{flops_per_device / peak:.1%}" if peak else "",
        f"{contender.peak / 2**20:,.0f}" if contender.peak else "",
    ]
    for rival in rivals:
        rival_speed = rival.pairs / best[rival.name]
        cells.append(f"{pairs_per_second / rival_speed:.2f}×")
    return cells


# ---------------------------------------------------------------------- ours


def _our_contenders(
    config: BenchStepConfig,
    shape: DecoderConfig,
    lora: LoraConfig,
    questions: Examples,
    mesh: Mesh,
    base_dtype: BaseDtype,
) -> list[Contender]:
    # All contenders share the base, which is by far the largest of what they hold.
    base = random_base(shape, base_dtype, mesh)
    contenders: list[Contender] = []
    for unit, batching, reference in itertools.product(
        config.units, config.batchings, config.references
    ):
        print(f"compiling: {unit}, {batching}, reference {reference}", file=sys.stderr)
        contenders.append(
            _contender(config, shape, lora, questions, mesh, base, unit, batching, reference)
        )
    return contenders


def _pairs_of(questions: Examples) -> Examples:
    """Return every two replies of each question as an example with two sequences of its own."""
    places = every_pair(questions.tokens.shape[1])
    count = len(questions) * len(places)
    return Examples(
        tokens=questions.tokens[:, places].reshape(count, 2, -1),
        prompt_lengths=questions.prompt_lengths[:, places].reshape(count, 2),
        lengths=questions.lengths[:, places].reshape(count, 2),
        fields={},
    )


def random_base(shape: DecoderConfig, base_dtype: BaseDtype, mesh: Mesh) -> Parameters:
    """Return random weights in their format; never whole in float32."""
    dtype = dtype_named("bfloat16" if is_quantized(base_dtype) else base_dtype)
    stored_table(parameter_table(shape), base_dtype)  # refuses what cannot be quantized
    table_of_all = parameter_table(shape)
    sharding_of = shardings(mesh)(table_of_all)
    base: Parameters = {}
    # One parameter at a time, each made in place on its devices: a whole model in a wider format
    # would not fit where the quantized one does.
    for number, (name, spec) in enumerate(table_of_all.items()):
        make = jax.jit(
            functools.partial(_random_array, name, spec, dtype), out_shardings=sharding_of[name]
        )
        array = make(jax.random.key(number))
        if is_quantized(base_dtype) and is_projection(spec):
            # Layer by layer, as a checkpoint is quantized when it is loaded.
            components = jax.lax.map(lambda layer: quantize(layer, base_dtype), array)
            for component, values in components.items():
                base[f"{name}.{component}"] = values
        else:
            base[name] = array
    return base


def _random_array(name: str, spec: Spec, dtype: Any, key: jax.Array) -> jax.Array:
    return initialize({name: spec}, key, dtype)[name]


def _batches(
    config: BenchStepConfig,
    shape: DecoderConfig,
    questions: Examples,
    mesh: Mesh,
    unit: Unit,
    batching: Batching,
    *,
    with_reference: bool,
) -> Batches:
    """Return the same pairs an update, as questions or each with replies of its own."""
    places = every_pair(config.replies)
    if unit == "question":
        examples = comparing(questions, places)
        batch_size = config.batch_size
    else:
        examples = comparing(_pairs_of(questions), every_pair(2))
        batch_size = config.batch_size * len(places)
    if with_reference:
        # Their values do not change the time.
        reference_logps = np.zeros(examples.lengths.shape, np.float32)
        examples = examples.with_fields(reference_logps=reference_logps)
    return Batches(
        examples,
        batch_size=batch_size,
        accumulation=config.gradient_accumulation,
        batching=batching,
        row_shards=row_shards(mesh),
        cost=functools.partial(flops.token_cost, shape),
    )


def _contender(
    config: BenchStepConfig,
    shape: DecoderConfig,
    lora: LoraConfig,
    questions: Examples,
    mesh: Mesh,
    base: Parameters,
    unit: Unit,
    batching: Batching,
    reference: Reference,
) -> Contender:
    in_step = reference == "in_step"
    attention = Attention(config.attention, mesh)
    check_attention(attention, shape, config.base_dtype or "bfloat16")
    loss = PolicyLoss(shape, lora, DPO(0.1), attention, config.remat, in_step, lora.dropout > 0)
    batches = _batches(config, shape, questions, mesh, unit, batching, with_reference=not in_step)
    constants = {"loss": loss, "optimizer": OptimizerSettings(0.01, 1.0)}
    adapter_parameters = adapter_table(parameter_table(shape), lora)
    make_adapter = jax.jit(
        lambda key: initialize(adapter_parameters, key),
        out_shardings=shardings(mesh)(adapter_parameters),
    )
    adapter = make_adapter(jax.random.key(1))
    key = jax.jit(lambda: jax.random.key(0), out_shardings=NamedSharding(mesh, PartitionSpec()))()
    rate = np.float32(5e-6)

    def arguments(step: int, state: Any) -> tuple[Any, ...]:
        return (
            state,
            base,
            place_batch(mesh, batches.at(step), batches.by_rows),
            key,
            np.int32(step),
            rate,
        )

    state = initial_state(constants["optimizer"], adapter)
    # Compiled once, here, so that its memory can be asked for.
    compiled = train_step.lower(*arguments(0, state), **constants).compile()
    memory: Any = compiled.memory_analysis()
    # The first update is slower than the others and is not timed.
    state, _ = jax.block_until_ready(compiled(*arguments(0, state), **constants))

    def run() -> float:
        nonlocal state
        started = time.perf_counter()
        for step in range(batches.steps):
            # A state's memory is given to the next one, so the old one cannot be used again.
            state, _ = compiled(*arguments(step, state), **constants)
        # Updates are only queued here: the clock stops when the devices are done.
        jax.block_until_ready(state)
        return time.perf_counter() - started

    # XLA's peak leaves out temporaries on a CPU.
    peak = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    if mesh.devices.flat[0].platform != "cpu":
        peak = getattr(memory, "peak_memory_in_bytes", 0) or peak
    return Contender(
        name=f"{_NAMES[unit]}{batching}, reference {reference.replace('_', ' ')}",
        pairs=len(questions) * len(every_pair(config.replies)),
        # A reply that is computed again for another pair is no more useful than padding.
        tokens=int(questions.lengths.sum()),
        operations=flops.training(shape, lora, questions.lengths, in_step),
        peak=peak,
        run=run,
    )
