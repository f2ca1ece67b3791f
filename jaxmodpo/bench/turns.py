"""Contenders take turns, since a machine is slower at times: whoever has the bad minutes has them
in one round only::

    timings = in_turns({"ours": run_ours, "theirs": run_theirs}, rounds=3)
    timings["theirs"].median / timings["ours"].median
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Seconds of one contender, in the order of the rounds."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def fastest(self) -> float:
        """The round that counts where nothing but the machine makes rounds differ: nothing makes a
        machine faster than it is.
        """
        return min(self.seconds)

    @property
    def spread(self) -> float:
        """How far apart the slowest and the fastest round are, as a share of the median."""
        return (max(self.seconds) - min(self.seconds)) / self.median


def in_turns(runs: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Timing]:
    """Time all contenders, one after the other, several times.

    Args:
        runs: by name: does the work once and returns its seconds.
        rounds: at least one.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(1, rounds + 1):
        for name, run in runs.items():
            print(f"round {number} of {rounds}: {name}", file=sys.stderr)
            seconds[name].append(run())
    return {name: Timing(tuple(values)) for name, values in seconds.items()}
