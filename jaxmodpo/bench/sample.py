"""``bench sample``: how fast replies are sampled, how far from the memory's speed that is, and
beside transformers' ``generate``.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodpo import __version__
from jaxmodpo.bench.machine import cores
from jaxmodpo.bench.random_model import random_base
from jaxmodpo.bench.reply_lengths import END, START, counting_down
from jaxmodpo.bench.sample_generate import generates, import_torch
from jaxmodpo.bench.sample_settings import BenchSampleConfig
from jaxmodpo.bench.table import text_table
from jaxmodpo.bench.timed_samplers import Speed, TimedSampler, fastest_rounds
from jaxmodpo.data.reference_lengths import reference_lengths
from jaxmodpo.models.attention import Attention
from jaxmodpo.models.decoder import parameter_table
from jaxmodpo.models.decoder_config import DecoderConfig
from jaxmodpo.models.lora import LoraConfig
from jaxmodpo.models.model_folder import save_model
from jaxmodpo.models.quantized import BaseDtype
from jaxmodpo.models.shapes import settings as model_settings
from jaxmodpo.policy.loaded import Policy, fresh_adapter
from jaxmodpo.policy.mesh import check_heads, make_mesh, row_shards
from jaxmodpo.sampling.draw import SamplingSettings
from jaxmodpo.sampling.engine import Ask, Engine, Sampled, Shapes
from jaxmodpo.sampling.programs import programs_compiled
from jaxmodpo.sampling.slots import Work


def bench_sample(config: BenchSampleConfig) -> None:
    """Run ``bench sample``."""
    config.check()
    mappings = model_settings(config.model)
    shape = DecoderConfig.from_mapping(mappings, config.model)
    if config.against:
        import_torch()
    mesh = make_mesh(config.mesh)
    check_heads(shape, mesh)
    device = mesh.devices.flat[0]
    on_cpu = device.platform == "cpu"
    base_dtype: BaseDtype = config.base_dtype or ("float32" if on_cpu else "bfloat16")
    share = config.length_share or (0.25 if on_cpu else 1.0)
    prompts, lengths = _prompts_and_lengths(config, shape, share)
    base = random_base(shape, base_dtype, mesh)
    base = counting_down(base, shape, lengths, config.temperature)
    # Where there is no adapter, its settings count for nothing.
    lora = LoraConfig(config.lora_rank or 1, 2.0 * (config.lora_rank or 1), 0.0)
    policy = Policy(Path(config.model), shape, base, lora, {}, mesh, Attention("auto", mesh))
    if config.lora_rank:
        policy = fresh_adapter(policy, lora, config.seed)

    longest = int(lengths.max())
    ours = _Ours(config, policy, prompts, longest)
    samplers: list[TimedSampler] = [
        TimedSampler(f"{config.batch_size} slots", ours.sample, compiles=True)
    ]
    if config.against:
        with tempfile.TemporaryDirectory() as temporary:
            save_model(Path(temporary), mappings, parameter_table(shape), base)
            samplers += generates(config, Path(temporary), prompts, longest)
    speeds = fastest_rounds(samplers, config.rounds)
    speeds[0].first_token = ours.first_token()
    speeds[0].settings = _own_settings(config, policy, base_dtype, longest)
    if config.json:
        print(json.dumps([_as_row(speed) for speed in speeds]))
        return
    print(
        f"{config.model}, {config.replies} replies to {len(prompts)} prompts of"
        f" {np.mean([len(prompt) for prompt in prompts]):.0f} tokens, {lengths.mean():.0f} tokens a"
        f" reply on average and {lengths.max()} at most, temperature {config.temperature:g}, top-p"
        f" {config.top_p:g}, {mesh.size} × {device.device_kind}\n"
    )
    print(_table(speeds))
    for speed in speeds:
        values = ", ".join(f"{name} {value}" for name, value in speed.settings.items())
        print(f"\n{speed.name}: {values}")


def _own_settings(
    config: BenchSampleConfig, policy: Policy, base_dtype: BaseDtype, longest: int
) -> dict[str, str | int | float]:
    """Return what our sampler is given."""
    return {
        "jaxmodpo": __version__,
        "jax": jax.__version__,
        "base": base_dtype,
        "activations": str(policy.base["embed"].dtype),
        "adapter": f"of rank {config.lora_rank}, not merged" if config.lora_rank else "none",
        "batch size": config.batch_size,
        "temperature": config.temperature,
        "top-p": config.top_p,
        "max new tokens": longest,
        "threads": cores(),
        "device": policy.mesh.devices.flat[0].device_kind,
    }


def _as_row(speed: Speed) -> dict[str, Any]:
    return {**dataclasses.asdict(speed), "tokens_per_second": speed.tokens_per_second}


def _table(speeds: Sequence[Speed]) -> str:
    ours = speeds[0]
    header = ["", "tokens/s", "tokens", "of the memory's speed", "first token, ms", "programs"]
    rows = []
    for speed in speeds:
        bandwidth = "" if speed.bandwidth_share is None else f"{speed.bandwidth_share:.1%}"
        first = "" if speed.first_token is None else f"{1000 * speed.first_token:.0f}"
        programs = "" if speed.programs is None else str(speed.programs)
        rows.append(
            [
                speed.name,
                f"{speed.tokens_per_second:,.0f}",
                f"{speed.tokens:,}",
                bandwidth,
                first,
                programs,
            ]
        )
    if len(speeds) > 1:
        header.append("ours against it")
        for row, speed in zip(rows, speeds, strict=True):
            row.append(f"{ours.tokens_per_second / speed.tokens_per_second:.2f}×")
    return text_table(header, rows)


def _prompts_and_lengths(
    config: BenchSampleConfig, shape: DecoderConfig, share: float
) -> tuple[list[list[int]], np.ndarray]:
    """Draw prompts, and the lengths from which those of replies will be drawn."""
    generator = np.random.default_rng(config.seed)
    count = -(-config.replies // config.samples)
    prompt_lengths, sequence_lengths = reference_lengths(max(count, 2000), generator, share)
    lengths = (sequence_lengths - prompt_lengths).ravel()
    prompts = []
    for length in prompt_lengths[:count, 0]:
        words = generator.integers(START + 1, shape.vocab_size, max(int(length) - 1, 0))
        prompts.append([*words.tolist(), START])
    return prompts, lengths


class _Ours:
    """This package's sampler."""

    def __init__(
        self,
        config: BenchSampleConfig,
        policy: Policy,
        prompts: Sequence[Sequence[int]],
        longest: int,
    ):
        self._config = config
        self._policy = policy
        self._draws = SamplingSettings(config.temperature, config.top_p, longest, (END,))
        self._shapes = Shapes.of(
            policy.config,
            max(map(len, prompts)),
            longest,
            config.batch_size,
            row_shards(policy.mesh),
        )
        keys = jax.random.split(jax.random.key(config.seed), config.replies)
        self._asks = [Ask(n, prompts[n // config.samples], key) for n, key in enumerate(keys)]
        self._bandwidth = copy_bandwidth()
        self._compiled_before = programs_compiled()

    def sample(self) -> Speed:
        """Sample all replies."""
        works: list[Work] = []
        replies: list[Sampled] = []
        engine = Engine(self._policy, self._draws, self._shapes, observe=works.append)
        started = time.perf_counter()
        engine.run(self._asks, replies.extend)
        seconds = time.perf_counter() - started
        tokens = sum(len(reply.tokens) for reply in replies)
        # Every device reads its own part at once.
        read = bytes_read(self._policy, works) / self._policy.mesh.size
        return Speed(
            f"{self._config.batch_size} slots",
            seconds,
            tokens,
            bandwidth_share=read / self._bandwidth / seconds,
            programs=(programs_compiled() - self._compiled_before).total(),
        )

    def first_token(self) -> float:
        """Return the seconds until a batch's first tokens are there, prefill included."""
        seconds: list[float] = []
        started = time.perf_counter()

        def note_first(work: Work) -> None:
            if work.steps and not seconds:
                seconds.append(time.perf_counter() - started)

        engine = Engine(
            self._policy, self._draws, self._shapes, steps_a_round=1, observe=note_first
        )
        started = time.perf_counter()
        engine.run(self._asks[: self._config.batch_size], lambda replies: None)
        return seconds[0]


def bytes_read(policy: Policy, works: Sequence[Work]) -> float:
    """Return the bytes that decoding must read at least, on all devices together: the weights once
    a step, and for each token the keys and values that it attends to.
    """
    weights = sum(array.nbytes for array in jax.tree.leaves((policy.base, policy.adapter)))
    if "unembed" in policy.base:
        weights -= policy.base["embed"].nbytes  # a few rows of it
    config = policy.config
    place = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    place_bytes = place * policy.base["embed"].dtype.itemsize
    steps = sum(int(work.steps) for work in works)
    places = sum(int(work.places_read) for work in works)
    return steps * weights + places * place_bytes


def copy_bandwidth(size: int = 1 << 28) -> float:
    """Return the bytes a second that a copy reads and writes on the first device, measured."""
    array = jnp.zeros(size // 4, jnp.float32)
    copy = jax.jit(lambda values: values + 1)
    jax.block_until_ready(copy(array))
    best = np.inf
    for _ in range(5):
        started = time.perf_counter()
        jax.block_until_ready(copy(array))
        best = min(best, time.perf_counter() - started)
    return 2 * size / best
