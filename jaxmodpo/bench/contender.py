"""What ``bench step`` and ``bench reward`` time: one way of training, ours or another trainer's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxmodpo.bench.turns import Timing
from jaxmodpo.files import Row

RIVAL = "TRL"
"""the beginning of the names of those with which everyone is compared"""


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
        settings: what it was given, by name, as JSON values: two trainers are compared fairly only
            where a reader sees in what they differ.
    """

    name: str
    pairs: int
    tokens: int
    operations: float
    peak: int | None
    run: Callable[[], float]
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def is_rival(self) -> bool:
        return self.name.startswith(RIVAL)

    def as_row(self, timing: Timing) -> Row:
        """Return what was measured of it, as JSON values."""
        return {
            "name": self.name,
            "settings": dict(self.settings),
            "pairs": self.pairs,
            "tokens": self.tokens,
            "operations": self.operations,
            "peak_bytes": self.peak,
            "seconds": list(timing.seconds),
            "median": timing.median,
            "spread": timing.spread,
        }


def against_rivals(
    contender: Contender, contenders: Sequence[Contender], seconds: Mapping[str, float]
) -> list[str]:
    """Return how many times as many pairs a second a contender trains as each rival, for a table.

    Args:
        contender: the one that is compared.
        contenders: all of them, in the table's order.
        seconds: of each, by name.
    """
    cells: list[str] = []
    for rival in contenders:
        if rival.is_rival:
            speed = contender.pairs / seconds[contender.name]
            rival_speed = rival.pairs / seconds[rival.name]
            cells.append(f"{speed / rival_speed:.2f}×")
    return cells


def headings_of_rivals(contenders: Sequence[Contender]) -> list[str]:
    """Return the headings of the columns that :func:`against_rivals` fills."""
    return [f"against {contender.name}" for contender in contenders if contender.is_rival]
