"""The shape of a RoBERTa encoder, as its ``config.json`` states it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax

from jaxmodpo.errors import UserError
from jaxmodpo.models.decoder_config import MOST_LAYERS
from jaxmodpo.parsing import JsonObject
from jaxmodpo.schema import Fields

Head = Literal["classification", "language_model"]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["dropout", "classifier_dropout"],
    meta_fields=[
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "max_position_embeddings",
        "type_vocab_size",
        "layer_norm_eps",
        "pad_token_id",
        "num_labels",
        "head",
    ],
)
@dataclass(frozen=True)
class RobertaConfig:
    """The fields of ``config.json`` that shape the forward pass.

    A pytree: what is compiled for one rate of dropout serves others too.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int
    type_vocab_size: int = 1
    layer_norm_eps: float = 1e-5
    pad_token_id: int = 1
    dropout: float = 0.1
    classifier_dropout: float = 0.1
    num_labels: int = 1
    head: Head = "classification"

    @classmethod
    def from_mapping(
        cls,
        settings: Mapping[str, Any],
        source: str,
        *,
        head: Head = "classification",
        num_labels: int | None = None,
    ) -> RobertaConfig:
        """Read a Hugging Face configuration; what would change the mathematics unseen is refused by
        name.

        Raises:
            UserError: a field that is missing, not supported, or of another type or range.
        """
        fields = Fields(settings, source)
        kind = fields.take("model_type")
        if kind != "roberta":
            raise UserError(f"{source}: model_type '{kind}' is not supported; use a roberta model")
        fields.only("hidden_act", "gelu")
        fields.only("position_embedding_type", "absolute")
        for field in ("is_decoder", "add_cross_attention", "quantization_config"):
            if fields.take(field):
                raise UserError(f"{source}: {field} is not supported")
        dropout = fields.rate("hidden_dropout_prob", 0.1)
        width = fields.integer("hidden_size")
        heads = fields.integer("num_attention_heads")
        if width % heads:
            raise UserError(
                f"{source}: {heads} attention heads do not divide the hidden_size {width}"
            )
        config = cls(
            vocab_size=fields.integer("vocab_size"),
            hidden_size=width,
            intermediate_size=fields.integer("intermediate_size"),
            num_hidden_layers=fields.integer("num_hidden_layers", most=MOST_LAYERS),
            num_attention_heads=heads,
            max_position_embeddings=fields.integer("max_position_embeddings"),
            type_vocab_size=fields.integer("type_vocab_size", 2),
            layer_norm_eps=fields.number("layer_norm_eps", 1e-12, above=0),
            pad_token_id=fields.integer("pad_token_id", 1, least=0),
            dropout=dropout,
            classifier_dropout=fields.rate("classifier_dropout", dropout),
            num_labels=num_labels or _outputs(fields),
            head=head,
        )
        if config.max_length < 1:
            raise UserError(
                f"{source}: max_position_embeddings {config.max_position_embeddings} leaves no"
                f" position behind the {config.pad_token_id + 1} that pad_token_id"
                f" {config.pad_token_id} takes"
            )
        return config

    @property
    def max_length(self) -> int:
        """Most tokens in a row: the first ``pad_token_id + 1`` positions are never used."""
        return self.max_position_embeddings - self.pad_token_id - 1


def _outputs(fields: Fields) -> int:
    """Return how many outputs a classifier has; as in transformers ``num_labels`` counts before the
    names, or 2.
    """
    names = fields.read("id2label", JsonObject, {})
    return fields.integer("num_labels", len(names) or 2)
