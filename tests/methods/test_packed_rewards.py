"""Packed texts give a reward model what texts with a row of their own give it."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodpo.data.batches import Batches, Batching
from jaxmodpo.data.examples import Examples, TokenSequence, collected
from jaxmodpo.data.reference_lengths import comparing, every_pair
from jaxmodpo.methods.reward_model import RewardLoss, score
from jaxmodpo.models.parameters import initialize
from jaxmodpo.models.roberta import Roberta, parameter_table
from jaxmodpo.models.roberta_config import RobertaConfig

CONFIG = RobertaConfig(48, 32, 64, 2, 4, 40, dropout=0.1, classifier_dropout=0.2)


@functools.cache
def parameters() -> dict[str, jax.Array]:
    fresh = initialize(parameter_table(CONFIG), jax.random.key(0))
    # Larger than fresh ones, whose rewards hardly depend on the text.
    return {name: 3 * array if array.ndim > 1 else array for name, array in fresh.items()}


def texts(questions: int = 7, replies: int = 3) -> Examples:
    """Return questions of up to three replies, of 4 to 36 tokens each."""
    generator = np.random.default_rng(1)
    groups: list[list[TokenSequence]] = []
    for number in range(questions):
        lengths = generator.integers(4, 37, replies - (number == 3))
        groups.append(
            [TokenSequence(generator.integers(3, 48, size).tolist(), 0) for size in lengths]
        )
    return collected(groups)


def pairs() -> Examples:
    """Every pair of each question's replies; one question has a single pair."""
    examples = comparing(texts(), every_pair(3))
    weights = np.array(examples.fields["comparison_weights"])
    weights[3, 1:] = 0
    return examples.with_fields(comparison_weights=weights)


def rankings() -> Examples:
    """Each question's replies as a ranking; one has two replies, and of one two are tied."""
    examples = comparing(texts(), np.arange(3)[None])
    ranks = np.tile(np.array([[1, 2, 3]]), (7, 1))
    ranks[3] = [1, 2, 0]
    ranks[5] = [1, 2, 2]
    return examples.with_fields(ranks=ranks[:, None].astype(np.int32))


def measured(examples: Examples, batching: Batching, key: Any) -> tuple[Any, Any]:
    """Return a microbatch's terms and the gradient of its sum."""
    batches = Batches(examples, batch_size=len(examples), batching=batching, row_shards=2)
    batch = {name: jnp.asarray(array[0]) for name, array in batches.at(0).items()}
    loss = RewardLoss(CONFIG, has_dropout=key is not None)

    def mean(trained: Any) -> tuple[Any, Any]:
        terms = loss(trained, {}, batch, key)
        return terms.total / terms.denominator, terms

    (_, terms), gradients = jax.jit(jax.value_and_grad(mean, has_aux=True))(parameters())
    return terms, gradients


@pytest.mark.slow(seconds=8)
@pytest.mark.parametrize("made", [pairs, rankings])
@pytest.mark.parametrize("dropout", [False, True])
def test_packed_pairs_and_rankings_have_the_losses_and_gradients_of_padded_ones(made, dropout):
    key = jax.random.key(5) if dropout else None
    padded, expected = measured(made(), "padded", key)
    packed, gradients = measured(made(), "packed", key)
    assert float(packed.denominator) == float(padded.denominator) > 0
    assert float(packed.total / packed.denominator) == pytest.approx(
        float(padded.total / padded.denominator), abs=1e-6
    )
    for name, value in padded.metrics.items():
        assert float(packed.metrics[name]) == pytest.approx(float(value), abs=1e-5), name
    assert max(float(jnp.abs(gradient).max()) for gradient in expected.values()) > 1e-3
    for name, gradient in expected.items():
        np.testing.assert_allclose(gradients[name], gradient, atol=1e-6, err_msg=name)


@pytest.mark.slow(seconds=3)
def test_scores_are_those_of_each_text_alone():
    examples = texts()
    rewards = score(CONFIG, parameters(), examples, rows=3)
    model = Roberta(CONFIG, parameters())
    alone = jax.jit(model.rewards)
    for example, number in np.argwhere(examples.lengths > 0):
        length = examples.lengths[example, number]
        expected = alone(examples.tokens[example, number][None], jnp.array([length]))
        assert rewards[example, number] == pytest.approx(float(expected[0]), abs=1e-6)
    assert rewards[3, 2] == 0, "a reply that is not there"
    assert np.std(rewards) > 0.01
