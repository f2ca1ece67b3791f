"""Packing: what comes out of the rows is what went in, whatever the lengths, batches and
devices.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jaxmodpo.data.batches import Batches
from jaxmodpo.data.examples import Examples
from jaxmodpo.data.packing import pack, rows_of
from jaxmodpo.data.reference_lengths import reference_examples


def examples(lengths: np.ndarray, prompts: np.ndarray) -> Examples:
    """Return examples in which no token occurs twice, so that one in the wrong place is seen."""
    tokens = np.zeros((*lengths.shape, int(lengths.max())), np.int32)
    taken = np.arange(tokens.shape[-1]) < lengths[..., None]
    tokens[taken] = np.arange(1, taken.sum() + 1)
    return Examples(tokens, prompts.astype(np.int32), lengths.astype(np.int32), {})


def assert_rows_hold_the_examples(batches: Batches) -> None:
    """Read every sequence back out of its rows by its place, and assert that nothing else lies in
    them.
    """
    data, shape = batches.examples, batches.shape
    for step in range(batches.steps):
        batch, members = batches.at(step), batches.members(step)
        length = batches.row_lengths[step]
        assert batch["tokens"].shape == (batches.accumulation, shape.rows, length)
        read_back = 0
        for part, place in zip(*np.nonzero(members >= 0), strict=True):
            member = members[part, place]
            assert batch["row_weights"][part, place] == 1
            for sequence, number in enumerate(batch["places"][part, place]):
                row, segment = divmod(int(number), shape.segments)
                size, prompt = data.lengths[member, sequence], data.prompt_lengths[member, sequence]
                here = batch["segments"][part, row] == segment + 1
                learned = batch["completions"][part, row] == segment + 1
                tokens = batch["tokens"][part, row]
                np.testing.assert_array_equal(tokens[here], data.tokens[member, sequence, :size])
                np.testing.assert_array_equal(
                    tokens[learned], data.tokens[member, sequence, prompt:size]
                )
                np.testing.assert_array_equal(batch["positions"][part, row][here], np.arange(size))
                read_back += size
        assert read_back == (batch["segments"] > 0).sum() == (batch["tokens"] > 0).sum()
        assert batch["row_weights"].sum() == (members >= 0).sum()


@pytest.mark.slow(seconds=2)
@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 40),
    sequences=st.sampled_from([1, 2, 4]),
    longest=st.sampled_from([3, 40, 700]),
    batch_size=st.integers(1, 5),
    accumulation=st.integers(1, 6),
    epochs=st.integers(1, 3),
    shards=st.sampled_from([1, 2, 3, 8]),
    dear_attention=st.booleans(),
    seed=st.integers(0, 2**16),
)
@example(30, 2, 700, 2, 8, 3, 1, True, 0)
def test_what_comes_out_of_the_rows_is_what_went_in(
    count, sequences, longest, batch_size, accumulation, epochs, shards, dear_attention, seed
):
    generator = np.random.default_rng(seed)
    lengths = generator.integers(2, longest, (count, sequences), endpoint=True)
    data = examples(lengths, generator.integers(1, lengths))
    batches = Batches(
        data,
        batch_size=batch_size,
        accumulation=accumulation,
        epochs=epochs,
        seed=seed,
        batching="packed",
        row_shards=shards,
        cost=lambda length: 1 + dear_attention * length / 64,
    )
    assert batches.shape.rows % shards == 0
    assert_rows_hold_the_examples(batches)
    for epoch in range(epochs):
        steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
        members = np.concatenate([batches.members(step).ravel() for step in steps])
        np.testing.assert_array_equal(np.sort(members[members >= 0]), np.arange(count))


@pytest.mark.parametrize("seed", range(4))
def test_runs_at_a_quarter_of_the_reference_lengths_keep_every_sequence(seed):
    # Packing twice, for the shape and then for the batches, lost or overlaid sequences in such
    # runs.
    reference = reference_examples(60, share=0.25, seed=seed)
    data = examples(reference.lengths, reference.prompt_lengths)
    assert_rows_hold_the_examples(
        Batches(data, batch_size=2, accumulation=8, epochs=3, seed=seed, batching="packed")
    )


def test_rows_are_evenly_filled():
    row, loads = rows_of(np.array([[5, 4, 3, 3, 3, 0]]), 2)
    assert loads.tolist() == [[9, 9]]
    assert sorted(np.bincount(row[0], [5, 4, 3, 3, 3, 0])) == [9, 9]


def test_a_packing_numbers_the_sequences_of_a_row_and_lays_them_end_to_end():
    sizes = np.array([[3, 0, 2, 4]])
    packing = pack(sizes, [1], lambda length: 1.0)
    assert packing.row.tolist() == [[0, 0, 0, 0]]
    assert packing.segment.tolist() == [[1, 0, 2, 3]]
    assert packing.start[sizes > 0].tolist() == [0, 3, 5]
    assert (packing.lengths.tolist(), packing.segments) == ([16], 3)
