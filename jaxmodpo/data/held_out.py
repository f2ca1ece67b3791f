"""Which examples are held out: all those of a share of the questions, so that no question is on
both sides.
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
    distinct = sorted(set(questions))
    shuffled = np.random.default_rng(seed).permutation(distinct)
    chosen = set(shuffled[: round(fraction * len(distinct))].tolist())
    return np.array([question in chosen for question in questions], bool)


def split_rows(rows: Sequence[Row], held: np.ndarray) -> tuple[list[Row], list[Row]]:
    """Return the rows to train on and those held out.

    Args:
        rows: such as pairs or rankings.
        held: ``[rows]`` bool, as :func:`held_out` returns it.
    """
    training = [row for row, is_held in zip(rows, held, strict=True) if not is_held]
    return training, [row for row, is_held in zip(rows, held, strict=True) if is_held]
