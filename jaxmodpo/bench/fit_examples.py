"""The questions that ``fit`` compiles a step for: as long as the configuration says, compared as
its method compares.
"""

from __future__ import annotations

import functools

import numpy as np
from jax.sharding import Mesh

from jaxmodpo.bench.fit_settings import FitConfig
from jaxmodpo.data.batches import Batches
from jaxmodpo.data.examples import LENGTH_MULTIPLE, Examples
from jaxmodpo.data.reference_lengths import (
    comparing,
    every_pair,
    full_examples,
    reference_examples,
)
from jaxmodpo.data.row_lengths import MOST_LENGTHS
from jaxmodpo.models import flops
from jaxmodpo.models.shapes import decoder_shape, encoder_shape
from jaxmodpo.policy.mesh import row_shards


def batches_of(config: FitConfig, mesh: Mesh) -> Batches:
    """Return batches of examples as long as the configuration says, with all that the method
    reads.
    """
    replies = replies_of(config)
    if config.lengths == "full":
        examples = full_examples(config.examples, config.length, replies)
    else:
        examples = _reference_examples(config, replies)
    comparisons = _comparisons(config, replies)
    examples = comparing(examples, comparisons)
    # Zeros: what is computed and moved does not depend on the values.
    fields: dict[str, np.ndarray] = {
        "reference_logps": np.zeros((config.examples, replies), np.float32)
    }
    if config.method == "modpo":
        margins = (config.examples, len(comparisons), config.objectives - 1)
        fields["reward_margins"] = np.zeros(margins, np.float32)
    if config.step == "reward":
        # Reward models have no reference.
        fields = {}
        cost = functools.partial(flops.encoder_token_cost, encoder_shape(config.model))
    else:
        cost = functools.partial(flops.token_cost, decoder_shape(config.model))
    return Batches(
        examples.with_fields(**fields),
        batch_size=config.batch_size,
        accumulation=1 if config.step == "score" else config.gradient_accumulation,
        epochs=1 if config.step == "score" else config.epochs,
        row_shards=row_shards(mesh),
        batching=config.batching,
        cost=cost,
        most_lengths=1 if config.step == "score" else MOST_LENGTHS,
    )


def replies_of(config: FitConfig) -> int:
    """Return how many replies a question has."""
    if config.replies is not None:
        return config.replies
    if config.step == "reward":
        return 2
    return {"sft": 1, "joint": 2 * config.objectives}.get(config.method, 2)


def _comparisons(config: FitConfig, replies: int) -> np.ndarray:
    """Return what a question's replies are compared in, ``[K, C]``."""
    if config.step != "reward" and config.method == "sft":
        return np.arange(replies)[:, None]
    if config.step != "reward" and config.method == "joint":
        return np.arange(2 * config.objectives)[None] % replies
    return every_pair(replies)


def _reference_examples(config: FitConfig, replies: int) -> Examples:
    """Return questions as long as real posts and replies."""
    examples = reference_examples(config.examples, replies=replies)
    prompt_lengths = np.minimum(examples.prompt_lengths, config.length)
    lengths = np.minimum(examples.lengths, config.length)
    longest = -(-int(lengths.max()) // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
    return Examples(examples.tokens[..., :longest], prompt_lengths, lengths, {})
