"""How long the rows of each update are: one length for all, or a few where that saves more than it
costs.

A step is compiled for one length of rows, and the fullest row of a run decides it. Where each
device has only a row or two, one long text stretches the rows of all updates, most of which could
do with shorter ones. So updates may have one of a few lengths. Each further length is compiled by
itself, which takes as long as many updates: it is taken only where it saves more than that::

    needed = np.array([800, 790, 1020, 810])        # tokens of each update's fullest row
    row_lengths(needed, most=2, cost=lambda length: 1.0)    # of a run of thousands like these:
                                                            # 832, 832, 1024, 832
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

MOST_LENGTHS = 3
"""lengths that the rows of a training's updates may have"""

MICROBATCHES_OF_COMPILING = 50
"""microbatches that take as long as compiling a step: a Mistral 7B takes about 45 s to compile for
16 TPU chips, and half a second to a second for a microbatch of 16 pairs there"""


def rounded(longest: int) -> int:
    """Round the tokens of the fullest row up to a length that kernels like.

    Longer rows are rounded up further: attention kernels work in blocks.
    """
    multiple = 8
    if longest > 512:
        multiple = 32 if longest <= 1024 else 64
    return -(-longest // multiple) * multiple


def row_lengths(
    needed: np.ndarray, most: int, cost: Callable[[int], float], microbatches: int = 1
) -> np.ndarray:
    """Return the length of each update's rows, ``[U]``.

    Args:
        needed: ``[U]`` tokens of each update's fullest row.
        most: different lengths.
        cost: what a row's token costs, given the row's length, in any unit.
        microbatches: of an update. A step of several is compiled as fast as one of one, and saves
            several times as much.
    """
    lengths = np.array([rounded(int(tokens)) for tokens in needed])
    distinct, counts = np.unique(lengths, return_counts=True)
    prices = np.array([length * cost(int(length)) for length in distinct])
    updates = len(needed)
    # All updates as long as the longest, and nothing compiled besides.
    best = distinct[-1:]
    best_price = prices[-1] * updates
    compiling = _compiling(float(prices[-1]), microbatches)
    for further in range(1, most):
        for shorter in itertools.combinations(range(len(distinct) - 1), further):
            chosen = np.array([*shorter, len(distinct) - 1])
            # Each update takes the shortest of the chosen lengths that holds it.
            taken = chosen[np.searchsorted(chosen, np.arange(len(distinct)))]
            price = (prices[taken] * counts).sum() + further * compiling
            if price < best_price:
                best = distinct[chosen]
                best_price = price
    return best[np.searchsorted(best, lengths)]


def price(lengths: np.ndarray, cost: Callable[[int], float], microbatches: int = 1) -> float:
    """Return what a row of all updates costs, and what compiling further lengths does.

    Args:
        lengths: ``[U]`` tokens of each update's rows.
        cost: as in :func:`row_lengths`.
        microbatches: of an update.
    """
    distinct, counts = np.unique(lengths, return_counts=True)
    prices = np.array([length * cost(int(length)) for length in distinct])
    further = len(distinct) - 1
    return float((prices * counts).sum()) + further * _compiling(float(prices[-1]), microbatches)


def _compiling(longest_price: float, microbatches: int) -> float:
    """Return what compiling a further length costs, given the price of the longest row."""
    return MICROBATCHES_OF_COMPILING / microbatches * longest_price
