"""How often the longer reply wins, in bins of its lead."""

from __future__ import annotations

import numpy as np
import pytest

from jaxmodpo.statistics.length_bins import rates_by_length

NAN = float("nan")


def test_every_unit_is_seen_from_its_longer_reply_and_is_in_one_bin():
    # Two pairs, six questions: leads of 1, 12, 25, 60, 200 and 300 tokens, each from either side.
    leads = np.array([1, 12, 25, 60, 200, 300.0])
    differences = np.stack([leads, -leads])[..., None] * np.ones(4)
    outcomes = np.stack([np.ones((6, 4)), np.zeros((6, 4))])
    bins = rates_by_length(outcomes, differences, resamples=50)
    # Nine leads of ten are at most 300, which four bins of 100 hold.
    assert [(row.low, row.high, row.units) for row in bins] == [
        (0, 100, 32),
        (100, 200, 0),
        (200, 300, 8),
        (300, 400, 8),
        (400, None, 0),
    ]
    assert [row.rate for row in bins] == [1.0, None, 1.0, 1.0, None]


def test_its_interval_is_over_questions_and_a_tie_is_half_a_win():
    outcomes = np.array([[[1.0] * 5, [0.0] * 5, [0.5] * 5, [1.0] * 5]])
    first = rates_by_length(outcomes, np.full((1, 4, 5), 0.5), seed=3)[0]
    assert (first.units, first.rate) == (20, 0.625)
    assert first.interval is not None
    # Four questions move as four and not as twenty.
    assert first.interval[1] - first.interval[0] > 0.6


@pytest.mark.parametrize(
    ("outcomes", "differences"),
    [
        (np.zeros((0, 4, 1)), np.zeros((0, 4, 1))),
        ([[[1.0], [0.0]]], [[[0.0], [0.0]]]),
        ([[[NAN], [0.0]]], [[[3.0], [NAN]]]),
    ],
)
def test_without_a_longer_reply_there_are_no_bins(outcomes, differences):
    assert rates_by_length(outcomes, differences) == []


def test_few_units_are_counted_and_not_shown():
    bins = rates_by_length([[[1.0], [0.0], [1.0], [1.0]]], [[[1.0], [2.0], [3.0], [4.0]]])
    assert sum(row.units for row in bins) == 4 and {row.rate for row in bins} == {None}
