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

    Attributes:
        votes: to write.
        released: the keys of the claims to give back.
        is_finished: a commit, of whichever thread, has ended.
        error: what that commit raised; None where it went well.
    """

    votes: Sequence[Vote]
    released: Sequence[str]
    is_finished: bool = False
    error: BaseException | None = None


class GroupCommit:
    """Commits the votes of several threads together.

    There is no thread of its own that commits, and no timer: whoever gets the lock does the work of
    all who wait for it. A single thread therefore waits for nobody, and nothing is left to flush
    when the run ends.

    Args:
        writing: the lock that the writing thread holds.
        write: commits; called with the lock held, from one thread at a time.
    """

    def __init__(self, writing: threading.Lock, write: Write):
        self._writing = writing
        self._write = write
        self._queue: list[_Addition] = []
        # A lock of its own, held for a moment only: a thread that comes while another commits must
        # be able to join the queue.
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
            # Done already where another thread's commit took it along while this one waited. Where
            # it is not, it is in the queue still: whoever takes the queue finishes all of it before
            # the lock is free again.
            if not addition.is_finished:
                with self._queue_lock:
                    group = self._queue
                    self._queue = []
                self._commit(group)
        if addition.error is not None:
            raise addition.error

    def _commit(self, group: Sequence[_Addition]) -> None:
        votes: list[Vote] = []
        released: list[str] = []
        for addition in group:
            votes += addition.votes
            released += addition.released
        error = None
        try:
            self._write(votes, released)
        except BaseException as failure:
            # Even Ctrl-C: the others would take a commit that never was for done. It is raised in
            # every thread of the group, this one's own among them, once the lock is free.
            error = failure
        for addition in group:
            addition.error = error
            addition.is_finished = True
