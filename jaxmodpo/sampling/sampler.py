"""Sampling from a policy with a key-value cache.

Each reply draws from a key of its own, so that it does not depend on which others are sampled
beside it. Prompts of one call are padded to one length and the number of rows is fixed, so that a
data set compiles once::

    settings = SamplingSettings(temperature=0.8, top_p=0.95, max_new_tokens=512, end_tokens=(2,))
    keys = jax.random.split(jax.random.key(0), len(prompts))
    replies = sample(policy, prompts, keys, settings, rows=64)   # a list of tokens for each prompt
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmodpo.data.examples import check_tokens
from jaxmodpo.data.text import pad_rows
from jaxmodpo.errors import UserError
from jaxmodpo.models.decoder import Decoder
from jaxmodpo.models.decoder_config import DecoderConfig
from jaxmodpo.models.lora import LoraConfig
from jaxmodpo.models.parameters import Parameters
from jaxmodpo.policy.loaded import Policy

PROMPT_MULTIPLE = 16
"""tokens; prompts are padded to a multiple of it, so that few lengths have to be compiled"""


@dataclass(frozen=True)
class SamplingSettings:
    """How to draw.

    Attributes:
        temperature: divides the logits; 0 takes the likeliest token.
        top_p: draw from the smallest set of tokens whose probabilities sum to at least this.
        max_new_tokens: end a reply after so many.
        end_tokens: the tokens that end a reply, the tokenizer's own first.
    """

    temperature: float
    top_p: float
    max_new_tokens: int
    end_tokens: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.max_new_tokens < 1:
            raise UserError(
                "sampling needs temperature ≥ 0, top-p in (0, 1] and at least one new token; got "
                f"{self.temperature}, {self.top_p}, {self.max_new_tokens}"
            )


def sample(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    keys: Array,
    settings: SamplingSettings,
    *,
    rows: int,
) -> list[list[int]]:
    """Sample one reply to each prompt.

    Args:
        policy: base and adapter.
        prompts: at most ``rows`` token lists.
        keys: ``[prompts]``, a random key each.
        settings: how to draw.
        rows: rows of the compiled call; missing ones are filled up and thrown away.

    Returns:
        Each reply's tokens; the end-of-sequence token is the last one where the reply ended itself.
    """
    largest_token = max(max(prompt) for prompt in prompts)
    check_tokens(largest_token, policy.config.vocab_size)
    longest = max(len(prompt) for prompt in prompts)
    length = -(-longest // PROMPT_MULTIPLE) * PROMPT_MULTIPLE
    # The last batch of a data set has fewer prompts. Copies of the first one fill it up: rows that
    # are sampled for nothing cost less than another compilation.
    missing = rows - len(prompts)
    filled_prompts = [*prompts, *[prompts[0]] * missing]
    filled_keys = jnp.concatenate([keys, jnp.repeat(keys[:1], missing)])
    tokens, lengths = generate(
        policy.base,
        policy.adapter,
        jnp.asarray(pad_rows(filled_prompts, length)),
        jnp.asarray([len(prompt) for prompt in filled_prompts]),
        filled_keys,
        config=policy.config,
        lora=policy.lora,
        settings=settings,
    )
    replies = np.asarray(tokens)
    return [replies[row, : int(lengths[row])].tolist() for row in range(len(prompts))]


@functools.partial(jax.jit, static_argnames=("config", "settings"))
def generate(
    base: Parameters,
    adapter: Parameters,
    prompts_BT: Array,
    lengths_B: Array,
    keys_B: Array,
    *,
    config: DecoderConfig,
    lora: LoraConfig,
    settings: SamplingSettings,
) -> tuple[Array, Array]:
    """Prefill the prompts, then draw a token a row until every row has ended.

    Args:
        base: frozen parameters.
        adapter: the adapter's.
        prompts_BT: ``[B, T]`` tokens, padded on the right.
        lengths_B: real tokens of each prompt.
        keys_B: a random key a row.
        config: the model's shape.
        lora: the adapter's settings.
        settings: how to draw.

    Returns:
        Replies ``[B, max_new_tokens]`` and their lengths ``[B]``, end-of-sequence token included.
    """
    model = Decoder(config, base, lora, adapter)
    batch, time = prompts_BT.shape
    positions = jnp.broadcast_to(jnp.arange(time), (batch, time))
    cache = model.empty_cache(batch, time + settings.max_new_tokens)
    hidden_BTD, cache = model.extend(prompts_BT, positions, cache)
    # Prompts are padded on the right: each row's next token follows its own last real one. The
    # padding's keys and values lie in the cache and do no harm, since the reply's tokens are
    # written over them, one position after the other, before anything attends there.
    last_B1D = jnp.take_along_axis(hidden_BTD, (lengths_B - 1)[:, None, None], axis=1)
    end_tokens = jnp.asarray(settings.end_tokens, jnp.int32)
    replies = jnp.full((batch, settings.max_new_tokens), end_tokens[0], jnp.int32)

    def unfinished(state: tuple) -> Array:
        step, _, _, _, _, ended = state
        return (step < settings.max_new_tokens) & ~jnp.all(ended)

    def draw(state: tuple) -> tuple:
        step, hidden_B1D, cache, replies, counts, ended = state
        # A row's draws depend on its own key and the step, and not on its neighbors.
        step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys_B, step)
        logits_BV = model.logits(hidden_B1D)[:, 0]
        token_B = choose(logits_BV, step_keys, settings.temperature, settings.top_p)
        # Rows that have ended run along until all have: the shapes are fixed.
        token_B = jnp.where(ended, end_tokens[0], token_B)
        replies = replies.at[:, step].set(token_B)
        counts = counts + ~ended
        ended = ended | jnp.isin(token_B, end_tokens)
        hidden_B1D, cache = model.extend(token_B[:, None], (lengths_B + step)[:, None], cache)
        return step + 1, hidden_B1D, cache, replies, counts, ended

    start = (0, last_B1D, cache, replies, jnp.zeros(batch, jnp.int32), jnp.zeros(batch, bool))
    _, _, _, replies, counts, _ = jax.lax.while_loop(unfinished, draw, start)
    return replies, counts


def choose(logits_BV: Array, keys_B: Array, temperature: float, top_p: float) -> Array:
    """Draw one token a row from ``[B, V]`` logits: temperature first, then the nucleus of
    ``top_p``.

    The nucleus is the smallest set of likeliest tokens whose probability reaches ``top_p``
    (Holtzman et al., *The Curious Case of Neural Text Degeneration*, 2020); the likeliest token is
    always in it.
    """
    # Both settings are static, so that what they do not need is not compiled.
    if temperature == 0:
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    logits_BV = logits_BV / temperature
    if top_p < 1:
        order_BV = jnp.argsort(-logits_BV, axis=-1)
        sorted_BV = jnp.take_along_axis(jax.nn.softmax(logits_BV, axis=-1), order_BV, axis=-1)
        # A token is in the nucleus if those before it do not reach top_p without it, so that the
        # one with which they reach it still belongs to it.
        before_BV = jnp.cumsum(sorted_BV, axis=-1) - sorted_BV
        place_BV = jnp.argsort(order_BV, axis=-1)
        in_nucleus_BV = jnp.take_along_axis(before_BV < top_p, place_BV, axis=-1)
        logits_BV = jnp.where(in_nucleus_BV, logits_BV, -jnp.inf)
    return jax.vmap(jax.random.categorical)(keys_B, logits_BV).astype(jnp.int32)
