"""Samplers that are timed in turns, so that another program on the machine slows all of them.

The fastest of two rounds, after one that compiles::

    samplers = [TimedSampler("64 slots", sample, compiles=True)]
    [speed] = fastest_rounds(samplers, rounds=2)
    speed.tokens_per_second
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass
class Speed:
    """One sampler's fastest round.

    Attributes:
        name: for the table.
        seconds: of all replies.
        tokens: of all replies.
        first_token: seconds to the first token of a full batch, or None.
        bandwidth_share: bytes that had to be read over those that a copy moves in that time.
        programs: compiled, or None.
        settings: what the sampler was given, by name: versions, types, adapter, batch, draws and
            threads. Two samplers are compared fairly only where a reader sees in what they differ.
    """

    name: str
    seconds: float
    tokens: int
    first_token: float | None = None
    bandwidth_share: float | None = None
    programs: int | None = None
    settings: dict[str, str | int | float] = dataclasses.field(default_factory=dict)

    @property
    def tokens_per_second(self) -> float:
        """Real tokens only: nothing behind an end counts."""
        return self.tokens / self.seconds


@dataclass(frozen=True)
class TimedSampler:
    """Something that samples all replies once.

    Attributes:
        name: for the table.
        sample: does it, and returns how fast it was.
        compiles: whether the first time takes longer.
    """

    name: str
    sample: Callable[[], Speed]
    compiles: bool


def fastest_rounds(samplers: Sequence[TimedSampler], rounds: int) -> list[Speed]:
    """Return each sampler's fastest round.

    The samplers take turns, so that another program on the machine slows all of them.
    """
    fastest: dict[str, Speed] = {}
    for sampler in samplers:
        if sampler.compiles:
            print(f"compiling: {sampler.name}", file=sys.stderr)
            sampler.sample()
    for number in range(1, rounds + 1):
        for sampler in samplers:
            print(f"round {number} of {rounds}: {sampler.name}", file=sys.stderr)
            speed = sampler.sample()
            best = fastest.get(sampler.name)
            if best is None or speed.seconds < best.seconds:
                fastest[sampler.name] = speed
    return [fastest[sampler.name] for sampler in samplers]
