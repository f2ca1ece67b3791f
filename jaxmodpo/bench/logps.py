"""``bench logps``: memory and arithmetic of completion log-probabilities, all logits at once
against chunks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxmodpo.bench.table import text_table
from jaxmodpo.models.logps import chunked_token_logps, token_logps
from jaxmodpo.ranges import Count, Unestimated
from jaxmodpo.training.ahead import topology_mesh


@dataclass(frozen=True, kw_only=True)
class BenchLogpsConfig(Unestimated, help_group="measurement"):
    """Compile the head alone, forward and backward, for several sizes of vocabulary; nothing is
    run.
    """

    vocabularies: tuple[Count, ...] = (32_000, 128_256)
    """Sizes of the vocabulary, which are columns of the unembedding, that are measured."""
    rows: Count = 8
    """Number of sequences in a batch, two for each pair."""
    length: Count = 1024
    """Length of each sequence in tokens."""
    width: Count = 4096
    """Width of the hidden states."""
    chunk: Count = 128
    """Number of positions of each row whose logits exist at a time."""
    topology: str | None = None
    """TPU topology that is compiled for, such as v5e:1x1, which needs libtpu; by default this
    machine."""


def bench_logps(config: BenchLogpsConfig) -> None:
    """Run ``bench logps``."""
    config.check()
    rows: list[list[str]] = []
    chunks = {"all at once": None, f"chunks of {config.chunk}": config.chunk}
    for vocabulary in config.vocabularies:
        for name, chunk in chunks.items():
            temporary_bytes, flops = compiled(config, vocabulary, chunk)
            temporary_mib = f"{temporary_bytes / 2**20:,.0f}"
            rows.append([f"{vocabulary:,}", name, temporary_mib, f"{flops / 1e12:.2f}"])
    print(
        f"{config.rows} × {config.length} tokens, width {config.width}, bfloat16, value and"
        " gradient\n"
    )
    print(text_table(["vocabulary", "logits", "temporary MiB", "TFLOPs"], rows))


def compiled(config: BenchLogpsConfig, vocabulary: int, chunk: int | None) -> tuple[int, float]:
    """Return the temporary bytes of the compiled head, and its matmuls' FLOPs.

    The FLOPs are counted in the program as traced, scans unrolled: XLA's own count sees a scan's
    body once.
    """
    device = topology_mesh(config.topology).devices.flat[0]
    sharding = jax.sharding.SingleDeviceSharding(device)

    def abstract(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    def total(hidden: jax.Array, unembedding: jax.Array, targets: jax.Array) -> jax.Array:
        if chunk is None:
            return token_logps(hidden, unembedding, targets).sum()
        return chunked_token_logps(hidden, unembedding, targets, chunk).sum()

    # Shapes instead of arrays: nothing is computed, so that a laptop can compile what needs 30 GiB.
    arguments = (
        abstract((config.rows, config.length, config.width), jnp.bfloat16),
        abstract((config.width, vocabulary), jnp.bfloat16),
        abstract((config.rows, config.length), jnp.int32),
    )
    gradient = jax.value_and_grad(total)
    memory = jax.jit(gradient).lower(*arguments).compile().memory_analysis()
    assert memory is not None
    return memory.temp_size_in_bytes, matmul_flops(jax.make_jaxpr(gradient)(*arguments).jaxpr)


def matmul_flops(jaxpr: Any) -> float:
    """Count 2·m·n·k of every matmul in a program, a scan's body as often as it runs."""
    flops = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            # Each number of the output is a sum over the contracted axes: a multiplication and an
            # addition for each term.
            (contracted_axes, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            contracted = 1
            for axis in contracted_axes:
                contracted *= shape[axis]
            flops += 2.0 * equation.outvars[0].aval.size * contracted
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        # Whatever holds a program within this one (scans, calls, branches) has it among its
        # parameters, closed over its constants or bare.
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                flops += times * matmul_flops(inner)
    return flops
