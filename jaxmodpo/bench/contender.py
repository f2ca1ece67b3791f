"""What ``bench step`` times: one way of training, ours or another trainer's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(kw_only=True)
class Contender:
    """One configuration that is timed.

    Attributes:
        name: for the table.
        pairs: in the timed updates.
        tokens: real ones in the timed updates.
        operations: that those tokens need.
        peak: bytes a device needs, or None.
        run: does the timed updates and returns seconds.
    """

    name: str
    pairs: int
    tokens: int
    operations: float
    peak: int | None
    run: Callable[[], float]
