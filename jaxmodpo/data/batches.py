"""The batches of a training run: which examples meet in which update, and where their tokens lie.

An update has exactly ``batch_size × accumulation`` examples, cut into microbatches. Every microbatch of
a run has one fixed shape, so that the step compiles once. *Padded*, each sequence has a row of its own.
*Packed*, sequences lie end to end in rows, marked by segment numbers; examples are grouped so that
microbatches hold about equally many tokens, and the rows are as long as the fullest one needs. An example's
sequences (chosen and rejected) are always in the same microbatch, though not in the same row.

Everything is a function of the seed and the update's number: the iterator's state is one number, and
no batch has to be replayed to find another. Nothing here depends on the devices but the number of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from jaxmodpo.data.examples import Examples
from jaxmodpo.data.packing import ROW_COUNTS, Packing, pack
from jaxmodpo.errors import UserError
from jaxmodpo.progress import Progress

Batching = Literal["packed", "padded"]

ROW_ARRAYS = ("tokens", "segments", "positions", "completions")
"""arrays of packed batches whose second axis is rows; that of the others is examples"""

PADDED_ARRAYS = ("tokens", "prompt_lengths", "lengths")
"""arrays of padded batches, besides the examples' own fields"""

SCORED_ARRAYS = (*ROW_ARRAYS, "places", "segment_numbers", *PADDED_ARRAYS)
"""what scoring needs of a batch, packed or padded"""

WINDOW = 64
"""updates among which examples are exchanged to even out the number of tokens"""

DEALS = 32
"""tries at cutting an update into microbatches of equally many tokens"""


@dataclass(frozen=True)
class Shape:
    """What every microbatch has in common.

    Attributes:
        rows: of tokens.
        length: tokens of a row.
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
    ``row_weights`` ``[m, P]`` float32, 1 for an example and 0 for an empty place, and the examples' own
    fields ``[m, P, …]``. Padded ones have ``tokens`` ``[m, P, S, T]``, ``prompt_lengths`` and ``lengths``
    ``[m, P, S]``. Packed ones have, for R rows of L tokens, ``tokens``, ``segments`` (from 1; 0 is padding),
    ``positions`` and ``completions`` (the segment's number where a token is to be learned, 0 elsewhere),
    all ``[m, R, L]`` int32; ``segment_numbers`` ``[m, K]``, from 1; and ``places`` ``[m, P, S]``, where a
    sequence lies: row × K + segment − 1.

    Args:
        examples: the data set.
        batch_size: examples in a microbatch (packed: on average).
        accumulation: microbatches in an update.
        epochs: passes over the data.
        seed: of the order.
        batching: packed or padded.
        spread: devices that a microbatch's rows are spread over; must divide the rows.
        cost: what a row's token costs, given the row's length, in any unit: packed rows get the length
            that makes the whole run cheapest. By default all tokens cost the same.

    Raises:
        UserError: padded rows that ``spread`` does not divide.
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
        spread: int = 1,
        cost: Callable[[int], float] = lambda length: 1.0,
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
        self._planned: tuple[int, np.ndarray] | None = None
        if batching == "packed":
            # All epochs are planned and packed here, once: the shape holds what this very packing needs.
            self._members = self._all_members()
            self._packing = self._pack(spread, cost)
            packing = self._packing
            self.shape = Shape(packing.rows, packing.length, packing.segments, self._members.shape[-1])
        else:
            if batch_size % spread:
                raise UserError(
                    f"a batch of {batch_size} rows cannot be spread over {spread} devices; make it a multiple "
                    f"of {spread}"
                )
            sequences, length = examples.tokens.shape[1:]
            self.shape = Shape(batch_size * sequences, length, 1, batch_size)

    # ------------------------------------------------------------------ the iterator

    @property
    def state(self) -> dict[str, int]:
        """Where the iterator stands: whole epochs, and updates of the current one, that it has yielded."""
        epoch, update = divmod(self._step, self.steps_per_epoch)
        return {"epoch": epoch, "update": update}

    def restore(self, state: Mapping[str, int]) -> None:
        """Go on from a saved state."""
        self._step = int(state["epoch"]) * self.steps_per_epoch + int(state["update"])

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        if self._step >= self.steps:
            raise StopIteration
        made = self.at(self._step)
        self._step += 1
        return made

    def at(self, step: int) -> dict[str, np.ndarray]:
        """Return the batch of an update, whatever the iterator's state."""
        members = self.members(step)
        batch = self._fields(members)
        if self.batching == "padded":
            source = np.maximum(members, 0)
            return batch | {name: getattr(self.examples, name)[source] for name in PADDED_ARRAYS}
        return batch | self._packed(step, members)

    def members(self, step: int) -> np.ndarray:
        """Return which examples an update has, ``[accumulation, P]``; empty places are −1 and stand last."""
        if self.batching == "packed":
            return self._members[step]
        epoch, update = divmod(step, self.steps_per_epoch)
        if self._planned is None or self._planned[0] != epoch:
            self._planned = epoch, self._plan(epoch)
        return self._planned[1][update]

    @property
    def by_rows(self) -> tuple[str, ...] | None:
        """Which arrays' second axis may be spread over devices; None for all."""
        return ROW_ARRAYS if self.batching == "packed" else None

    @property
    def waste(self) -> float:
        """Return the share of all positions, over the whole run, that hold no token."""
        real = int(self.examples.lengths.sum()) * self.epochs
        return 1 - real / (self.steps * self.accumulation * self.shape.rows * self.shape.length)

    # ------------------------------------------------------------------ who meets whom

    def _plan(self, epoch: int) -> np.ndarray:
        """Return an epoch's members, ``[updates, accumulation, P]``."""
        order = epoch_order(len(self.examples), epoch, self.seed)
        size, per_update, updates = self._batch_size, self.examples_per_update, self.steps_per_epoch
        whole = len(order) // per_update
        filled = np.concatenate([order, np.full(updates * per_update - len(order), -1)])
        if self.batching == "padded":
            return filled.reshape(updates, self.accumulation, size)
        lengths = np.append(self.examples.lengths.sum(1), 0)  # a place that is empty (−1) has length 0
        generator = np.random.default_rng([self.seed, epoch, 1])
        groups = [
            balanced(
                order[start * per_update : min(start + WINDOW, whole) * per_update], lengths, per_update, generator
            )
            for start in range(0, whole, WINDOW)
        ]
        groups += [filled[whole * per_update :].reshape(-1, per_update)]
        return dealt(np.concatenate(groups), lengths, self.accumulation, min(per_update, 2 * size), generator)

    def _all_members(self) -> np.ndarray:
        """Return the members of every update of the run, ``[steps, accumulation, P]``, P as small as it can be."""
        members = np.concatenate([self._plan(epoch) for epoch in range(self.epochs)])
        empties_last = np.argsort(members < 0, axis=-1, kind="stable")
        members = np.take_along_axis(members, empties_last, axis=-1)
        most = int((members >= 0).sum(-1).max())
        return members[..., :most]

    def _pack(self, spread: int, cost: Callable[[int], float]) -> Packing:
        """Pack every microbatch of the run."""
        sequences = self.examples.lengths.shape[1]
        sizes = np.where(self._members[..., None] >= 0, self.examples.lengths[self._members], 0)
        # More rows than sequences are never needed; fewer make rows longer and attention dearer.
        most = max(spread, self._batch_size * sequences)
        row_counts = [spread * multiple for multiple in ROW_COUNTS if spread * multiple <= most]
        return pack(sizes.reshape(self.steps * self.accumulation, -1), row_counts, cost)

    # ------------------------------------------------------------------ the arrays

    def _fields(self, members: np.ndarray) -> dict[str, np.ndarray]:
        """Return the examples' own fields and weights; an empty place copies the first example, without weight."""
        source = np.maximum(members, 0)
        fields = {name: array[source] for name, array in self.examples.fields.items()}
        return fields | {"row_weights": (members >= 0).astype(np.float32)}

    def _packed(self, step: int, members: np.ndarray) -> dict[str, np.ndarray]:
        """Return an update's rows, with each sequence in the place that the packing has for it."""
        shape, packing, (microbatches, examples) = self.shape, self._packing, members.shape
        sequences = self.examples.lengths.shape[1]
        arrays = {name: np.zeros((microbatches, shape.rows, shape.length), np.int32) for name in ROW_ARRAYS}
        places = np.zeros((microbatches, examples, sequences), np.int32)
        for part, place, sequence in np.ndindex(places.shape):
            example = members[part, place]
            if example < 0:
                continue
            # The packing numbers microbatches through the run, and a microbatch's sequences through its examples.
            here = step * self.accumulation + part, place * sequences + sequence
            row, segment = int(packing.row[here]), int(packing.segment[here])
            size = int(self.examples.lengths[example, sequence])
            prompt = int(self.examples.prompt_lengths[example, sequence])
            start = int(packing.start[here])
            end = start + size
            assert end <= shape.length and 1 <= segment <= shape.segments
            assert not arrays["segments"][part, row, start:end].any(), "two sequences share a place"
            arrays["tokens"][part, row, start:end] = self.examples.tokens[example, sequence, :size]
            arrays["segments"][part, row, start:end] = segment
            arrays["positions"][part, row, start:end] = np.arange(size)
            arrays["completions"][part, row, start + prompt : end] = segment
            places[part, place, sequence] = row * shape.segments + segment - 1
        numbers = np.arange(1, shape.segments + 1, dtype=np.int32)
        return {**arrays, "places": places, "segment_numbers": np.tile(numbers, (microbatches, 1))}


def epoch_order(examples: int, epoch: int, seed: int) -> np.ndarray:
    """Return the order of one epoch: any position can be found without replaying those before it."""
    return np.random.default_rng([seed, epoch]).permutation(examples)


def balanced(members: np.ndarray, lengths: np.ndarray, size: int, generator: np.random.Generator) -> np.ndarray:
    """Group examples, ``size`` to a group, so that all groups have about equally many tokens.

    The longest examples go to a group each, then the next longest, always to the emptiest group first.

    Args:
        members: indices into ``lengths``, in random order; as many as fill the groups.
        lengths: tokens of each example.
        size: examples in a group.
        generator: shuffles the groups, which the dealing leaves in no particular order, and their members.

    Returns:
        ``[groups, size]``.
    """
    groups = len(members) // size
    longest_first = members[np.argsort(-lengths[members], kind="stable")]
    totals = np.zeros(groups, np.int64)
    made = np.empty((groups, size), members.dtype)
    for number, round_ in enumerate(longest_first.reshape(size, groups)):
        emptiest_first = np.argsort(totals, kind="stable")
        made[emptiest_first, number] = round_
        totals[emptiest_first] += lengths[round_]
    return generator.permuted(generator.permutation(made), axis=1)


def dealt(
    groups: np.ndarray, lengths: np.ndarray, parts: int, places: int, generator: np.random.Generator
) -> np.ndarray:
    """Deal each group's examples to ``parts`` parts of about equally many tokens, at most ``places`` each.

    The longest example comes first and goes to the emptiest part. That is seldom the best there is, so
    the order is shaken a few times, and each group keeps the deal whose fullest part has the fewest tokens.

    Args:
        groups: ``[groups, size]`` indices into ``lengths``, −1 for empty.
        lengths: tokens of each example.
        parts: into how many.
        places: most examples in a part.
        generator: shakes.

    Returns:
        ``[groups, parts, places]``, −1 where a part has fewer.
    """
    if parts == 1:
        return groups[:, None]
    every = np.arange(len(groups))
    best = np.full((len(groups), parts, places), -1, groups.dtype)
    fullest = np.full(len(groups), np.iinfo(np.int64).max)
    for shake in np.linspace(0, 0.5, DEALS):
        noise = 1 + shake * generator.uniform(-1, 1, groups.shape)
        ordered = np.take_along_axis(groups, np.argsort(-lengths[groups] * noise, axis=1, kind="stable"), axis=1)
        count, total = (np.zeros((len(groups), parts), np.int64) for _ in range(2))
        made = np.full_like(best, -1)
        for column in ordered.T:
            part = np.where(count < places, total, np.iinfo(np.int64).max).argmin(1)
            made[every, part, count[every, part]] = column
            total[every, part] += lengths[column]
            count[every, part] += 1
        better = total.max(1) < fullest
        best[better], fullest[better] = made[better], total.max(1)[better]
    return best


def scored(batches: Batches, compute: Callable[[dict[str, np.ndarray]], np.ndarray]) -> np.ndarray:
    """Score every example of a data set once, in the batches' first epoch.

    Args:
        batches: with one microbatch an update.
        compute: from one update's batch to the scores of its places, ``[1, P, S]``.

    Returns:
        ``[n, S]`` float32, in the data set's order.
    """
    found = np.full(batches.examples.lengths.shape, np.nan, np.float32)
    with Progress("scoring", len(found), "examples", leave=False) as bar:
        for step in range(batches.steps_per_epoch):
            members = batches.members(step)
            batch = batches.at(step)
            members = members[members >= 0]
            found[members] = compute(batch)[0, : len(members)]
            bar.update(len(members))
    return found


def describe(batches: Batches) -> dict[str, Any]:
    """Return what a run's report says about its batches."""
    shape = batches.shape
    return {
        "batching": batches.batching,
        "rows": shape.rows,
        "row_length": shape.length,
        "padding_waste": round(batches.waste, 4),
        "tokens_per_epoch": int(batches.examples.lengths.sum()),
    }
