"""Attention over whole sequences: one meaning, four implementations.

Padding, causality, window, grouped heads and packed segments mean the same in each;
:class:`Attention` chooses by where it runs: XLA everywhere, cuDNN's flash attention on GPUs,
Pallas's splash attention on TPUs, and Tokamax's on GPUs where it is asked for. None of them repeats
keys and values in memory for grouped heads.
Shape suffixes: B batch, T time, H query heads, K key-value heads, C head width.

Which position sees which, in a packed row of two sequences with a window of 2 (``x`` sees)::

    sees →       a b c | d e        segments 1 1 1 2 2
    a            x . . | . .        causal:   nothing that comes later
    b            x x . | . .        window:   itself and one before
    c            . x x | . .        segments: nothing across the border
    d            . . . | x .
    e            . . . | x x
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh, PartitionSpec

from jaxmodpo.errors import UserError
from jaxmodpo.models import tokamax_attention
from jaxmodpo.models.remat import KEPT_ATTENTION

logger = logging.getLogger(__name__)

Backend = Literal["auto", "xla", "cudnn", "splash", "tokamax"]
Implementation = Literal["xla", "cudnn", "splash", "tokamax"]

# Splash attention works on blocks of at least this many positions, and on whole registers of head
# width.
_SPLASH_BLOCK = 128
_SPLASH_LARGEST_BLOCK = 512
_BATCH_AXES = ("data", "fsdp")


_MASK_GRADIENT_LEFT_OUT = (0, 11, 1)
"""the first JAX whose cuDNN attention makes no gradient of a mask (jax#39512)"""


@functools.cache
def _warn_of_mask_gradients(version: tuple[int, ...]) -> None:
    """Say once that this JAX spends memory on the gradient of a mask, which nobody uses."""
    if version < _MASK_GRADIENT_LEFT_OUT:
        logger.warning(
            "this JAX, %s, also computes the gradient of cuDNN attention's mask, of the size heads"
            " × tokens × tokens, which nobody uses: JAX 0.11.1 or later, on Python 3.12 or later,"
            " saves that time and memory",
            ".".join(str(number) for number in version),
        )


@dataclass(frozen=True)
class Attention:
    """How attention is computed; hashable, so that it can be a static argument.

    Attributes:
        backend: ``auto`` takes splash on TPUs and cuDNN on GPUs where they can, and XLA otherwise.
        mesh: the devices of the surrounding computation; splash and Tokamax are mapped over them by
            hand. None means one device of the default kind.
        interpret: run splash and Tokamax without their devices, slowly: for tests.
    """

    backend: Backend = "auto"
    mesh: Mesh | None = None
    interpret: bool = False

    def __call__(
        self,
        q_BTHC: Array,
        k_BTKC: Array,
        v_BTKC: Array,
        *,
        causal: bool,
        window: int | None = None,
        segments_BT: Array | None = None,
    ) -> Array:
        """Return ``[B, T, H, C]``: softmax(q kᵀ / √C) v, the softmax in float32.

        Args:
            q_BTHC: queries; H a multiple of K.
            k_BTKC: keys.
            v_BTKC: values.
            causal: position t sees positions up to t.
            window: with ``causal``, it sees the last ``window`` of them, itself included.
            segments_BT: integers; positions see only those of their own segment, which follow one
                another. Padding is a segment of its own. None makes each row one segment.

        Raises:
            UserError: a backend asked for by name that cannot do this.
        """
        assert window is None or causal
        implementation = self.choose(q_BTHC.shape[-1], q_BTHC.dtype)
        if implementation in ("splash", "tokamax"):
            if segments_BT is None:
                segments_BT = jnp.zeros(q_BTHC.shape[:2], jnp.int32)
            run = self._splash if implementation == "splash" else self._tokamax
            return run(q_BTHC, k_BTKC, v_BTKC, segments_BT, causal, window)
        # JAX counts the window without the position itself, and to both sides; ours looks back
        # alone.
        window_size = None if window is None else (window - 1, 0)
        mask = None if segments_BT is None else same_segment(segments_BT)
        if implementation == "cudnn" and mask is not None:
            _warn_of_mask_gradients(jax.__version_info__)
        # Key-value heads stay as they are: queries are grouped under them.
        out_BTHC = jax.nn.dot_product_attention(
            q_BTHC,
            k_BTKC,
            v_BTKC,
            mask=mask,
            is_causal=causal,
            local_window_size=window_size,
            implementation=implementation,
        )
        # XLA has no statistics to keep: scores are computed again for their gradient anyway. The
        # kernels' results have names of their own, and would be kept twice under this one.
        return checkpoint_name(out_BTHC, KEPT_ATTENTION) if implementation == "xla" else out_BTHC

    def at_places(
        self,
        q_BKHC: Array,
        k_BTHC: Array,
        v_BTHC: Array,
        *,
        segments_BK: Array,
        segments_BT: Array,
    ) -> Array:
        """Return ``[B, K, H, C]``: what K places of a row's T see, both ways, in their segments.

        By XLA everywhere: the kernels want as many queries as keys, and a few queries' scores are
        small.

        Args:
            q_BKHC: queries.
            k_BTHC: keys, as many heads.
            v_BTHC: values.
            segments_BK: of the queries.
            segments_BT: of keys and values.
        """
        sees_BKT = segments_BK[:, :, None] == segments_BT[:, None, :]
        out_BKHC = jax.nn.dot_product_attention(
            q_BKHC, k_BTHC, v_BTHC, mask=sees_BKT[:, None], implementation="xla"
        )
        return checkpoint_name(out_BKHC, KEPT_ATTENTION)

    def choose(self, head_width: int, dtype: Any) -> Implementation:
        """Return the implementation for heads of this width and arrays of this type."""
        types_of_16_bits = (jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float16))
        has_16_bits = jnp.dtype(dtype) in types_of_16_bits
        suits_cudnn = has_16_bits and head_width % 8 == 0 and head_width <= 128
        suits_splash = head_width % _SPLASH_BLOCK == 0
        if self.backend == "splash":
            if not suits_splash:
                raise UserError(
                    "splash attention needs a head width that 128 divides; this model's is"
                    f" {head_width}"
                )
            return "splash"
        if self.backend == "tokamax":
            if not self.interpret:
                tokamax_attention.refuse_other_heads(head_width, has_16_bits)
            return "tokamax"
        if self.backend == "cudnn":
            if not suits_cudnn:
                raise UserError(
                    "cuDNN attention needs bfloat16 and a head width that 8 divides, at most 128; "
                    f"this model has {jnp.dtype(dtype)} and {head_width}"
                )
            return "cudnn"
        if self.backend == "auto":
            if self.platform == "tpu" and suits_splash:
                return "splash"
            if self.platform in ("gpu", "cuda") and suits_cudnn:
                return "cudnn"
        return "xla"

    def check(self, head_width: int, dtype: Any) -> None:
        """Refuse what cannot run, before weights are read, which may take minutes.

        Raises:
            UserError: a backend asked for by name that these devices do not have, or heads of
                another width than it takes.
        """
        gpus = ("gpu", "cuda")
        platforms_of_backend = {"cudnn": gpus, "tokamax": gpus, "splash": ("tpu",)}
        platforms = platforms_of_backend.get(self.backend, ())
        if platforms and self.platform not in platforms and not self.interpret:
            device = "a TPU" if self.backend == "splash" else "an NVIDIA GPU"
            raise UserError(
                f"--attention {self.backend} needs {device}, and this runs on a"
                f" {self.platform.upper()}; leave it out, or give auto or xla"
            )
        if self.backend == "tokamax":
            tokamax_attention.kernels()
            tokamax_attention.refuse_device(self._device)
        self.choose(head_width, dtype)
        # A step that is compiled for devices which are not here meets the kernels when it is.
        is_here = self._device in jax.devices()
        if self.backend == "tokamax" and is_here and not self.interpret:
            tokamax_attention.refuse_without_kernels(head_width)

    @property
    def _device(self) -> jax.Device:
        return jax.devices()[0] if self.mesh is None else self.mesh.devices.flat[0]

    @property
    def platform(self) -> str:
        """What the devices are: cpu, gpu or tpu."""
        return str(self._device.platform)

    def _splash(
        self,
        q_BTHC: Array,
        k_BTKC: Array,
        v_BTKC: Array,
        segments_BT: Array,
        causal: bool,
        window: int | None,
    ) -> Array:
        _, time, _, width = q_BTHC.shape
        # The kernel takes whole blocks of positions. Those that are added are a segment of their
        # own, so that real ones do not see them.
        padding = -time % _SPLASH_BLOCK
        segments_BT = segments_BT.astype(jnp.int32)
        segments_BT = jnp.pad(segments_BT, ((0, 0), (0, padding)), constant_values=-1)
        # Unlike the others, the kernel does not divide by √C itself.
        root_of_width = jnp.sqrt(width).astype(q_BTHC.dtype)
        scaled_BTHC = (q_BTHC / root_of_width).astype(q_BTHC.dtype)
        q_BHTC = _heads_first(scaled_BTHC, padding)
        k_BKTC = _heads_first(k_BTKC, padding)
        v_BKTC = _heads_first(v_BTKC, padding)
        shards = 1 if self.mesh is None else self.mesh.shape["tensor"]
        run = functools.partial(
            _splash_rows,
            heads=q_BHTC.shape[1] // shards,
            causal=causal,
            window=window,
            interpret=self.interpret,
        )
        heads_spec = PartitionSpec(_BATCH_AXES, "tensor", None, None)
        out_BHTC = self._on_own_rows_and_heads(run, heads_spec)(q_BHTC, k_BKTC, v_BKTC, segments_BT)
        padded_BTHC = out_BHTC.swapaxes(1, 2)
        return padded_BTHC[:, :time]

    def _tokamax(
        self,
        q_BTHC: Array,
        k_BTKC: Array,
        v_BTKC: Array,
        segments_BT: Array,
        causal: bool,
        window: int | None,
    ) -> Array:
        run = functools.partial(
            tokamax_attention.attend, causal=causal, window=window, interpret=self.interpret
        )
        heads_spec = PartitionSpec(_BATCH_AXES, None, "tensor", None)
        out_BTHC = self._on_own_rows_and_heads(run, heads_spec)(q_BTHC, k_BTKC, v_BTKC, segments_BT)
        return checkpoint_name(out_BTHC, KEPT_ATTENTION)

    def _on_own_rows_and_heads(
        self, run: Callable[..., Array], heads_spec: PartitionSpec
    ) -> Callable[..., Array]:
        """Map a kernel over the devices: each runs it on the rows and heads that it has.

        XLA cannot see into a kernel and would gather its inputs on every device, though no row and
        no head needs another.

        Args:
            run: of queries, keys, values and segments.
            heads_spec: how the first three and the result lie on the mesh.
        """
        if self.mesh is None:
            return run
        segments_spec = PartitionSpec(_BATCH_AXES, None)
        return jax.shard_map(
            run,
            mesh=self.mesh,
            in_specs=(heads_spec, heads_spec, heads_spec, segments_spec),
            out_specs=heads_spec,
            check_vma=False,
        )


def _heads_first(x_BTHC: Array, padding: int) -> Array:
    """Return ``[B, H, T, C]`` with padding behind the last position."""
    padded_BTHC = jnp.pad(x_BTHC, ((0, 0), (0, padding), (0, 0), (0, 0)))
    return padded_BTHC.swapaxes(1, 2)


def same_segment(segments_BT: Array) -> Array:
    """Return the mask ``[B, 1, T, T]``: which positions share a segment."""
    is_same_BTT = segments_BT[:, :, None] == segments_BT[:, None, :]
    # An axis of one for the heads, which all see the same.
    return is_same_BTT[:, None]


def _splash_rows(
    q: Array,
    k: Array,
    v: Array,
    segments_BT: Array,
    *,
    heads: int,
    causal: bool,
    window: int | None,
    interpret: bool,
) -> Array:
    """Run the kernel on each row: ``[B, H, T, C]`` queries, ``[B, K, T, C]`` keys and values."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    time = q.shape[2]
    square = (time, time)
    if causal and window is not None:
        # Blocks that lie outside of the window altogether are never computed.
        mask: masks.Mask = masks.LocalMask(square, (window - 1, 0), 0)
    elif causal:
        mask = masks.CausalMask(square)
    else:
        mask = masks.FullMask(square)
    # Larger blocks are faster, as long as they divide the length.
    block_sizes = (_SPLASH_LARGEST_BLOCK, 384, 256, _SPLASH_BLOCK)
    block = next(size for size in block_sizes if time % size == 0)
    sizes = kernels.BlockSizes(
        block_q=block,
        block_kv=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_q_dq=block,
        block_kv_dq=block,
    )
    kernel = kernels.make_splash_mha(
        masks.MultiHeadMask([mask] * heads),
        block_sizes=sizes,
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name=KEPT_ATTENTION,
        interpret=interpret,
    )

    def row(q: Array, k: Array, v: Array, segments_T: Array) -> Array:
        # Of queries and of keys, which are the same positions here.
        segment_ids = kernels.SegmentIds(segments_T, segments_T)
        return jnp.asarray(kernel(q, k, v, segment_ids=segment_ids))

    return jax.vmap(row)(q, k, v, segments_BT)
