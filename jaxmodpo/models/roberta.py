"""The reward model: a RoBERTa encoder in Flax with a classification head, or a language-model head.

The classification head with one output is a reward model; the language-model head exists to
pretrain small encoders from scratch. Shape suffixes: B batch, T time, D width, H heads, C head
width, N labels, V vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxmodpo.errors import UserError
from jaxmodpo.models.attention import Attention
from jaxmodpo.models.axes import constrain_rows, embedded
from jaxmodpo.models.dropout import Draws, dropped
from jaxmodpo.models.gelu import gelu
from jaxmodpo.models.loading import dtype_named, load_parameters
from jaxmodpo.models.model_folder import read_model_config, save_model
from jaxmodpo.models.parameters import Spec, initialize, stacked_layers
from jaxmodpo.models.products import product
from jaxmodpo.models.remat import Remat, layer_of, rematerialized, rematerialized_by_number
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


class _Rows(NamedTuple):
    """Rows of tokens as the encoder sees them, whether they hold one text or several.

    Attributes:
        tokens_BT: token ids.
        segments_BT: which of a row's texts a token is of, from 1; 0 for padding.
        positions_BT: each token's position in its text, from 0.
        draws: of dropout, ``[B, T]``; None switches it off.
    """

    tokens_BT: Array
    segments_BT: Array
    positions_BT: Array
    draws: Draws | None


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
        sequences_B1: Array | None = None,
    ) -> Array:
        """Return the head's output, float32: ``[B, N]`` for classification, ``[B, T, V]`` for the
        language model.

        Args:
            tokens_BT: token ids, padded on the right.
            lengths_B: number of real tokens in each row.
            dropout_key: draws dropout; None switches it off.
            remat: what the backward pass computes again instead of keeping it.
            sequences_B1: the number in the data set of each row's text, by which dropout is drawn;
                by default the row's number.
        """
        weights = self._weights()
        rows = _one_a_row(tokens_BT, lengths_B, dropout_key, sequences_B1)
        if self.config.head == "classification":
            # The first token, <s>, stands for the whole text.
            firsts_B1 = jnp.zeros((len(tokens_BT), 1), jnp.int32)
            out = self._classified(weights, rows, firsts_B1, remat)[:, 0]
        else:
            hidden_BTD = self._encode(weights, rows, remat)
            dense_BTD = gelu(_linear(hidden_BTD, weights, "head.dense"))
            normed_BTD = _layer_norm(dense_BTD, weights, "head.norm", self.config.layer_norm_eps)
            out = normed_BTD @ weights["embed"].T + weights["head.out.bias"]
        return out.astype(jnp.float32)

    def packed(
        self,
        batch: Mapping[str, Array],
        dropout_key: Array | None = None,
        remat: Remat = "none",
        sequences_BT: Array | None = None,
    ) -> Array:
        """Return the classification head's output for each text of rows that hold several, ``[B, K,
        N]`` float32; that of a segment which a row does not have means nothing.

        Args:
            batch: ``tokens``, ``segments`` and ``positions``, ``[B, T]`` each, and
                ``segment_numbers`` ``[K]``, as :class:`jaxmodpo.data.batches.Batches` has them.
            dropout_key: draws dropout; None switches it off.
            remat: what the backward pass computes again instead of keeping it.
            sequences_BT: the number in the data set of the text that a token is of, by which
                dropout is drawn; needed with a key.
        """
        assert self.config.head == "classification"
        assert dropout_key is None or sequences_BT is not None
        weights = self._weights()
        tokens_BT = batch["tokens"]
        segments_BT = batch["segments"]
        positions_BT = batch["positions"]
        draws = Draws.of_rows(dropout_key, sequences_BT, positions_BT, tokens_BT.shape)
        is_of_segment_BKT = segments_BT[:, None] == batch["segment_numbers"][:, None]
        # The first place that is the segment's, where its <s> lies; 0 where there is no such
        # segment. Places of real segments differ, and the others' gradients are zeros, so that the
        # order in which a gather's gradient is added up changes nothing.
        firsts_BK = jnp.argmax(is_of_segment_BKT, axis=-1)
        rows = _Rows(tokens_BT, segments_BT, positions_BT, draws)
        return self._classified(weights, rows, firsts_BK, remat).astype(jnp.float32)

    def rewards(
        self,
        tokens_BT: Array,
        lengths_B: Array,
        dropout_key: Array | None = None,
        remat: Remat = "none",
        sequences_B1: Array | None = None,
    ) -> Array:
        """Return one scalar a row, ``[B]`` float32; the head must have one output."""
        assert self.config.head == "classification" and self.config.num_labels == 1
        outputs_B1 = self(tokens_BT, lengths_B, dropout_key, remat, sequences_B1)
        return outputs_B1[:, 0]

    def _weights(self) -> dict[str, Array]:
        return {name: variable[...] for name, variable in self.parameters.items()}

    def _classified(
        self, weights: dict[str, Array], rows: _Rows, firsts_BK: Array, remat: Remat
    ) -> Array:
        """Return the classification head's output, ``[B, K, N]``, for the texts that begin at
        these places of their rows.
        """
        x_BTD = self._encode(weights, rows, remat, self.config.num_hidden_layers - 1)
        # Nobody reads what the last layer makes of the other tokens.
        first_BKD = self._last_layer(weights, x_BTD, rows, firsts_BK, remat)
        draws = None if rows.draws is None else rows.draws.at(firsts_BK)
        rate = self.config.classifier_dropout
        first_BKD = self._dropout(first_BKD, draws, -2, rate)
        dense_BKD = jnp.tanh(_linear(first_BKD, weights, "head.dense"))
        dense_BKD = self._dropout(dense_BKD, draws, -3, rate)
        return _linear(dense_BKD, weights, "head.out")

    def _encode(
        self, weights: dict[str, Array], rows: _Rows, remat: Remat, layers: int | None = None
    ) -> Array:
        """Return the hidden states, ``[B, T, D]``, after the first ``layers``, by default all."""
        config = self.config
        # Where fairseq began: padding has the position of the padding token's own number, and the
        # text begins after it. A position from 0 would read another row of the table.
        padding_position = config.pad_token_id
        text_positions_BT = rows.positions_BT + padding_position + 1
        is_real_BT = rows.segments_BT > 0
        table_positions_BT = jnp.where(is_real_BT, text_positions_BT, padding_position)
        # All tokens are of type 0: a pair's two texts are told apart by </s></s> alone.
        mesh = self.attention.mesh
        token_BTD = embedded(weights["embed"], rows.tokens_BT, mesh)
        position_BTD = embedded(weights["positions"], table_positions_BT, mesh)
        x_BTD = token_BTD + position_BTD + weights["types"][0]
        normed_BTD = _layer_norm(x_BTD, weights, "embed_norm", config.layer_norm_eps)
        x_BTD = self._dropout(normed_BTD, rows.draws, -1)

        stacked = stacked_layers(weights)

        def block(x_BTD: Array, number: Array) -> tuple[Array, None]:
            layer = layer_of(stacked, number)
            k_BTHC, v_BTHC = self._keys_and_values(layer, x_BTD)
            q_BTHC = self._heads(_linear(x_BTD, layer, "query"))
            # An encoder sees both ways: padding too is a segment of its own.
            mixed_BTHC = self.attention(
                q_BTHC, k_BTHC, v_BTHC, causal=False, segments_BT=rows.segments_BT
            )
            x_BTD = self._rest_of_layer(layer, number, x_BTD, mixed_BTHC, rows.draws)
            return constrain_rows(x_BTD, mesh), None

        # By number, and not over the arrays themselves: a part of a stack would have to be copied.
        numbers = jnp.arange(config.num_hidden_layers if layers is None else layers)
        x_BTD, _ = jax.lax.scan(rematerialized_by_number(block, remat), x_BTD, numbers)
        return x_BTD

    def _last_layer(
        self, weights: dict[str, Array], x_BTD: Array, rows: _Rows, places_BK: Array, remat: Remat
    ) -> Array:
        """Return the last layer's hidden states, ``[B, K, D]``, at some places of each row: they
        see all places, so that keys and values alone are those of all.
        """
        number = self.config.num_hidden_layers - 1

        def block(x_BTD: Array, layer: dict[str, Array]) -> tuple[Array, None]:
            k_BTHC, v_BTHC = self._keys_and_values(layer, x_BTD)
            x_BKD = jnp.take_along_axis(x_BTD, places_BK[..., None], axis=1)
            q_BKHC = self._heads(_linear(x_BKD, layer, "query"))
            segments_BK = jnp.take_along_axis(rows.segments_BT, places_BK, axis=1)
            mixed_BKHC = self.attention.at_places(
                q_BKHC, k_BTHC, v_BTHC, segments_BK=segments_BK, segments_BT=rows.segments_BT
            )
            draws = None if rows.draws is None else rows.draws.at(places_BK)
            return self._rest_of_layer(layer, number, x_BKD, mixed_BKHC, draws), None

        layer = {name: array[number] for name, array in stacked_layers(weights).items()}
        x_BKD, _ = rematerialized(block, remat)(x_BTD, layer)
        return x_BKD

    def _keys_and_values(self, layer: dict[str, Array], x_BTD: Array) -> tuple[Array, Array]:
        keys = self._heads(_linear(x_BTD, layer, "key"))
        values = self._heads(_linear(x_BTD, layer, "value"))
        return keys, values

    def _heads(self, x_BTD: Array) -> Array:
        batch, time, width = x_BTD.shape
        heads = self.config.num_attention_heads
        return x_BTD.reshape(batch, time, heads, width // heads)

    def _rest_of_layer(
        self,
        layer: dict[str, Array],
        number: Any,
        x_BTD: Array,
        mixed_BTHC: Array,
        draws: Draws | None,
    ) -> Array:
        """Return what a layer makes of its input and of the values that attention mixed."""
        norm = functools.partial(_layer_norm, epsilon=self.config.layer_norm_eps)
        attended_BTD = _linear(mixed_BTHC.reshape(x_BTD.shape), layer, "output")
        attended_BTD = self._dropout(attended_BTD, draws, 2 * number)
        # RoBERTa norms after each sum, as the first transformers did; a decoder before.
        x_BTD = norm(x_BTD + attended_BTD, layer, "attention_norm")
        inner = gelu(_linear(x_BTD, layer, "up"))
        fed_BTD = _linear(inner, layer, "down")
        fed_BTD = self._dropout(fed_BTD, draws, 2 * number + 1)
        return norm(x_BTD + fed_BTD, layer, "output_norm")

    def _dropout(
        self, x: Array, draws: Draws | None, draw_number: Any, rate: float | None = None
    ) -> Array:
        """Drop activations; ``draw_number`` tells the draws of one pass apart (negative outside the
        layers).
        """
        rate = self.config.dropout if rate is None else rate
        if draws is None or (isinstance(rate, int | float) and rate == 0):
            return x
        # Negative numbers wrap around: as unsigned ones they are far beyond any layer's.
        number = jnp.asarray(draw_number, jnp.int32).astype(jnp.uint32)
        return dropped(x, draws.numbered(number), rate)


def _one_a_row(
    tokens_BT: Array, lengths_B: Array, dropout_key: Array | None, sequences_B1: Array | None
) -> _Rows:
    """Return rows of one text each, padded on the right."""
    _, time = tokens_BT.shape
    positions_1T = jnp.arange(time)[None]
    is_real_BT = positions_1T < lengths_B[:, None]
    draws = Draws.of_rows(dropout_key, sequences_B1, positions_1T, tokens_BT.shape)
    return _Rows(tokens_BT, is_real_BT.astype(jnp.int32), positions_1T, draws)


def _linear(x: Array, weights: Mapping[str, Array], name: str) -> Array:
    return product(x, weights[name]) + weights[f"{name}.bias"]


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
