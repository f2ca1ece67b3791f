"""``bench judge``: how fast, and in how much memory, votes are asked for and kept, against a server
that costs nothing.

The server is a process of its own, and the least that speaks HTTP and answers in the API's form, so
that what is measured is our side: requests, calls, answers, and a ledger that is durable at each
vote.
"""

from __future__ import annotations

import itertools
import json
import random
import resource
import statistics
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, NamedTuple

from jaxmodpo.bench.chat_server import local_server
from jaxmodpo.bench.table import table
from jaxmodpo.criteria import load_criteria
from jaxmodpo.errors import UserError
from jaxmodpo.judging.collect import MakeRequests, collect, votes_by_request
from jaxmodpo.judging.endpoint import EndpointJudge
from jaxmodpo.judging.endpoint_settings import Endpoint
from jaxmodpo.judging.judge import Answer, Call, Request
from jaxmodpo.judging.ledger import Ledger
from jaxmodpo.judging.preferences import Ballot, PreferencesConfig, requests
from jaxmodpo.ranges import Count, Unestimated
from jaxmodpo.records import Candidate, Question
from jaxmodpo.schema import Range

_PERSONAS, _REPLIES = 50, 5
_PERSONA_LENGTH, _POST_LENGTH, _REPLY_LENGTH = 1500, 200, 600
_WORDS = """
I you we they that this what feel feeling felt seems sounds hear know think want need help time day work home friend
mother father sleep alone tired afraid sorry hard better again always never maybe talk tell ask listen try small step
week with about because without together, don't can't it's and. but. so. therapist's
"""


@dataclass(frozen=True, kw_only=True)
class BenchJudgeConfig(Unestimated, help_group="measurement"):
    """Ask a fast server on this machine for rankings, keep the votes, and measure calls, CPU time
    and memory.
    """

    calls: Annotated[int, Range(least=10)] = 20_000
    """Number of calls, at least 10. Each ranks five replies of 600 characters by one criterion,
    with a profile of 1,500 characters and a post of 200."""
    max_concurrency: Count = 32
    """Maximum number of calls that are under way at once."""
    ledger: str = ""
    """a file on the disk that is to be measured, or a database's URL (its votes stay there); by
    default a file in a temporary folder"""
    compare: bool = False
    """also ask the same by a plain loop of the openai package's calls on a thread pool, without a
    ledger"""


def bench_judge(config: BenchJudgeConfig) -> None:
    """Run ``bench judge``.

    Raises:
        UserError: settings out of range, or a call without a valid vote.
    """
    config.check()
    asked = _requests(config.calls)
    with tempfile.TemporaryDirectory() as temporary:
        place = config.ledger or str(Path(temporary) / "votes.sqlite")
        size = _size(place)
        with Ledger(place, f"bench {uuid.uuid4().hex[:8]}") as ledger:
            with local_server() as server:
                judge = EndpointJudge(_endpoint(server.url, config.max_concurrency))
                course = _Course(config.calls)
                given = collect(
                    asked, _Watched(judge, course), ledger, label="bench judge", total=config.calls
                )
            if given != {"valid": config.calls}:
                raise UserError(
                    f"of {config.calls:,} calls to the benchmark's own server came {dict(given)}"
                )
            began = time.perf_counter()
            read = sum(len(votes) for _, votes in votes_by_request(asked, judge.identity, ledger))
            reading = read / (time.perf_counter() - began)
        size = _size(place) - size
    rows = [course.row("jaxmodpo, with its ledger", server.cpu)]
    ratio = ""
    if config.compare:
        plain, plain_cpu = _plain_loop(asked, config)
        rows.append(plain.row("plain loop, nothing kept", plain_cpu))
        ratio = f"CPU time of the client against the plain loop's: {course.cpu / plain.cpu:.2f}×\n"
    print(course.by_tenths())
    print()
    print(
        table(
            [
                "",
                "calls/s, slowest tenth",
                "median",
                "last",
                "client CPU ms a call",
                "server CPU ms a call",
            ],
            rows,
        )
    )
    print("\n" + ratio, end="")
    if size:
        print(f"ledger: {size / 2**20:.1f} MiB, {size / config.calls:,.0f} bytes a vote")
    print(f"reading back: {reading:,.0f} votes/s")


# --------------------------------------------------------------------------- what is asked


def _requests(calls: int) -> MakeRequests:
    """Return what generates so many requests of a preference collection; their questions are new
    each time.
    """
    criteria = load_criteria("therapeutic")
    count = -(-calls // (_PERSONAS * len(criteria)))
    draw, mark = random.Random(0), uuid.uuid4().hex[:8]
    personas = {f"p{n}": _text(draw, _PERSONA_LENGTH) for n in range(_PERSONAS)}
    ballots = [
        Ballot(
            Question(f"{mark} q{n}", _text(draw, _POST_LENGTH)),
            {
                f"q{n}r{r}": Candidate(f"q{n}r{r}", _text(draw, _REPLY_LENGTH))
                for r in range(_REPLIES)
            },
            list(personas),
        )
        for n in range(count)
    ]
    config = PreferencesConfig(
        judge="endpoint", responses=Path(), personas=Path(), output_dir=Path()
    )

    def generate() -> Iterator[Request]:
        return itertools.islice(requests(config, ballots, criteria, personas), calls)

    return generate


def _text(draw: random.Random, length: int) -> str:
    words = list[str]()
    while sum(map(len, words)) + len(words) < length:
        words += draw.choices(_WORDS.split(), k=40)
    return " ".join(words)[:length]


def _endpoint(url: str, max_concurrency: int) -> Endpoint:
    # A variable that holds no key, so that none is sent.
    return Endpoint(
        base_url=url, model="bench", api_key_env="JAXMODPO_NO_KEY", max_concurrency=max_concurrency
    )


def _size(place: str) -> int:
    """Bytes of a ledger's files; 0 for a database on a server."""
    if "://" in place:
        return 0
    return sum(path.stat().st_size for path in (Path(place), Path(f"{place}-wal")) if path.exists())


# --------------------------------------------------------------------------- measuring


class _Mark(NamedTuple):
    seconds: float
    cpu: float
    peak: int


def _mark() -> _Mark:
    used = resource.getrusage(resource.RUSAGE_SELF)
    unit = 1 if sys.platform == "darwin" else 1024
    return _Mark(time.perf_counter(), used.ru_utime + used.ru_stime, used.ru_maxrss * unit)


@dataclass(eq=False)
class _Course:
    """Time, CPU time and the peak of resident memory at each tenth of a run, from any number of
    threads.
    """

    calls: int
    marks: list[_Mark] = field(init=False, default_factory=lambda: [_mark()])
    _done: int = field(init=False, default=0)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def count(self) -> None:
        """Count a call that is done."""
        with self._lock:
            self._done += 1
            if self._done >= self._end(len(self.marks)):
                self.marks.append(_mark())

    def _end(self, tenth: int) -> int:
        return -(-self.calls * tenth // 10)

    @property
    def cpu(self) -> float:
        """Seconds of CPU time of this process."""
        return self.marks[-1].cpu - self.marks[0].cpu

    def _tenths(self) -> list[tuple[float, float, int]]:
        """Return calls a second, seconds of CPU time a call, and the peak of memory so far."""
        found = []
        for n, (earlier, later) in enumerate(itertools.pairwise(self.marks)):
            calls = self._end(n + 1) - self._end(n)
            found.append(
                (
                    calls / (later.seconds - earlier.seconds),
                    (later.cpu - earlier.cpu) / calls,
                    later.peak,
                )
            )
        return found

    def by_tenths(self) -> str:
        """Return a table with a row for each tenth."""
        rows = [
            [f"{self._end(n):,}", f"{rate:,.0f}", f"{1e3 * cpu:.2f}", f"{peak / 2**20:.0f}"]
            for n, (rate, cpu, peak) in enumerate(self._tenths(), 1)
        ]
        return table(["calls", "calls/s", "client CPU ms a call", "peak resident MiB so far"], rows)

    def row(self, name: str, server_cpu: float) -> list[str]:
        """Return a row of the summary."""
        rates = [rate for rate, _, _ in self._tenths()]
        shown = [f"{rate:,.0f}" for rate in (min(rates), statistics.median(rates), rates[-1])]
        return [
            name,
            *shown,
            *(f"{1e3 * seconds / self.calls:.2f}" for seconds in (self.cpu, server_cpu)),
        ]


@dataclass(eq=False)
class _Watched:
    """A judge whose votes are counted when they are on disk."""

    judge: EndpointJudge
    course: _Course
    costs: bool = True

    @property
    def identity(self) -> str:
        return self.judge.identity

    def ask(self, requests: Iterator[Call], put: Callable[[Call, Answer], None]) -> None:
        def put_and_count(asked: Call, answer: Answer) -> None:
            put(asked, answer)
            self.course.count()

        self.judge.ask(requests, put_and_count)


def _plain_loop(asked: MakeRequests, config: BenchJudgeConfig) -> tuple[_Course, float]:
    """Ask the same as one would without this package; return its course and the server's seconds of
    CPU time.
    """
    from openai import OpenAI

    with local_server() as server:
        judge = EndpointJudge(_endpoint(server.url, config.max_concurrency))
        client = OpenAI(base_url=server.url, api_key="none", max_retries=0)

        def rank(request: Request) -> list[int]:
            completion = client.chat.completions.create(**judge.body(request))
            return json.loads(completion.choices[0].message.content or "")["ranking"]

        course = _Course(config.calls)
        with ThreadPoolExecutor(config.max_concurrency) as pool:
            for ranking in pool.map(rank, asked()):
                if sorted(ranking) != list(range(1, _REPLIES + 1)):
                    raise UserError(f"the benchmark's own server answered {ranking}")
                course.count()
    return course, server.cpu
