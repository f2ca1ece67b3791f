"""How many floating-point operations a model needs, counted by hand.

XLA's own count sees the body of a scan once. Two operations for a multiplication and an addition;
matrix products only. The base is frozen: its backward pass has gradients of activations but none of
weights. What is computed again to save memory does not count.

For a Mistral 7B without an adapter, and one text of 1,000 tokens::

    forward(decoder_shape("mistral-7b-v0.2"), None, np.array([1000]))      # 1.45e13
"""

from __future__ import annotations

import numpy as np

from jaxmodpo.models.decoder import parameter_table
from jaxmodpo.models.decoder_config import DecoderConfig
from jaxmodpo.models.lora import LoraConfig
from jaxmodpo.models.quantized import is_projection
from jaxmodpo.models.remat import Remat, recomputes_attention, recomputes_products
from jaxmodpo.models.roberta import parameter_table as encoder_table
from jaxmodpo.models.roberta_config import RobertaConfig


def forward(config: DecoderConfig, lora: LoraConfig | None, lengths: np.ndarray) -> float:
    """Return the operations of one forward pass, logits included, over sequences of these lengths,
    in tokens.
    """
    tokens = float(np.sum(lengths))
    base, adapter = per_token(config, lora)
    return tokens * (base + adapter) + attention(config, lengths)


def training(
    config: DecoderConfig, lora: LoraConfig, lengths: np.ndarray, reference_in_step: bool = False
) -> float:
    """Return the operations of an adapter's forward and backward pass over sequences of these
    lengths.

    Backward: as many as forward for the frozen base, twice as many for the adapter (weights and
    activations) and for attention (whose two factors are both activations).

    Args:
        config: the base model's shape.
        lora: the adapter.
        lengths: tokens of each sequence.
        reference_in_step: add another forward pass without the adapter.
    """
    tokens = float(np.sum(lengths))
    base, adapter = per_token(config, lora)
    of_token = 2 * base + 3 * adapter
    total = tokens * of_token + 3 * attention(config, lengths)
    if reference_in_step:
        total += forward(config, None, lengths)
    return total


def recomputed(config: DecoderConfig, lora: LoraConfig, lengths: np.ndarray, remat: Remat) -> float:
    """Return the operations that the backward pass repeats, by a kernel of attention that keeps no
    scores: attention for ``dots``, products for ``attention``, both for ``full`` and ``offload``.
    """
    total = 0.0
    if recomputes_products(remat):
        base, adapter = per_token(config, lora)
        # The unembedding is no part of a layer, and is never computed twice.
        unembedding = 2.0 * config.hidden_size * config.vocab_size
        # No gradient needs what a layer computes last. The adapter's inner product is needed there.
        outer = config.num_hidden_layers * 2.0 * config.hidden_size * config.intermediate_size
        if "down_proj" in lora.targets:
            outer += config.num_hidden_layers * 2.0 * lora.rank * config.hidden_size
        tokens = float(np.sum(lengths))
        total += tokens * (base - unembedding + adapter - outer)
    if recomputes_attention(remat):
        total += attention(config, lengths)
    return total


def encoder_recomputed(config: RobertaConfig, lengths: np.ndarray, remat: Remat) -> float:
    """Return the operations that an encoder's backward pass repeats; see :func:`recomputed`.

    An encoder norms what it adds up, and a norm's gradient needs all that went into it: nothing is
    left out.
    """
    scores_and_mixtures = _encoder_attention(config, lengths)
    total = 0.0
    if recomputes_products(remat):
        total += encoder_forward(config, lengths) - scores_and_mixtures
    if recomputes_attention(remat):
        total += scores_and_mixtures
    return total


FIRST_TOKEN_PRODUCTS = ("layers.query", "layers.output", "layers.up", "layers.down")
"""what an encoder's last layer computes of a text's first token alone, for a classification head"""


def encoder_forward(config: RobertaConfig, lengths: np.ndarray) -> float:
    """Return the operations of an encoder's forward pass over texts of these lengths, in tokens;
    its training needs three times as many.

    A classification head reads each text's first token, so that the last layer computes keys and
    values of all tokens and the rest of the first. A packed row may be given as one text: what the
    other texts' first tokens add is less than a thousandth.
    """
    sizes = np.asarray(lengths, np.float64).ravel()
    of_all_tokens = 0.0
    of_first_tokens = 0.0
    for name, spec in encoder_table(config).items():
        if not is_projection(spec):
            continue
        layers, inputs, outputs = spec.shape
        if name in FIRST_TOKEN_PRODUCTS:
            of_all_tokens += 2.0 * _whole_layers(config) * inputs * outputs
            of_first_tokens += 2.0 * (layers - _whole_layers(config)) * inputs * outputs
        else:
            of_all_tokens += 2.0 * layers * inputs * outputs
    products = of_all_tokens * float(np.sum(sizes)) + of_first_tokens * np.count_nonzero(sizes)
    return products + _encoder_attention(config, sizes)


def _whole_layers(config: RobertaConfig) -> int:
    """Return how many layers are computed of all tokens."""
    return config.num_hidden_layers - (config.head == "classification")


def _encoder_attention(config: RobertaConfig, lengths: np.ndarray) -> float:
    """Return the forward operations of scores and mixtures: every token sees every other, so that
    no half is left out; where the first alone is computed it sees all.
    """
    sizes = np.asarray(lengths, np.float64)
    whole = _whole_layers(config)
    pairs = whole * float(np.sum(sizes**2))
    pairs += (config.num_hidden_layers - whole) * float(np.sum(sizes))
    return 4.0 * config.hidden_size * pairs


def encoder_token_cost(config: RobertaConfig, row_length: int) -> float:
    """Return a token's forward operations in a row of this length, in which attention looks at
    every position.
    """
    return encoder_forward(config, np.array([row_length])) / row_length


def per_token(config: DecoderConfig, lora: LoraConfig | None) -> tuple[float, float]:
    """Return a token's forward operations in the base's matrix products, unembedding included, and
    the adapter's.
    """
    table = parameter_table(config)
    base = 2.0 * config.hidden_size * config.vocab_size
    adapter = 0.0
    for name, spec in table.items():
        if is_projection(spec):
            layers, inputs, outputs = spec.shape
            base += 2.0 * layers * inputs * outputs
            if lora is not None and name.removeprefix("layers.") in lora.targets:
                adapter += 2.0 * layers * lora.rank * (inputs + outputs)
    return base, adapter


def attention(config: DecoderConfig, lengths: np.ndarray) -> float:
    """Return the forward operations of scores and mixtures, each position seeing those before it in
    the window.
    """
    sizes = np.asarray(lengths, np.float64).ravel()
    # Pairs of a position and one that it sees: a triangle, from which a window cuts off the corner.
    visible = sizes * (sizes + 1) / 2
    if config.sliding_window is not None:
        beyond = np.maximum(sizes - config.sliding_window, 0.0)
        visible = visible - beyond * (beyond + 1) / 2
    return _attention_per_pair(config) * float(visible.sum())


def _attention_per_pair(config: DecoderConfig) -> float:
    """Return the operations of one position's view of another: a score and a share of a mixture."""
    return 4.0 * config.num_hidden_layers * config.num_attention_heads * config.head_dim


def token_cost(config: DecoderConfig, row_length: int) -> float:
    """Return a token's forward operations in a row of this length, in which attention looks at
    every position.
    """
    base, _ = per_token(config, None)
    return base + _attention_per_pair(config) * row_length
