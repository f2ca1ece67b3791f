"""A classification head reads texts' first tokens, and the last layer computes no others."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodpo.bench.logps import matmul_flops
from jaxmodpo.models import flops
from jaxmodpo.models.parameters import initialize
from jaxmodpo.models.roberta import Roberta, parameter_table
from jaxmodpo.models.roberta_config import RobertaConfig

WIDTH = 16
INNER = 48
CONFIG = RobertaConfig(64, WIDTH, INNER, 1, 2, 40)
HEAD = 2.0 * WIDTH * (WIDTH + 1)
"""operations of the head on one text"""

ROWS = 2
TIME = 24
TEXTS = 3


def packed_rows() -> dict[str, jax.Array]:
    """Return two rows of three texts of 10, 5 and 9 tokens."""
    segments = np.repeat([1, 2, 3], [10, 5, 9])
    positions = np.concatenate([np.arange(10), np.arange(5), np.arange(9)])
    generator = np.random.default_rng(0)
    return {
        "tokens": jnp.asarray(generator.integers(3, 64, (ROWS, TIME))),
        "segments": jnp.tile(jnp.asarray(segments), (ROWS, 1)),
        "positions": jnp.tile(jnp.asarray(positions), (ROWS, 1)),
        "segment_numbers": jnp.arange(1, TEXTS + 1),
    }


def operations(config: RobertaConfig) -> float:
    """Return the traced operations of the packed rows' forward pass."""

    def outputs(parameters: dict[str, jax.Array]) -> jax.Array:
        return Roberta(config, parameters).packed(packed_rows())

    return matmul_flops(jax.make_jaxpr(outputs)(parameters_of(config)).jaxpr)


def parameters_of(config: RobertaConfig) -> dict[str, jax.Array]:
    return initialize(parameter_table(config), jax.random.key(0))


def test_a_single_layer_computes_keys_and_values_of_all_tokens_and_the_rest_of_first_ones():
    tokens = ROWS * TIME
    firsts = ROWS * TEXTS
    keys_and_values = 2.0 * tokens * 2 * WIDTH * WIDTH
    query_and_output = 2.0 * firsts * 2 * WIDTH * WIDTH
    fed_forward = 2.0 * firsts * 2 * WIDTH * INNER
    scores_and_mixtures = 4.0 * firsts * TIME * WIDTH
    layer = keys_and_values + query_and_output + fed_forward + scores_and_mixtures
    assert operations(CONFIG) == layer + firsts * HEAD


def test_the_gradient_too_leaves_out_the_other_tokens():
    def total(parameters: dict[str, jax.Array]) -> jax.Array:
        return Roberta(CONFIG, parameters).packed(packed_rows()).sum()

    program = jax.make_jaxpr(jax.grad(total))(parameters_of(CONFIG))
    assert matmul_flops(program.jaxpr) <= 3 * operations(CONFIG)


@pytest.mark.parametrize("layers", [1, 3])
def test_what_is_counted_is_what_is_computed(layers: int):
    config = dataclasses.replace(CONFIG, num_hidden_layers=layers)
    counted_rows = flops.encoder_forward(config, np.full(ROWS, TIME))
    first_tokens_of_row = 2.0 * 2 * (WIDTH * WIDTH + WIDTH * INNER) + 4.0 * TIME * WIDTH
    # The count takes a row for one text.
    more_texts = ROWS * (TEXTS - 1) * first_tokens_of_row
    assert operations(config) == counted_rows + more_texts + ROWS * TEXTS * HEAD


def test_a_language_models_last_layer_computes_every_token():
    classifier = dataclasses.replace(CONFIG, num_hidden_layers=3)
    language_model = dataclasses.replace(classifier, head="language_model")
    lengths = np.full(ROWS, TIME)
    whole_layer = flops.encoder_forward(language_model, lengths) / 3
    left_out = flops.encoder_forward(language_model, lengths) - flops.encoder_forward(
        classifier, lengths
    )
    assert 0.8 * whole_layer < left_out < whole_layer

    def logits(parameters: dict[str, jax.Array]) -> Any:
        tokens = jnp.zeros((ROWS, TIME), jnp.int32)
        return Roberta(language_model, parameters)(tokens, jnp.full(ROWS, TIME))

    program = jax.make_jaxpr(logits)(parameters_of(language_model))
    head = 2.0 * ROWS * TIME * WIDTH * (WIDTH + 64)
    assert matmul_flops(program.jaxpr) == flops.encoder_forward(language_model, lengths) + head


def test_a_single_layer_gives_a_packed_text_what_it_gives_the_text_alone():
    # Larger than fresh ones, whose outputs hardly depend on the text.
    parameters = {name: 5 * array for name, array in parameters_of(CONFIG).items()}
    model = Roberta(CONFIG, parameters)
    rows = packed_rows()
    packed = model.packed(rows)
    assert float(jnp.std(packed)) > 1e-3
    second_texts = rows["tokens"][:, 10:15]
    alone = model(second_texts, jnp.full(ROWS, 5))
    np.testing.assert_allclose(packed[:, 1], alone, rtol=1e-5, atol=1e-6)
