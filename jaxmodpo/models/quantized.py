"""Frozen projections in 8 or 4 bits, dequantized where they are multiplied.

Two formats, both block-wise: 64 consecutive inputs of one output share a scale, their largest
absolute value. ``int8`` keeps whole numbers from −127 to 127 and float32 scales. ``nf4`` is
QLoRA's: the sixteen NormalFloat levels, with the scales themselves quantized to 8 bits in blocks of
256 ("double quantization"), all as bitsandbytes defines and computes them. A weight stays stacked
over layers and keeps its sharding: blocks run along the inputs.

A frozen weight only has to be read, so that it may be kept coarsely; the adapter, which is trained,
stays in float32. A Mistral 7B takes 14 GB in bfloat16, 8 in ``int8`` and 4 in ``nf4``.

Axis suffixes: L layers, I inputs, O outputs, G groups of 64 inputs, B inputs of a group::

    stored = quantize(weight_IO, "nf4")
    stored["codes"]                         # uint4 [I, O], numbers of levels
    stored["scales"]                        # uint8 [G, O], numbers of 8-bit levels
    dequantize(stored, jnp.bfloat16)        # [I, O], off by a seventh of a group's largest at most

References:
    Dettmers et al., *QLoRA: Efficient Finetuning of Quantized LLMs*, 2023;
    Dettmers et al., *8-bit Optimizers via Block-wise Quantization*, 2022 (the 8-bit levels).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmodpo.errors import UserError
from jaxmodpo.models.parameters import Spec, Table
from jaxmodpo.models.products import product

BaseDtype = Literal["bfloat16", "float32", "int8", "nf4"]

BLOCK = 64
SCALE_BLOCK = 256

NF4_LEVELS = np.asarray(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ],
    np.float32,
)
"""Quantiles of a normal distribution, scaled to [−1, 1], with an exact 0 (QLoRA, appendix E)."""


def dynamic_levels() -> np.ndarray:
    """Return the 256 levels of the signed dynamic 8-bit type, ascending, float32.

    Seven decades 10⁻⁶ … 10⁰; the decade of 10^(i−6) has 2^i levels, the middles of 2^i equal parts
    of [0.1, 1] times 10^(i−6); both signs; and 0 and 1.
    """
    levels = [np.float32(0), np.float32(1)]
    for i in range(7):
        # From both ends, rounded once to float32, as PyTorch's linspace does: the last bit counts,
        # since a scale that lies between two levels would otherwise get another code than there.
        level_count = 2**i
        indices = np.arange(level_count + 1)
        tenth = np.float32(0.1)
        step = np.float64((np.float32(1) - tenth) / np.float32(level_count))
        from_start = np.float64(tenth) + step * indices
        from_end = 1.0 - step * indices[::-1]
        is_first_half = indices < (level_count + 1) // 2
        bounds = np.where(is_first_half, from_start, from_end).astype(np.float32)
        middles = (bounds[:-1] + bounds[1:]) / np.float32(2)
        decade = np.float32(10.0 ** (i - 6))
        positive_levels = decade * middles
        levels += [*positive_levels, *-positive_levels]
    return np.sort(np.asarray(levels, np.float32))


DYNAMIC_LEVELS = dynamic_levels()


def is_quantized(base_dtype: BaseDtype) -> bool:
    """Whether projections of this type are held as codes and scales."""
    return base_dtype in ("int8", "nf4")


def stored_table(table: Table, base_dtype: BaseDtype) -> dict[str, Spec]:
    """Return the table of what is held in memory: the stacked projections as codes and scales.

    Raises:
        UserError: a projection whose inputs 64 does not divide.
    """
    if not is_quantized(base_dtype):
        return dict(table)
    stored: dict[str, Spec] = {}
    for name, spec in table.items():
        if not is_projection(spec):
            stored[name] = spec
            continue
        layers, inputs, outputs = spec.shape
        if inputs % BLOCK:
            raise UserError(
                f"{base_dtype} needs projections with inputs that {BLOCK} divides; {name} has"
                f" {inputs}"
            )
        groups = inputs // BLOCK
        scales_shape = (layers, groups, outputs)
        # Codes and scales lie as the weight does: a group's inputs and its scale stay together as
        # long as a device has whole groups. Scales of scales are few, and every device has them.
        if base_dtype == "int8":
            arrays = {
                "codes": (spec.shape, spec.axes, "int8"),
                "scales": (scales_shape, spec.axes, "float32"),
            }
        else:
            layer_axis = spec.axes[0]
            scale_blocks = math.ceil(groups * outputs / SCALE_BLOCK)
            arrays = {
                "codes": (spec.shape, spec.axes, "uint4"),
                "scales": (scales_shape, spec.axes, "uint8"),
                "scale_blocks": ((layers, scale_blocks), (layer_axis, None), "float32"),
                "scale_offset": ((layers,), (layer_axis,), "float32"),
            }
        for suffix, (shape, axes, dtype) in arrays.items():
            key = f"{spec.key}.{suffix}"
            stored[f"{name}.{suffix}"] = dataclasses.replace(
                spec, shape=shape, axes=axes, key=key, dtype=dtype
            )
    return stored


def is_projection(spec: Spec) -> bool:
    """Whether a weight is one that gets quantized: the stacked matrices, not embeddings, norms or
    the head.
    """
    return spec.layers > 0 and spec.transposed


def quantize(weight_IO: Array, base_dtype: BaseDtype) -> dict[str, Array]:
    """Quantize one layer's matrix into the arrays that :func:`stored_table` names."""
    inputs, outputs = weight_IO.shape
    blocks_GBO = weight_IO.astype(jnp.float32).reshape(inputs // BLOCK, BLOCK, outputs)
    largest_GO = jnp.max(jnp.abs(blocks_GBO), axis=1)
    scaled_GBO = _scaled(blocks_GBO, largest_GO[:, None])
    if base_dtype == "int8":
        codes_GBO = jnp.round(scaled_GBO * 127).astype(jnp.int8)
        codes_IO = codes_GBO.reshape(inputs, outputs)
        return {"codes": codes_IO, "scales": largest_GO / 127}
    codes_GBO = _nearest(scaled_GBO, NF4_LEVELS).astype(jnp.uint4)
    codes_IO = codes_GBO.reshape(inputs, outputs)
    # Scales are all positive. Without their mean they lie around 0, where the 8-bit levels are
    # densest, and 256 of them share one scale of their own. bitsandbytes flattens its [out, in]
    # matrices: blocks of scales run along an output's groups first.
    offset = jnp.mean(largest_GO)
    flat = (largest_GO - offset).T.reshape(-1)
    # The last block of scales may not be full; zeros fill it, and change no largest value.
    padded = jnp.pad(flat, (0, -flat.size % SCALE_BLOCK))
    rows = padded.reshape(-1, SCALE_BLOCK)
    scale_blocks = jnp.max(jnp.abs(rows), axis=1)
    scaled_rows = _scaled(rows, scale_blocks[:, None])
    padded_codes = _nearest(scaled_rows, DYNAMIC_LEVELS).reshape(-1)
    scale_codes = padded_codes[: flat.size]
    return {
        "codes": codes_IO,
        "scales": scale_codes.reshape(outputs, -1).T,
        "scale_blocks": scale_blocks,
        "scale_offset": offset,
    }


def dequantize(stored: Mapping[str, Array], dtype: Any) -> Array:
    """Return one layer's matrix ``[I, O]``; every step but the last cast is float32."""
    codes_IO = stored["codes"]
    scales_GO = stored["scales"]
    inputs, outputs = codes_IO.shape
    if "scale_blocks" in stored:
        groups = inputs // BLOCK
        # Where each scale stands when the matrix is flattened along an output's groups first.
        output_numbers = jnp.arange(outputs)[None]
        group_numbers = jnp.arange(groups)[:, None]
        flat_index_GO = output_numbers * groups + group_numbers
        scale_blocks_GO = stored["scale_blocks"][flat_index_GO // SCALE_BLOCK]
        scale_levels_GO = jnp.asarray(DYNAMIC_LEVELS)[scales_GO]
        scales_GO = scale_levels_GO * scale_blocks_GO + stored["scale_offset"]
        values_IO = _lookup(codes_IO, NF4_LEVELS)
    else:
        values_IO = codes_IO.astype(jnp.float32)
    values_GBO = values_IO.reshape(-1, BLOCK, outputs)
    weight_GBO = values_GBO * scales_GO[:, None]
    return weight_GBO.reshape(inputs, outputs).astype(dtype)


def matmul(x: Array, weights: Mapping[str, Array], name: str) -> Array:
    """Return ``x @ W`` for the weight ``name``, whichever way it is stored.

    A quantized weight gets no gradient, and its dequantized form is not kept for the backward pass:
    it is made again there.

    Args:
        x: ``[..., I]``.
        weights: one layer's arrays, ``name`` or ``name.codes`` and so on among them.
        name: of the projection.
    """
    if name in weights:
        return product(x, weights[name])
    stored: dict[str, Array] = {}
    for suffix in ("codes", "scales", "scale_blocks", "scale_offset"):
        if f"{name}.{suffix}" in weights:
            stored[suffix] = weights[f"{name}.{suffix}"]
    return jnp.asarray(_matmul(x, stored))


# JAX would keep the dequantized matrix of every layer for the backward pass: all the memory that
# quantization saved. So the backward pass is our own, keeps the codes, and dequantizes again.


@jax.custom_vjp
def _matmul(x: Array, stored: dict[str, Array]) -> Array:
    return x @ dequantize(stored, x.dtype)


def _forward(x: Array, stored: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
    return _matmul(x, stored), stored


def _backward(stored: dict[str, Array], cotangent: Array) -> tuple[Array, None]:
    return cotangent @ dequantize(stored, cotangent.dtype).T, None


_matmul.defvjp(_forward, _backward)


def _scaled(values: Array, largest: Array) -> Array:
    # Multiplied by a reciprocal, as bitsandbytes does: a division would round differently. A group
    # of zeros has the largest value 0, and stays zeros.
    reciprocal = 1 / jnp.maximum(largest, 1e-38)
    return jnp.clip(values * reciprocal, -1, 1)


def _nearest(values: Array, levels: np.ndarray) -> Array:
    """Return the index of the nearest level, uint8; a value in the middle goes to the lower one."""
    bounds = (levels[:-1] + levels[1:]) / 2
    if len(levels) > 16:
        return jnp.searchsorted(bounds, values, side="left").astype(jnp.uint8)
    # Few comparisons fuse into one pass; a search would keep its state in memory.
    is_above = [(values > bound).astype(jnp.uint8) for bound in bounds]
    return functools.reduce(jnp.add, is_above)


def _lookup(codes: Array, levels: np.ndarray) -> Array:
    """Return ``levels[codes]`` in a way that fuses into what comes next.

    CPUs and GPUs read a small table at no cost; on a TPU, comparing the codes' bits does not leave
    the vector unit, which a gather does.
    """

    return jax.lax.platform_dependent(
        codes.astype(jnp.int32),
        tpu=lambda codes: compared_levels(codes, levels),
        default=lambda codes: jnp.asarray(levels)[codes],
    )


def compared_levels(codes: Array, levels: np.ndarray) -> Array:
    """Return ``levels[codes]`` by a tree of selections, one bit of the int32 codes at a time."""
    candidates: list[Any] = [jnp.float32(level) for level in levels]
    bit = 1
    while len(candidates) > 1:
        # Neighbors differ in the lowest bit that is left: it decides between the two of each pair,
        # and half of the candidates remain.
        is_set = (codes & bit) != 0
        pairs = zip(candidates[::2], candidates[1::2], strict=True)
        candidates = [jnp.where(is_set, high, low) for low, high in pairs]
        bit *= 2
    return candidates[0]
