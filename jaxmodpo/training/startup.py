"""The time from a run's beginning to the end of its first update, and what it went into::

    startup = Startup()
    with startup.part("model"):
        policy = load_policy(folder)
    with startup.part("first update"):
        update()
    startup.end()
    startup.seconds     # {"model": 5.3, "first update": 0.4, "compiling": 20.3, "total": 26.1}

A part's time is its own alone: without that of parts within it, and without compiling, which stands
by itself wherever a program was compiled.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from jaxmodpo.policy.compile_clock import compiling_seconds

logger = logging.getLogger(__name__)

COMPILING = "compiling"
"""tracing, lowering and compiling of all programs, or reading them from the compilation cache"""

OTHER = "other"
"""what belongs to no part"""

TOTAL = "total"


class Startup:
    """Counts from its creation, until :meth:`end`."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._parts: dict[str, float] = {}
        # Seconds of parts that ended within the part that is under way.
        self._within = 0.0
        self._seconds: dict[str, float] = {}

    @property
    def has_ended(self) -> bool:
        return bool(self._seconds)

    @property
    def seconds(self) -> Mapping[str, float]:
        """Seconds by part, in the order in which they were first begun, with ``compiling``,
        ``other`` and ``total``; empty before the end.
        """
        return self._seconds

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what is done within as a part. Parts of one name are added up."""
        if self.has_ended:
            yield
            return
        self._parts.setdefault(name, 0.0)
        within_outer = self._within
        self._within = 0.0
        began = time.perf_counter()
        try:
            yield
        finally:
            ended = time.perf_counter()
            uncompiled = ended - began - compiling_seconds(began, ended)
            self._parts[name] += max(0.0, uncompiled - self._within)
            self._within = within_outer + uncompiled

    def end(self) -> None:
        """Say what the time went into; what comes after it no longer counts."""
        if self.has_ended:
            return
        now = time.perf_counter()
        total = now - self._began
        seconds = self._parts | {COMPILING: compiling_seconds(self._began, now)}
        # Threads that compile beside the run could make the parts' sum longer than the whole.
        seconds[OTHER] = max(0.0, total - sum(seconds.values()))
        seconds[TOTAL] = total
        self._seconds = {name: round(value, 3) for name, value in seconds.items()}
        parts = [f"{name} {value:.1f}" for name, value in self._seconds.items() if name != TOTAL]
        logger.info("first update after %.1f s: %s", total, ", ".join(parts))
