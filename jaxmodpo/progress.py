"""How far a command is: a bar at a terminal, and elsewhere a line now and then, as in the log of a
launcher::

    with Progress("scoring", 128, "examples") as bar:
        bar.note("loss 0.6931")
        bar.update(8)           # in a log: "scoring: 8 of 128 examples, loss 0.6931"
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

from tqdm import tqdm

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 30
"""between two lines about work that nobody watches at a terminal, where a bar would be"""


class Progress(tqdm):
    """A bar at a terminal; elsewhere at most a line every 30 seconds, such as ``sampling: 64 of 128
    batches``.

    Args:
        label: what is being done.
        total: how much there is to do; None where nobody knows.
        unit: what is counted, in the plural.
        initial: what was done before, which says nothing of the speed.
        settings: tqdm's own.
    """

    def __init__(self, label: str, total: int | None, unit: str, initial: int = 0, **settings: Any):
        # A bar redraws its line, which fills a log with thousands of them.
        self.is_watched = sys.stderr.isatty()
        self._label = label
        self._unit = unit
        self._count = initial
        self._last_line = time.monotonic()
        self._note = ""
        super().__init__(
            total=total,
            desc=label,
            unit=f" {unit}",
            initial=initial,
            disable=not self.is_watched,
            **settings,
        )

    def update(self, n: float | None = 1) -> bool | None:
        """Count some more as done."""
        self._count += int(n or 0)
        if self.is_watched:
            return super().update(n)
        if time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            count = f"{self._count:,}"
            if self.total is not None:
                count += f" of {self.total:,}"
            note = f", {self._note}" if self._note else ""
            logger.info("%s: %s %s%s", self._label, count, self._unit, note)
        return None

    def note(self, text: str) -> None:
        """Say this behind the count from now on, such as ``loss 0.6931``."""
        self._note = text
        if self.is_watched:
            self.set_postfix_str(text, refresh=False)

    def skip(self, n: int) -> None:
        """Move on over what was done before; it is no sign of speed."""
        self._count += n
        if self.is_watched:
            # tqdm takes its speed from what has come on top of the initial count.
            self.initial += n
            super().update(n)
