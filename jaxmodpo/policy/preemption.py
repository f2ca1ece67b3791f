"""Ending early on request: SIGTERM, which is also how TPU VMs, GKE and SLURM announce a preemption.

A process alone is interrupted by the signal itself, and only its update loop finishes the update at
hand. Of several processes that train together none may leave on its own, since the others would
wait for its numbers: JAX takes the signal, passes it on, and picks a poll that all of them reach::

    with notice() as preemption:
        for update in updates:
            train(update)
            if preemption.should_stop():    # every process, after every update
                save()
                break
"""

from __future__ import annotations

import itertools
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
from jax.experimental import multihost_utils

from jaxmodpo.errors import Preempted

# JAX picks one of these numbers, so they must rise by one over the whole life of a process,
# whatever it trains.
_poll_numbers = itertools.count(1)


def _asked_together() -> bool:
    """Whether all processes end here; each must poll at the same places, in the same order."""
    return multihost_utils.reached_preemption_sync_point(next(_poll_numbers))


def stop_if_asked(when: str) -> None:
    """End here, outside of the update loop, where one of several processes was asked to; all must
    come by.

    Args:
        when: where that is, after "asked to end".

    Raises:
        Preempted: in all of them.
    """
    if jax.process_count() > 1 and _asked_together():
        raise Preempted(f"asked to end {when}")


class Notice:
    """Whether training was asked to end."""

    def __init__(self) -> None:
        self._has_signal = False

    def give(self, *_: Any) -> None:
        """Ask training to end after the update at hand."""
        self._has_signal = True

    def should_stop(self) -> bool:
        """Whether to end after this update; every process must ask after every one."""
        return _asked_together() if jax.process_count() > 1 else self._has_signal


@contextmanager
def notice() -> Iterator[Notice]:
    """Listen for SIGTERM while training."""
    preemption = Notice()
    # With several processes JAX listens itself; elsewhere than in the main thread nobody can.
    if jax.process_count() > 1 or threading.current_thread() is not threading.main_thread():
        yield preemption
        return
    handler_before = signal.signal(signal.SIGTERM, preemption.give)
    try:
        yield preemption
    finally:
        # After the loop a signal ends the process at once again: what follows is short, or can be
        # done again.
        signal.signal(signal.SIGTERM, handler_before)
