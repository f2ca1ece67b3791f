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
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from jaxmodpo.bench.chat_server import local_server
from jaxmodpo.bench.judging_course import Course
from jaxmodpo.bench.table import text_table
from jaxmodpo.criteria import load_criteria
from jaxmodpo.errors import UserError
from jaxmodpo.judging.ballots import Ballot
from jaxmodpo.judging.collect import MakeRequests, collect, votes_by_request
from jaxmodpo.judging.endpoint import EndpointJudge
from jaxmodpo.judging.endpoint_settings import Endpoint
from jaxmodpo.judging.judge import Answer, Call, Request
from jaxmodpo.judging.ledger import Ledger
from jaxmodpo.judging.preferences import PreferencesConfig, requests
from jaxmodpo.ranges import Count, Unestimated
from jaxmodpo.records import Candidate, Question
from jaxmodpo.schema import Range

# The sizes of the paper's requests: personas and replies of a question, and lengths in characters.
_PERSONAS = 50
_REPLIES = 5
_PERSONA_LENGTH = 1500
_POST_LENGTH = 200
_REPLY_LENGTH = 600

_WORDS = """
I you we they that this what feel feeling felt seems sounds hear know think want need help time day work home friend
mother father sleep alone tired afraid sorry hard better again always never maybe talk tell ask listen try small step
week with about because without together, don't can't it's and. but. so. therapist's
"""

_SUMMARY_HEADS = [
    "",
    "calls/s, slowest tenth",
    "median",
    "last",
    "client CPU ms a call",
    "server CPU ms a call",
]


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
    """Ledger that the votes are written to: a file on the disk that is to be measured, or the URL
    of a database, where they stay; by default a file in a temporary folder."""
    compare: bool = False
    """Also ask the same by a plain loop of the openai package's calls on a thread pool, without a
    ledger."""


def bench_judge(config: BenchJudgeConfig) -> None:
    """Run ``bench judge``.

    Raises:
        UserError: settings out of range, or a call without a valid vote.
    """
    config.check()
    make_requests = _requests(config.calls)
    with tempfile.TemporaryDirectory() as temporary:
        location = config.ledger or str(Path(temporary) / "votes.sqlite")
        size_before = _size(location)
        with Ledger(location, f"bench {uuid.uuid4().hex[:8]}") as ledger:
            course, server_cpu, identity = _ask(make_requests, config, ledger)
            reading_rate = _reading_rate(make_requests, identity, ledger)
        size = _size(location) - size_before
    print(course.by_tenths())
    print()
    rows = [course.row("jaxmodpo, with its ledger", server_cpu)]
    if not config.compare:
        print(text_table(_SUMMARY_HEADS, rows) + "\n")
    else:
        plain, plain_server_cpu = _plain_loop(make_requests, config)
        rows.append(plain.row("plain loop, nothing kept", plain_server_cpu))
        print(text_table(_SUMMARY_HEADS, rows) + "\n")
        ratio = course.cpu / plain.cpu
        print(f"CPU time of the client against the plain loop's: {ratio:.2f}×")
    if size:
        print(f"ledger: {size / 2**20:.1f} MiB, {size / config.calls:,.0f} bytes a vote")
    print(f"reading back: {reading_rate:,.0f} votes/s")


def _ask(
    make_requests: MakeRequests, config: BenchJudgeConfig, ledger: Ledger
) -> tuple[Course, float, str]:
    """Ask for every vote; return the course, the server's seconds of CPU time and the judge's
    identity.

    Raises:
        UserError: a call without a valid vote.
    """
    with local_server() as server:
        judge = EndpointJudge(_endpoint(server.url, config.max_concurrency))
        course = Course(config.calls)
        statuses = collect(
            make_requests,
            _CountingJudge(judge, course),
            ledger,
            label="bench judge",
            total=config.calls,
        )
    if statuses != {"valid": config.calls}:
        raise UserError(
            f"of {config.calls:,} calls to the benchmark's own server came {dict(statuses)}"
        )
    # The server's CPU time is known once it has ended.
    return course, server.cpu, judge.identity


def _reading_rate(make_requests: MakeRequests, identity: str, ledger: Ledger) -> float:
    """Return how many votes a second are read back from the ledger."""
    start = time.perf_counter()
    votes_read = 0
    for _, votes in votes_by_request(make_requests, identity, ledger):
        votes_read += len(votes)
    return votes_read / (time.perf_counter() - start)


# --------------------------------------------------------------------------- the requests


def _requests(calls: int) -> MakeRequests:
    """Return what generates so many requests of a preference collection; their questions are new
    each time.
    """
    criteria = load_criteria("therapeutic")
    calls_per_question = _PERSONAS * len(criteria)
    question_count = -(-calls // calls_per_question)
    generator = random.Random(0)
    # A ledger of earlier runs would answer for questions that it knows.
    mark = uuid.uuid4().hex[:8]
    personas = {f"p{n}": text_of_words(generator, _PERSONA_LENGTH) for n in range(_PERSONAS)}
    ballots: list[Ballot] = []
    for number in range(question_count):
        question = Question(f"{mark} q{number}", text_of_words(generator, _POST_LENGTH))
        replies: dict[str, Candidate] = {}
        for reply_number in range(_REPLIES):
            reply_id = f"q{number}r{reply_number}"
            replies[reply_id] = Candidate(reply_id, text_of_words(generator, _REPLY_LENGTH))
        ballots.append(Ballot(question, replies, list(personas)))
    config = PreferencesConfig(
        judge="endpoint", responses=Path(), personas=Path(), output_dir=Path()
    )

    def generate() -> Iterator[Request]:
        return itertools.islice(requests(config, ballots, criteria, personas), calls)

    return generate


def text_of_words(generator: random.Random, length: int) -> str:
    """Return a text of so many characters, of common words."""
    # Of words and not of random letters, on which a pattern may be faster or slower than on what
    # people write.
    words: list[str] = []
    while sum(map(len, words)) + len(words) < length:
        words += generator.choices(_WORDS.split(), k=40)
    return " ".join(words)[:length]


def _endpoint(url: str, max_concurrency: int) -> Endpoint:
    # A variable that holds no key, so that none is sent.
    return Endpoint(
        base_url=url, model="bench", api_key_env="JAXMODPO_NO_KEY", max_concurrency=max_concurrency
    )


def _size(location: str) -> int:
    """Return the bytes of a ledger's files; 0 for a database on a server."""
    if "://" in location:
        return 0
    # SQLite appends to a second file first, and moves its pages into the database now and then.
    files = [Path(location), Path(f"{location}-wal")]
    return sum(file.stat().st_size for file in files if file.exists())


# --------------------------------------------------------------------------- asking


@dataclass(eq=False)
class _CountingJudge:
    """A judge whose votes are counted when they are on disk."""

    judge: EndpointJudge
    course: Course
    costs: bool = True

    @property
    def identity(self) -> str:
        return self.judge.identity

    def ask(self, requests: Iterator[Call], put: Callable[[Call, Answer], None]) -> None:
        def put_and_count(call: Call, answer: Answer) -> None:
            # It returns once the vote is durable. Counted before, a ledger that falls behind would
            # look as fast as one that does not.
            put(call, answer)
            self.course.count()

        self.judge.ask(requests, put_and_count)


def _plain_loop(make_requests: MakeRequests, config: BenchJudgeConfig) -> tuple[Course, float]:
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

        course = Course(config.calls)
        # As many threads as we have calls under way, and the same bodies: the loop differs in
        # nothing but the machinery.
        with ThreadPoolExecutor(config.max_concurrency) as pool:
            for ranking in pool.map(rank, make_requests()):
                if sorted(ranking) != list(range(1, _REPLIES + 1)):
                    raise UserError(f"the benchmark's own server answered {ranking}")
                course.count()
    return course, server.cpu
