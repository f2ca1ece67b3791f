"""The log-probabilities of a batch's completions, whichever way the batch lays its sequences
out.

A completion's log-probability is the sum over its tokens, the end token included and the prompt
left out. Padded, a row is a sequence and the sum runs along it. Packed, a row holds several, and
``completions`` says of each token to which segment's completion it belongs, 0 for none::

    tokens         p p a a . q q b b b      two prompts, p and q, and their completions, a and b
    completions    0 0 1 1 0 0 0 2 2 2
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from jaxmodpo.models.attention import Attention
from jaxmodpo.models.axes import constrain
from jaxmodpo.models.decoder import Decoder
from jaxmodpo.models.decoder_config import DecoderConfig
from jaxmodpo.models.lora import LoraConfig
from jaxmodpo.models.remat import Remat


def completion_logps(
    model: Decoder,
    batch: Mapping[str, Array],
    dropout_key: Array | None,
    *,
    remat: Remat = "none",
    chunk: int | None = 128,
) -> tuple[Array, Array]:
    """Return each completion's log-probability, and how many tokens it has, both ``[P, S]``
    float32; where an example has fewer sequences, the numbers mean nothing.

    Args:
        model: the policy.
        batch: one microbatch of :class:`jaxmodpo.data.batches.Batches`, packed or padded.
        dropout_key: draws the adapter's dropout; None switches it off.
        remat: see :meth:`Decoder.hidden_states`.
        chunk: see :meth:`Decoder.token_logps`.
    """
    if "segments" in batch:
        return _packed_completion_logps(model, batch, dropout_key, remat, chunk)
    return _padded_completion_logps(model, batch, dropout_key, remat, chunk)


def _padded_completion_logps(
    model: Decoder,
    batch: Mapping[str, Array],
    dropout_key: Array | None,
    remat: Remat,
    chunk: int | None,
) -> tuple[Array, Array]:
    """Score a batch whose ``tokens`` ``[R, T]`` hold one sequence a row."""
    logps = model.token_logps(
        batch["tokens"],
        dropout_key,
        remat=remat,
        chunk=chunk,
        sequences_BT=batch.get("sequence_numbers"),
    )
    positions = jnp.arange(logps.shape[1])
    after_prompt = positions >= batch["prompt_lengths"][..., None]
    before_padding = positions < batch["lengths"][..., None]
    in_completion = after_prompt & before_padding
    sums = jnp.sum(jnp.where(in_completion, logps, 0.0), axis=-1)
    counts = jnp.sum(in_completion, axis=-1, dtype=jnp.float32)
    return _at_places(model, batch, sums, counts)


def _packed_completion_logps(
    model: Decoder,
    batch: Mapping[str, Array],
    dropout_key: Array | None,
    remat: Remat,
    chunk: int | None,
) -> tuple[Array, Array]:
    """Score a batch whose rows hold several sequences end to end, told apart by their segments."""
    logps = model.token_logps(
        batch["tokens"],
        dropout_key,
        remat=remat,
        chunk=chunk,
        segments_BT=batch["segments"],
        positions_BT=batch["positions"],
        sequences_BT=token_sequences(batch),
    )
    # [rows, time, segments]: whether a token belongs to a segment's completion. A comparison and a
    # sum, not a scatter, whose order of additions GPUs leave to chance.
    in_completion = batch["completions"][..., None] == batch["segment_numbers"]
    sums = jnp.sum(jnp.where(in_completion, logps[..., None], 0.0), axis=1)
    counts = jnp.sum(in_completion, axis=1, dtype=jnp.float32)
    return _at_places(model, batch, sums, counts)


def token_sequences(batch: Mapping[str, Array]) -> Array | None:
    """Return the number in the data set of the sequence that each token of a packed batch is of,
    ``[R, L]``; None where the batch does not say, as in scoring, which drops nothing.
    """
    if "sequence_numbers" not in batch:
        return None
    # [rows, time, segments]: a choice and a sum, since a gather may leave the devices of its row.
    is_of_segment = batch["segments"][..., None] == batch["segment_numbers"]
    numbers_of_row = batch["sequence_numbers"][:, None]
    return jnp.sum(jnp.where(is_of_segment, numbers_of_row, 0), axis=-1)


def _at_places(
    model: Decoder, batch: Mapping[str, Array], sums: Array, counts: Array
) -> tuple[Array, Array]:
    """Return the sums and counts of all rows in the order of the examples, ``[P, S]``."""
    # An example's sequences lie in rows of any devices, so that every device gets all sums.
    sums_and_counts = jnp.stack([sums, counts])
    everywhere = constrain(sums_and_counts, model.attention.mesh, *[None] * sums_and_counts.ndim)
    flat_sums, flat_counts = everywhere.reshape(2, -1)
    # [examples, sequences]: where each one's sum stands; packed, row × segments + segment − 1.
    flat_index = batch["places"]
    return flat_sums[flat_index], flat_counts[flat_index]


@functools.partial(jax.jit, static_argnames=("config", "attention"))
def sequence_logps(
    base: dict[str, Array],
    adapter: dict[str, Array],
    batch: Mapping[str, Array],
    *,
    config: DecoderConfig,
    lora: LoraConfig,
    attention: Attention,
) -> Array:
    """Return each completion's log-probability, ``[P, S]`` float32, without dropout; on every
    device.
    """
    logps, _ = completion_logps(Decoder(config, base, lora, adapter, attention), batch, None)
    return constrain(logps, attention.mesh, None, None)
