"""The policy: a Mistral or Llama decoder in Flax, adapter included.

The module holds arrays; its forward pass scans over stacked layers. Base weights and adapter are
two variable types, so that ``nnx.split`` parts what is frozen from what is trained and a jitted
function takes them as separate arguments. Shape suffixes: B batch, T time, S cache length, D model
width, H query heads, K key-value heads, C head width, V vocabulary, L layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from jaxmodpo.models import lora as lora_module
from jaxmodpo.models import quantized
from jaxmodpo.models.attention import Attention
from jaxmodpo.models.axes import constrain
from jaxmodpo.models.decoder_config import DecoderConfig
from jaxmodpo.models.logps import chunked_token_logps, token_logps
from jaxmodpo.models.lora import LoraConfig
from jaxmodpo.models.parameters import Spec
from jaxmodpo.models.remat import Remat, rematerialized


def parameter_table(config: DecoderConfig) -> dict[str, Spec]:
    """Return every parameter of the base model."""
    layers, width, inner = config.num_hidden_layers, config.hidden_size, config.intermediate_size
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim

    def linear(block: str, name: str, size: tuple[int, int], axes: tuple[str, str]) -> Spec:
        return Spec(
            (layers, *size),
            ("layers", *axes),
            f"model.layers.{{layer}}.{block}.{name}.weight",
            transposed=True,
        )

    def norm(name: str) -> Spec:
        return Spec(
            (layers, width), ("layers", None), f"model.layers.{{layer}}.{name}.weight", "ones"
        )

    table = {
        "embed": Spec((config.vocab_size, width), ("vocab", "embed"), "model.embed_tokens.weight"),
        "layers.input_norm": norm("input_layernorm"),
        "layers.q_proj": linear("self_attn", "q_proj", (width, queries), ("embed", "heads")),
        "layers.k_proj": linear("self_attn", "k_proj", (width, keys), ("embed", "kv_heads")),
        "layers.v_proj": linear("self_attn", "v_proj", (width, keys), ("embed", "kv_heads")),
        "layers.o_proj": linear("self_attn", "o_proj", (queries, width), ("heads", "embed")),
        "layers.post_norm": norm("post_attention_layernorm"),
        "layers.gate_proj": linear("mlp", "gate_proj", (width, inner), ("embed", "mlp")),
        "layers.up_proj": linear("mlp", "up_proj", (width, inner), ("embed", "mlp")),
        "layers.down_proj": linear("mlp", "down_proj", (inner, width), ("mlp", "embed")),
        "norm": Spec((width,), (None,), "model.norm.weight", "ones"),
    }
    if not config.tie_word_embeddings:
        table["unembed"] = Spec(
            (width, config.vocab_size), ("embed", "vocab"), "lm_head.weight", transposed=True
        )
    return table


class BaseParam(nnx.Variable):
    """A weight of the base model: frozen while an adapter is trained."""


class LoraParam(nnx.Variable):
    """A weight of the adapter."""


class Cache(NamedTuple):
    """Keys and values of all positions so far, each ``[L, B, S, K, C]``."""

    keys: Array
    values: Array


class Decoder(nnx.Module):
    """A decoder with an optional LoRA adapter.

    Args:
        config: shapes and constants.
        base: the arrays of :func:`parameter_table`, or of what ``quantized.stored_table`` makes of
            it.
        lora: the adapter's settings, or None.
        adapter: the arrays of ``lora.adapter_table``; needed with ``lora``.
        attention: which implementation, over which devices; by default the best for one of this
            machine's.
    """

    def __init__(
        self,
        config: DecoderConfig,
        base: Mapping[str, Array],
        lora: LoraConfig | None = None,
        adapter: Mapping[str, Array] | None = None,
        attention: Attention | None = None,
    ):
        self.config = config
        self.lora = lora
        self.attention = attention or Attention()
        self.base = nnx.Dict({name: BaseParam(array) for name, array in base.items()})
        self.adapter = nnx.Dict({name: LoraParam(array) for name, array in (adapter or {}).items()})

    def hidden_states(
        self,
        tokens_BT: Array,
        dropout_key: Array | None = None,
        *,
        remat: Remat = "none",
        segments_BT: Array | None = None,
        positions_BT: Array | None = None,
    ) -> Array:
        """Return the normalized last hidden states, ``[B, T, D]``.

        Rows are padded on the right: causality alone keeps padding from real tokens.

        Args:
            tokens_BT: token ids.
            dropout_key: draws the adapter's dropout; None switches it off.
            remat: what the backward pass computes again instead of keeping it, see
                :data:`jaxmodpo.models.remat.Remat`.
            segments_BT: which of several sequences packed into a row a token belongs to; None for
                one a row.
            positions_BT: each token's position in its sequence; needed with segments.
        """
        assert (segments_BT is None) == (positions_BT is None)
        base, layers = self._parameters()
        mesh = self.attention.mesh
        x_BTD = constrain(base["embed"][tokens_BT], mesh, "batch", None, None)
        if positions_BT is None:
            positions_BT = jnp.arange(tokens_BT.shape[1])[None]
        rotation = _rotation(self.config, positions_BT)

        def block(x_BTD: Array, layer: tuple[dict[str, Array], Array]) -> tuple[Array, None]:
            weights, number = layer
            dropout = self._dropout(dropout_key, number)

            def attend(q_BTHC: Array, k_BTKC: Array, v_BTKC: Array) -> Array:
                window = self.config.sliding_window
                q_BTHC = constrain(q_BTHC, mesh, "batch", None, "heads", None)
                k_BTKC, v_BTKC = (
                    constrain(x, mesh, "batch", None, "kv_heads", None) for x in (k_BTKC, v_BTKC)
                )
                return self.attention(
                    q_BTHC, k_BTKC, v_BTKC, causal=True, window=window, segments_BT=segments_BT
                )

            x_BTD = self._layer(x_BTD, weights, rotation, attend, dropout)
            return constrain(x_BTD, mesh, "batch", None, None), None

        body = rematerialized(block, remat)
        depth = self.config.num_hidden_layers
        # Unrolling a few layers makes a CPU a fifth faster; a deep model would only compile longer.
        x_BTD, _ = jax.lax.scan(
            body, x_BTD, (layers, jnp.arange(depth)), unroll=depth if depth <= 4 else 1
        )
        return _rms_norm(x_BTD, base["norm"], self.config.rms_norm_eps)

    def logits(self, hidden_BTD: Array) -> Array:
        """Return float32 logits ``[B, T, V]``: for few positions at a time."""
        return jnp.matmul(hidden_BTD, self.unembedding(), preferred_element_type=jnp.float32)

    def unembedding(self) -> Array:
        """The matrix ``[D, V]`` from hidden states to logits."""
        return (
            self.base["embed"][...].T
            if self.config.tie_word_embeddings
            else self.base["unembed"][...]
        )

    def token_logps(
        self,
        tokens_BT: Array,
        dropout_key: Array | None = None,
        *,
        remat: Remat = "none",
        chunk: int | None = 128,
        segments_BT: Array | None = None,
        positions_BT: Array | None = None,
    ) -> Array:
        """Return log π(token | those before it), ``[B, T]`` float32.

        What stands at a row's or a segment's first token means nothing: it is never learned.

        Args:
            tokens_BT: token ids.
            dropout_key: as in :meth:`hidden_states`.
            remat: as in :meth:`hidden_states`.
            chunk: logits exist for this many positions of each row at a time, and the unembedding
                gets no gradient. None: for all at once, and it does.
            segments_BT: as in :meth:`hidden_states`.
            positions_BT: as in :meth:`hidden_states`.
        """
        hidden_BTD = self.hidden_states(
            tokens_BT, dropout_key, remat=remat, segments_BT=segments_BT, positions_BT=positions_BT
        )[:, :-1]
        if chunk is None:
            logps = token_logps(hidden_BTD, self.unembedding(), tokens_BT[:, 1:])
        else:
            logps = chunked_token_logps(hidden_BTD, self.unembedding(), tokens_BT[:, 1:], chunk)
        return jnp.pad(logps, ((0, 0), (1, 0)))

    def empty_cache(self, batch: int, length: int) -> Cache:
        shape = (
            self.config.num_hidden_layers,
            batch,
            length,
            self.config.num_key_value_heads,
            self.config.head_dim,
        )
        zeros = jnp.zeros(shape, self.base["embed"].dtype)
        return Cache(zeros, zeros)

    def extend(self, tokens_BT: Array, positions_BT: Array, cache: Cache) -> tuple[Array, Cache]:
        """Run new tokens against a cache and add them to it.

        Args:
            tokens_BT: new tokens: a prompt, or one token a row.
            positions_BT: their positions, which are also their places in the cache. A place
                after a row's newest token may hold anything: it is never attended to.
            cache: what came before.

        Returns:
            Hidden states ``[B, T, D]`` and the cache with the new tokens in it.
        """
        base, layers = self._parameters()
        x_BTD = base["embed"][tokens_BT]
        rotation = _rotation(self.config, positions_BT)
        places_S = jnp.arange(cache.keys.shape[2])
        visible_BTS = places_S <= positions_BT[..., None]
        if self.config.sliding_window is not None:
            visible_BTS &= places_S > positions_BT[..., None] - self.config.sliding_window
        rows_B1 = jnp.arange(tokens_BT.shape[0])[:, None]

        def block(
            carry: tuple[Array, Cache], layer: tuple[dict[str, Array], Array]
        ) -> tuple[tuple[Array, Cache], None]:
            x_BTD, cache = carry
            weights, number = layer
            updated: list[Cache] = []

            def attend(q_BTHC: Array, k_BTKC: Array, v_BTKC: Array) -> Array:
                keys = cache.keys.at[number, rows_B1, positions_BT].set(k_BTKC)
                values = cache.values.at[number, rows_B1, positions_BT].set(v_BTKC)
                updated.append(Cache(keys, values))
                return jax.nn.dot_product_attention(
                    q_BTHC, keys[number], values[number], mask=visible_BTS[:, None]
                )

            x_BTD = self._layer(x_BTD, weights, rotation, attend, None)
            return (x_BTD, updated[0]), None

        (x_BTD, cache), _ = jax.lax.scan(
            block, (x_BTD, cache), (layers, jnp.arange(self.config.num_hidden_layers))
        )
        return _rms_norm(x_BTD, base["norm"], self.config.rms_norm_eps), cache

    def _parameters(self) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return the arrays outside the stack, and those inside it (base and adapter in one
        tree).
        """
        arrays = {name: variable[...] for name, variable in self.base.items()}
        layers = {
            name.removeprefix("layers."): a
            for name, a in arrays.items()
            if name.startswith("layers.")
        }
        layers |= {name: variable[...] for name, variable in self.adapter.items()}
        return arrays, layers

    def _dropout(self, key: Array | None, layer: Array) -> tuple[ArrayLike, Array] | None:
        if key is None or self.lora is None:
            return None
        return self.lora.dropout, jax.random.fold_in(key, layer)

    def _layer(
        self, x_BTD: Array, weights: dict[str, Array], rotation: Any, attend: Any, dropout: Any
    ) -> Array:
        """One decoder layer; ``attend`` maps rotated queries, keys and values to ``[B, T, H,
        C]``.
        """
        config = self.config
        scale = self.lora.scale if self.lora else 0.0

        def project(x: Array, name: str) -> Array:
            return quantized.matmul(x, weights, name) + lora_module.apply(
                x, weights, name, scale, dropout
            )

        h_BTD = _rms_norm(x_BTD, weights["input_norm"], config.rms_norm_eps)
        q_BTHC = _heads(project(h_BTD, "q_proj"), config.num_attention_heads)
        k_BTKC = _heads(project(h_BTD, "k_proj"), config.num_key_value_heads)
        v_BTKC = _heads(project(h_BTD, "v_proj"), config.num_key_value_heads)
        mixed_BTHC = attend(_rotate(q_BTHC, rotation), _rotate(k_BTKC, rotation), v_BTKC)
        x_BTD = x_BTD + project(mixed_BTHC.reshape(*x_BTD.shape[:2], -1), "o_proj")
        h_BTD = _rms_norm(x_BTD, weights["post_norm"], config.rms_norm_eps)
        gated = jax.nn.silu(project(h_BTD, "gate_proj")) * project(h_BTD, "up_proj")
        return x_BTD + project(gated, "down_proj")


def _rms_norm(x: Array, weight: Array, epsilon: float) -> Array:
    x32 = x.astype(jnp.float32)
    normalized = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + epsilon)
    return weight * normalized.astype(x.dtype)


def _heads(x: Array, heads: int) -> Array:
    return x.reshape(*x.shape[:2], heads, -1)


def _rotation(config: DecoderConfig, positions_BT: Array) -> tuple[Array, Array]:
    """Cosines and sines of the rotary angles, ``[B, T, 1, C/2]`` float32."""
    angles = positions_BT[..., None, None].astype(jnp.float32) * config.rope.frequencies(
        config.head_dim
    )
    return jnp.cos(angles), jnp.sin(angles)


def _rotate(x: Array, rotation: tuple[Array, Array]) -> Array:
    """Rotate the two halves of each head against each other (the Hugging Face layout of the
    weights).
    """
    cos, sin = rotation
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate(
        [first * cos - second * sin, second * cos + first * sin], axis=-1
    ).astype(x.dtype)
