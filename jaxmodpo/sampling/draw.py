"""Which token comes next: what a row may draw from, and the draw.

Nothing is sorted, and no threshold of the nucleus is ever computed. A token is drawn from all that
top-k and min-p leave. It belongs to the nucleus if the tokens that are likelier than it sum to less
than top-p; otherwise the draw is made again, from those likelier tokens alone::

    likelier      x = 0.1 drawn, and 0.97 is likelier:    outside of a nucleus of 0.95
    0 ----------------------[ 0.97 |x|  . ]
    0 -------------[ 0.55 |y|  . ]                        y is drawn from the 0.97, and is inside

What is accepted has the distribution of the nucleus, since every draw is made from a set that holds
the whole of it. With top-p 0.95 nineteen of twenty rows are done after one look at the vocabulary,
and a rejected token halves what is left of the tail, more or less. A random number for every token
of the vocabulary, as the usual trick with Gumbel noise needs, took more time than the model.

The order is that of transformers: repetition penalty, temperature, top-k, top-p, min-p, each on
what the one before has left::

    settings = SamplingSettings(temperature=0.8, top_p=0.95, max_new_tokens=512, end_tokens=(2,))
    tokens_B = draw(candidates(logits_BV, settings), keys_B)

Shape suffixes: B rows, V vocabulary; for the draw the vocabulary is a table of M lines and
N columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxmodpo.errors import UserError

COLUMNS = 128
"""columns of the table as which a vocabulary is looked at; the lanes of a TPU's registers"""

_DrawState = tuple[Array, Array, Array, Array, Array]
"""attempts so far; and by row whether it draws again, its token, what is heavier, and its weight"""


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


class Candidates(NamedTuple):
    """What a row may draw from.

    Attributes:
        weights_BV: in proportion to the probabilities, 1 for the likeliest token, and 0 where top-k
            or min-p excludes a token.
        nucleus_B: the weight that the nucleus reaches; a token of it has less than this in the
            tokens that are heavier.
    """

    weights_BV: Array
    nucleus_B: Array


def penalized(logits_BV: Array, settings: SamplingSettings, seen_BV: Array | None = None) -> Array:
    """Return the logits ``[B, V]`` after the repetition penalty.

    Args:
        logits_BV: the model's, float32.
        settings: how to draw.
        seen_BV: which tokens prompt and reply hold; needed with a repetition penalty.
    """
    if settings.repetition_penalty == 1:
        return logits_BV
    assert seen_BV is not None
    penalty = settings.repetition_penalty
    penalized_BV = jnp.where(logits_BV < 0, logits_BV * penalty, logits_BV / penalty)
    return jnp.where(seen_BV, penalized_BV, logits_BV)


def candidates(
    logits_BV: Array, settings: SamplingSettings, seen_BV: Array | None = None
) -> Candidates:
    """Return what each row may draw from, at a temperature above 0.

    Args:
        logits_BV: the model's, float32.
        settings: how to draw.
        seen_BV: which tokens prompt and reply hold; needed with a repetition penalty.

    References:
        Holtzman et al., *The Curious Case of Neural Text Degeneration*, 2020, for the nucleus;
        Fan et al., *Hierarchical Neural Story Generation*, 2018, for top-k; Nguyen et al., *Turning
        Up the Heat: Min-p Sampling*, 2024.
    """
    logits_BV = penalized(logits_BV, settings, seen_BV)
    largest_B1 = _over_vocabulary(jnp.max, logits_BV, -jnp.inf)[:, None]
    weights_BV = jnp.exp((logits_BV - largest_B1) / settings.temperature)
    if 0 < settings.top_k < logits_BV.shape[-1]:
        weights_BV = _heaviest(weights_BV, settings.top_k)
    nucleus_B = settings.top_p * _over_vocabulary(jnp.sum, weights_BV, 0)
    if settings.top_p == 1:
        # Said exactly: the weight of all tokens may be another number where it is summed again.
        nucleus_B = jnp.full_like(nucleus_B, jnp.inf)
    if settings.min_p > 0:
        weights_BV = jnp.where(weights_BV >= settings.min_p, weights_BV, 0)
    return Candidates(weights_BV, nucleus_B)


def _heaviest(weights_BV: Array, count: int) -> Array:
    """Keep the ``count`` largest weights, and what equals the smallest of them; the rest becomes 0.

    Non-negative float32 numbers are ordered as their bits are, so that halving an interval of bits
    finds the threshold exactly.
    """
    order_BV = jax.lax.bitcast_convert_type(weights_BV, jnp.int32)

    def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low_B, high_B = bounds
        middle_B = low_B + (high_B - low_B) // 2
        from_middle_B = jnp.sum(order_BV >= middle_B[:, None], axis=-1)
        is_enough_B = from_middle_B >= count
        low_B = jnp.where(is_enough_B, middle_B, low_B)
        high_B = jnp.where(is_enough_B, high_B, middle_B)
        return low_B, high_B

    # From the low bound on there is enough, from the high one on there is not: no weight exceeds 1.
    low_B = jnp.zeros(weights_BV.shape[0], jnp.int32)
    above_one = jax.lax.bitcast_convert_type(jnp.float32(2), jnp.int32)
    high_B = jnp.full_like(low_B, above_one)
    # An int32 without its sign has 31 bits, and each halving decides one of them.
    threshold_B, _ = jax.lax.fori_loop(0, 31, halve, (low_B, high_B))
    is_heavy_BV = order_BV >= threshold_B[:, None]
    return jnp.where(is_heavy_BV, weights_BV, 0)


def is_in_nucleus(candidates: Candidates, tokens_B: Array) -> Array:
    """Return whether each row's nucleus holds a token: what is heavier does not reach it alone.

    Tokens as likely as the last one of the nucleus belong to it.
    """
    table_BMN = _as_table(candidates.weights_BV, 0)
    weight_B = _entry_of_each_row(candidates.weights_BV, tokens_B)
    heavier_BN = _heavier_by_column(table_BMN, weight_B)
    return ~_is_outside(heavier_BN, candidates.nucleus_B)


def draw(candidates: Candidates, keys_B: Array) -> Array:
    """Draw one token a row, int32.

    A token is found in two steps, its column by the columns' sums and then its line within the
    column, each with a random number of its own: a single one has too few bits for a rare token of
    a large vocabulary.

    Args:
        candidates: what may be drawn.
        keys_B: a random key a row, used once.
    """
    table_BMN = _as_table(candidates.weights_BV, 0)
    rows = table_BMN.shape[0]

    def two_uniforms(key: Array) -> Array:
        return jax.random.uniform(key, (2,))

    def pick(attempt: Array, heavier_BN: Array, than_B: Array) -> tuple[Array, Array]:
        """Draw from what is heavier than a weight; return tokens and their weights."""
        attempt_keys_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, attempt)
        uniform_B2 = jax.vmap(two_uniforms)(attempt_keys_B)
        column_B = _random_place(heavier_BN, uniform_B2[:, 0])
        column_BM1 = jnp.take_along_axis(table_BMN, column_B[:, None, None], axis=2)
        column_BM = column_BM1[..., 0]
        heavier_BM = jnp.where(column_BM > than_B[:, None], column_BM, 0)
        line_B = _random_place(heavier_BM, uniform_B2[:, 1])
        weight_B = _entry_of_each_row(column_BM, line_B)
        tokens_B = line_B * COLUMNS + column_B
        return tokens_B, weight_B

    def some_row_is_open(state: _DrawState) -> Array:
        _, is_open_B, *_ = state
        return jnp.any(is_open_B)

    def again(state: _DrawState) -> _DrawState:
        attempt, is_open_B, tokens_B, heavier_BN, weight_B = state
        new_tokens_B, new_weight_B = pick(attempt, heavier_BN, weight_B)
        # Rows that are done keep still while their neighbors draw again.
        tokens_B = jnp.where(is_open_B, new_tokens_B, tokens_B)
        weight_B = jnp.where(is_open_B, new_weight_B, weight_B)
        heavier_BN = _heavier_by_column(table_BMN, weight_B)
        is_open_B &= _is_outside(heavier_BN, candidates.nucleus_B)
        return attempt + 1, is_open_B, tokens_B, heavier_BN, weight_B

    # Weights of 0 are not heavier than this, so that they are never drawn.
    nothing_B = jnp.zeros(rows)
    all_open_B = jnp.ones(rows, bool)
    no_tokens_B = jnp.zeros(rows, jnp.int32)
    every_weight_BN = _heavier_by_column(table_BMN, nothing_B)
    start = (jnp.uint32(0), all_open_B, no_tokens_B, every_weight_BN, nothing_B)
    _, _, tokens_B, _, _ = jax.lax.while_loop(some_row_is_open, again, start)
    return tokens_B


def _entry_of_each_row(values_BN: Array, places_B: Array) -> Array:
    """Return the entry at each row's own place, ``[B]``."""
    entries_B1 = jnp.take_along_axis(values_BN, places_B[:, None], axis=1)
    return entries_B1[:, 0]


def _heavier_by_column(table_BMN: Array, than_B: Array) -> Array:
    """Return the sum of each column's weights above a weight, ``[B, N]``."""
    is_heavier_BMN = table_BMN > than_B[:, None, None]
    heavier_BMN = jnp.where(is_heavier_BMN, table_BMN, 0)
    return jnp.sum(heavier_BMN, axis=1)


def _is_outside(heavier_BN: Array, nucleus_B: Array) -> Array:
    """Return whether what is heavier than a row's token reaches the nucleus without it.

    The heaviest token is never outside, so that a draw ends even where top-p rounds to 0 or a row's
    logits are not numbers.
    """
    heavier_B = jnp.sum(heavier_BN, axis=1)
    return (heavier_B >= nucleus_B) & (heavier_B > 0)


def _random_place(weights_BN: Array, uniform_B: Array) -> Array:
    """Return where each row's running sum passes a share of the whole, int32."""
    sums_BN = jnp.cumsum(weights_BN, axis=1)
    total_B1 = sums_BN[:, -1:]
    share_B1 = uniform_B[:, None] * total_B1
    # A sum in parallel may rise by rounding at a place that has no weight.
    passes_BN = (sums_BN > share_B1) & (weights_BN > 0)
    first_passing_B = jnp.argmax(passes_BN, axis=1)
    heaviest_B = jnp.argmax(weights_BN, axis=1)
    # For the same reason, once in some ten million draws, none may pass.
    none_passes_B = ~jnp.any(passes_BN, axis=1)
    place_B = jnp.where(none_passes_B, heaviest_B, first_passing_B)
    return place_B.astype(jnp.int32)


def _as_table(values_BV: Array, padding: float) -> Array:
    """Return a vocabulary as a table ``[B, M, N]``: token t stands in line ``t // N``.

    Sums and largest values are taken along lines first. A CPU adds up numbers that lie side by side
    one after the other, since the order of a float's sum counts, but columns at once.
    """
    rows, vocabulary = values_BV.shape
    missing = -vocabulary % COLUMNS
    if missing:
        values_BV = jnp.pad(values_BV, ((0, 0), (0, missing)), constant_values=padding)
    return values_BV.reshape(rows, -1, COLUMNS)


def _over_vocabulary(reduce: Callable[..., Array], values_BV: Array, padding: float) -> Array:
    """Reduce each row's vocabulary to a number."""
    table_BMN = _as_table(values_BV, padding)
    by_column_BN = reduce(table_BMN, axis=1)
    return reduce(by_column_BN, axis=1)


def are_finite(logits_BV: Array) -> Array:
    """Return whether a row's logits are all finite numbers."""
    # NaN and infinity of either sign end up in the sum; finite float32 logits never add up to one.
    sums_B = _over_vocabulary(jnp.sum, logits_BV, 0)
    return jnp.isfinite(sums_B)


def likeliest(logits_BV: Array) -> Array:
    """Return the likeliest token a row, the first of several, int32."""
    return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
