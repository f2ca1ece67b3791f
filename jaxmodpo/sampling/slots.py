"""What a round of sampling does on the devices: prefill, filling slots, and a token a slot.

The host's part, which decides what goes into which slot, is :mod:`jaxmodpo.sampling.engine`. Shape
suffixes: R slots, Q prompts of a prefill, N new tokens, T tokens, D model width, V vocabulary; a
cache is ``[L, N, B, K, P, C]``: layers, blocks, rows, key-value heads, places of a block, head
width.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxmodpo.models.attention import Attention
from jaxmodpo.models.axes import constrain, constrain_rows, mesh_axes
from jaxmodpo.models.cached_attention import CACHE_AXES, Cache
from jaxmodpo.models.decoder import Decoder
from jaxmodpo.models.decoder_config import DecoderConfig
from jaxmodpo.models.lora import LoraConfig
from jaxmodpo.models.parameters import Parameters
from jaxmodpo.sampling.draw import (
    SamplingSettings,
    are_finite,
    candidates,
    draw,
    likeliest,
    penalized,
)

PROMPT_CHUNK = 32
"""tokens of each prompt that prefill takes at a time"""
NO_TOKEN = -1
"""stands for a reply's next token where the model's logits are not finite numbers"""
PROMPT_CACHE_AXES = (None, None, None, "kv_heads", None, None)
"""where the axes of prefilled prompts' cache lie"""


class Prompts(NamedTuple):
    """Prefilled prompts, from which slots are filled.

    Attributes:
        cache: ``[L, N, Q, K, P, C]``, whole on every device among which rows are shared
            out, since any slot may take any of them.
        hidden_QD: the last hidden state of each.
        lengths_Q: tokens of each.
        seen_QV: which tokens each holds; ``[Q, 0]`` without a repetition penalty.
    """

    cache: Cache
    hidden_QD: Array
    lengths_Q: Array
    seen_QV: Array


class Slots(NamedTuple):
    """What is under way.

    Attributes:
        cache: ``[L, N, R, K, P, C]``.
        hidden_RD: the newest hidden state of each slot: the next token is drawn from it.
        positions_R: where the next token will stand.
        counts_R: tokens drawn so far.
        running_R: whether a slot has a reply that has not ended.
        replies_RN: the tokens drawn so far.
        keys_R2: the replies' random keys, as numbers.
        seen_RV: which tokens prompt and reply hold; ``[R, 0]`` without a repetition penalty.
    """

    cache: Cache
    hidden_RD: Array
    positions_R: Array
    counts_R: Array
    running_R: Array
    replies_RN: Array
    keys_R2: Array
    seen_RV: Array


class Work(NamedTuple):
    """What the devices did between two looks of the host.

    Attributes:
        steps: runs of the model; each gives a token to every running slot.
        tokens: that slots were given.
        places_read: places of the cache that these tokens could attend to.
    """

    steps: Array | int
    tokens: Array | int
    places_read: Array | int


class Refill(NamedTuple):
    """What the host decided about the slots.

    Attributes:
        ended_R: slots whose reply the host has ended, at a stop string.
        taken_R: slots that begin a new reply.
        prompts_R: of which of the prefilled prompts.
        keys_R2: with which random key.
    """

    ended_R: np.ndarray
    taken_R: np.ndarray
    prompts_R: np.ndarray
    keys_R2: np.ndarray


@functools.partial(jax.jit, static_argnames=("config", "attention", "length", "penalized"))
def prefill(
    base: Parameters,
    adapter: Parameters,
    tokens_QT: Array,
    lengths_Q: Array,
    own_ranks_Qr: Array | None,
    *,
    config: DecoderConfig,
    lora: LoraConfig,
    attention: Attention,
    length: int,
    penalized: bool,
) -> Prompts:
    """Run prompts through the model, :data:`PROMPT_CHUNK` tokens of each at a time.

    Args:
        base: frozen parameters.
        adapter: the adapter's.
        tokens_QT: prompts, padded on the right to a multiple of the chunk.
        lengths_Q: real tokens of each, at least 1.
        own_ranks_Qr: which ranks of several adapters are each prompt's own; None for one adapter.
        config: the model's shape.
        lora: the adapter's settings.
        attention: names the devices.
        length: places of the cache.
        penalized: whether it must be known later which tokens the prompts hold.
    """
    model = Decoder(config, base, lora, adapter, attention)
    rows, padded_length = tokens_QT.shape
    last_Q = lengths_Q - 1
    places_are_used_again = length < padded_length

    def run_chunk(number: Array, state: tuple[Cache, Array]) -> tuple[Cache, Array]:
        """Run one chunk of every prompt, and keep the last state of those that end in it."""
        old_cache, hidden_QD = state
        start = number * PROMPT_CHUNK
        chunk_QT = jax.lax.dynamic_slice_in_dim(tokens_QT, start, PROMPT_CHUNK, axis=1)
        positions_T = start + jnp.arange(PROMPT_CHUNK)
        positions_QT = jnp.broadcast_to(positions_T, chunk_QT.shape)
        chunk_QTD, cache = model.extend(chunk_QT, positions_QT, old_cache, own_ranks_Qr)
        if places_are_used_again:
            # A prompt that ended in an earlier chunk would lose its first places to padding.
            goes_on_Q = lengths_Q > start
            cache = _chosen_rows(goes_on_Q, cache, old_cache)
        place_Q = jnp.clip(last_Q - start, 0, PROMPT_CHUNK - 1)
        last_Q1D = jnp.take_along_axis(chunk_QTD, place_Q[:, None, None], axis=1)
        ends_here_Q = (last_Q >= start) & (last_Q < start + PROMPT_CHUNK)
        hidden_QD = jnp.where(ends_here_Q[:, None], last_Q1D[:, 0], hidden_QD)
        return cache, hidden_QD

    # Chunks behind a prompt's end change nothing of it, so their number, which the longest prompt
    # decides, changes no other prompt: they write places that nothing attends to, or none.
    chunks = jnp.max(last_Q) // PROMPT_CHUNK + 1
    hidden_QD = jnp.zeros((rows, config.hidden_size), base["embed"].dtype)
    cache = model.empty_cache(rows, length)
    cache, hidden_QD = jax.lax.fori_loop(0, chunks, run_chunk, (cache, hidden_QD))
    vocabulary = config.vocab_size if penalized else 0
    seen_QV = jnp.zeros((rows, vocabulary), bool)
    if penalized:
        is_real_QT = jnp.arange(padded_length) < lengths_Q[:, None]
        row_numbers_Q1 = jnp.arange(rows)[:, None]
        # A token that is real somewhere in a prompt stays marked where padding repeats it.
        seen_QV = seen_QV.at[row_numbers_Q1, tokens_QT].max(is_real_QT)
    keys = constrain(cache.keys, attention.mesh, *PROMPT_CACHE_AXES)
    values = constrain(cache.values, attention.mesh, *PROMPT_CACHE_AXES)
    return Prompts(Cache(keys, values), hidden_QD, lengths_Q, seen_QV)


def _chosen_rows(is_first_Q: Array, first: Cache, second: Cache) -> Cache:
    """Return a cache whose rows are the first one's where that is said, and else the second's."""
    # A cache's arrays have three more axes behind their rows.
    is_first_Q111 = is_first_Q[:, None, None, None]
    keys = jnp.where(is_first_Q111, first.keys, second.keys)
    values = jnp.where(is_first_Q111, first.values, second.values)
    return Cache(keys, values)


@functools.partial(
    jax.jit, static_argnames=("config", "attention", "settings"), donate_argnames=("slots",)
)
def advance(
    base: Parameters,
    adapter: Parameters,
    slots: Slots,
    prompts: Prompts,
    refill: Refill,
    steps: Array,
    enough: Array,
    own_ranks_Rr: Array | None,
    *,
    config: DecoderConfig,
    lora: LoraConfig,
    attention: Attention,
    settings: SamplingSettings,
) -> tuple[Slots, Work]:
    """Fill slots, then draw a token a slot until enough of them have ended; return what was done.

    Args:
        base: frozen parameters.
        adapter: the adapter's.
        slots: what is under way; its memory is used again.
        prompts: that new replies answer.
        refill: which slots begin anew.
        steps: most tokens a slot; may be 0.
        enough: come back once so many slots have ended.
        own_ranks_Rr: which ranks of several adapters are each slot's own; None for one adapter.
        config: the model's shape.
        lora: the adapter's settings.
        attention: names the devices.
        settings: how to draw.
    """
    model = Decoder(config, base, lora, adapter, attention)
    slots = _filled(slots, prompts, refill, attention.mesh)
    began_R = slots.running_R

    def goes_on(state: tuple[Slots, Work]) -> Array:
        slots, work = state
        ended = jnp.sum(began_R & ~slots.running_R)
        has_steps_left = work.steps < steps
        has_too_few_ended = ended < enough
        return has_steps_left & has_too_few_ended & jnp.any(slots.running_R)

    def draw_a_token(state: tuple[Slots, Work]) -> tuple[Slots, Work]:
        slots, work = state
        places_R = jnp.where(slots.running_R, slots.positions_R, 0)
        work = Work(
            steps=work.steps + 1,
            tokens=work.tokens + jnp.sum(slots.running_R),
            places_read=work.places_read + jnp.sum(places_R),
        )
        return _next_token(model, slots, settings, own_ranks_Rr), work

    no_work = Work(jnp.int32(0), jnp.int32(0), jnp.int32(0))
    slots, work = jax.lax.while_loop(goes_on, draw_a_token, (slots, no_work))
    # Left to the compiler, a number per slot may come back split in another way than it went in.
    return _placed(slots, attention.mesh), work


def _filled(slots: Slots, prompts: Prompts, refill: Refill, mesh: Mesh | None) -> Slots:
    """Let the slots that were taken begin a reply to their prompt."""
    if mesh is None or mesh.size == 1:
        return _fill(slots, prompts, refill)

    slot_specs = _slot_specs(slots)
    prompt_specs = _specs(prompts)
    prompt_specs = prompt_specs._replace(cache=_specs(prompts.cache, *PROMPT_CACHE_AXES))
    refill_specs = _specs(refill, "batch")
    # Each device fills its own slots: left to the compiler, a slot whose number is known on the
    # device alone would be looked for on all of them.
    fill = jax.shard_map(
        _fill,
        mesh=mesh,
        in_specs=(slot_specs, prompt_specs, refill_specs),
        out_specs=slot_specs,
        check_vma=False,
    )
    return fill(slots, prompts, refill)


def _specs(arrays: Any, *axes: str | None) -> Any:
    """Return the partition specs of arrays that have all the same logical axes."""
    spec = mesh_axes(axes)
    return jax.tree.map(lambda _: spec, arrays)


def _slot_specs(slots: Any) -> Any:
    """Return the partition spec of each array of the slots: by rows, as in the cache."""
    specs = _specs(slots, "batch")
    return specs._replace(cache=_specs(slots.cache, *CACHE_AXES))


def _fill(slots: Slots, prompts: Prompts, refill: Refill) -> Slots:
    """Return the slots of one device, of which those that are taken begin their prompt's reply."""
    taken_R = jnp.asarray(refill.taken_R)
    source_R = jnp.asarray(refill.prompts_R)
    ended_R = jnp.asarray(refill.ended_R)
    taken_first_R = jnp.argsort(~taken_R)

    def copy_prompt(turn: Array, cache: Cache) -> Cache:
        """Copy a prompt's blocks over a slot's first ones, and touch no other slot."""
        slot = taken_first_R[turn]
        prompt_number = source_R[slot]

        def copied(old_LNRKPC: Array, new_LNQKPC: Array) -> Array:
            prompt = jax.lax.dynamic_slice_in_dim(new_LNQKPC, prompt_number, 1, axis=2)
            first_place = (0, 0, slot, 0, 0, 0)
            return jax.lax.dynamic_update_slice(old_LNRKPC, prompt, first_place)

        keys = copied(cache.keys, prompts.cache.keys)
        values = copied(cache.values, prompts.cache.values)
        return Cache(keys, values)

    # As many turns as slots are taken, which are usually few: a copy for every slot with a choice
    # of the old or the new would move the whole cache.
    cache = jax.lax.fori_loop(0, jnp.sum(taken_R), copy_prompt, slots.cache)
    taken_R1 = taken_R[:, None]
    return Slots(
        cache=cache,
        hidden_RD=jnp.where(taken_R1, prompts.hidden_QD[source_R], slots.hidden_RD),
        positions_R=jnp.where(taken_R, prompts.lengths_Q[source_R], slots.positions_R),
        counts_R=jnp.where(taken_R, 0, slots.counts_R),
        running_R=taken_R | (slots.running_R & ~ended_R),
        replies_RN=slots.replies_RN,
        keys_R2=jnp.where(taken_R1, refill.keys_R2, slots.keys_R2),
        seen_RV=jnp.where(taken_R1, prompts.seen_QV[source_R], slots.seen_RV),
    )


def _next_token(
    model: Decoder, slots: Slots, settings: SamplingSettings, own_ranks_Rr: Array | None
) -> Slots:
    """Draw a token for each slot and run it through the model; slots without a reply keep still."""
    slot_numbers_R = jnp.arange(slots.counts_R.shape[0])
    mesh = model.attention.mesh
    logits_R1V = model.logits(slots.hidden_RD[:, None])
    logits_RV = logits_R1V[:, 0]
    # First as the unembedding lies, or that would be gathered for every token instead of these.
    logits_RV = constrain(logits_RV, mesh, "batch", "vocab")
    # A row's whole vocabulary lies on one device: the draw looks at all of it many times over.
    all_share = mesh is not None and logits_RV.shape[0] % mesh.size == 0
    rows_axis = "draws" if all_share else "batch"
    logits_RV = constrain(logits_RV, mesh, rows_axis, None)
    tokens_R = _draw_tokens(logits_RV, slots, settings, rows_axis, mesh)
    # Back to where the rows lie, or the model would go on with the draw's layout.
    tokens_R = constrain(tokens_R, mesh, "batch")
    running_R = slots.running_R
    # Slots that keep still write behind the last place of a reply, which is nowhere.
    place_R = jnp.where(running_R, slots.counts_R, settings.max_new_tokens)
    counts_R = slots.counts_R + running_R
    ended_R = jnp.isin(tokens_R, jnp.asarray(settings.end_tokens, jnp.int32))
    ended_R |= counts_R >= settings.max_new_tokens
    ended_R |= tokens_R == NO_TOKEN
    seen_RV = slots.seen_RV
    if seen_RV.shape[1]:
        seen_RV = seen_RV.at[slot_numbers_R, tokens_R].max(running_R)
    tokens_R1 = tokens_R[:, None]
    positions_R1 = slots.positions_R[:, None]
    hidden_R1D, cache = model.extend(tokens_R1, positions_R1, slots.cache, own_ranks_Rr)
    goes_on_R = running_R & ~ended_R
    next_slots = Slots(
        cache=cache,
        hidden_RD=hidden_R1D[:, 0],
        # A slot that keeps still stands at place 0, so that nobody reads far into the cache for it.
        positions_R=jnp.where(goes_on_R, slots.positions_R + 1, 0),
        counts_R=counts_R,
        running_R=goes_on_R,
        replies_RN=jax.vmap(_with_token)(slots.replies_RN, place_R, tokens_R),
        keys_R2=slots.keys_R2,
        seen_RV=seen_RV,
    )
    return _placed(next_slots, mesh)


def _draw_tokens(
    logits_RV: Array, slots: Slots, settings: SamplingSettings, rows_axis: str, mesh: Mesh | None
) -> Array:
    """Draw a token for each row from its logits, wherever its row lies; :data:`NO_TOKEN` where
    they are not finite.
    """

    def draw_rows(logits_RV: Array, seen_RV: Array, keys_R2: Array, counts_R: Array) -> Array:
        if settings.temperature == 0:
            tokens_R = likeliest(penalized(logits_RV, settings, seen_RV))
        else:
            # A token's key is its reply's key and its number: neighbors do not enter it.
            reply_keys_R = jax.random.wrap_key_data(keys_R2)
            token_keys_R = jax.vmap(jax.random.fold_in)(reply_keys_R, counts_R)
            tokens_R = draw(candidates(logits_RV, settings, seen_RV), token_keys_R)
        return jnp.where(are_finite(logits_RV), tokens_R, NO_TOKEN)

    arrays = (logits_RV, slots.seen_RV, slots.keys_R2, slots.counts_R)
    if mesh is None or mesh.size == 1:
        return draw_rows(*arrays)
    # Each device draws for its own rows until they are done, and does not wait for others: left to
    # the compiler, the devices would ask each other after every attempt who goes on.
    rows_spec = mesh_axes((rows_axis,))
    draw_own_rows = jax.shard_map(
        draw_rows,
        mesh=mesh,
        in_specs=(rows_spec,) * len(arrays),
        out_specs=rows_spec,
        check_vma=False,
    )
    return draw_own_rows(*arrays)


def _with_token(reply_N: Array, place: Array, token: Array) -> Array:
    return reply_N.at[place].set(token, mode="drop")


def empty_slots(make: Callable[[], Slots], mesh: Mesh) -> Slots:
    """Make slots on the devices, lying as :func:`advance` returns them.

    Slots that lie or are described otherwise are another kind of argument: the first round of a run
    would be compiled apart from all others.

    Args:
        make: makes them within a jitted function.
        mesh: the policy's.
    """
    if mesh.size == 1:
        return jax.jit(make, out_shardings=NamedSharding(mesh, PartitionSpec()))()
    return jax.jit(lambda: _placed(make(), mesh))()


def _placed(slots: Slots, mesh: Mesh | None) -> Slots:
    """Say where everything about the slots lies: with their rows, as in the cache."""
    cache = Cache(*(constrain(array, mesh, *CACHE_AXES) for array in slots.cache))
    return Slots(cache, *(constrain_rows(array, mesh) for array in slots[1:]))
