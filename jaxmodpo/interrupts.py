"""Being asked to end, by Ctrl-C or by SIGTERM, wherever the command is.

The signal raises :class:`KeyboardInterrupt` or :class:`jaxmodpo.errors.Preempted` in the main
thread. That alone is not enough: an exception raised while a callback runs (of the garbage
collector, of a weak reference, of a library written in C) is dropped by Python, and the command
would go on. Python reports what it drops, and for these two the signal is then sent again, until it
comes through.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from jaxmodpo.errors import INTERRUPTED, Preempted

_AGAIN_SECONDS = 0.05


class Interrupts:
    """What this process was asked so far.

    Attributes:
        asked: the first signal that came, or None.
    """

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self._again = False

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Take a signal; a second Ctrl-C ends the process at once, a second SIGTERM adds
        nothing.
        """
        # Our own signal, sent once more because Python had dropped the exception of the first.
        again = self._again
        self._again = False
        if self.asked is not None and not again:
            if number == signal.SIGINT:
                os._exit(INTERRUPTED)
            return
        if self.asked is None:
            self.asked = signal.Signals(number)
        self._raise()

    def _raise(self) -> None:
        if self.asked == signal.SIGTERM:
            raise Preempted("asked to end")
        raise KeyboardInterrupt

    def dropped(self, report: Any) -> None:
        """Take Python's report of an exception that it drops (``sys.unraisablehook``)."""
        if self.asked is None or not isinstance(report.exc_value, KeyboardInterrupt | Preempted):
            sys.__unraisablehook__(report)
            return
        timer = threading.Timer(_AGAIN_SECONDS, self._send_again, [self.asked])
        timer.daemon = True
        timer.start()

    def _send_again(self, number: signal.Signals) -> None:
        self._again = True
        os.kill(os.getpid(), number)


@contextlib.contextmanager
def interrupts() -> Iterator[Interrupts]:
    """Listen to both signals, unless they are ignored, as a shell has it for what it runs in the
    background.
    """
    state = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield state  # nobody can listen elsewhere
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    hook = sys.unraisablehook
    try:
        sys.unraisablehook = state.dropped
        for number, handler in before.items():
            if handler != signal.SIG_IGN:
                signal.signal(number, state.receive)
        yield state
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)
        sys.unraisablehook = hook
