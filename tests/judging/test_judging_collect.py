"""Collection loses nothing, asks nothing twice, and leaves the same file however it was interrupted."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from jaxmodpo.artifacts import Candidate
from jaxmodpo.judging.collect import collect
from jaxmodpo.judging.criteria import Criterion
from jaxmodpo.judging.judge import Answer, Request
from jaxmodpo.judging.ledger import Ledger, request_key

CRITERION = Criterion("empathy", "d", "b", "w")


def requests(count: int) -> list[Request]:
    shown = (Candidate("a", "x"), Candidate("b", "y"))
    return [Request("compare", f"q{n}", "post", "p", "profile", CRITERION, shown) for n in range(count)]


class Scripted:
    """Prefers a or b by the question's number; fails or raises where it is told to."""

    identity = "scripted"

    def __init__(
        self, costs: bool, *, fails: tuple[str, ...] = (), raises_after: int | None = None, error=RuntimeError
    ):
        self.costs = costs
        self.fails, self.raises_after, self.error = fails, raises_after, error
        self.asked: list[str] = []
        self.lock = threading.Lock()

    def answer(self, request: Request) -> Answer:
        with self.lock:
            if self.raises_after is not None and len(self.asked) >= self.raises_after:
                raise self.error("stop")
            self.asked.append(request.question_id)
        if request.question_id in self.fails:
            return Answer("refusal", "no", None, "m")
        return Answer("valid", "yes", ("ab"[int(request.question_id[1:]) % 2],), "m")


def run(path, asked: list[Request] | Iterator[Request], judge: Scripted, max_concurrency: int = 4):
    with Ledger(path) as ledger:
        return collect(asked, judge, ledger, max_concurrency=max_concurrency, label="test")


@pytest.mark.parametrize("costs", [False, True])
def test_votes_come_back_in_the_order_of_the_requests(tmp_path, costs):
    asked = requests(40)
    judge = Scripted(costs)
    votes = run(tmp_path / "v.jsonl", iter(asked), judge)
    assert [v.question_id for v in votes] == [r.question_id for r in asked]
    assert [v.order for v in votes] == [("ab"[n % 2],) for n in range(40)]
    assert [v.key for v in votes] == [request_key(r, judge.identity) for r in asked]
    assert sorted(judge.asked) == sorted(r.question_id for r in asked)


@pytest.mark.parametrize("costs", [False, True])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_after_a_stop_only_the_rest_is_asked_and_the_file_is_the_undisturbed_one(tmp_path, costs, error):
    run(tmp_path / "whole.jsonl", requests(50), Scripted(costs=False))
    path = tmp_path / "v.jsonl"
    first = Scripted(costs, raises_after=17, error=error)
    with pytest.raises(error):
        run(path, requests(50), first)
    # Everything that was answered before the stop is on disk.
    assert len(path.read_text().splitlines()) == len(first.asked) == 17
    second = Scripted(costs)
    run(path, requests(50), second)
    assert Counter(first.asked + second.asked) == Counter(r.question_id for r in requests(50))
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_an_interrupt_of_the_main_thread_keeps_the_answers_under_way(tmp_path):
    """The requests' generator runs in the main thread, as Ctrl-C does."""
    started, release = threading.Semaphore(0), threading.Event()

    class Slow(Scripted):
        def answer(self, request: Request) -> Answer:
            started.release()
            assert release.wait(10)
            return super().answer(request)

    def interrupted() -> Iterator[Request]:
        yield from requests(3)
        for _ in range(3):
            assert started.acquire(timeout=10)
        release.set()
        raise KeyboardInterrupt

    judge = Slow(costs=True)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "v.jsonl", interrupted(), judge)
    assert len((tmp_path / "v.jsonl").read_text().splitlines()) == len(judge.asked) == 3


def test_nothing_is_asked_twice(tmp_path):
    run(tmp_path / "v.jsonl", requests(10), Scripted(costs=True))
    judge = Scripted(costs=True)
    votes = run(tmp_path / "v.jsonl", requests(12) + requests(12), judge)
    assert sorted(judge.asked) == ["q10", "q11"]
    assert len(votes) == 24 and votes[:12] == votes[12:]


@pytest.mark.parametrize("costs", [False, True])
def test_failed_votes_are_returned_and_asked_again_next_time(tmp_path, costs, caplog):
    path = tmp_path / "v.jsonl"
    votes = run(path, requests(6), Scripted(costs, fails=("q1", "q4")))
    assert [v.status for v in votes] == ["valid", "refusal", "valid", "valid", "refusal", "valid"]
    assert "test: 2 of 6 votes failed (2 refusal)" in caplog.text
    judge = Scripted(costs)
    votes = run(path, requests(6), judge)
    assert sorted(judge.asked) == ["q1", "q4"]
    assert {v.status for v in votes} == {"valid"}
    assert len(path.read_text().splitlines()) == 8


def test_no_more_requests_are_drawn_than_can_be_under_way(tmp_path):
    drawn, ahead, lock = 0, [], threading.Lock()

    class Counting(Scripted):
        def answer(self, request: Request) -> Answer:
            with lock:
                ahead.append(drawn - len(self.asked))
            return super().answer(request)

    def counted() -> Iterator[Request]:
        nonlocal drawn
        for request in requests(200):
            drawn += 1
            yield request

    run(tmp_path / "v.jsonl", counted(), Counting(costs=True), max_concurrency=3)
    # Three under way and the next one drawn, which waits for a place.
    assert max(ahead) <= 4


def test_two_responses_with_one_id_are_refused(tmp_path):
    shown = (Candidate("a", "x"), Candidate("a", "y"))
    with pytest.raises(ValueError, match="question q: two shown responses have the same id"):
        run(tmp_path / "v.jsonl", [Request("compare", "q", "", "p", "", CRITERION, shown)], Scripted(False))
