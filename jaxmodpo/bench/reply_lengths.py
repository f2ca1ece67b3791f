"""A model without sense whose replies end by themselves and are as long as real ones.

How fast a sampler is depends on how its replies' lengths differ, so a benchmark's model must end
its replies by itself, in every engine alike. This one counts down. Its vocabulary is split into
groups; a token of group g means that g more tokens follow. The token after the prompt is drawn
from the groups by the wanted distribution, and each later one from the group below::

    prompt … START | group 3 | group 2 | group 1 | group 0 | end

All of it is in the embeddings and the head, a direction of the hidden state for each group. The
layers run as ever, but next to so large embeddings what they add does not disturb the count.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jaxmodpo.errors import UserError
from jaxmodpo.models.decoder_config import DecoderConfig
from jaxmodpo.models.parameters import Parameters

END = 2
"""the token that ends a reply"""
START = 3
"""the token with which every prompt ends"""
_FIRST_COUNTED = 4
_CERTAIN = 20.0
"""logit of what may come next, over 0 for all else: too unlikely to be drawn"""
_LOUD = 1e3
"""size of the embeddings, next to which nothing that layers add is heard"""


def counting_down(
    base: Parameters, config: DecoderConfig, lengths: np.ndarray, temperature: float
) -> Parameters:
    """Return the base with a vocabulary that counts down from lengths such as these.

    Args:
        base: random weights, with a head of their own.
        config: the model's shape.
        lengths: tokens of replies, their end included, from which lengths are drawn.
        temperature: at which they will be.

    Raises:
        UserError: a model too narrow for so many groups, or a vocabulary too small.
    """
    groups = int(lengths.max())
    vocabulary, width = config.vocab_size, config.hidden_size
    tokens_per_group = (vocabulary - _FIRST_COUNTED) // groups
    if groups + 1 > width or tokens_per_group < 1 or "unembed" not in base:
        raise UserError(
            f"replies of {groups} tokens need a model that is wider than them, with a larger"
            f" vocabulary and a head of its own; this one has width {width} and {vocabulary} tokens"
        )
    group_of = np.full(vocabulary, -1)
    counted_tokens = np.arange(_FIRST_COUNTED, _FIRST_COUNTED + groups * tokens_per_group)
    group_of[counted_tokens] = np.repeat(np.arange(groups), tokens_per_group)

    # Direction g of the hidden state stands for group g, the last one for the start.
    embed = np.zeros((vocabulary, width), np.float32)
    embed[counted_tokens, group_of[counted_tokens]] = _LOUD
    embed[START, groups] = _LOUD
    unembed = np.zeros((width, vocabulary), np.float32)
    # The norm before the head makes a lone direction √width long.
    certain = _CERTAIN / np.sqrt(width)
    for group in range(1, groups):
        unembed[group, group_of == group - 1] = certain
    unembed[0, END] = certain
    # The end is the last of a reply's tokens.
    shares = np.bincount(np.maximum(lengths - 2, 0), minlength=groups) / len(lengths)
    for group in np.flatnonzero(shares):
        logit = _CERTAIN + temperature * np.log(shares[group])
        unembed[groups, group_of == group] = logit / np.sqrt(width)

    changed = dict(base)
    for name, array in (("embed", embed), ("unembed", unembed)):
        changed[name] = jnp.asarray(array, base[name].dtype, device=base[name].sharding)
    return changed
