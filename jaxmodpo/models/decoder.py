"""The policy: a Mistral or Llama decoder in Flax, adapter included, and how to load one.

The module holds arrays; its forward pass scans over stacked layers. Base weights and adapter are
two variable types, so that ``nnx.split`` parts what is frozen from what is trained and a jitted
function takes them as separate arguments. Shape suffixes: B batch, T time, S cache length, D model
width, H query heads, K key-value heads, C head width, V vocabulary, L layers.

A Mistral from its Hugging Face folder, and how likely it finds a text::

    model = load_decoder(Path("Mistral-7B-Instruct-v0.2"), "bfloat16")
    tokens_BT = jnp.asarray([[1, 22557, 1526, 2]])
    model.token_logps(tokens_BT).sum()      # the first token's is 0

What its ``config.json`` may say is in ``models/decoder_config.py``; how tensors get from files to
devices in ``models/loading.py``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from jaxmodpo.models import lora as lora_module
from jaxmodpo.models import quantized
from jaxmodpo.models.attention import Attention
from jaxmodpo.models.axes import constrain, constrain_rows, embedded
from jaxmodpo.models.cached_attention import (
    CACHE_AXES,
    Cache,
    attend,
    cache_shape,
    visible_places,
    written,
)
from jaxmodpo.models.decoder_config import DecoderConfig, read_decoder_config
from jaxmodpo.models.dropout import Draws
from jaxmodpo.models.loading import dtype_named, load_parameters
from jaxmodpo.models.logps import chunked_token_logps, token_logps
from jaxmodpo.models.lora import LoraConfig
from jaxmodpo.models.model_folder import save_model
from jaxmodpo.models.parameters import Spec, stacked_layers
from jaxmodpo.models.quantized import BaseDtype, is_quantized, stored_table
from jaxmodpo.models.remat import Remat, rematerialized
from jaxmodpo.models.rope import rotate, rotation


def parameter_table(config: DecoderConfig) -> dict[str, Spec]:
    """Return every parameter of the base model."""
    vocabulary = config.vocab_size
    width = config.hidden_size
    inner = config.intermediate_size
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    attention = functools.partial(_projection, config.num_hidden_layers, "self_attn")
    mlp = functools.partial(_projection, config.num_hidden_layers, "mlp")
    norm = functools.partial(_norm, config)
    table = {
        "embed": Spec((vocabulary, width), ("vocab", "embed"), "model.embed_tokens.weight"),
        "layers.input_norm": norm("input_layernorm"),
        "layers.q_proj": attention("q_proj", (width, queries), ("embed", "heads")),
        "layers.k_proj": attention("k_proj", (width, keys), ("embed", "kv_heads")),
        "layers.v_proj": attention("v_proj", (width, keys), ("embed", "kv_heads")),
        "layers.o_proj": attention("o_proj", (queries, width), ("heads", "embed")),
        "layers.post_norm": norm("post_attention_layernorm"),
        "layers.gate_proj": mlp("gate_proj", (width, inner), ("embed", "mlp")),
        "layers.up_proj": mlp("up_proj", (width, inner), ("embed", "mlp")),
        "layers.down_proj": mlp("down_proj", (inner, width), ("mlp", "embed")),
        "norm": Spec((width,), (None,), "model.norm.weight", "ones"),
    }
    if not config.tie_word_embeddings:
        table["unembed"] = Spec(
            (width, vocabulary), ("embed", "vocab"), "lm_head.weight", transposed=True
        )
    return table


def _projection(
    layers: int, block: str, name: str, size: tuple[int, int], axes: tuple[str, str]
) -> Spec:
    """Return one of a layer's matrices, stacked over layers; ``size`` is its inputs and outputs."""
    key = f"model.layers.{{layer}}.{block}.{name}.weight"
    return Spec((layers, *size), ("layers", *axes), key, transposed=True)


def _norm(config: DecoderConfig, name: str) -> Spec:
    """Return one of a layer's norms, stacked over layers."""
    shape = (config.num_hidden_layers, config.hidden_size)
    key = f"model.layers.{{layer}}.{name}.weight"
    return Spec(shape, ("layers", None), key, "ones")


class BaseParam(nnx.Variable):
    """A weight of the base model: frozen while an adapter is trained."""


class LoraParam(nnx.Variable):
    """A weight of the adapter."""


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
        adapter = adapter or {}
        self.base = nnx.Dict({name: BaseParam(array) for name, array in base.items()})
        self.adapter = nnx.Dict({name: LoraParam(array) for name, array in adapter.items()})

    def hidden_states(
        self,
        tokens_BT: Array,
        dropout_key: Array | None = None,
        *,
        remat: Remat = "none",
        segments_BT: Array | None = None,
        positions_BT: Array | None = None,
        sequences_BT: Array | None = None,
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
            sequences_BT: the number in the data set of each token's sequence (``[B, 1]`` where a
                row has one), by which dropout is drawn; by default the row's number.
        """
        assert (segments_BT is None) == (positions_BT is None)
        base, layers = self._parameters()
        mesh = self.attention.mesh
        x_BTD = embedded(base["embed"][...], tokens_BT, mesh)
        if positions_BT is None:
            _, time = tokens_BT.shape
            positions_BT = jnp.arange(time)[None]
        angles = rotation(self.config.rope, self.config.head_dim, positions_BT)
        draws = Draws.of_rows(dropout_key, sequences_BT, positions_BT, tokens_BT.shape)

        def block(x_BTD: Array, layer: tuple[dict[str, Array], Array]) -> tuple[Array, None]:
            weights, number = layer
            dropout = self._dropout(draws, number)

            def attend(q_BTHC: Array, k_BTKC: Array, v_BTKC: Array) -> Array:
                return self.attention(
                    self._placed_heads(q_BTHC, "heads"),
                    self._placed_heads(k_BTKC, "kv_heads"),
                    self._placed_heads(v_BTKC, "kv_heads"),
                    causal=True,
                    window=self.config.sliding_window,
                    segments_BT=segments_BT,
                )

            x_BTD = self._layer(x_BTD, weights, angles, attend, dropout)
            x_BTD = constrain(x_BTD, mesh, "batch", None, None)
            return x_BTD, None

        body = rematerialized(block, remat)
        depth = self.config.num_hidden_layers
        numbered_layers = (layers, jnp.arange(depth))
        # A few layers, unrolled, take a CPU some per cent less time; many would compile longer.
        unroll = depth if depth <= 4 else 1
        x_BTD, _ = jax.lax.scan(body, x_BTD, numbered_layers, unroll=unroll)
        return _rms_norm(x_BTD, base["norm"], self.config.rms_norm_eps)

    def logits(self, hidden_BTD: Array) -> Array:
        """Return float32 logits ``[B, T, V]``: for few positions at a time."""
        return jnp.matmul(hidden_BTD, self.unembedding(), preferred_element_type=jnp.float32)

    def unembedding(self) -> Array:
        """The matrix ``[D, V]`` from hidden states to logits."""
        if self.config.tie_word_embeddings:
            return self.base["embed"][...].T
        return self.base["unembed"][...]

    def token_logps(
        self,
        tokens_BT: Array,
        dropout_key: Array | None = None,
        *,
        remat: Remat = "none",
        chunk: int | None = 128,
        segments_BT: Array | None = None,
        positions_BT: Array | None = None,
        sequences_BT: Array | None = None,
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
            sequences_BT: as in :meth:`hidden_states`.
        """
        hidden_BTD = self.hidden_states(
            tokens_BT,
            dropout_key,
            remat=remat,
            segments_BT=segments_BT,
            positions_BT=positions_BT,
            sequences_BT=sequences_BT,
        )
        # The state at a position predicts the token after it: the last state predicts nothing here,
        # and the first token is predicted by nothing.
        hidden_BTD = hidden_BTD[:, :-1]
        next_tokens_BT = tokens_BT[:, 1:]
        if chunk is None:
            logps = token_logps(hidden_BTD, self.unembedding(), next_tokens_BT)
        else:
            logps = chunked_token_logps(hidden_BTD, self.unembedding(), next_tokens_BT, chunk)
        return jnp.pad(logps, ((0, 0), (1, 0)))

    def empty_cache(self, batch: int, length: int) -> Cache:
        """Return a cache for ``batch`` rows and ``length`` places, a multiple of
        ``cached_attention.BLOCK``.
        """
        shape = cache_shape(self.config, batch, length)
        zeros = jnp.zeros(shape, self.base["embed"].dtype)
        return Cache(self._placed_cache(zeros), self._placed_cache(zeros))

    def extend(
        self,
        tokens_BT: Array,
        positions_BT: Array,
        cache: Cache,
        own_ranks_Br: Array | None = None,
    ) -> tuple[Array, Cache]:
        """Run new tokens against a cache and add them to it.

        Args:
            tokens_BT: new tokens: a part of a prompt, or one token a row.
            positions_BT: their positions, one after the other in a row. Position p stands at the
                place ``p mod length`` of the cache; what stands behind a row's newest token is
                never attended to.
            cache: what came before; at least as long as the longest row, or as the sliding window
                and the new tokens together.
            own_ranks_Br: see :func:`jaxmodpo.models.lora.apply`.

        Returns:
            Hidden states ``[B, T, D]`` and the cache with the new tokens in it.
        """
        base, layers = self._parameters()
        mesh = self.attention.mesh
        length = cache.length
        # All of it lies with its rows. Where that is not said, the compiler shares small arrays out
        # by other axes, and gathers them in every layer.
        positions_BT = constrain(positions_BT, mesh, "batch", None)
        x_BTD = embedded(base["embed"][...], tokens_BT, mesh)
        cosines, sines = rotation(self.config.rope, self.config.head_dim, positions_BT)
        angles = (constrain_rows(cosines, mesh), constrain_rows(sines, mesh))
        visible_BTS = visible_places(positions_BT, length, self.config.sliding_window)
        visible_BTS = constrain_rows(visible_BTS, mesh)
        places_BT = constrain_rows(positions_BT % length, mesh)

        def block(
            carry: tuple[Array, Cache], layer: tuple[dict[str, Array], Array]
        ) -> tuple[tuple[Array, Cache], None]:
            x_BTD, cache = carry
            weights, number = layer
            # ``attend`` returns what a layer needs; the cache that it filled leaves by this list.
            updated: list[Cache] = []

            def attend_to_cache(q_BTHC: Array, k_BTKC: Array, v_BTKC: Array) -> Array:
                k_BTKC = self._placed_heads(k_BTKC, "kv_heads")
                v_BTKC = self._placed_heads(v_BTKC, "kv_heads")
                keys = written(cache.keys, number, places_BT, k_BTKC)
                keys = self._placed_cache(keys)
                values = written(cache.values, number, places_BT, v_BTKC)
                values = self._placed_cache(values)
                updated.append(Cache(keys, values))
                q_BTHC = self._placed_heads(q_BTHC, "heads")
                return attend(q_BTHC, keys, values, number, visible_BTS)

            x_BTD = self._layer(x_BTD, weights, angles, attend_to_cache, None, own_ranks_Br)
            x_BTD = constrain(x_BTD, mesh, "batch", None, None)
            return (x_BTD, updated[0]), None

        numbered_layers = (layers, jnp.arange(self.config.num_hidden_layers))
        (x_BTD, cache), _ = jax.lax.scan(block, (x_BTD, cache), numbered_layers)
        normalized_BTD = _rms_norm(x_BTD, base["norm"], self.config.rms_norm_eps)
        return normalized_BTD, cache

    def _placed_heads(self, array_BTHC: Array, head_axis: str) -> Array:
        """Share queries, keys or values out by rows and by heads."""
        return constrain(array_BTHC, self.attention.mesh, "batch", None, head_axis, None)

    def _placed_cache(self, array_LNBKPC: Array) -> Array:
        """Share a cache out by rows and by key-value heads: no device ever holds another's part."""
        return constrain(array_LNBKPC, self.attention.mesh, *CACHE_AXES)

    def _parameters(self) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return the arrays outside the stack, and those inside it (base and adapter in one
        tree).
        """
        arrays = {name: variable[...] for name, variable in self.base.items()}
        layers = stacked_layers(arrays)
        for name, variable in self.adapter.items():
            layers[name] = variable[...]
        return arrays, layers

    def _dropout(self, draws: Draws | None, layer: Array) -> tuple[ArrayLike, Draws] | None:
        if draws is None or self.lora is None:
            return None
        # Folded in with the layer's number, or all layers would drop the same inputs.
        return self.lora.dropout, draws.numbered(layer)

    def _layer(
        self,
        x_BTD: Array,
        weights: dict[str, Array],
        angles: tuple[Array, Array],
        attend: Callable[[Array, Array, Array], Array],
        dropout: tuple[ArrayLike, Draws] | None,
        own_ranks_Br: Array | None = None,
    ) -> Array:
        """One decoder layer; ``attend`` maps rotated queries, keys and values to ``[B, T, H,
        C]``.
        """
        config = self.config
        scale = self.lora.scale if self.lora else 0.0

        def project(x: Array, name: str) -> Array:
            frozen = quantized.matmul(x, weights, name)
            change = lora_module.apply(x, weights, name, scale, dropout, own_ranks_Br)
            return frozen + change

        h_BTD = _rms_norm(x_BTD, weights["input_norm"], config.rms_norm_eps)
        q_BTHC = _heads(project(h_BTD, "q_proj"), config.num_attention_heads)
        k_BTKC = _heads(project(h_BTD, "k_proj"), config.num_key_value_heads)
        v_BTKC = _heads(project(h_BTD, "v_proj"), config.num_key_value_heads)
        mixed_BTHC = attend(rotate(q_BTHC, angles), rotate(k_BTKC, angles), v_BTKC)
        batch, time, _ = x_BTD.shape
        # The heads of a position beside each other again: one vector of width H C.
        mixed = mixed_BTHC.reshape(batch, time, -1)
        x_BTD = x_BTD + project(mixed, "o_proj")
        h_BTD = _rms_norm(x_BTD, weights["post_norm"], config.rms_norm_eps)
        gate = jax.nn.silu(project(h_BTD, "gate_proj"))
        gated = gate * project(h_BTD, "up_proj")
        return x_BTD + project(gated, "down_proj")


def _rms_norm(x: Array, weight: Array, epsilon: float) -> Array:
    # The mean of squares in float32, and the product with the weight in the model's type, both as
    # transformers has it: the order of the two casts shows in the last bits of bfloat16.
    x32 = x.astype(jnp.float32)
    mean_square = jnp.mean(x32 * x32, axis=-1, keepdims=True)
    normalized = x32 * jax.lax.rsqrt(mean_square + epsilon)
    return weight * normalized.astype(x.dtype)


def _heads(x: Array, heads: int) -> Array:
    """Split a projection's outputs into heads: ``[B, T, heads · C]`` to ``[B, T, heads, C]``."""
    batch, time, _ = x.shape
    return x.reshape(batch, time, heads, -1)


def load_decoder(
    folder: Path, base_dtype: BaseDtype = "bfloat16", shardings_for: Any | None = None
) -> Decoder:
    """Load a Mistral or Llama model from a Hugging Face folder, without an adapter.

    Args:
        folder: ``config.json`` and safetensors.
        base_dtype: of the weights; ``int8`` and ``nf4`` are for the projections, with bfloat16 for
            the rest.
        shardings_for: maps a parameter table to shardings (``policy.mesh.shardings`` with its
            mesh), or None.

    Raises:
        UserError: not a model folder, an unsupported architecture, or weights that do not fit it.
    """
    config = read_decoder_config(folder)
    table = parameter_table(config)
    shardings: Any | None = None
    if shardings_for is not None:
        shardings = shardings_for(stored_table(table, base_dtype))
    # Embeddings, norms and the head are never quantized.
    quantized_base = is_quantized(base_dtype)
    unquantized_dtype = "bfloat16" if quantized_base else base_dtype
    # Tied models may hold a head all the same. It is a copy of the embeddings: a head of its own
    # would have made them untied.
    ignored_prefixes = ("lm_head.",) if config.tie_word_embeddings else ()
    base = load_parameters(
        folder,
        table,
        dtype_named(unquantized_dtype),
        base_dtype=base_dtype if quantized_base else None,
        shardings=shardings,
        ignored_prefixes=ignored_prefixes,
    )
    return Decoder(config, base)


def save_decoder(
    folder: Path, model: Decoder, config: Mapping[str, Any], tokenizer_from: Path | None = None
) -> None:
    """Write a model's base weights; ``config`` is the ``config.json`` to go with them."""
    arrays: dict[str, Array] = {}
    for name, variable in model.base.items():
        if isinstance(variable, BaseParam):
            arrays[name] = variable[...]
    save_model(folder, config, parameter_table(model.config), arrays, tokenizer_from)
