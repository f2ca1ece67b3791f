"""Tokamax's flash attention, for packed rows on NVIDIA's Hopper GPUs and later ones.

cuDNN takes packed rows as a mask of all positions by all positions. Tokamax's kernels take a range
of keys for each query instead, and leave out the blocks outside of it: a row of many short
sequences costs what the sequences cost. Of a row with the segments 1 1 1 2 2 and causal attention::

    query     a b c d e
    start     0 0 0 3 3     the first key of its own sequence
    end                     itself, since attention is causal

Tokamax is young, and the kernels with ranges are not yet among what it promises to keep: they are
imported from where they lie, and a release that moved them is refused by name.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxmodpo.errors import UserError

FIRST_CAPABILITY = 9.0
"""the CUDA compute capability from which on the kernels also have a backward pass: Hopper"""

CAPABILITY_BEYOND = 11.0
"""the first capability that they do not know: GeForce and workstation Blackwells have 12"""

_WIDTH_STEP = 8
_LARGEST_WIDTH = 256


def refuse_other_heads(head_width: int, has_16_bits: bool) -> None:
    """Refuse heads that the kernels do not take.

    Raises:
        UserError: another width, or arrays of another type.
    """
    if has_16_bits and head_width % _WIDTH_STEP == 0 and head_width <= _LARGEST_WIDTH:
        return
    kind = "bfloat16" if has_16_bits else "float32"
    raise UserError(
        f"Tokamax's attention needs bfloat16 and a head width that {_WIDTH_STEP} divides, at most"
        f" {_LARGEST_WIDTH}; this model has {kind} and {head_width}"
    )


def refuse_device(device: jax.Device) -> None:
    """Refuse a GPU that the kernels do not know.

    Raises:
        UserError: it has no kernel for the forward or none for the backward pass.
    """
    capability = getattr(device, "compute_capability", None)
    if capability is None or FIRST_CAPABILITY <= float(capability) < CAPABILITY_BEYOND:
        return
    raise UserError(
        "--attention tokamax needs a Hopper or a data-center Blackwell GPU, of compute capability"
        f" {FIRST_CAPABILITY} up to {CAPABILITY_BEYOND}, since other GPUs have no kernel for the"
        f" backward pass; this one, {device.device_kind}, has {capability}"
    )


def kernels() -> tuple[Any, Any]:
    """Return Tokamax's modules of attention: what is common to all of it, and of its GPU kernels.

    Raises:
        UserError: it is not installed, or a release without them is.
    """
    try:
        from tokamax._src.ops.attention import base, pallas_mosaic_gpu  # pyrefly: ignore
    except ImportError as error:
        raise UserError(
            f"--attention tokamax needs the package tokamax ({error}): pip install"
            " 'jaxmodpo[tokamax]', on Python 3.12 or later"
        ) from None
    return base, pallas_mosaic_gpu


def key_ranges(
    segments_BT: Array, *, causal: bool, window: int | None
) -> tuple[Array, Array | None]:
    """Return the first key that each query sees, and one past the last; the latter only where
    attention is not causal.

    Args:
        segments_BT: which sequence a position belongs to. A sequence's positions follow one
            another.
        causal: position t sees positions up to t.
        window: with ``causal``, it sees the last ``window`` of them.

    Returns:
        ``[B, T]`` each.
    """
    batch, time = segments_BT.shape
    positions = jnp.broadcast_to(jnp.arange(time, dtype=jnp.int32), (batch, time))
    differs = segments_BT[:, 1:] != segments_BT[:, :-1]
    edge = jnp.ones((batch, 1), bool)
    begins = jnp.concatenate([edge, differs], axis=1)
    ends = jnp.concatenate([differs, edge], axis=1)
    # The begin before a position is the largest one so far; the end after it the smallest to come.
    start_BT = jax.lax.cummax(jnp.where(begins, positions, 0), axis=1)
    if window is not None:
        start_BT = jnp.maximum(start_BT, positions - window + 1)
    if causal:
        return start_BT, None
    end_BT = jax.lax.cummin(jnp.where(ends, positions + 1, time), axis=1, reverse=True)
    return start_BT, end_BT


def attend(
    q_BTHC: Array,
    k_BTKC: Array,
    v_BTKC: Array,
    segments_BT: Array,
    *,
    causal: bool,
    window: int | None,
    interpret: bool = False,
) -> Array:
    """Return ``[B, T, H, C]``: softmax(q kᵀ / √C) v within each segment.

    Args:
        q_BTHC: queries.
        k_BTKC: keys; H is a multiple of K.
        v_BTKC: values.
        segments_BT: see :func:`key_ranges`.
        causal: likewise.
        window: likewise.
        interpret: compute without a GPU what the kernels would, from the same ranges: for tests.

    Raises:
        UserError: Tokamax is not there, or refuses.
    """
    base, gpu = kernels()
    kernel = base.DotProductAttention() if interpret else gpu.PallasMosaicGpuFlashAttention()
    start_BT, end_BT = key_ranges(segments_BT, causal=causal, window=window)
    # An axis of one for the heads, which all see the same.
    mask = base.Mask(
        k_start=start_BT[:, None],
        k_end=None if end_BT is None else end_BT[:, None],
        is_causal=causal,
    )
    try:
        return kernel(q_BTHC, k_BTKC, v_BTKC, mask=mask)
    except NotImplementedError as error:
        raise UserError(f"Tokamax's attention cannot run here: {error}") from None


def refuse_without_kernels(head_width: int) -> None:
    """Trace both passes on small arrays, and refuse if a kernel does.

    A backward pass is traced long after :func:`attend` has returned, which therefore cannot see
    that it is refused. Nothing is compiled or run.

    Raises:
        UserError: Tokamax is not there, or refuses the forward or the backward pass.
    """
    time = 128
    heads = jax.ShapeDtypeStruct((1, time, 1, head_width), jnp.bfloat16)
    segments = jax.ShapeDtypeStruct((1, time), jnp.int32)

    def total(q: Array, k: Array, v: Array, segments_BT: Array) -> Array:
        return jnp.sum(attend(q, k, v, segments_BT, causal=True, window=None))

    try:
        jax.eval_shape(jax.grad(total, argnums=(0, 1, 2)), heads, heads, heads, segments)
    except NotImplementedError as error:
        raise UserError(
            f"the backward pass of Tokamax's attention cannot run here: {error}"
        ) from None
