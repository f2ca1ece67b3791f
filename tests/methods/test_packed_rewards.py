"""A reward model gives the same rewards and gradients of texts that lie end to end in rows."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxmodpo.data.batches import Batches, Batching
from jaxmodpo.data.reference_lengths import comparing, every_pair, reference_examples
from jaxmodpo.methods.reward_model import RewardLoss
from jaxmodpo.models.parameters import initialize
from jaxmodpo.models.roberta import parameter_table
from jaxmodpo.models.roberta_config import RobertaConfig

SHAPE = RobertaConfig(
    vocab_size=60,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=130,
)


@pytest.mark.slow(seconds=5)
def test_packed_and_padded_rewards_and_their_gradients_agree():
    examples = reference_examples(3, replies=3, share=0.1, vocab_size=60)
    examples = comparing(examples, every_pair(3))
    parameters = initialize(parameter_table(SHAPE), jax.random.key(0))
    # Fresh embeddings are tiny, and would hide a wrong position.
    parameters["positions"] = parameters["positions"] * 50

    def loss_and_gradients(batching: Batching):
        batches = Batches(examples, batch_size=3, batching=batching)
        batch = {name: array[0] for name, array in batches.at(0).items()}
        loss = RewardLoss(SHAPE, has_dropout=False)

        def total(trainable):
            terms = loss(trainable, {}, batch, None)
            return terms.total, (terms.metrics, batch["tokens"].shape)

        return jax.value_and_grad(total, has_aux=True)(parameters)

    (padded, (metrics, padded_shape)), expected = loss_and_gradients("padded")
    (packed, (packed_metrics, packed_shape)), gradients = loss_and_gradients("packed")
    # Fewer rows than texts: there are several texts in one of them.
    assert packed_shape[0] < padded_shape[0] == 9
    np.testing.assert_allclose(packed, padded, rtol=1e-5)
    for name, value in metrics.items():
        np.testing.assert_allclose(packed_metrics[name], value, rtol=1e-4, atol=1e-5)
    for name, gradient in expected.items():
        np.testing.assert_allclose(gradients[name], gradient, rtol=1e-3, atol=1e-5, err_msg=name)
