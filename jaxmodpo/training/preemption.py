"""Ending early on request: SIGTERM, which is also how TPU VMs, GKE and SLURM announce a preemption."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
from jax.experimental import multihost_utils


class Notice:
    """Whether training was asked to end.

    With several processes, JAX passes one process's notice on to all and picks an update that all reach.
    """

    def __init__(self) -> None:
        self._given = False

    def give(self, *_: Any) -> None:
        """Ask training to end after the update at hand."""
        self._given = True

    def heeded(self, update: int) -> bool:
        """Whether to end after this update; every process must ask after every one."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(update)
        return self._given


@contextmanager
def notice() -> Iterator[Notice]:
    """Listen for SIGTERM while training."""
    given = Notice()
    # With several processes JAX listens itself; elsewhere than in the main thread nobody can.
    if jax.process_count() > 1 or threading.current_thread() is not threading.main_thread():
        yield given
        return
    before = signal.signal(signal.SIGTERM, given.give)
    try:
        yield given
    finally:
        signal.signal(signal.SIGTERM, before)
