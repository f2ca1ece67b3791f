"""Which token comes next: what a row may draw from, and the draw.

Nothing is sorted. A nucleus or the k likeliest tokens are all tokens from a threshold on, and the
threshold is found by halving an interval 32 times: float32 numbers are ordered as their bits are,
so the bits are searched, and the result is exact. Sorting a vocabulary took more time than the
model.

The order is that of transformers: repetition penalty, temperature, top-k, top-p, min-p, each on
what the one before has left::

    settings = SamplingSettings(temperature=0.8, top_p=0.95, max_new_tokens=512, end_tokens=(2,))
    tokens_B = draw(allowed(logits_BV, settings), keys_B)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from jaxmodpo.errors import UserError


@dataclass(frozen=True)
class SamplingSettings:
    """How to draw.

    Attributes:
        temperature: divides the logits; 0 takes the likeliest token.
        top_p: draw from the smallest set of likeliest tokens whose probabilities sum to at least
            this; tokens as likely as the last of them belong to it too.
        max_new_tokens: end a reply after so many.
        end_tokens: the tokens that end a reply, the tokenizer's own first.
        top_k: draw from so many likeliest tokens, and those as likely as the last; 0 from all.
        min_p: draw from tokens at least this many times as likely as the likeliest.
        repetition_penalty: divides the positive logits of tokens that prompt or reply hold, and
            multiplies the negative ones (Keskar et al., *CTRL*, 2019); 1 changes nothing.
    """

    temperature: float
    top_p: float
    max_new_tokens: int
    end_tokens: tuple[int, ...]
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.max_new_tokens < 1:
            raise UserError(
                "sampling needs temperature ≥ 0, top-p in (0, 1] and at least one new token; got "
                f"{self.temperature}, {self.top_p}, {self.max_new_tokens}"
            )
        if self.top_k < 0 or not 0 <= self.min_p <= 1 or self.repetition_penalty <= 0:
            raise UserError(
                "sampling needs top-k ≥ 0, min-p in [0, 1] and a repetition penalty above 0; got "
                f"{self.top_k}, {self.min_p}, {self.repetition_penalty}"
            )


def allowed(logits_BV: Array, settings: SamplingSettings, seen_BV: Array | None = None) -> Array:
    """Return the logits ``[B, V]`` to draw from; −∞ where a token may not be drawn.

    Args:
        logits_BV: the model's, float32.
        settings: how to draw; at temperature 0 only the repetition penalty counts.
        seen_BV: which tokens prompt and reply hold; needed with a repetition penalty.

    References:
        Holtzman et al., *The Curious Case of Neural Text Degeneration*, 2020, for the nucleus;
        Fan et al., *Hierarchical Neural Story Generation*, 2018, for top-k; Nguyen et al., *Turning
        Up the Heat: Min-p Sampling*, 2024.
    """
    if settings.repetition_penalty != 1:
        assert seen_BV is not None
        penalty = settings.repetition_penalty
        penalized_BV = jnp.where(logits_BV < 0, logits_BV * penalty, logits_BV / penalty)
        logits_BV = jnp.where(seen_BV, penalized_BV, logits_BV)
    if settings.temperature == 0:
        return logits_BV
    logits_BV = logits_BV / settings.temperature
    if 0 < settings.top_k < logits_BV.shape[-1]:
        logits_BV = _from_threshold(logits_BV, jnp.ones_like(logits_BV), settings.top_k)
    if settings.top_p < 1:
        logits_BV = _from_threshold(logits_BV, jax.nn.softmax(logits_BV, axis=-1), settings.top_p)
    if settings.min_p > 0:
        least_B1 = jnp.max(logits_BV, axis=-1, keepdims=True) + math.log(settings.min_p)
        logits_BV = jnp.where(logits_BV >= least_B1, logits_BV, -jnp.inf)
    return logits_BV


def _from_threshold(logits_BV: Array, amounts_BV: Array, target: float) -> Array:
    """Keep the smallest set of largest logits whose amounts reach ``target``, and what equals the
    smallest of them.
    """
    order_BV = _as_ordered_integers(logits_BV)

    def reaches(threshold_B: Array) -> Array:
        from_here_BV = order_BV >= threshold_B[:, None]
        return jnp.sum(jnp.where(from_here_BV, amounts_BV, 0), axis=-1) >= target

    def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low_B, high_B = bounds
        middle_B = low_B + (high_B - low_B) // 2
        enough_B = reaches(middle_B)
        return jnp.where(enough_B, middle_B, low_B), jnp.where(enough_B, high_B, middle_B)

    # From the low bound on there is enough, from the high one on there is not.
    low_B = jnp.zeros(logits_BV.shape[0], jnp.uint32)
    threshold_B, _ = jax.lax.fori_loop(0, 32, halve, (low_B, ~low_B))
    return jnp.where(order_BV >= threshold_B[:, None], logits_BV, -jnp.inf)


def _as_ordered_integers(values: Array) -> Array:
    """Return unsigned integers that are ordered as the float32 values are."""
    bits = jax.lax.bitcast_convert_type(values.astype(jnp.float32), jnp.uint32)
    sign = jnp.uint32(1 << 31)
    return jnp.where(bits >= sign, ~bits, bits | sign)


def draw(logits_BV: Array, keys_B: Array) -> Array:
    """Draw one token a row from the softmax of ``[B, V]`` logits, int32.

    Args:
        logits_BV: of what may be drawn; −∞ is never drawn.
        keys_B: a random key a row, used once.
    """
    return jax.vmap(jax.random.categorical)(keys_B, logits_BV).astype(jnp.int32)


def likeliest(logits_BV: Array) -> Array:
    """Return the likeliest token a row, the first of several, int32."""
    return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
