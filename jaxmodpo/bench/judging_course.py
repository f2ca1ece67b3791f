"""The course of a benchmark of judging: time, CPU time and peak of memory at each tenth of it.

A mean over a whole run hides a ledger that grows slower or a client that hoards memory; tenths show
it.
"""

from __future__ import annotations

import itertools
import resource
import statistics
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import NamedTuple

from jaxmodpo.bench.table import text_table


class Mark(NamedTuple):
    """What this process had used at a moment: wall-clock seconds, seconds of CPU time, and the peak
    of resident memory in bytes.
    """

    seconds: float
    cpu: float
    peak: int


def mark_now() -> Mark:
    """Return what this process has used until now."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    # Linux gives the peak in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return Mark(time.perf_counter(), used.ru_utime + used.ru_stime, used.ru_maxrss * unit)


class Tenth(NamedTuple):
    """What a tenth of the calls took."""

    calls_per_second: float
    cpu_seconds_per_call: float
    peak: int


@dataclass(eq=False)
class Course:
    """The course of a run of so many calls, which any number of threads may count."""

    calls: int
    marks: list[Mark] = field(init=False, default_factory=lambda: [mark_now()])
    _finished: int = field(init=False, default=0)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def count(self) -> None:
        """Count a call that is done."""
        # A mark is taken within the lock: two threads that end a tenth at once are to leave one.
        with self._lock:
            self._finished += 1
            if self._finished >= self._end_of(len(self.marks)):
                self.marks.append(mark_now())

    def _end_of(self, tenth: int) -> int:
        """Return how many calls are done at the end of a tenth, rounded up."""
        return -(-self.calls * tenth // 10)

    @property
    def cpu(self) -> float:
        """Seconds of CPU time of this process."""
        return self.marks[-1].cpu - self.marks[0].cpu

    def _tenths(self) -> list[Tenth]:
        tenths: list[Tenth] = []
        for number, (start, end) in enumerate(itertools.pairwise(self.marks)):
            calls = self._end_of(number + 1) - self._end_of(number)
            rate = calls / (end.seconds - start.seconds)
            tenths.append(Tenth(rate, (end.cpu - start.cpu) / calls, end.peak))
        return tenths

    def by_tenths(self) -> str:
        """Return a table with a row for each tenth."""
        rows: list[list[str]] = []
        for number, tenth in enumerate(self._tenths(), 1):
            row = [
                f"{self._end_of(number):,}",
                f"{tenth.calls_per_second:,.0f}",
                f"{1e3 * tenth.cpu_seconds_per_call:.2f}",
                f"{tenth.peak / 2**20:.0f}",
            ]
            rows.append(row)
        return text_table(
            ["calls", "calls/s", "client CPU ms a call", "peak resident MiB so far"], rows
        )

    def row(self, name: str, server_cpu: float) -> list[str]:
        """Return a row of the summary.

        Args:
            name: the row's first cell.
            server_cpu: seconds of the server's CPU time in the whole run.
        """
        # The slowest tenth, the usual one, and the last: a run that slows down is seen in the last.
        rates = [tenth.calls_per_second for tenth in self._tenths()]
        rate_cells = [f"{rate:,.0f}" for rate in (min(rates), statistics.median(rates), rates[-1])]
        cpu_cells = [f"{1e3 * cpu / self.calls:.2f}" for cpu in (self.cpu, server_cpu)]
        return [name, *rate_cells, *cpu_cells]
