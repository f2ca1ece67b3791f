"""A bounded number of threads that draw their work themselves, and how many of them may be calling
at once.

Apart from the endpoint because both are rules about time and counts alone, and are tested without a
network: a worker draws a request only when it is free to ask it, and an endpoint that pushes back
is given time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

# Calls at once in the beginning; who takes more is soon found out.
_START = 8


def drain(
    items: Iterator[Item],
    work: Callable[[Item], None],
    *,
    workers: int,
    stop: threading.Event,
) -> None:
    """Do ``work`` on every item on ``workers`` threads, each drawing the next item when it is free.

    The first exception, of the work or of the iterator, stops all: no more is drawn, what is under
    way is finished, and the exception is raised. Ctrl-C does the same.

    Args:
        items: drawn by one thread at a time.
        work: may block; it looks at ``stop`` where it waits for long.
        workers: threads.
        stop: set when nothing more is to be begun.
    """
    # A generator cannot be drawn from by two threads at once.
    drawing = threading.Lock()
    failures: list[BaseException] = []

    def draw_and_work() -> None:
        try:
            while True:
                with drawing:
                    if stop.is_set():
                        return
                    try:
                        item = next(items)
                    except StopIteration:
                        return
                work(item)
        except BaseException as error:
            # A thread's exception ends in the thread. The first is raised by the caller below,
            # once all have ended.
            failures.append(error)
            stop.set()

    threads: list[threading.Thread] = []
    for number in range(workers):
        thread = threading.Thread(target=draw_and_work, name=f"judge {number}", daemon=True)
        threads.append(thread)
    try:
        # Ctrl-C may come while they start: those that run are waited for like all others.
        for thread in threads:
            thread.start()
        _wait(threads)
    except BaseException:
        # What is under way is paid for, and is waited for and kept.
        stop.set()
        logger.info("finishing what is under way; nothing new is begun")
        _wait(threads)
        raise
    if failures:
        raise failures[0]


def _wait(threads: list[threading.Thread]) -> None:
    for thread in threads:
        # In short turns, since a thread that is joined for good cannot be interrupted.
        while thread.is_alive():
            thread.join(0.2)


class Limiter:
    """How many calls may be under way at once: it grows while they succeed and shrinks when the
    endpoint pushes back.

    It begins with a few, doubles in each round of calls until the first push-back, then grows by
    one a round; a push-back halves it, once for all calls that were under way together. A pause
    holds every call back.

    Args:
        most: the limit never grows beyond it.
        stop: waiting ends when it is set.
    """

    def __init__(self, max_limit: int, stop: threading.Event):
        self._max_limit = max_limit
        self._stop = stop
        # A fraction, since it grows by a part of a call with each call.
        self._limit = float(min(_START, max_limit))
        self._under_way = 0
        # When calls may begin again, and when the limit was last halved, by the monotonic clock.
        self._resume_at = 0.0
        self._halved_at = float("-inf")
        # Whether it doubles still: no call was pushed back so far.
        self._climbing = True
        self._changed = threading.Condition()

    @property
    def limit(self) -> int:
        """Return how many calls may be under way at once now."""
        return max(1, int(self._limit))

    def enter(self) -> float | None:
        """Wait for a place and take it; return the time, for :meth:`leave`, or None where there is
        to be no more.
        """
        with self._changed:
            while not self._stop.is_set():
                pause = self._resume_at - time.monotonic()
                if pause <= 0 and self._under_way < self.limit:
                    self._under_way += 1
                    return time.monotonic()
                # Woken by a place; the end of a pause and a stop wake nobody.
                turn = pause if pause > 0 else 0.05
                self._changed.wait(min(turn, 0.5))
            self._changed.notify_all()
            return None

    def leave(self, entered: float, pushed_back: bool) -> None:
        """Give a place back, and say whether the endpoint pushed back (429, overloaded)."""
        with self._changed:
            self._under_way -= 1
            if pushed_back:
                self._climbing = False
                # Calls that began before the last halving say nothing new: thirty that were under
                # way together are all pushed back, and would halve the limit to nothing.
                if entered > self._halved_at:
                    self._limit = max(1.0, self._limit / 2)
                    self._halved_at = time.monotonic()
            else:
                # A round is as many calls as the limit: one more for each call doubles it, and a
                # share of one adds one. So does TCP find out how much a network takes.
                growth = 1 if self._climbing else 1 / self._limit
                self._limit = min(self._max_limit, self._limit + growth)
            # Two may go on: in this one's place, and in the one by which the limit grew.
            self._changed.notify(2)

    def pause(self, seconds: float) -> None:
        """Begin no call for so long."""
        with self._changed:
            self._resume_at = max(self._resume_at, time.monotonic() + seconds)

    def wait(self, seconds: float) -> None:
        """Sleep, but not beyond a stop."""
        self._stop.wait(seconds)
