"""The batches of a training run: which examples meet in which update, and where their tokens lie.

An update has exactly ``batch_size × accumulation`` examples, cut into microbatches. Every
microbatch of a run has one fixed shape, so that the step compiles once; packed rows of a long run
may have one of a few lengths. *Padded*, each sequence has a row of its own. *Packed*, sequences lie
end to end in rows, marked by segment numbers; examples are grouped so that microbatches hold about
equally many tokens and fill rows evenly, and the rows are as long as the fullest one needs. An
example's sequences (a question's replies) are always in the same microbatch, though not in the same
row; a place for a sequence that an example does not have takes no room.

Everything is a function of the seed and the update's number: the iterator's state is one number,
and no batch has to be replayed to find another. Nothing here depends on the devices but the number
of rows.

An iterator, and one that goes on where it stopped::

    batches = Batches(examples, batch_size=4, accumulation=4, epochs=3, batching="packed")
    first = next(batches)       # first["tokens"] is [4 microbatches, rows, row length]
    state = batches.state       # {"epoch": 0, "update": 1}
    batches.restore(state)      # the next batch is that of update 1
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from jaxmodpo.data.examples import Examples
from jaxmodpo.data.exchanges import exchanged
from jaxmodpo.data.grouping import balanced_microbatches, balanced_updates, epoch_order
from jaxmodpo.data.packing import ROW_COUNTS, SEQUENCES_OF_ROW, Packing, pack
from jaxmodpo.progress import Progress

Batching = Literal["packed", "padded"]

PACKED_ARRAYS = ("tokens", "segments", "positions", "completions")
"""arrays of packed batches, ``[microbatches, rows, tokens]``"""

ROW_ARRAYS = (*PACKED_ARRAYS, "prompt_lengths", "lengths", "sequence_numbers")
"""arrays of packed or padded batches whose second axis is rows; that of the others is examples"""

LAYOUT_ARRAYS = (*ROW_ARRAYS, "places", "segment_numbers")
"""arrays that say which sequence lies where; all else are the examples' own fields"""

SCORED_ARRAYS = tuple(name for name in LAYOUT_ARRAYS if name != "sequence_numbers")
"""what scoring needs of a batch, packed or padded: nothing by which dropout is drawn"""

WINDOW = 64
"""updates among which examples are exchanged to even out tokens and rows"""


@dataclass(frozen=True)
class Shape:
    """What every microbatch has in common, at most.

    Attributes:
        rows: of tokens.
        length: tokens of a row, in an update that has the longest.
        segments: most sequences in a row.
        examples: most examples in a microbatch.
    """

    rows: int
    length: int
    segments: int
    examples: int


class Batches:
    """An iterator over a run's updates whose state can be saved and restored.

    Yields mappings of arrays with a leading axis of ``accumulation`` microbatches. Both kinds have
    ``row_weights`` ``[m, P]`` float32, 1 for an example and 0 for an empty place, the examples' own
    fields ``[m, P, …]``, and ``places`` ``[m, P, S]``, where each sequence lies; the place of one
    that an example does not have is 0, and means nothing.

    Padded ones have ``tokens`` ``[m, R, T]``, ``prompt_lengths`` and ``lengths`` ``[m, R]``; a
    place is a row. Packed ones have, for R rows of L tokens, ``tokens``, ``segments`` (from 1; 0 is
    padding), ``positions`` and ``completions`` (the segment's number where a token is to be
    learned, 0 elsewhere), all ``[m, R, L]`` int32, and ``segment_numbers`` ``[m, K]``, from 1; a
    place is row × K + segment − 1.

    ``sequence_numbers`` ``[m, R, K]``, K = 1 for padded ones, has the number in the data set of the
    sequence that lies there: example × S + sequence. Dropout is drawn by it, so that no layout and
    no mesh drops other values than another.

    Args:
        examples: the data set.
        batch_size: examples in a microbatch (packed: on average).
        accumulation: microbatches in an update.
        epochs: passes over the data.
        seed: of the order.
        batching: packed or padded.
        row_shards: devices that share a microbatch's rows evenly.
        cost: what a row's token costs, given the row's length, in any unit: packed rows get the
            length that makes the whole run cheapest. By default all tokens cost the same.
        most_lengths: different lengths that packed rows may have, if the run is long enough that
            what each saves is more than compiling it takes (:mod:`jaxmodpo.data.row_lengths`).

    Attributes:
        row_lengths: ``[steps]``, tokens of each update's rows.
    """

    def __init__(
        self,
        examples: Examples,
        *,
        batch_size: int,
        accumulation: int = 1,
        epochs: int = 1,
        seed: int = 0,
        batching: Batching = "padded",
        row_shards: int = 1,
        cost: Callable[[int], float] = lambda length: 1.0,
        most_lengths: int = 1,
    ):
        self.examples = examples
        self.accumulation = accumulation
        self.epochs = epochs
        self.seed = seed
        self.batching: Batching = batching
        self._batch_size = batch_size
        self.examples_per_update = batch_size * accumulation
        self.steps_per_epoch = -(-len(examples) // self.examples_per_update)
        self.steps = epochs * self.steps_per_epoch
        self._step = 0
        # All epochs are planned (and packed) here, once: the shape holds what this very plan needs.
        # A run that is resumed comes to the same plan, since it follows from the seed.
        self._members = self._all_members()
        capacity = self._members.shape[-1]
        if batching == "packed":
            packing = self._pack(row_shards, cost, most_lengths)
            self._packing = packing
            self.row_lengths = packing.lengths
            longest = int(packing.lengths.max())
            self.shape = Shape(packing.rows, longest, packing.segments, capacity)
        else:
            rows = -(-self._most_sequences() // row_shards) * row_shards
            self.shape = Shape(rows, examples.tokens.shape[-1], 1, capacity)
            self.row_lengths = np.full(self.steps, self.shape.length)

    # ------------------------------------------------------------------ the iterator

    @property
    def state(self) -> dict[str, int]:
        """Where the iterator stands: whole epochs, and updates of the current one, that it has
        yielded.
        """
        epoch, update = divmod(self._step, self.steps_per_epoch)
        return {"epoch": epoch, "update": update}

    def restore(self, state: Mapping[str, int]) -> None:
        """Go on from a saved state."""
        epoch = int(state["epoch"])
        update = int(state["update"])
        self._step = epoch * self.steps_per_epoch + update

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        if self._step >= self.steps:
            raise StopIteration
        batch = self.at(self._step)
        self._step += 1
        return batch

    def at(self, step: int) -> dict[str, np.ndarray]:
        """Return the batch of an update, whatever the iterator's state."""
        members = self.members(step)
        is_packed = self.batching == "packed"
        arrays = self._packed(step, members) if is_packed else self._padded(members)
        return self._fields(members) | arrays

    def members(self, step: int) -> np.ndarray:
        """Return which examples an update has, ``[accumulation, P]``; empty places are −1 and stand
        last.
        """
        return self._members[step]

    @property
    def by_rows(self) -> tuple[str, ...]:
        """Which arrays' second axis may be spread over devices."""
        return ROW_ARRAYS

    @property
    def waste(self) -> float:
        """Return the share of all positions, over the whole run, that hold no token."""
        tokens = int(self.examples.lengths.sum()) * self.epochs
        return 1 - tokens / (self.steps * self.positions)

    @property
    def positions(self) -> float:
        """Return how many places for tokens an update has, on average over the run."""
        return self.accumulation * self.shape.rows * float(self.row_lengths.mean())

    @property
    def longest_step(self) -> int:
        """Return an update whose rows are the longest: what it needs is enough for all others."""
        return int(self.row_lengths.argmax())

    # ------------------------------------------------------------------ who meets whom

    def _plan(self, epoch: int) -> np.ndarray:
        """Return an epoch's members, ``[updates, accumulation, P]``."""
        order = epoch_order(len(self.examples), epoch, self.seed)
        size = self.examples_per_update
        empty_count = self.steps_per_epoch * size - len(order)
        empty_places = np.full(empty_count, -1)
        filled = np.concatenate([order, empty_places])
        if self.batching == "padded":
            return filled.reshape(self.steps_per_epoch, self.accumulation, self._batch_size)
        # A place that is empty (−1) reads the last example, which has no tokens.
        no_sequences = np.zeros_like(self.examples.lengths[:1])
        sizes = np.concatenate([self.examples.lengths, no_sequences])
        lengths = sizes.sum(1)
        generator = np.random.default_rng([self.seed, epoch, 1])
        full_updates = len(order) // size
        groups = []
        # Examples change places within a window only, so that the order stays about what the seed
        # says.
        for start in range(0, full_updates, WINDOW):
            end = min(start + WINDOW, full_updates)
            window = order[start * size : end * size]
            groups.append(balanced_updates(window, lengths, size, generator))
        # The last update may be short; it keeps what the order leaves, and the empty places.
        last_update = filled[full_updates * size :].reshape(-1, size)
        updates = np.concatenate([*groups, last_update])
        # Room for twice the average: a microbatch of many short examples balances one of few long
        # ones.
        capacity = min(size, 2 * self._batch_size)
        members = balanced_microbatches(updates, lengths, self.accumulation, capacity, generator)
        evened = exchanged(members[:full_updates], sizes, WINDOW, generator)
        return np.concatenate([evened, members[full_updates:]])

    def _all_members(self) -> np.ndarray:
        """Return the members of every update of the run, ``[steps, accumulation, P]``, P as small
        as it can be.
        """
        members = np.concatenate([self._plan(epoch) for epoch in range(self.epochs)])
        # Empty places cost memory in every field of every batch. With all of them last, P can be
        # cut to what the fullest microbatch of the run needs. The sort is stable: it keeps the
        # order of the examples, which the greedy grouping has decided.
        empties_last = np.argsort(members < 0, axis=-1, kind="stable")
        members = np.take_along_axis(members, empties_last, axis=-1)
        capacity = int((members >= 0).sum(-1).max())
        return members[..., :capacity]

    def _most_sequences(self) -> int:
        """Return how many sequences the fullest microbatch of the run has."""
        is_there = self.examples.lengths > 0
        # An empty place (−1) reads the last entry, which has no sequences.
        sequences = np.append(is_there.sum(axis=1), 0)
        of_microbatches = sequences[self._members].sum(axis=-1)
        return int(of_microbatches.max())

    def _pack(self, row_shards: int, cost: Callable[[int], float], most_lengths: int) -> Packing:
        """Pack every microbatch of the run."""
        is_filled = self._members[..., None] >= 0
        sizes = np.where(is_filled, self.examples.lengths[self._members], 0)
        # More rows than sequences are never needed; fewer make rows longer and attention dearer.
        most_sequences = self._most_sequences()
        largest_row_count = -(-most_sequences // row_shards) * row_shards
        row_counts = {row_shards * multiple for multiple in ROW_COUNTS}
        # Where lengths are about equal, rows of exactly two, three and so on are the fullest.
        for sequences_of_row in SEQUENCES_OF_ROW:
            rows = -(-most_sequences // sequences_of_row)
            row_counts.add(-(-rows // row_shards) * row_shards)
        # Only multiples of the devices: each of them has as many rows as any other.
        row_counts = sorted(count for count in row_counts if count <= largest_row_count)
        return pack(
            sizes.reshape(self.steps * self.accumulation, -1),
            row_counts,
            cost,
            microbatches=self.accumulation,
            most_lengths=most_lengths,
        )

    # ------------------------------------------------------------------ the arrays

    def _fields(self, members: np.ndarray) -> dict[str, np.ndarray]:
        """Return the examples' own fields and weights; an empty place copies the first example,
        without weight.
        """
        indices = np.maximum(members, 0)
        fields = {name: array[indices] for name, array in self.examples.fields.items()}
        fields["row_weights"] = (members >= 0).astype(np.float32)
        return fields

    def _padded(self, members: np.ndarray) -> dict[str, np.ndarray]:
        """Return an update's rows, one for each sequence; a row that is left over repeats the first
        example's first sequence, which no place names.
        """
        examples = self.examples
        microbatches, most_examples = members.shape
        shape = (microbatches, self.shape.rows)
        # The example and the sequence that lie in each row.
        example_of = np.zeros(shape, np.int64)
        sequence_of = np.zeros(shape, np.int64)
        row_of_sequence = np.zeros(
            (microbatches, most_examples, examples.lengths.shape[1]), np.int32
        )
        is_there = (members[..., None] >= 0) & (examples.lengths[members] > 0)
        for microbatch in range(microbatches):
            member, sequence = np.nonzero(is_there[microbatch])
            rows = np.arange(len(member))
            example_of[microbatch, rows] = members[microbatch, member]
            sequence_of[microbatch, rows] = sequence
            row_of_sequence[microbatch, member, sequence] = rows
        return {
            "tokens": examples.tokens[example_of, sequence_of],
            "prompt_lengths": examples.prompt_lengths[example_of, sequence_of],
            "lengths": examples.lengths[example_of, sequence_of],
            "sequence_numbers": self._numbers(example_of, sequence_of)[..., None],
            "places": row_of_sequence,
        }

    def _packed(self, step: int, members: np.ndarray) -> dict[str, np.ndarray]:
        """Return an update's rows, with each sequence in the place that the packing has for it."""
        shape = self.shape
        microbatches, examples = members.shape
        sequences = self.examples.lengths.shape[1]
        rows_shape = (microbatches, shape.rows, int(self.row_lengths[step]))
        arrays = {name: np.zeros(rows_shape, np.int32) for name in PACKED_ARRAYS}
        sum_numbers = np.zeros((microbatches, examples, sequences), np.int32)
        sequence_numbers = np.zeros((microbatches, shape.rows, shape.segments), np.int32)
        for microbatch, member, sequence in np.ndindex(sum_numbers.shape):
            example = int(members[microbatch, member])
            if example < 0 or self.examples.lengths[example, sequence] == 0:
                continue
            # The packing numbers microbatches through the run, and a microbatch's sequences through
            # its examples.
            packed = (step * self.accumulation + microbatch, member * sequences + sequence)
            row = int(self._packing.row[packed])
            segment = int(self._packing.segment[packed])
            rows = {name: array[microbatch, row] for name, array in arrays.items()}
            self._lay(rows, int(self._packing.start[packed]), segment, example, sequence)
            # Where the loss finds the sequence's sum among those of all rows and segments.
            sum_numbers[microbatch, member, sequence] = row * shape.segments + segment - 1
            sequence_numbers[microbatch, row, segment - 1] = self._numbers(example, sequence)
        numbers = np.arange(1, shape.segments + 1, dtype=np.int32)
        return {
            **arrays,
            "sequence_numbers": sequence_numbers,
            "places": sum_numbers,
            "segment_numbers": np.tile(numbers, (microbatches, 1)),
        }

    def _numbers(self, example: Any, sequence: Any) -> Any:
        """Return the numbers of sequences in the data set."""
        return np.asarray(example * self.examples.lengths.shape[1] + sequence, np.int32)

    def _lay(
        self, row: dict[str, np.ndarray], start: int, segment: int, example: int, sequence: int
    ) -> None:
        """Write one sequence into the arrays of its row, ``[L]`` each, from ``start`` on."""
        size = int(self.examples.lengths[example, sequence])
        prompt = int(self.examples.prompt_lengths[example, sequence])
        end = start + size
        # A packing that does not fit its batch would train on wrong tokens without a word.
        assert end <= len(row["tokens"]) and 1 <= segment <= self.shape.segments
        assert not row["segments"][start:end].any(), "two sequences share a place"
        row["tokens"][start:end] = self.examples.tokens[example, sequence, :size]
        row["segments"][start:end] = segment
        row["positions"][start:end] = np.arange(size)
        # The prompt is read and not learned: its tokens are no part of the completion.
        row["completions"][start + prompt : end] = segment


def score_in_batches(
    batches: Batches, compute: Callable[[dict[str, np.ndarray]], np.ndarray]
) -> np.ndarray:
    """Score every example of a data set once, in the batches' first epoch.

    Args:
        batches: with one microbatch an update.
        compute: from one update's batch to the scores of its places, ``[1, P, S]``.

    Returns:
        ``[n, S]`` float32, in the data set's order; 0 for sequences that an example does not have.
    """
    # Not a number until it is scored: an example that was forgotten is never taken for one with a
    # score of 0.
    scores = np.full(batches.examples.lengths.shape, np.nan, np.float32)
    with Progress("scoring", len(scores), "examples", leave=False) as bar:
        for step in range(batches.steps_per_epoch):
            members = batches.members(step)
            batch = batches.at(step)
            members = members[members >= 0]
            # Empty places stand last, so that the scores of examples are the first ones.
            scores[members] = compute(batch)[0, : len(members)]
            bar.update(len(members))
    return np.where(batches.examples.lengths > 0, scores, np.float32(0))


def describe(batches: Batches) -> dict[str, Any]:
    """Return what a run's report says about its batches."""
    shape = batches.shape
    return {
        "batching": batches.batching,
        "rows": shape.rows,
        "row_length": shape.length,
        "row_lengths": np.unique(batches.row_lengths).tolist(),
        "padding_waste": round(batches.waste, 4),
        "tokens_per_epoch": int(batches.examples.lengths.sum()),
    }
