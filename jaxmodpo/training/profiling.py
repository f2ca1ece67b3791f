"""A trace of a few updates, for TensorBoard's profiler or XProf: which operation takes how long on
which device, and where devices wait::

    with closing(Profile(folder, updates=5)) as profile:
        for _ in range(updates):
            metrics = update()
            profile.after_update(metrics)
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import jax

logger = logging.getLogger(__name__)


class Profile:
    """Traces the updates after the first one, which mostly compiles.

    Args:
        folder: where to; every process adds its own files.
        updates: that are traced; 0 traces none.
    """

    def __init__(self, folder: Path, updates: int):
        self._folder = folder
        self._updates_left = updates
        self._is_tracing = False

    def after_update(self, metrics: Mapping[str, jax.Array]) -> None:
        """Begin a trace after the first update, and end it when enough updates are in it.

        Args:
            metrics: what the update computes; waiting for them is waiting for the update.
        """
        if not self._updates_left:
            return
        if not self._is_tracing:
            jax.block_until_ready(metrics)
            jax.profiler.start_trace(self._folder)
            self._is_tracing = True
            return
        self._updates_left -= 1
        if not self._updates_left:
            # Devices work behind the host: the trace must not end before they do.
            jax.block_until_ready(metrics)
            self.close()

    def close(self) -> None:
        """Write the trace, if one is under way: of fewer updates where the run ends earlier."""
        if self._is_tracing:
            self._is_tracing = False
            self._updates_left = 0
            jax.profiler.stop_trace()
            logger.info("trace of updates: tensorboard --logdir %s", self._folder)
