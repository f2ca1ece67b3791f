"""Batches: every example once, fixed shapes, little padding, and nothing lost on the way into
rows.
"""

from __future__ import annotations

import numpy as np
import pytest

from jaxmodpo.data.batches import Batches, describe, score_in_batches
from jaxmodpo.data.examples import Examples
from jaxmodpo.data.grouping import balanced_microbatches, balanced_updates
from jaxmodpo.data.reference_lengths import reference_examples
from jaxmodpo.models.flops import token_cost
from jaxmodpo.models.shapes import decoder_shape

BOTH = pytest.mark.parametrize("batching", ["packed", "padded"])


def examples(count: int = 23, seed: int = 0) -> Examples:
    many_examples = reference_examples(count, share=0.1, seed=seed)
    return many_examples.with_fields(
        reference_logps=np.arange(2.0 * count, dtype=np.float32).reshape(count, 2)
    )


@BOTH
def test_every_epoch_has_every_example_once_and_every_batch_one_shape(batching):
    batches = Batches(examples(), batch_size=3, accumulation=2, epochs=3, batching=batching)
    shapes, seen_rows = set(), []
    for step, batch in enumerate(batches):
        shapes.add(tuple(sorted((name, array.shape) for name, array in batch.items())))
        members = batches.members(step)
        seen_rows.append(members[members >= 0])
        assert batch["row_weights"].sum() == len(seen_rows[-1])
    assert len(shapes) == 1 and len(seen_rows) == batches.steps == 3 * 4
    epochs = [np.concatenate(seen_rows[4 * n : 4 * n + 4]) for n in range(3)]
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(23))
    assert not np.array_equal(epochs[0], epochs[1])


def test_packed_rows_hold_each_sequence_whole_and_say_where_it_lies():
    data = examples()
    batches = Batches(data, batch_size=4, accumulation=2, batching="packed")
    for step in range(batches.steps):
        batch, members = batches.at(step), batches.members(step)
        for half in range(2):
            placed = members[half][members[half] >= 0]
            assert batch["row_weights"][half].tolist() == [1.0] * len(placed) + [0.0] * (
                batches.shape.examples - len(placed)
            )
            for place, example in enumerate(placed):
                np.testing.assert_array_equal(
                    batch["reference_logps"][half, place], data.fields["reference_logps"][example]
                )
                for sequence in range(2):
                    row, segment = divmod(
                        int(batch["places"][half, place, sequence]), batches.shape.segments
                    )
                    here = batch["segments"][half, row] == segment + 1
                    length, prompt = (
                        data.lengths[example, sequence],
                        data.prompt_lengths[example, sequence],
                    )
                    np.testing.assert_array_equal(
                        batch["tokens"][half, row][here], data.tokens[example, sequence, :length]
                    )
                    np.testing.assert_array_equal(
                        batch["positions"][half, row][here], np.arange(length)
                    )
                    learned = batch["completions"][half, row] == segment + 1
                    assert learned.sum() == length - prompt and (learned <= here).all()


@pytest.mark.parametrize(("size", "accumulation"), [(4, 4), (8, 1), (8, 2), (16, 1)])
def test_at_most_a_tenth_of_packed_reference_lengths_is_padding(size, accumulation):
    config = decoder_shape("mistral-7b-v0.1")
    batches = Batches(
        reference_examples(600),
        batch_size=size,
        accumulation=accumulation,
        epochs=3,
        batching="packed",
        cost=lambda length: token_cost(config, length),
    )
    assert 0 < batches.waste <= 0.10
    assert describe(batches)["padding_waste"] == round(batches.waste, 4)
    padded = Batches(reference_examples(600), batch_size=size, accumulation=accumulation, epochs=3)
    assert padded.waste > 0.4


def test_reference_lengths_are_those_of_posts_and_replies():
    many_examples = reference_examples(5000)
    completions = many_examples.lengths - many_examples.prompt_lengths
    assert (
        285 < np.median(completions) < 315 and completions.min() >= 60 and completions.max() <= 512
    )
    assert (
        55 < np.median(many_examples.prompt_lengths) < 65
        and many_examples.prompt_lengths.max() <= 512
    )
    assert (many_examples.prompt_lengths[:, 0] == many_examples.prompt_lengths[:, 1]).all()
    np.testing.assert_array_equal(reference_examples(5).tokens, reference_examples(5).tokens)
    quarter = reference_examples(5000, share=0.25)
    assert np.median(quarter.lengths) == pytest.approx(
        np.median(many_examples.lengths) / 4, rel=0.02
    )


@BOTH
def test_an_iterator_that_is_restored_goes_on_where_it_was_saved(batching):
    settings = {"batch_size": 3, "accumulation": 2, "epochs": 2, "batching": batching, "seed": 5}
    whole = list(Batches(examples(), **settings))
    first = Batches(examples(), **settings)
    for _ in range(5):
        next(first)
    assert first.state == {"epoch": 1, "update": 1}
    second = Batches(examples(), **settings)
    second.restore(first.state)
    rest = list(second)
    assert len(rest) == len(whole) - 5
    for expected, resumed_batch in zip(whole[5:], rest, strict=True):
        for name in expected:
            np.testing.assert_array_equal(resumed_batch[name], expected[name], err_msg=name)


@BOTH
def test_the_order_is_the_seeds(batching):
    def order(seed: int) -> list[int]:
        batches = Batches(examples(), batch_size=3, batching=batching, seed=seed)
        return np.concatenate([batches.members(n).ravel() for n in range(batches.steps)]).tolist()

    assert order(1) == order(1) != order(2)


@BOTH
def test_rows_are_made_to_divide_among_the_devices(batching):
    assert Batches(examples(), batch_size=3, row_shards=4, batching=batching).shape.rows % 4 == 0


@BOTH
def test_scores_come_back_in_the_data_sets_order(batching):
    data = examples()
    batches = Batches(data, batch_size=4, batching=batching)
    np.testing.assert_array_equal(
        score_in_batches(batches, lambda batch: batch["reference_logps"]),
        data.fields["reference_logps"],
    )


def test_groups_and_parts_are_evenly_filled():
    generator = np.random.default_rng(0)
    lengths = np.append(generator.lognormal(6, 0.4, 96).astype(int), 0)
    groups = balanced_updates(generator.permutation(96), lengths, 16, generator)
    totals = lengths[groups].sum(1)
    assert totals.max() < 1.03 * totals.mean()
    microbatches = balanced_microbatches(groups, lengths, 4, 8, generator)
    np.testing.assert_array_equal(np.sort(microbatches[microbatches >= 0]), np.arange(96))
    assert lengths[microbatches].sum(2).max() < 1.1 * lengths[microbatches].sum(2).mean()
