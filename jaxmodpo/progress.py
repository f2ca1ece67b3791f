"""How far a command is: a bar at a terminal, and elsewhere a line now and then, as in the log of a
launcher.
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
        self.is_watched = sys.stderr.isatty()
        self._label, self._unit, self._done, self._told, self._note = (
            label,
            unit,
            initial,
            time.monotonic(),
            "",
        )
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
        self._done += int(n or 0)
        if self.is_watched:
            return super().update(n)
        if time.monotonic() - self._told >= SECONDS_BETWEEN_LINES:
            self._told = time.monotonic()
            of = "" if self.total is None else f" of {self.total:,}"
            note = f", {self._note}" if self._note else ""
            logger.info("%s: %s%s %s%s", self._label, f"{self._done:,}", of, self._unit, note)
        return None

    def note(self, text: str) -> None:
        """Say this behind the count from now on, such as ``loss 0.6931``."""
        self._note = text
        if self.is_watched:
            self.set_postfix_str(text, refresh=False)

    def skip(self, n: int) -> None:
        """Move on over what was done before; it is no sign of speed."""
        self._done += n
        if self.is_watched:
            self.initial += n
            super().update(n)
