"""``bench step``: how fast DPO trains, with the reference precomputed or not, packed or padded, and
against TRL.
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxmodpo.bench.table import table
from jaxmodpo.data.batches import Batches, Batching
from jaxmodpo.data.examples import Examples
from jaxmodpo.data.reference_lengths import reference_examples
from jaxmodpo.errors import UserError
from jaxmodpo.flags.help_groups import HelpGroup
from jaxmodpo.methods.dpo import DPO
from jaxmodpo.models import flops
from jaxmodpo.models.attention import Attention, Backend
from jaxmodpo.models.decoder import parameter_table
from jaxmodpo.models.decoder_config import DecoderConfig
from jaxmodpo.models.loading import dtype_named
from jaxmodpo.models.lora import LoraConfig, adapter_table
from jaxmodpo.models.parameters import Parameters, Table, initialize
from jaxmodpo.models.quantized import BaseDtype, is_projection, is_quantized, quantize, stored_table
from jaxmodpo.models.remat import Remat
from jaxmodpo.models.shapes import settings
from jaxmodpo.policy.loaded import check_attention
from jaxmodpo.policy.mesh import check_heads, make_mesh, place_batch, row_shards, shardings
from jaxmodpo.ranges import Count, Probability, Unestimated
from jaxmodpo.training.hardware import peak_flops
from jaxmodpo.training.policy_loss import PolicyLoss
from jaxmodpo.training.step import OptimizerSettings, initial_state, train_step

Reference = Literal["precomputed", "in_step"]


@dataclass(frozen=True, kw_only=True)
class BenchStepConfig(Unestimated, help_group="measurement"):
    """Train random weights of a model's shape by DPO on pairs as long as real ones, and print the
    speed.
    """

    model: Annotated[str, HelpGroup("model")] = "tiny-mistral"
    """Shape of the model: a published model's name, a config.json, or a model folder."""
    base_dtype: Annotated[BaseDtype | None, HelpGroup("model")] = None
    """Type of the frozen base weights; by default float32 on a CPU and bfloat16 elsewhere."""
    lora_rank: Annotated[Count, HelpGroup("model")] = 16
    """Rank of the adapter, which lies on all seven projections."""
    batch_size: Annotated[Count, HelpGroup("batch")] = 8
    """Number of pairs in memory at a time, over all devices."""
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


@dataclass
class Contender:
    """One configuration that is timed.

    Attributes:
        name: for the table.
        pairs: in the timed updates.
        tokens: real ones in the timed updates.
        operations: that those tokens need.
        peak: bytes a device needs, or None.
        run: does the timed updates and returns seconds.
    """

    name: str
    pairs: int
    tokens: int
    operations: float
    peak: int | None
    run: Callable[[], float]


def bench_step(config: BenchStepConfig) -> None:
    """Run ``bench step``."""
    config.check()
    shape = DecoderConfig.from_mapping(settings(config.model), config.model)
    if config.against:
        _import_trl()
    mesh = make_mesh(config.mesh)
    check_heads(shape, mesh)
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    share = config.length_share or (0.25 if on_cpu else 1.0)
    base_dtype: BaseDtype = config.base_dtype or ("float32" if on_cpu else "bfloat16")
    per_update = config.batch_size * config.gradient_accumulation
    examples = reference_examples(
        per_update * config.updates, share=share, vocab_size=shape.vocab_size
    )
    lora = LoraConfig(config.lora_rank, 2.0 * config.lora_rank, 0.0)
    with tempfile.TemporaryDirectory() as temporary:
        contenders = _ours(config, shape, lora, examples, mesh, base_dtype)
        if config.against:
            contenders += _trls(config, shape, lora, examples, Path(temporary))
        best: dict[str, float] = {}
        for number in range(config.rounds):
            for contender in contenders:
                print(f"round {number + 1} of {config.rounds}: {contender.name}", file=sys.stderr)
                best[contender.name] = min(contender.run(), best.get(contender.name, np.inf))
    peak = peak_flops(mesh.devices.flat[0].device_kind)
    rivals = [contender for contender in contenders if contender.name.startswith("TRL")]
    rows = [_row(contender, best, rivals, mesh.size, peak) for contender in contenders]
    waste = examples.tokens.size / examples.lengths.sum()
    print(
        f"{config.model}, {base_dtype}, rank {config.lora_rank}, updates of {per_update} pairs,"
        f" {examples.lengths.mean():.0f} tokens a sequence on average and {examples.lengths.max()}"
        f" at most (padding to one length: {waste:.2f}× the tokens), {mesh.size} ×"
        f" {mesh.devices.flat[0].device_kind}\n"
    )
    header = ["", "pairs/s", "tokens/s", "TFLOP/s a device", "MFU", "peak MiB"]
    print(table(header + [f"against {rival.name}" for rival in rivals], rows))


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


def _ours(
    config: BenchStepConfig,
    shape: DecoderConfig,
    lora: LoraConfig,
    examples: Examples,
    mesh: Mesh,
    base_dtype: BaseDtype,
) -> list[Contender]:
    base = _random_base(shape, base_dtype, mesh)
    contenders = []
    for batching in config.batchings:
        for reference in config.references:
            print(f"compiling: {batching}, reference {reference}", file=sys.stderr)
            contenders.append(
                _contender(config, shape, lora, examples, mesh, base, batching, reference)
            )
    return contenders


def _random_base(shape: DecoderConfig, base_dtype: BaseDtype, mesh: Mesh) -> Parameters:
    """Return random weights in their format; never whole in float32."""
    dtype = dtype_named("bfloat16" if is_quantized(base_dtype) else base_dtype)
    stored_table(parameter_table(shape), base_dtype)  # refuses what cannot be quantized
    base: Parameters = {}
    for number, (name, spec) in enumerate(parameter_table(shape).items()):
        single_table: Table = {name: spec}
        sharding = shardings(mesh)(parameter_table(shape))[name]
        array = jax.jit(
            lambda key, single_table=single_table, name=name: initialize(single_table, key, dtype)[
                name
            ],
            out_shardings=sharding,
        )(jax.random.key(number))
        if is_quantized(base_dtype) and is_projection(spec):
            for component, values in jax.lax.map(
                lambda layer: quantize(layer, base_dtype), array
            ).items():
                base[f"{name}.{component}"] = values
        else:
            base[name] = array
    return base


def _contender(
    config: BenchStepConfig,
    shape: DecoderConfig,
    lora: LoraConfig,
    examples: Examples,
    mesh: Mesh,
    base: Parameters,
    batching: Batching,
    reference: Reference,
) -> Contender:
    in_step = reference == "in_step"
    attention = Attention(config.attention, mesh)
    check_attention(attention, shape, config.base_dtype or "bfloat16")
    loss = PolicyLoss(shape, lora, DPO(0.1), attention, config.remat, in_step, lora.dropout > 0)
    if not in_step:
        # Their values do not change the time.
        examples = examples.with_fields(reference_logps=np.zeros((len(examples), 2), np.float32))
    batches = Batches(
        examples,
        batch_size=config.batch_size,
        accumulation=config.gradient_accumulation,
        batching=batching,
        row_shards=row_shards(mesh),
        cost=functools.partial(flops.token_cost, shape),
    )
    constants = {"loss": loss, "optimizer": OptimizerSettings(0.01, 1.0)}
    table_ = adapter_table(parameter_table(shape), lora)
    adapter_shardings = shardings(mesh)(table_)
    adapter = jax.jit(lambda key: initialize(table_, key), out_shardings=adapter_shardings)(
        jax.random.key(1)
    )
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
    state, _ = jax.block_until_ready(compiled(*arguments(0, state), **constants))
    latest_state = [state]

    def run() -> float:
        started = time.perf_counter()
        for step in range(batches.steps):
            latest_state[0], _ = compiled(*arguments(step, latest_state[0]), **constants)
        jax.block_until_ready(latest_state[0])
        return time.perf_counter() - started

    # XLA's peak leaves out temporaries on a CPU.
    peak = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    if mesh.devices.flat[0].platform != "cpu":
        peak = getattr(memory, "peak_memory_in_bytes", 0) or peak
    return Contender(
        f"{batching}, reference {reference.replace('_', ' ')}",
        len(examples),
        int(examples.lengths.sum()),
        flops.training(shape, lora, examples.lengths, in_step),
        peak,
        run,
    )


# ---------------------------------------------------------------------- TRL


def _import_trl() -> tuple[Any, Any, Any, Any]:
    try:
        import peft
        import torch
        import transformers
        import trl
    except ImportError as error:
        raise UserError(f"--against trl needs torch, trl and peft: {error}") from error
    return torch, transformers, trl, peft


def _trls(
    config: BenchStepConfig,
    shape: DecoderConfig,
    lora: LoraConfig,
    examples: Examples,
    folder: Path,
) -> list[Contender]:
    import datasets

    torch, transformers, _, _ = _import_trl()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    transformers.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    warnings.simplefilter("ignore", FutureWarning)
    tokenizer = _words(shape.vocab_size, folder)
    rows = [_texts(examples, number) for number in range(len(examples))]
    contenders = []
    for precomputed in (False, True):
        print(f"TRL, {'precomputed references' if precomputed else 'defaults'}", file=sys.stderr)
        name = "TRL, references precomputed" if precomputed else "TRL, defaults"
        trainer = _trl_trainer(config, lora, rows, folder, tokenizer, precomputed)
        operations = flops.training(shape, lora, examples.lengths, not precomputed)
        contenders.append(
            Contender(
                name,
                len(examples),
                int(examples.lengths.sum()),
                operations,
                None,
                functools.partial(_timed, trainer, config.updates),
            )
        )
    return contenders


def _words(vocab_size: int, folder: Path) -> Any:
    """Return a tokenizer whose words are its tokens' numbers."""
    import tokenizers
    import transformers

    words = {f"w{number}": number for number in range(vocab_size)}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="w0", bos_token="w1", eos_token="w2", pad_token="w2"
    )
    tokenizer.save_pretrained(folder / "tokenizer")
    return tokenizer


def _texts(examples: Examples, number: int) -> dict[str, str]:
    """Return a pair as TRL takes it; TRL adds the end of a completion."""

    def words(sequence: int, start: int, end: int) -> str:
        return " ".join(f"w{token}" for token in examples.tokens[number, sequence, start:end])

    prompt = int(examples.prompt_lengths[number, 0])
    ends = [int(length) - 1 for length in examples.lengths[number]]
    return {
        "prompt": words(0, 0, prompt),
        "chosen": " " + words(0, prompt, ends[0]),
        "rejected": " " + words(1, prompt, ends[1]),
    }


def _trl_trainer(
    config: BenchStepConfig,
    lora: LoraConfig,
    rows: list[dict[str, str]],
    folder: Path,
    tokenizer: Any,
    precomputed: bool,
) -> Any:
    import datasets

    torch, transformers, trl, peft = _import_trl()
    torch.manual_seed(0)
    model_settings = settings(config.model)
    kind = transformers.CONFIG_MAPPING[model_settings["model_type"]]
    shape_settings = {
        name: value
        for name, value in model_settings.items()
        if name not in ("model_type", "architectures")
    }
    model = transformers.AutoModelForCausalLM.from_config(
        kind(**shape_settings), dtype=torch.float32
    )
    arguments = trl.DPOConfig(
        output_dir=str(folder / f"trl-{precomputed}"),
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        max_steps=config.updates,
        precompute_ref_log_probs=precomputed,
        bf16=False,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )
    trainer = trl.DPOTrainer(
        model,
        args=arguments,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=peft.LoraConfig(
            r=lora.rank,
            lora_alpha=int(lora.alpha),
            target_modules=list(lora.targets),
            task_type="CAUSAL_LM",
        ),
    )
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def _timed(trainer: Any, updates: int) -> float:
    """Return the seconds of TRL's updates, the first one scaled from the others: it warms up."""
    import transformers

    times: list[float] = []

    class Clock(transformers.TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

        def on_train_end(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

    clock = Clock()
    trainer.add_callback(clock)
    trainer.train()
    trainer.remove_callback(clock)
    return (times[-1] - times[1]) * updates / (updates - 1) if updates > 1 else times[-1] - times[0]
