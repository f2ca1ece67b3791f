"""Questions change places so that replies fill rows of two evenly, whatever the devices are."""

from __future__ import annotations

import numpy as np
import pytest

from jaxmodpo.data.batches import WINDOW, Batches
from jaxmodpo.data.exchanges import SLACK, TOLERANCE, exchanged, fullest_rows
from jaxmodpo.data.reference_lengths import reference_examples, reference_lengths
from jaxmodpo.data.row_lengths import rounded

QUESTIONS = 1024


def some_sizes(count: int = QUESTIONS) -> np.ndarray:
    """Tokens of questions' two replies, and of an empty place, ``[count + 1, 2]``."""
    _, lengths = reference_lengths(count, np.random.default_rng(0))
    return np.concatenate([lengths, np.zeros((1, 2), np.int32)])


def needed(members: np.ndarray, sizes: np.ndarray, rows: int) -> np.ndarray:
    """Tokens of each microbatch's fullest row, ``[U, m]``."""
    of_microbatches = sizes[members].reshape(-1, members.shape[-1] * 2)
    return fullest_rows(of_microbatches, rows).reshape(members.shape[:2])


def test_graham_puts_the_longest_first_and_always_into_the_emptiest_row():
    sizes = np.array([[100, 90, 60, 70], [50, 40, 50, 20], [500, 10, 10, 10]])
    assert fullest_rows(sizes, 2).tolist() == [160, 90, 500]
    assert fullest_rows(sizes, 1).tolist() == sizes.sum(1).tolist()
    assert fullest_rows(sizes, 4).tolist() == sizes.max(1).tolist()


def test_exchanges_stay_in_their_window_and_lose_no_example():
    sizes = some_sizes()
    before = np.random.default_rng(1).permutation(QUESTIONS).reshape(-1, 2, 8)
    before[::5, 0, 3] = -1
    after = exchanged(before, sizes, 16, np.random.default_rng(2))
    assert after.shape == before.shape and not np.array_equal(after, before)
    for start in range(0, len(before), 16):
        window = slice(start, start + 16)
        np.testing.assert_array_equal(np.sort(after[window].ravel()), np.sort(before[window], None))
    is_empty = after < 0
    assert (is_empty[..., :-1] <= is_empty[..., 1:]).all(), "empty places stand last"


def test_fewer_microbatches_need_more_than_the_goal_and_those_share_updates():
    sizes = some_sizes()
    before = np.random.default_rng(1).permutation(QUESTIONS).reshape(-1, 4, 8)
    after = exchanged(before, sizes, 64, np.random.default_rng(2))
    goal = rounded(int(SLACK * sizes.sum() / (QUESTIONS // 8) / 8))
    beyond_before = needed(before, sizes, 8) > goal
    beyond_after = needed(after, sizes, 8) > goal
    assert beyond_after.sum() < beyond_before.sum() / 2
    # As few updates as hold them: all but one of these need long rows in every microbatch.
    updates_beyond = beyond_after.any(1).sum()
    assert updates_beyond == -(-beyond_after.sum() // 4) < beyond_before.any(1).sum() / 2


def test_microbatches_of_equally_many_tokens_keep_about_as_many():
    # Each question is as long as the one that stands at its place in every other microbatch.
    lengths = np.tile(np.linspace(200, 900, 8).astype(int), 32)
    longer = np.random.default_rng(0).uniform(0.5, 0.7, len(lengths))
    longer_reply = (lengths * longer).astype(int)
    sizes = np.stack([longer_reply, lengths - longer_reply], axis=1)
    sizes = np.concatenate([sizes, np.zeros((1, 2), int)])
    before = np.arange(256).reshape(32, 1, 8)
    after = exchanged(before, sizes, 32, np.random.default_rng(0))
    tokens = sizes[after].sum(axis=(2, 3))
    assert tokens.max() - tokens.min() <= 4 * TOLERANCE * tokens.mean()
    assert needed(after, sizes, 8).mean() < needed(before, sizes, 8).mean()


@pytest.mark.parametrize("shape", [(0, 1, 4), (1, 1, 4), (1, 2, 1), (2, 1, 1)])
def test_the_smallest_runs_have_nothing_to_exchange(shape):
    members = np.arange(np.prod(shape)).reshape(shape)
    sizes = np.concatenate([np.full((members.size, 1), 7), [[0]]])
    after = exchanged(members, sizes, 64, np.random.default_rng(0))
    assert after.shape == shape and np.sort(after, None).tolist() == members.ravel().tolist()


def test_who_meets_whom_is_the_same_on_every_number_of_devices():
    examples = reference_examples(200, vocab_size=9)
    plans = []
    for devices in (1, 2, 8):
        batches = Batches(
            examples,
            batch_size=8,
            accumulation=2,
            epochs=2,
            batching="packed",
            row_shards=devices,
            most_lengths=3,
        )
        plans.append(np.stack([batches.members(step) for step in range(batches.steps)]))
    np.testing.assert_array_equal(plans[0], plans[1])
    np.testing.assert_array_equal(plans[0], plans[2])


def test_no_example_leaves_the_window_that_the_seed_has_put_it_in():
    count = 2 * WINDOW * 4
    examples = reference_examples(count, vocab_size=9)
    batches = Batches(examples, batch_size=4, batching="packed", seed=3)
    order = np.random.default_rng([3, 0]).permutation(count)
    for window in range(2):
        steps = range(window * WINDOW, (window + 1) * WINDOW)
        members = np.concatenate([batches.members(step) for step in steps])
        expected = order[window * WINDOW * 4 : (window + 1) * WINDOW * 4]
        np.testing.assert_array_equal(np.sort(members[members >= 0]), np.sort(expected))
