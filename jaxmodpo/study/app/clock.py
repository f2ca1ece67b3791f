"""The time of day as a server can rely on it."""

from __future__ import annotations

import logging
import time

logger = logging.getLogger(__name__)


class Clock:
    """Seconds since 1970 that only ever go forward.

    The time of day is read once. From then on a counter is added that nobody sets: an answer is not
    given before its item was shown because somebody, or a time server, set the machine's clock.

    Args:
        not_before: the last moment that was stored before. A machine whose clock was set back since
            then goes on from there, so that what is stored stays in its order.
    """

    def __init__(self, not_before: float = 0.0) -> None:
        of_day = time.time()
        if not_before > of_day:
            logger.warning(
                "study: the machine's clock is %.0f seconds behind the last moment that is stored;"
                " times go on from there",
                not_before - of_day,
            )
        self._start = max(of_day, not_before)
        self._counter = time.monotonic()

    def now(self) -> float:
        """Return the moment."""
        return self._start + self.running()

    def running(self) -> float:
        """Return for how many seconds this clock has run."""
        return time.monotonic() - self._counter
