"""Which examples are held out: all those of a share of the questions, so that no question is on
both sides.

Were pairs held out one by one, a held-out pair's question would most often be in training too, with
other replies, and the held-out loss would look better than any loss on new questions::

    is_held_out = held_out(["q1", "q1", "q2", "q3"], fraction=0.34, seed=0)
    training, validation = split_rows(pairs, is_held_out)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Row = TypeVar("Row")


def held_out(questions: Sequence[str], fraction: float, seed: int) -> np.ndarray:
    """Choose which examples are held out: all those of a share of the questions.

    Args:
        questions: each example's question id.
        fraction: of the distinct questions.
        seed: of the choice.

    Returns:
        ``[examples]`` bool.
    """
    # Sorted, so that the choice depends on which questions there are and not on the file's order.
    distinct = sorted(set(questions))
    shuffled = np.random.default_rng(seed).permutation(distinct)
    count = round(fraction * len(distinct))
    held_out_questions = set(shuffled[:count].tolist())
    return np.array([question in held_out_questions for question in questions], bool)


def split_rows(rows: Sequence[Row], is_held_out: np.ndarray) -> tuple[list[Row], list[Row]]:
    """Return the rows to train on and those held out.

    Args:
        rows: such as pairs or rankings.
        is_held_out: ``[rows]`` bool, as :func:`held_out` returns it.
    """
    training: list[Row] = []
    validation: list[Row] = []
    for row, is_validation in zip(rows, is_held_out, strict=True):
        (validation if is_validation else training).append(row)
    return training, validation
