"""The reward model: a RoBERTa encoder in Flax with a classification head, or a language-model head.

The classification head with one output is a reward model; the language-model head exists to
pretrain small encoders from scratch. Shape suffixes: B batch, T time, D width, H heads, C head
width, N labels, V vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxmodpo.errors import UserError
from jaxmodpo.models.attention import Attention
from jaxmodpo.models.loading import dtype_named, load_parameters
from jaxmodpo.models.model_folder import read_model_config, save_model
from jaxmodpo.models.parameters import Spec, initialize, stacked_layers
from jaxmodpo.models.remat import Remat, rematerialized
from jaxmodpo.models.roberta_config import RobertaConfig


def parameter_table(config: RobertaConfig) -> dict[str, Spec]:
    """Return every parameter of the encoder and its head."""
    width = config.hidden_size
    inner = config.intermediate_size
    table = {
        "embed": Spec(
            (config.vocab_size, width),
            ("vocab", "embed"),
            "roberta.embeddings.word_embeddings.weight",
        ),
        "positions": Spec(
            (config.max_position_embeddings, width),
            (None, "embed"),
            "roberta.embeddings.position_embeddings.weight",
        ),
        "types": Spec(
            (config.type_vocab_size, width),
            (None, "embed"),
            "roberta.embeddings.token_type_embeddings.weight",
        ),
    }

    builder = _TableBuilder(config, table)
    builder.norm("embed_norm", "roberta.embeddings.LayerNorm")
    block = "roberta.encoder.layer.{layer}"
    attention = f"{block}.attention"
    for name in ("query", "key", "value"):
        key = f"{attention}.self.{name}"
        builder.linear(f"layers.{name}", (width, width), ("embed", "heads"), key)
    builder.linear("layers.output", (width, width), ("heads", "embed"), f"{attention}.output.dense")
    builder.norm("layers.attention_norm", f"{attention}.output.LayerNorm")
    builder.linear("layers.up", (width, inner), ("embed", "mlp"), f"{block}.intermediate.dense")
    builder.linear("layers.down", (inner, width), ("mlp", "embed"), f"{block}.output.dense")
    builder.norm("layers.output_norm", f"{block}.output.LayerNorm")
    if config.head == "classification":
        labels = config.num_labels
        builder.linear("head.dense", (width, width), (None, "embed"), "classifier.dense")
        builder.linear("head.out", (width, labels), ("embed", None), "classifier.out_proj")
    else:
        # The output matrix is the embeddings' own; only its bias is a parameter.
        builder.linear("head.dense", (width, width), (None, "embed"), "lm_head.dense")
        builder.norm("head.norm", "lm_head.layer_norm")
        table["head.out.bias"] = Spec((config.vocab_size,), ("vocab",), "lm_head.bias", "zeros")
    return table


class _TableBuilder:
    """Adds weights and their biases to a table; what has ``layers.`` in its name is stacked."""

    def __init__(self, config: RobertaConfig, table: dict[str, Spec]):
        self._config = config
        self._table = table

    def linear(
        self, name: str, size: tuple[int, int], axes: tuple[str | None, str | None], key: str
    ) -> None:
        """Add a matrix ``[in, out]``, which the file has transposed, and its bias."""
        stack, stack_axes = self._stack(name)
        _, outputs = size
        _, output_axis = axes
        weight_shape = (*stack, *size)
        weight_axes = (*stack_axes, *axes)
        self._table[name] = Spec(weight_shape, weight_axes, f"{key}.weight", transposed=True)
        bias_shape = (*stack, outputs)
        bias_axes = (*stack_axes, output_axis)
        self._table[f"{name}.bias"] = Spec(bias_shape, bias_axes, f"{key}.bias", "zeros")

    def norm(self, name: str, key: str) -> None:
        """Add the weight and the bias of a layer norm."""
        stack, stack_axes = self._stack(name)
        shape = (*stack, self._config.hidden_size)
        axes = (*stack_axes, None)
        self._table[name] = Spec(shape, axes, f"{key}.weight", "ones")
        self._table[f"{name}.bias"] = Spec(shape, axes, f"{key}.bias", "zeros")

    def _stack(self, name: str) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """Return the leading axis of a stacked array, its size and its name; else nothing."""
        if name.startswith("layers."):
            return (self._config.num_hidden_layers,), ("layers",)
        return (), ()


class Roberta(nnx.Module):
    """A RoBERTa encoder with a head; every parameter is trained.

    Args:
        config: shapes and constants.
        parameters: the arrays of :func:`parameter_table`.
        attention: which implementation, over which devices; by default the best for one of this
            machine's.
    """

    def __init__(
        self,
        config: RobertaConfig,
        parameters: Mapping[str, Array],
        attention: Attention | None = None,
    ):
        self.config = config
        self.attention = attention or Attention()
        self.parameters = nnx.Dict({name: nnx.Param(array) for name, array in parameters.items()})

    def __call__(
        self,
        tokens_BT: Array,
        lengths_B: Array,
        dropout_key: Array | None = None,
        remat: Remat = "none",
    ) -> Array:
        """Return the head's output, float32: ``[B, N]`` for classification, ``[B, T, V]`` for the
        language model.

        Args:
            tokens_BT: token ids, padded on the right.
            lengths_B: number of real tokens in each row.
            dropout_key: draws dropout; None switches it off.
            remat: what the backward pass computes again instead of keeping it.
        """
        weights = self._weights()
        places_T = jnp.arange(tokens_BT.shape[1])
        is_real_BT = places_T < lengths_B[:, None]
        # An encoder sees both ways, so that padding has to be a segment of its own.
        segments_BT = is_real_BT.astype(jnp.int32)
        positions_BT = jnp.broadcast_to(places_T, tokens_BT.shape)
        hidden_BTD = self._encode(weights, tokens_BT, segments_BT, positions_BT, dropout_key, remat)
        if self.config.head == "classification":
            # The first token, <s>, stands for the whole text.
            out = self._classified(weights, hidden_BTD[:, 0], dropout_key)
        else:
            dense_BTD = _gelu(_linear(hidden_BTD, weights, "head.dense"))
            normed_BTD = _layer_norm(dense_BTD, weights, "head.norm", self.config.layer_norm_eps)
            out = normed_BTD @ weights["embed"].T + weights["head.out.bias"]
        return out.astype(jnp.float32)

    def rewards(
        self,
        tokens_BT: Array,
        lengths_B: Array,
        dropout_key: Array | None = None,
        remat: Remat = "none",
    ) -> Array:
        """Return one scalar a row, ``[B]`` float32; the head must have one output."""
        assert self.config.head == "classification" and self.config.num_labels == 1
        outputs_B1 = self(tokens_BT, lengths_B, dropout_key, remat)
        return outputs_B1[:, 0]

    def packed_rewards(
        self,
        tokens_BT: Array,
        segments_BT: Array,
        positions_BT: Array,
        segment_numbers_K: Array,
        dropout_key: Array | None = None,
        remat: Remat = "none",
    ) -> Array:
        """Return one scalar for each text of rows that hold several end to end, ``[B, K]`` float32;
        the head must have one output.

        Args:
            tokens_BT: token ids.
            segments_BT: the number of each token's text in its row, from 1; 0 is padding.
            positions_BT: each token's place in its text, from 0.
            segment_numbers_K: 1 to K. What a row has of a text that is not there means nothing.
            dropout_key: draws dropout; None switches it off.
            remat: what the backward pass computes again instead of keeping it.
        """
        assert self.config.head == "classification" and self.config.num_labels == 1
        weights = self._weights()
        hidden_BTD = self._encode(weights, tokens_BT, segments_BT, positions_BT, dropout_key, remat)
        # A product with zeros and ones, not a gather, whose gradient would be a scatter: GPUs leave
        # the order of its additions to chance.
        is_of_text_BTK = segments_BT[..., None] == segment_numbers_K
        is_first_BTK = is_of_text_BTK & (positions_BT == 0)[..., None]
        first_BKD = jnp.einsum("btk,btd->bkd", is_first_BTK.astype(hidden_BTD.dtype), hidden_BTD)
        outputs_BK1 = self._classified(weights, first_BKD, dropout_key)
        return outputs_BK1[..., 0].astype(jnp.float32)

    def _weights(self) -> dict[str, Array]:
        return {name: variable[...] for name, variable in self.parameters.items()}

    def _classified(self, weights: dict[str, Array], first: Array, key: Array | None) -> Array:
        """Return the classification head's output ``[…, N]`` of texts' first tokens ``[…, D]``."""
        rate = self.config.classifier_dropout
        dropped = self._dropout(first, key, -2, rate)
        dense = jnp.tanh(_linear(dropped, weights, "head.dense"))
        return _linear(self._dropout(dense, key, -3, rate), weights, "head.out")

    def _encode(
        self,
        weights: dict[str, Array],
        tokens_BT: Array,
        segments_BT: Array,
        positions_BT: Array,
        key: Array | None,
        remat: Remat,
    ) -> Array:
        """Return the last hidden states, ``[B, T, D]``; segment 0 is padding."""
        config = self.config
        batch, time = tokens_BT.shape
        # Where fairseq began: padding has the position of the padding token's own number, and the
        # text begins after it. A position from 0 would read another row of the table.
        padding_position = config.pad_token_id
        text_positions_BT = positions_BT + padding_position + 1
        positions_BT = jnp.where(segments_BT > 0, text_positions_BT, padding_position)
        # All tokens are of type 0: a pair's two texts are told apart by </s></s> alone.
        token_BTD = weights["embed"][tokens_BT]
        x_BTD = token_BTD + weights["positions"][positions_BT] + weights["types"][0]
        norm = functools.partial(_layer_norm, epsilon=config.layer_norm_eps)
        normed_BTD = norm(x_BTD, weights, "embed_norm")
        x_BTD = self._dropout(normed_BTD, key, -1)

        def block(x_BTD: Array, layer: tuple[dict[str, Array], Array]) -> tuple[Array, None]:
            layer_weights, number = layer
            heads_shape = (batch, time, config.num_attention_heads, -1)
            q_BTHC = _linear(x_BTD, layer_weights, "query").reshape(heads_shape)
            k_BTHC = _linear(x_BTD, layer_weights, "key").reshape(heads_shape)
            v_BTHC = _linear(x_BTD, layer_weights, "value").reshape(heads_shape)
            mixed_BTHC = self.attention(
                q_BTHC, k_BTHC, v_BTHC, causal=False, segments_BT=segments_BT
            )
            mixed_BTD = mixed_BTHC.reshape(x_BTD.shape)
            attended_BTD = _linear(mixed_BTD, layer_weights, "output")
            attended_BTD = self._dropout(attended_BTD, key, 2 * number)
            # RoBERTa norms after each sum, as the first transformers did; a decoder before.
            x_BTD = norm(x_BTD + attended_BTD, layer_weights, "attention_norm")
            inner = _gelu(_linear(x_BTD, layer_weights, "up"))
            fed_BTD = _linear(inner, layer_weights, "down")
            fed_BTD = self._dropout(fed_BTD, key, 2 * number + 1)
            x_BTD = norm(x_BTD + fed_BTD, layer_weights, "output_norm")
            return x_BTD, None

        body = rematerialized(block, remat)
        numbered_layers = (stacked_layers(weights), jnp.arange(config.num_hidden_layers))
        x_BTD, _ = jax.lax.scan(body, x_BTD, numbered_layers)
        return x_BTD

    def _dropout(
        self, x: Array, key: Array | None, draw_number: Any, rate: float | None = None
    ) -> Array:
        """Drop activations; ``draw_number`` tells the draws of one pass apart (negative outside the
        layers).
        """
        rate = self.config.dropout if rate is None else rate
        if key is None or (isinstance(rate, int | float) and rate == 0):
            return x
        # Negative numbers wrap around: as unsigned ones they are far beyond any layer's.
        number = jnp.asarray(draw_number, jnp.int32).astype(jnp.uint32)
        draw_key = jax.random.fold_in(key, number)
        is_kept = jax.random.bernoulli(draw_key, 1 - rate, x.shape)
        # Divided, so that a sum over inputs has the same mean with and without dropout.
        scaled = x / (1 - rate)
        return jnp.where(is_kept, scaled, 0).astype(x.dtype)


def _linear(x: Array, weights: Mapping[str, Array], name: str) -> Array:
    return x @ weights[name] + weights[f"{name}.bias"]


def _gelu(x: Array) -> Array:
    """Return x Φ(x), exact and not by the hyperbolic tangent, as RoBERTa was trained."""
    return jax.nn.gelu(x, approximate=False)


def _layer_norm(x: Array, weights: Mapping[str, Array], name: str, epsilon: float) -> Array:
    x32 = x.astype(jnp.float32)
    centered = x32 - jnp.mean(x32, axis=-1, keepdims=True)
    variance = jnp.mean(centered * centered, axis=-1, keepdims=True)
    normalized = centered * jax.lax.rsqrt(variance + epsilon)
    bias = weights[f"{name}.bias"]
    return weights[name] * normalized.astype(x.dtype) + bias


def load_roberta(
    folder: Path, *, dtype: str = "float32", fresh_head_seed: int | None = None
) -> Roberta:
    """Load a RoBERTa classifier or reward model from a Hugging Face folder.

    Args:
        folder: ``config.json`` and safetensors.
        dtype: of the arrays.
        fresh_head_seed: where the folder has no classification head (a pretrained encoder, an MLM
            checkpoint), draw one with a single output from this seed, and refuse a head of several
            outputs; None refuses a folder without a head.

    Raises:
        UserError: not a model folder, an unsupported architecture, or weights that do not fit it.
    """
    settings = read_model_config(folder)
    source = f"{folder}/config.json"
    architectures = settings.get("architectures")
    classifier = "RobertaForSequenceClassification" in (architectures or [])
    if not classifier and fresh_head_seed is None:
        raise UserError(f"{folder} is not a reward model: its architecture is {architectures}")
    # A head of our own has one output, whatever the configuration says of another head.
    num_labels = None if classifier else 1
    config = RobertaConfig.from_mapping(settings, source, num_labels=num_labels)
    if fresh_head_seed is not None and config.num_labels != 1:
        raise UserError(
            f"{folder} is a classifier with {config.num_labels} outputs, and a reward model has"
            " one; take the pretrained encoder that it was made of"
        )
    table = parameter_table(config)
    # A pretrained encoder has no classification head: a fresh one takes its place below.
    head = frozenset(name for name in table if name.startswith("head."))
    parameters = load_parameters(
        folder,
        table,
        dtype_named(dtype),
        optional=frozenset() if classifier else head,
        ignored_prefixes=("lm_head.", "roberta.pooler.", "pooler."),
    )
    absent = {name: spec for name, spec in table.items() if name not in parameters}
    if absent:
        key = jax.random.key(fresh_head_seed or 0)
        parameters |= initialize(absent, key, dtype_named(dtype))
    return Roberta(config, parameters)


def save_roberta(
    folder: Path, model: Roberta, settings: Mapping[str, Any], tokenizer_from: Path | None = None
) -> None:
    """Write a Hugging Face folder that ``AutoModelForSequenceClassification`` or
    ``AutoModelForMaskedLM`` loads.

    Args:
        folder: where to.
        model: the model.
        settings: the ``config.json`` it came from; architecture and labels are set here.
        tokenizer_from: a folder whose tokenizer files are copied.
    """
    settings = dict(settings) | {"dtype": "float32"}
    if model.config.head == "classification":
        labels = model.config.num_labels
        named_labels = settings.get("id2label") or {}
        if len(named_labels) != labels:
            names = [f"LABEL_{number}" for number in range(labels)]
            settings["id2label"] = {str(number): name for number, name in enumerate(names)}
            settings["label2id"] = {name: number for number, name in enumerate(names)}
        # What the base says of another head would go before the names, or be refused by
        # transformers.
        settings.pop("num_labels", None)
        if labels == 1 and settings.get("problem_type") == "single_label_classification":
            del settings["problem_type"]
        settings["architectures"] = ["RobertaForSequenceClassification"]
    else:
        settings["architectures"] = ["RobertaForMaskedLM"]
    arrays = {name: variable[...] for name, variable in model.parameters.items()}
    save_model(folder, settings, parameter_table(model.config), arrays, tokenizer_from)
