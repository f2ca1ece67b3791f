"""Questions change places among microbatches, so that sequences fill rows of two evenly.

Microbatches of equally many tokens (``data/grouping.py``) are enough where a row holds many
sequences. Where each device gets one pair, a row holds two replies, and it matters which lengths a
microbatch has: a long one needs a short one beside it. So microbatches are tried in rows of two
sequences, the fewest that can be evened out at all, whatever the devices are: rows of more only
pack better, and the order of the examples must not depend on where they are computed. Two
microbatches exchange questions where fewer tokens are then beyond a goal, which is a little more
than the mean of all rows::

    # Two microbatches of two questions, each with two replies.
    sizes = np.array([[100, 90, 60, 70], [50, 40, 50, 20]])
    # Rows of 100 + 60 and 90 + 70 tokens, and of 50 + 40 and 50 + 20.
    fullest_rows(sizes, rows=2)         # [160, 90]

Exchanges leave the number of tokens of a microbatch about as it was, so that rows of many sequences
are as full as before. Nothing moves further than a window of updates. What no exchange evens out
(single texts that are longer than the goal) meets in the same updates, so that few of them need
long rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxmodpo.data.packing import fill_rows
from jaxmodpo.data.row_lengths import rounded

ROUNDS = 800
"""times that a microbatch is a partner in a possible exchange"""

BINS_OF_ALL_ROUNDS = 64
"""microbatches for which all rounds are worth their time; fewer try proportionally fewer"""

SLACK = 1.05
"""tokens of a row, before they are rounded up, that are the goal, as a multiple of the mean"""

TOLERANCE = 0.005
"""by how much of both their tokens two microbatches may differ after an exchange, if they did not
differ more before"""

WEIGHT_BEYOND_GOAL = 1000
"""so many tokens that rows below the goal lose are worth as much as one that a longer row loses"""


def exchanged(
    members: np.ndarray, sizes: np.ndarray, window: int, generator: np.random.Generator
) -> np.ndarray:
    """Return microbatches whose fullest row of two sequences is as short as exchanges make it.

    Args:
        members: ``[U, m, P]`` examples of each update's microbatches, −1 for empty places.
        sizes: ``[n + 1, S]`` tokens of each example's sequences; the last, which −1 means, are 0.
        window: updates among which examples change places.
        generator: draws who exchanges what.

    Returns:
        ``[U, m, P]``, empty places last.
    """
    updates, microbatches, places = members.shape
    if updates * microbatches < 2:
        return members
    search = _Search(members.reshape(-1, places), sizes, window * microbatches, generator)
    search.run()
    grouped = search.members
    if microbatches > 1:
        grouped = grouped[search.needy_together(microbatches)]
    return grouped.reshape(members.shape)


def fullest_rows(sizes: np.ndarray, rows: int) -> np.ndarray:
    """Return the tokens of each microbatch's fullest row, ``[B]``, by Graham's rule: the longest
    sequence first, always into the emptiest row.

    Args:
        sizes: ``[B, N]`` tokens of each microbatch's sequences; 0 for none.
        rows: of each microbatch.
    """
    longest_first = -np.sort(-sizes, axis=1)
    _, loads = fill_rows(longest_first, rows)
    return loads.max(1)


class _Exchanges(NamedTuple):
    """Possible exchanges of ``K`` pairs of microbatches, each of one question for another.

    Attributes:
        first: ``[K]``, a microbatch.
        first_place: ``[K]``, where its question lies.
        second: ``[K]``, another microbatch.
        second_place: ``[K]``, where its question lies.
        growth: ``[K]``, tokens that the first one gains and the second one loses.
    """

    first: np.ndarray
    first_place: np.ndarray
    second: np.ndarray
    second_place: np.ndarray
    growth: np.ndarray


class _Search:
    """Microbatches of a run's epoch in which questions change places.

    Attributes:
        members: ``[B, P]``.
    """

    def __init__(
        self,
        members: np.ndarray,
        sizes: np.ndarray,
        window: int,
        generator: np.random.Generator,
    ):
        self.members = np.take_along_axis(
            members, np.argsort(members < 0, axis=1, kind="stable"), axis=1
        )
        self._counts = (self.members >= 0).sum(1)
        self._sizes = sizes
        self._lengths = sizes.sum(1)
        self._generator = generator
        self._window = np.arange(len(members)) // window
        # Half as many rows as sequences, of a microbatch with as many as the average.
        sequences = int((sizes[self.members] > 0).sum())
        self._rows = max(1, -(-sequences // (2 * len(members))))
        self._tokens = self._lengths[self.members].sum(1)
        self._needed = self._fullest(self.members)
        self._goal = rounded(int(SLACK * self._tokens.mean() / self._rows))

    def run(self) -> None:
        """Exchange questions for as many rounds as that is worth."""
        share = min(1.0, len(self.members) / BINS_OF_ALL_ROUNDS)
        for _ in range(int(ROUNDS * share)):
            if (self._needed <= self._goal).all():
                return
            self._round()

    def needy_together(self, microbatches: int) -> np.ndarray:
        """Return an order of the microbatches, ``[B]``, in which those that need more than the goal
        meet in the same updates of their window.
        """
        beyond = np.maximum(self._needed, self._goal)
        neediest_first = np.lexsort((-beyond, self._window))
        updates = neediest_first.reshape(-1, microbatches)
        # Not the neediest updates first, but in any order.
        noise = self._generator.random(len(updates))
        shuffled = np.lexsort((noise, self._window[updates[:, 0]]))
        return updates[shuffled].ravel()

    def _fullest(self, members: np.ndarray) -> np.ndarray:
        microbatches, places = members.shape
        sequences = places * self._sizes.shape[1]
        sizes = self._sizes[members].reshape(microbatches, sequences)
        return fullest_rows(sizes, self._rows)

    def _round(self) -> None:
        """Try one exchange in each of many pairs of microbatches, and keep those that help."""
        first, second = self._pairs()
        if not len(first):
            return
        exchanges = self._possible(first, second)
        first = exchanges.first
        second = exchanges.second
        every_pair = np.arange(len(first))
        first_after = self.members[first]
        second_after = self.members[second]
        first_question = first_after[every_pair, exchanges.first_place]
        second_question = second_after[every_pair, exchanges.second_place]
        first_after[every_pair, exchanges.first_place] = second_question
        second_after[every_pair, exchanges.second_place] = first_question

        needed = self._fullest(np.concatenate([first_after, second_after]))
        first_needed, second_needed = np.split(needed, 2)
        cost_before = self._cost(self._needed[first]) + self._cost(self._needed[second])
        cost_after = self._cost(first_needed) + self._cost(second_needed)
        helps = cost_after <= cost_before
        first = first[helps]
        second = second[helps]
        self.members[first] = first_after[helps]
        self.members[second] = second_after[helps]
        self._needed[first] = first_needed[helps]
        self._needed[second] = second_needed[helps]
        self._tokens[first] += exchanges.growth[helps]
        self._tokens[second] -= exchanges.growth[helps]

    def _possible(self, first: np.ndarray, second: np.ndarray) -> _Exchanges:
        """Choose any question of each first microbatch, and any of the second that leaves both
        about as full; pairs that have none are left out.
        """
        uniform = self._generator.random(len(first))
        first_place = (uniform * self._counts[first]).astype(np.int64)
        first_question = self.members[first, first_place]
        growth = self._lengths[self.members[second]] - self._lengths[first_question][:, None]
        difference = self._tokens[first] - self._tokens[second]
        tolerance = TOLERANCE * (self._tokens[first] + self._tokens[second])
        largest_difference = np.maximum(tolerance, np.abs(difference))
        is_possible = np.abs(difference[:, None] + 2 * growth) <= largest_difference[:, None]
        is_possible &= self.members[second] >= 0
        noise = self._generator.random(is_possible.shape)
        second_place = np.where(is_possible, noise, -1).argmax(1)
        pair = np.flatnonzero(is_possible.any(1))
        return _Exchanges(
            first[pair],
            first_place[pair],
            second[pair],
            second_place[pair],
            growth[pair, second_place[pair]],
        )

    def _pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Return random pairs of a window's microbatches of which one needs more than the goal."""
        noise = self._generator.random(len(self.members))
        # Windows are whole numbers, and the noise is below 1: each window's are in random order.
        shuffled = np.argsort(self._window + noise)
        even = len(shuffled) // 2 * 2
        first = shuffled[:even:2]
        second = shuffled[1:even:2]
        is_needy = np.maximum(self._needed[first], self._needed[second]) > self._goal
        chosen = is_needy & (self._window[first] == self._window[second])
        return first[chosen], second[chosen]

    def _cost(self, needed: np.ndarray) -> np.ndarray:
        """Return the tokens that rows need, those beyond the goal many times over."""
        return WEIGHT_BEYOND_GOAL * np.maximum(needed, self._goal) + needed
