"""Group commit: threads whose votes come while another thread commits are committed together.

A commit that outlives a power cut waits for the disk, some milliseconds each. Thirty threads that
each commit one vote would wait for one another thirty times; here the first commits its own, and
whoever came meanwhile goes into the next commit, all in one. The busier the threads, the fewer the
commits.

    thread 1   add ──► commits 1 ─────────────┐ done
    thread 2      add ── waits for the lock ──┴► commits 2 and 3 ──────┐ done
    thread 3        add ── waits ──────────────────────────────────────┴ finds itself done
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxmodpo.judging.votes import Vote

Write = Callable[[Sequence[Vote], Sequence[str]], None]
"""Writes votes and gives back claims, in one durable transaction."""


@dataclass(eq=False)
class _Addition:
    """What one thread wants written.

    ``is_finished`` once a commit, of whichever thread, has ended well or with ``error``.
    """

    votes: Sequence[Vote]
    released: Sequence[str]
    is_finished: bool = False
    error: BaseException | None = None


class GroupCommit:
    """Commits the votes of several threads together.

    Args:
        writing: the lock that the writing thread holds.
        write: commits; called with the lock held, from one thread at a time.
    """

    def __init__(self, writing: threading.Lock, write: Write):
        self._writing, self._write = writing, write
        self._queue: list[_Addition] = []
        self._queue_lock = threading.Lock()

    def add(self, votes: Sequence[Vote], released: Sequence[str]) -> None:
        """Have votes written and claims given back: all durable when this returns.

        Raises:
            BaseException: what the commit raised; every thread whose votes were in it is told.
        """
        addition = _Addition(votes, released)
        # Queued before the lock is waited for: a thread that gets it first takes this along.
        with self._queue_lock:
            self._queue.append(addition)
        with self._writing:
            # Done already where another thread's commit took it along while this one waited.
            if not addition.is_finished:
                with self._queue_lock:
                    together, self._queue = self._queue, []
                self._commit(together)
        if addition.error is not None:
            raise addition.error

    def _commit(self, together: Sequence[_Addition]) -> None:
        votes = [vote for addition in together for vote in addition.votes]
        released = [key for addition in together for key in addition.released]
        error = None
        try:
            self._write(votes, released)
        except BaseException as failure:
            # Even Ctrl-C: the others would take a commit that never was for done.
            error = failure
        for addition in together:
            addition.error = error
            addition.is_finished = True
