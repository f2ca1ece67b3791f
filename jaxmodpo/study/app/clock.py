"""The time of day as a server can rely on it."""

from __future__ import annotations

import time


class Clock:
    """Seconds since 1970 that only ever go forward.

    The time of day is read once. From then on a counter is added that nobody sets: an answer is not
    given before its item was shown because somebody, or a time server, set the machine's clock.
    """

    def __init__(self) -> None:
        self._start = time.time()
        self._counter = time.monotonic()

    def now(self) -> float:
        """Return the moment."""
        return self._start + (time.monotonic() - self._counter)
