"""Which examples meet in an update, and in which of its microbatches, so that all have about
equally many tokens.

A packed microbatch is as long as the fullest one of the run. Were examples grouped at random, one
update of long texts would stretch the rows of all others, and the difference would be padding. So
examples change places with others of about the same time, never far from where the seed has put
them::

    order = epoch_order(len(lengths), epoch=0, seed=0)
    updates = balanced_updates(order, lengths, 16, generator)        # [updates, 16]
    balanced_microbatches(updates, lengths, 4, 8, generator)         # [updates, 4, 8], -1 for empty
"""

from __future__ import annotations

import numpy as np

RESTARTS = 32
"""tries at cutting an update into microbatches of equally many tokens"""


def epoch_order(examples: int, epoch: int, seed: int) -> np.ndarray:
    """Return the order of one epoch: any position can be found without replaying those before
    it.
    """
    return np.random.default_rng([seed, epoch]).permutation(examples)


def balanced_updates(
    members: np.ndarray, lengths: np.ndarray, size: int, generator: np.random.Generator
) -> np.ndarray:
    """Group examples, ``size`` to an update, so that all updates have about equally many tokens.

    The longest examples go to an update each, then the next longest, always to the emptiest update
    first.

    Args:
        members: indices into ``lengths``, in random order; as many as fill the updates.
        lengths: tokens of each example.
        size: examples in an update.
        generator: shuffles the updates, which would otherwise be sorted by their longest example,
            and their members.

    Returns:
        ``[updates, size]``.
    """
    count = len(members) // size
    by_length = np.argsort(-lengths[members], kind="stable")
    longest_first = members[by_length]
    tokens = np.zeros(count, np.int64)
    updates = np.empty((count, size), members.dtype)
    # One example for each update at a time, so that all are full at the same moment. Were an update
    # filled first that happens to be empty, it would end with more examples than others.
    for number, one_for_each in enumerate(longest_first.reshape(size, count)):
        emptiest_first = np.argsort(tokens, kind="stable")
        updates[emptiest_first, number] = one_for_each
        tokens[emptiest_first] += lengths[one_for_each]
    shuffled_updates = generator.permutation(updates)
    return generator.permuted(shuffled_updates, axis=1)


def balanced_microbatches(
    updates: np.ndarray,
    lengths: np.ndarray,
    microbatches: int,
    capacity: int,
    generator: np.random.Generator,
) -> np.ndarray:
    """Cut each update into microbatches of about equally many tokens.

    The longest example comes first and goes to the emptiest microbatch that has a place left
    (Graham's rule). That is seldom the best there is, so the greedy rule is restarted with the
    lengths multiplied by random factors, from none to a half off, and each update keeps the try
    whose fullest microbatch has the fewest tokens.

    Args:
        updates: ``[updates, size]`` indices into ``lengths``, −1 for empty.
        lengths: tokens of each example; the last one, which −1 means, is 0.
        microbatches: of an update.
        capacity: examples in a microbatch at most.
        generator: draws the factors.

    Returns:
        ``[updates, microbatches, most]``, −1 where a microbatch has fewer.
    """
    if microbatches == 1:
        return updates[:, None]
    # Each update keeps its own best try, so that the tries need not agree on anything.
    best = np.full((len(updates), microbatches, capacity), -1, updates.dtype)
    best_fullest = np.full(len(updates), np.iinfo(np.int64).max)
    for noise in np.linspace(0, 0.5, RESTARTS):
        factors = 1 + noise * generator.uniform(-1, 1, updates.shape)
        noisy_lengths = lengths[updates] * factors
        longest_first = np.argsort(-noisy_lengths, axis=1, kind="stable")
        ordered = np.take_along_axis(updates, longest_first, axis=1)
        attempt, tokens = _greedy(ordered, lengths, microbatches, capacity)
        fullest = tokens.max(1)
        is_better = fullest < best_fullest
        best[is_better] = attempt[is_better]
        best_fullest[is_better] = fullest[is_better]
    return best


def _greedy(
    ordered: np.ndarray, lengths: np.ndarray, microbatches: int, capacity: int
) -> tuple[np.ndarray, np.ndarray]:
    """Put each update's examples, in the order given, into the emptiest of its microbatches with a
    place left.

    Returns:
        The examples ``[updates, microbatches, most]``, −1 for empty, and the tokens ``[updates,
        microbatches]``.
    """
    updates = len(ordered)
    every_update = np.arange(updates)
    counts = np.zeros((updates, microbatches), np.int64)
    tokens = np.zeros((updates, microbatches), np.int64)
    members = np.full((updates, microbatches, capacity), -1, ordered.dtype)
    # A full microbatch looks as if it had more tokens than any other, and is never the emptiest.
    never_emptiest = np.iinfo(np.int64).max
    # All updates side by side: the loop runs over the examples of one, not over the run.
    for example in ordered.T:
        tokens_where_free = np.where(counts < capacity, tokens, never_emptiest)
        emptiest = tokens_where_free.argmin(axis=1)
        next_place = counts[every_update, emptiest]
        members[every_update, emptiest, next_place] = example
        tokens[every_update, emptiest] += lengths[example]
        counts[every_update, emptiest] += 1
    return members, tokens
