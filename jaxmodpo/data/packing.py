"""Bin packing: in which row each sequence of a microbatch lies, where it begins there, and under
which number.

What is packed: the sequences of one microbatch, into that microbatch's rows. Which examples share a
microbatch was decided before (``data/grouping.py``, ``data/exchanges.py``), and no sequence ever
moves to another. A row holds sequences end to end, so that little of a batch is padding. In a row
of three, with L = 12::

    tokens     a a a a b b b c c c c .
    segments   1 1 1 1 2 2 2 3 3 3 3 0      a segment number tells attention where a sequence ends
    starts     a at 0, b at 4, c at 7       its tokens' positions count from 0 again

Why it is decided once, for the whole run: the step is compiled for one shape, or for a few, so that
a row must be as long as the fullest row of any update of its shape (``data/row_lengths.py``). That
length is known only when all of them are packed, before the first update. Whoever builds a batch
reads the places from :class:`Packing` and never packs again, because a second packing (of the same
sequences in another order, or among another number of empty places) need not be the same one and
may not fit the shape that the first one was measured for.

What each try costs: packing is arithmetic on small arrays, a second or two for a run of hours. So
it is tried with several numbers of rows and in several orders, and the cheapest is kept::

    sizes = np.array([[7, 5, 4, 0], [6, 6, 2, 2]])      # two microbatches; 0 is no sequence
    packing = pack(sizes, row_counts=[1, 2], cost=lambda length: 1.0)
    packing.rows, packing.lengths                       # 1, [16, 16]: no padding at all
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jaxmodpo.data.row_lengths import price, row_lengths

RESTARTS = 8
"""tries at filling rows, each in another order of the sequences"""

FULLEST_SHARE = 5
"""one of so many microbatches, the fullest ones, is tried further"""

FURTHER_RESTARTS = 96
"""tries at filling the rows of those"""

TRIED_AT_ONCE = 4096
"""microbatches times tries that are packed side by side: enough for NumPy's calls to be few, and
little memory"""

ROW_COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""numbers of rows that are tried, as multiples of the devices that share them"""

SEQUENCES_OF_ROW = (1, 2, 3, 4, 5, 6, 8)
"""numbers of sequences in a row for which the number of rows is tried, too"""


@dataclass(frozen=True)
class Packing:
    """Where every sequence of a run lies: ``M`` microbatches of up to ``N`` sequences, in rows of
    one length within an update.

    Attributes:
        rows: of each microbatch.
        lengths: ``[U]``, tokens that the rows of each update hold.
        segments: most sequences in a row.
        row: ``[M, N]``, each sequence's row.
        start: ``[M, N]``, its first token's place in the row.
        segment: ``[M, N]``, its number in the row, from 1; 0 where there is no sequence.
    """

    rows: int
    lengths: np.ndarray
    segments: int
    row: np.ndarray
    start: np.ndarray
    segment: np.ndarray


def pack(
    sizes: np.ndarray,
    row_counts: Iterable[int],
    cost: Callable[[int], float],
    *,
    microbatches: int = 1,
    most_lengths: int = 1,
) -> Packing:
    """Pack a run's sequences, with the number of rows that makes the run cheapest.

    Few rows are long and make attention dear; many rows are short, but the fullest sequence of the
    run bounds their length from below, so that they hold more padding.

    Args:
        sizes: ``[M, N]`` tokens of each microbatch's sequences; 0 for none.
        row_counts: numbers of rows to try.
        cost: what a row's token costs, given the row's length, in any unit.
        microbatches: of an update, whose rows have one length.
        most_lengths: different lengths that the updates' rows may have.
    """
    best: _Attempt | None = None
    for rows in row_counts:
        row, loads = rows_of(sizes, rows)
        needed = loads.reshape(-1, microbatches * rows).max(1)
        lengths = row_lengths(needed, most_lengths, cost, microbatches)
        # Every row is computed as long as it is: padding is paid for like tokens.
        run_price = rows * price(lengths, cost, microbatches)
        if best is None or run_price < best.price:
            best = _Attempt(run_price, rows, lengths, row)
    assert best is not None, "no number of rows to try"
    return _laid_out(sizes, best.rows, best.lengths, best.row)


class _Attempt(NamedTuple):
    """A way of packing the run, and what it would cost."""

    price: float
    rows: int
    lengths: np.ndarray
    row: np.ndarray


def rows_of(sizes: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Put sequences into rows so that the fullest row is short, each microbatch for itself.

    The longest sequence goes first, always into the emptiest row (Graham's rule, at most 4/3 of the
    best). To come closer, the rule is restarted in other orders: the lengths are multiplied by
    random factors before they are sorted, and each microbatch keeps the try whose fullest row is
    shortest. The first try has no factors, so that restarts can only improve on the plain rule. The
    fullest microbatches, which decide how long all rows are, are tried far more often.

    Args:
        sizes: ``[M, N]`` tokens; 0 for none.
        rows: of each microbatch.

    Returns:
        The row of each sequence ``[M, N]``, and the tokens of each row ``[M, rows]``.
    """
    # The factors depend on N. That is harmless only because no one packs the same sequences twice.
    generator = np.random.default_rng(0)
    noise = generator.uniform(-0.5, 0.5, (RESTARTS, sizes.shape[1]))
    noise[0] = 0
    if rows == 1:
        # With a single row there is nothing to choose.
        return _best_of(sizes, rows, noise[:1])
    row, loads = _best_of(sizes, rows, noise)
    fullest_first = np.argsort(-loads.max(1), kind="stable")
    tried_further = math.ceil(len(sizes) / FULLEST_SHARE)
    fullest = fullest_first[:tried_further]
    noise = generator.uniform(-0.5, 0.5, (FURTHER_RESTARTS, sizes.shape[1]))
    other_row, other_loads = _best_of(sizes[fullest], rows, noise)
    is_better = other_loads.max(1) < loads[fullest].max(1)
    improved = fullest[is_better]
    row[improved] = other_row[is_better]
    loads[improved] = other_loads[is_better]
    return row, loads


def _best_of(sizes: np.ndarray, rows: int, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each microbatch's best try, given the tries' factors ``[tries, N]``; see
    :func:`rows_of`.
    """
    every_microbatch = np.arange(len(sizes))
    best_row = np.zeros(sizes.shape, np.int64)
    best_loads = np.full((len(sizes), rows), np.iinfo(np.int64).max)
    at_once = max(1, TRIED_AT_ONCE // len(sizes))
    for first in range(0, len(noise), at_once):
        row, loads = _tries(sizes, rows, noise[first : first + at_once])
        # Each microbatch for itself: one try is the best for some of them and another for others.
        fullest_rows = loads.max(2)
        shortest = fullest_rows.argmin(0)
        is_better = fullest_rows[shortest, every_microbatch] < best_loads.max(1)
        best_row[is_better] = row[shortest, every_microbatch][is_better]
        best_loads[is_better] = loads[shortest, every_microbatch][is_better]
    return best_row, best_loads


def _tries(sizes: np.ndarray, rows: int, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fill every microbatch's rows once for each of the tries' factors, ``[R, N]``.

    Returns:
        The row of each sequence ``[R, M, N]``, and the tokens of each row ``[R, M, rows]``.
    """
    tries = len(noise)
    microbatches, places = sizes.shape
    varied_sizes = sizes * (1 + noise[:, None])
    longest_first = np.argsort(-varied_sizes, axis=2, kind="stable")
    sizes_in_order = np.take_along_axis(sizes[None], longest_first, axis=2)
    # All tries of all microbatches side by side.
    row_in_order, loads = fill_rows(sizes_in_order.reshape(-1, places), rows)
    row = np.empty(longest_first.shape, np.int64)
    np.put_along_axis(row, longest_first, row_in_order.reshape(row.shape), axis=2)
    return row, loads.reshape(tries, microbatches, rows)


def fill_rows(sizes: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Put each microbatch's sequences, one after the other, into the row that is then emptiest.

    Args:
        sizes: ``[M, N]`` tokens of each microbatch's sequences, in the order in which they are put;
            0 for none.
        rows: of each microbatch.

    Returns:
        The row of each sequence ``[M, N]``, and the tokens of each row ``[M, rows]``.
    """
    microbatches, sequences = sizes.shape
    every_microbatch = np.arange(microbatches)
    # The first ones have a row each.
    alone = min(rows, sequences)
    row = np.zeros(sizes.shape, np.int64)
    row[:, :alone] = np.arange(alone)
    loads = np.zeros((microbatches, rows), np.int64)
    loads[:, :alone] = sizes[:, :alone]
    for sequence in range(alone, sequences):
        emptiest = loads.argmin(1)
        row[:, sequence] = emptiest
        loads[every_microbatch, emptiest] += sizes[:, sequence]
    return row, loads


def _laid_out(sizes: np.ndarray, rows: int, lengths: np.ndarray, row: np.ndarray) -> Packing:
    """Number the sequences of each row and lay them end to end, in the order in which ``sizes`` has
    them.
    """
    every_microbatch = np.arange(len(sizes))
    loads = np.zeros((len(sizes), rows), np.int64)
    counts = np.zeros((len(sizes), rows), np.int64)
    start = np.zeros(sizes.shape, np.int64)
    segment = np.zeros(sizes.shape, np.int64)
    for sequence in range(sizes.shape[1]):
        size = sizes[:, sequence]
        own_row = row[:, sequence]
        start[:, sequence] = loads[every_microbatch, own_row]
        # A place without a sequence (size 0) takes neither room nor a number.
        is_there = size > 0
        counts[every_microbatch, own_row] += is_there
        segment[:, sequence] = np.where(is_there, counts[every_microbatch, own_row], 0)
        loads[every_microbatch, own_row] += size
    packing = Packing(rows, lengths, int(counts.max()), row, start, segment)
    _check(packing, sizes)
    return packing


def _check(packing: Packing, sizes: np.ndarray) -> None:
    """Assert that every sequence has a place of its own, within its row.

    A mistake here would train on wrong tokens without any error, and takes milliseconds to find.
    """
    has_tokens = sizes > 0
    assert packing.row.shape == packing.start.shape == packing.segment.shape == sizes.shape
    assert ((packing.row >= 0) & (packing.row < packing.rows)).all(), (
        "a sequence in a row that is not there"
    )
    microbatches = len(sizes) // len(packing.lengths)
    length = np.repeat(packing.lengths, microbatches)[:, None]
    assert (packing.start + sizes <= length)[has_tokens].all(), (
        "a row holds more tokens than it is long"
    )
    assert (packing.segment[has_tokens] >= 1).all(), "a sequence without a number"
    assert (packing.segment <= packing.segments).all(), (
        "a row holds more sequences than there are numbers"
    )
    # Two sequences in one place would have equal numbers of microbatch, row and segment. One whole
    # number stands for the three, so that doubles are found by sorting.
    microbatch = np.arange(len(sizes))[:, None]
    row_numbers = microbatch * packing.rows + packing.row
    segment_places = row_numbers * (packing.segments + 1) + packing.segment
    assert len(np.unique(segment_places[has_tokens])) == has_tokens.sum(), (
        "two sequences share a place"
    )
