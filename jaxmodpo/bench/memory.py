"""``bench memory``: what one DPO step needs for each format of the base weights, by compiling it."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import jax.numpy as jnp

from jaxmodpo.bench.shapes import shape
from jaxmodpo.bench.table import table
from jaxmodpo.errors import UserError
from jaxmodpo.methods.dpo import DPO
from jaxmodpo.models.lora import LoraConfig
from jaxmodpo.models.quantised import BaseDtype
from jaxmodpo.training.fit import fit_step, topology_mesh


@dataclass(frozen=True, kw_only=True)
class BenchMemoryConfig:
    """Compile a DPO step on pairs, for a machine that need not be here, and print its memory per device."""

    shape: str = "mistral-7b-v0.1"
    """a published model's shape"""
    base_dtypes: tuple[BaseDtype, ...] = ("bfloat16", "int8", "nf4")
    """formats of the base weights"""
    topology: str | None = "v5p:2x2x1"
    """a TPU topology (needs libtpu), or None for this machine"""
    mesh: tuple[int, int, int] | None = None
    """devices along data, fsdp and tensor; by default all on fsdp"""
    pairs: int = 4
    """pairs a step"""
    gradient_accumulation: int = 1
    """parts that a step's pairs are cut into"""
    length: int = 1024
    """tokens of each of a pair's two sequences"""
    lora_rank: int = 64
    """of the adapter on all seven projections"""
    remat: bool = True
    """recompute activations in the backward pass"""


def bench_memory(config: BenchMemoryConfig) -> None:
    """Run ``bench memory``."""
    model = shape(config.shape)
    mesh = topology_mesh(config.topology, config.mesh)
    lora = LoraConfig(config.lora_rank, 2.0 * config.lora_rank, 0.05)
    pairs = config.pairs
    fields = {
        "tokens": ((pairs, 2, config.length), jnp.int32),
        "prompt_lengths": ((pairs, 2), jnp.int32),
        "lengths": ((pairs, 2), jnp.int32),
        "reference_logps": ((pairs, 2), jnp.float32),
        "row_weights": ((pairs,), jnp.float32),
    }
    rows = []
    for base_dtype in config.base_dtypes:
        print(f"compiling with {base_dtype} weights", file=sys.stderr)
        try:
            found = fit_step(
                model,
                lora,
                DPO(0.1, 0.0),
                fields,
                mesh,
                base_dtype=base_dtype,
                microbatches=config.gradient_accumulation,
                remat=config.remat,
            )
        except UserError as error:
            print(error, file=sys.stderr)
            rows.append([base_dtype, "", "", "does not fit", ""])
            continue
        sizes = [f"{size / 2**30:.2f}" for size in (found.arguments, found.temporary, found.total)]
        rows.append([base_dtype, *sizes, f"{found.compile_seconds:.0f}"])
    where = config.topology or mesh.devices.flat[0].platform
    print(f"{config.shape}, {pairs} pairs of 2 × {config.length} tokens, {where}, mesh {dict(mesh.shape)}\n")
    print(table(["base dtype", "arguments GiB", "temporary GiB", "peak GiB", "compile s"], rows))
