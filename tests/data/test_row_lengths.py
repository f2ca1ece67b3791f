"""Rows of a few lengths where a run is long enough for it."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from jaxmodpo.data.batches import Batches, describe
from jaxmodpo.data.reference_lengths import reference_examples
from jaxmodpo.data.row_lengths import MICROBATCHES_OF_COMPILING, row_lengths
from jaxmodpo.models.flops import token_cost
from jaxmodpo.models.shapes import decoder_shape


def equal_cost(length: int) -> float:
    return 1.0


@pytest.mark.parametrize("microbatches", [1, 4])
@pytest.mark.parametrize(("beyond", "expected"), [(-1, {800}), (1, {400, 800})])
def test_a_further_length_is_taken_where_it_saves_more_than_compiling_it_takes(
    beyond, expected, microbatches
):
    # Half of a long update is saved in each short one, which has several microbatches' work.
    short_updates = 2 * MICROBATCHES_OF_COMPILING // microbatches
    needed = np.array([800, *[400] * (short_updates + beyond)])
    assert set(row_lengths(needed, 2, equal_cost, microbatches)) == expected


@pytest.mark.parametrize("most", [1, 2, 3, 4])
def test_every_update_gets_the_shortest_chosen_length_that_holds_it_and_none_is_better(most):
    needed = np.random.default_rng(0).integers(100, 500, 5000)
    lengths = row_lengths(needed, most, equal_cost)
    distinct = np.unique(lengths)
    assert len(distinct) == most and (lengths >= needed).all() and (lengths % 8 == 0).all()
    for length, tokens in zip(lengths, needed, strict=True):
        assert length == distinct[distinct >= tokens].min()
    # Evenly spread needs are cut into even parts.
    assert np.diff([96, *distinct]) == pytest.approx(np.full(most, 400 / most), abs=16)


@pytest.mark.parametrize(
    ("questions", "replies", "batch_size", "accumulation", "devices", "before", "after"),
    [
        (600, 5, 2, 1, 1, 0.23, 0.07),
        (1000, 2, 8, 1, 8, 0.20, 0.085),
        (2048, 2, 8, 4, 8, 0.13, 0.09),
        (2000, 2, 4, 4, 1, 0.07, 0.035),
    ],
)
def test_few_questions_a_device_waste_less_in_rows_of_several_lengths(
    questions, replies, batch_size, accumulation, devices, before, after
):
    batches_of = functools.partial(
        Batches,
        reference_examples(questions, replies=replies, vocab_size=9),
        batch_size=batch_size,
        accumulation=accumulation,
        epochs=3,
        batching="packed",
        row_shards=devices,
        cost=functools.partial(token_cost, decoder_shape("mistral-7b-v0.1")),
    )
    one = batches_of()
    several = batches_of(most_lengths=3)
    assert one.waste > before - 0.01 and several.waste < after
    assert 2 <= len(describe(several)["row_lengths"]) <= 3
    assert describe(one)["row_lengths"] == [one.shape.length]
    # Every update has the rows that it is said to have, and the longest is where it is looked for.
    steps = [several.longest_step, int(several.row_lengths.argmin())]
    found = [several.at(step)["tokens"].shape[-1] for step in steps]
    assert found == [several.shape.length, several.row_lengths.min()]
    positions = several.accumulation * several.shape.rows * several.row_lengths.sum()
    assert several.positions * several.steps == pytest.approx(positions)
