"""Collection loses nothing, asks nothing twice, and ends with the same votes however it was
interrupted.
"""

from __future__ import annotations

import dataclasses
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import pytest

from jaxmodpo.criteria import Criterion
from jaxmodpo.endpoints.pool import drain
from jaxmodpo.judging import collect as module
from jaxmodpo.judging.collect import collect, votes_by_ballot, votes_by_request
from jaxmodpo.judging.judge import Answer, Call, Request, Status, call_key
from jaxmodpo.judging.ledger import Ledger
from jaxmodpo.judging.votes import Vote, votes_of
from jaxmodpo.records import Candidate

CRITERION, OTHER = Criterion("empathy", "d", "b", "w"), Criterion("safety", "d", "b", "w")


def requests(count: int, criteria: tuple[Criterion, ...] = (CRITERION,)) -> list[Request]:
    candidates = (Candidate("a", "x"), Candidate("b", "y"))
    return [
        Request("compare", f"q{n}", "post", "p", "profile", criteria, candidates)
        for n in range(count)
    ]


class Scripted:
    """Prefers a or b by the question's number; fails or raises where it is told to."""

    identity = "scripted"

    def __init__(
        self,
        costs: bool,
        *,
        fails: tuple[str, ...] = (),
        status: Status = "refusal",
        raises_after: int | None = None,
        error: type[BaseException] = RuntimeError,
        workers: int = 4,
    ):
        self.costs, self.workers = costs, workers
        self.fails, self.raises_after, self.error = fails, raises_after, error
        self.status: Status = status
        self.asked: list[str] = []
        self.lock = threading.Lock()

    def answer(self, request: Request) -> Answer:
        with self.lock:
            if self.raises_after is not None and len(self.asked) >= self.raises_after:
                raise self.error("stop")
            self.asked.append(request.question_id)
        if request.question_id in self.fails:
            return Answer(self.status, "no", {}, "m")
        order = ("ab"[int(request.question_id[1:]) % 2],)
        return Answer(
            "valid", "yes", {criterion.name: order for criterion in request.criteria}, "m"
        )

    def ask(self, requests: Iterator[Call], put: Callable[[Call, Answer], None]) -> None:
        if not self.costs:
            for call in requests:
                put(call, self.answer(call.request))
            return
        drain(
            requests,
            lambda a: put(a, self.answer(a.request)),
            workers=self.workers,
            stop=threading.Event(),
        )


def run(path, asked: Iterable[Request], judge: Scripted, *, retry: bool = False) -> list[Vote]:
    asked = list(asked)
    with Ledger(path) as ledger:
        collect(lambda: asked, judge, ledger, label="test", retry=retry)
        return [
            vote
            for _, votes in votes_by_request(lambda: asked, judge.identity, ledger)
            for vote in votes
        ]


def stored(path) -> list[Vote]:
    with Ledger(path) as ledger:
        return list(ledger.every_vote())


def comparable(votes: Iterable[Vote]) -> list[Vote]:
    """Votes without what differs between two undisturbed runs: the call's name and its time."""
    return [vote._replace(call="", time="") for vote in votes]


@pytest.mark.parametrize("costs", [False, True])
def test_votes_come_back_in_the_order_of_the_requests(tmp_path, costs):
    all_requests = requests(40)
    judge = Scripted(costs)
    votes = run(tmp_path / "v.sqlite", all_requests, judge)
    assert [v.question_id for v in votes] == [r.question_id for r in all_requests]
    assert [v.order for v in votes] == [("ab"[n % 2],) for n in range(40)]
    assert [v.key for v in votes] == [call_key(r, judge.identity) for r in all_requests]
    assert sorted(judge.asked) == sorted(r.question_id for r in all_requests)


@pytest.mark.parametrize("costs", [False, True])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_after_a_stop_only_the_rest_is_asked_and_the_votes_are_the_undisturbed_ones(
    tmp_path, costs, error
):
    whole = run(tmp_path / "whole.sqlite", requests(50), Scripted(costs=False))
    path = tmp_path / "v.sqlite"
    first = Scripted(costs, raises_after=17, error=error)
    with pytest.raises(error):
        run(path, requests(50), first)
    # Everything that was answered before the stop is on disk.
    assert len(stored(path)) == len(first.asked) == 17
    second = Scripted(costs)
    votes = run(path, requests(50), second)
    assert Counter(first.asked + second.asked) == Counter(r.question_id for r in requests(50))
    assert comparable(votes) == comparable(whole)
    assert len(stored(path)) == 50


def test_an_interrupt_while_requests_are_drawn_keeps_the_answers_under_way(tmp_path):
    started, release = threading.Semaphore(0), threading.Event()

    class Slow(Scripted):
        def answer(self, request: Request) -> Answer:
            started.release()
            assert release.wait(10)
            return super().answer(request)

    def interrupted() -> Iterator[Request]:
        # As many as the ledger is asked about together, so that the first are handed out.
        yield from requests(module._LOOK_UP)
        raise KeyboardInterrupt

    judge = Slow(costs=True, workers=module._LOOK_UP + 1)

    def let_go() -> None:
        for _ in range(module._LOOK_UP):
            assert started.acquire(timeout=10)
        time.sleep(0.05)
        release.set()

    helper = threading.Thread(target=let_go)
    helper.start()
    with Ledger(tmp_path / "v.sqlite") as ledger, pytest.raises(KeyboardInterrupt):
        collect(interrupted, judge, ledger, label="test")
    helper.join()
    assert len(stored(tmp_path / "v.sqlite")) == len(judge.asked) == module._LOOK_UP


def test_nothing_is_asked_twice(tmp_path):
    run(tmp_path / "v.sqlite", requests(10), Scripted(costs=True))
    judge = Scripted(costs=True)
    votes = run(tmp_path / "v.sqlite", requests(12) + requests(12), judge)
    assert sorted(judge.asked) == ["q10", "q11"]
    assert len(votes) == 24 and votes[:12] == votes[12:]


def test_the_same_request_far_apart_in_one_run_is_asked_once(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_LOOK_UP", 4)
    monkeypatch.setattr(module, "_LOOK_AGAIN", 0.01)
    judge = Scripted(costs=True)
    votes = run(tmp_path / "v.sqlite", requests(9) + requests(9), judge)
    assert sorted(judge.asked) == sorted(f"q{n}" for n in range(9))
    assert votes[:9] == votes[9:]


@pytest.mark.parametrize("costs", [False, True])
@pytest.mark.parametrize("status", ["refusal", "parse_error", "content_filter"])
def test_failed_votes_are_returned_and_asked_again_only_when_told_to(tmp_path, costs, status):
    path = tmp_path / "v.sqlite"
    votes = run(path, requests(6), Scripted(costs, fails=("q1", "q4"), status=status))
    assert [v.status for v in votes] == ["valid", status, "valid", "valid", status, "valid"]
    assert all((v.order is None) == (v.status == status) for v in votes)
    quiet = Scripted(costs)
    assert comparable(run(path, requests(6), quiet)) == comparable(votes) and quiet.asked == []
    judge = Scripted(costs)
    votes = run(path, requests(6), judge, retry=True)
    assert sorted(judge.asked) == ["q1", "q4"]
    assert {v.status for v in votes} == {"valid"}
    assert len(stored(path)) == 8, "the failed ones stay"


@pytest.mark.parametrize("status", ["error", "expired"])
def test_where_nobody_answered_the_next_start_asks_again_by_itself_and_this_one_does_not(
    tmp_path, status
):
    first = Scripted(True, fails=("q1", "q4"), status=status)
    votes = run(tmp_path / "v.sqlite", requests(6), first)
    assert len(first.asked) == 6 and Counter(v.status for v in votes) == {"valid": 4, status: 2}
    second = Scripted(True)
    assert {v.status for v in run(tmp_path / "v.sqlite", requests(6), second)} == {"valid"}
    assert sorted(second.asked) == ["q1", "q4"]


@pytest.mark.parametrize("costs", [False, True])
def test_a_retry_that_fails_ends_and_is_counted(tmp_path, costs):
    run(tmp_path / "v.sqlite", requests(6), Scripted(costs, fails=("q1",)))
    judge = Scripted(costs, fails=("q1",), status="parse_error")
    votes = run(tmp_path / "v.sqlite", requests(6), judge, retry=True)
    assert judge.asked == ["q1"] and votes[1].status == "parse_error"


def test_each_criterion_of_a_call_is_a_vote_and_one_that_fails_is_asked_again_alone_among_calls(
    tmp_path,
):
    class HalfRead(Scripted):
        def answer(self, request: Request) -> Answer:
            answer = super().answer(request)
            if request.question_id == "q1" and self.fails:
                return dataclasses.replace(answer, status="valid", orders={"empathy": ("b",)})
            return answer

    path, both = tmp_path / "v.sqlite", (CRITERION, OTHER)
    votes = run(path, requests(3, both), HalfRead(True, fails=("q1",)))
    assert [(v.question_id, v.criterion, v.status) for v in votes] == [
        ("q0", "empathy", "valid"),
        ("q0", "safety", "valid"),
        ("q1", "empathy", "valid"),
        ("q1", "safety", "parse_error"),
        ("q2", "empathy", "valid"),
        ("q2", "safety", "valid"),
    ]
    assert len({v.call for v in votes}) == 3
    judge = HalfRead(True)
    votes = run(path, requests(3, both), judge, retry=True)
    assert judge.asked == ["q1"] and {v.status for v in votes} == {"valid"}


def test_no_more_requests_are_drawn_than_one_look_into_the_ledger_takes(tmp_path):
    """Memory is flat: whatever the run's length, no more than one look-up's requests are alive at
    once.
    """
    alive, most = weakref.WeakSet[Request](), 0

    class Counting(Scripted):
        def answer(self, request: Request) -> Answer:
            nonlocal most
            most = max(most, len(alive))
            return super().answer(request)

    def counted() -> Iterator[Request]:
        candidates = (Candidate("a", "x"), Candidate("b", "y"))
        for n in range(1200):
            request = Request("compare", f"q{n}", "post", "p", "profile", (CRITERION,), candidates)
            alive.add(request)
            yield request

    with Ledger(tmp_path / "v.sqlite") as ledger:
        collect(counted, Counting(costs=True, workers=3), ledger, label="test")
        assert sum(1 for _ in votes_by_request(counted, "scripted", ledger)) == 1200
    assert most <= 2 * module._LOOK_UP + 4


def test_two_responses_with_one_id_are_refused(tmp_path):
    candidates = (Candidate("a", "x"), Candidate("a", "y"))
    with pytest.raises(ValueError, match="question q: two shown responses have the same id"):
        run(
            tmp_path / "v.sqlite",
            [Request("compare", "q", "", "p", "", (CRITERION,), candidates)],
            Scripted(False),
        )


def test_a_request_without_a_vote_is_not_passed_over(tmp_path):
    with Ledger(tmp_path / "v.sqlite") as ledger, pytest.raises(KeyError):
        list(votes_by_request(lambda: requests(1), "scripted", ledger))


def test_what_another_process_asks_is_left_to_it_and_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_LOOK_AGAIN", 0.02)
    with Ledger(tmp_path / "v.sqlite") as other_ledger, Ledger(tmp_path / "v.sqlite") as own_ledger:
        theirs = [Call(call_key(r, "scripted"), r) for r in requests(3)]
        assert other_ledger.claims.take([a.key for a in theirs]) == {a.key for a in theirs}

        def answer_later() -> None:
            time.sleep(0.3)
            for request_of_other in theirs[:2]:
                answer = Answer("valid", "", {"empathy": ("a",)}, "other")
                other_ledger.add(
                    votes_of(request_of_other, answer, judge="scripted", run=""),
                    [request_of_other.key],
                )
            other_ledger.claims.release([theirs[2].key])

        helper = threading.Thread(target=answer_later)
        helper.start()
        judge = Scripted(costs=True)
        collect(lambda: requests(6), judge, own_ledger, label="test")
        helper.join()
        # The one that the other gave up is asked here.
        assert sorted(judge.asked) == ["q2", "q3", "q4", "q5"]
        models = [
            votes[0].model
            for _, votes in votes_by_request(lambda: requests(6), "scripted", own_ledger)
        ]
        assert models == ["other", "other", "m", "m", "m", "m"]


def test_after_any_end_no_claim_is_left(tmp_path):
    for error in (None, RuntimeError, KeyboardInterrupt):
        path = tmp_path / f"{error}.sqlite"
        with Ledger(path) as ledger, Ledger(path) as other_ledger:
            judge = Scripted(
                True, raises_after=None if error is None else 5, error=error or RuntimeError
            )
            try:
                collect(lambda: requests(20), judge, ledger, label="test")
            except BaseException as raised:
                assert error is not None and isinstance(raised, error)
            keys = [call_key(r, "scripted") for r in requests(20)]
            assert other_ledger.claims.take(keys) == set(keys)


def test_a_call_for_one_missing_criterion_changes_nothing_of_the_others(tmp_path):
    """The first call answers one criterion of two; the second both, otherwise: the first one's
    answer stays.
    """

    class Half(Scripted):
        def answer(self, request: Request) -> Answer:
            return Answer("valid", "half", {"empathy": ("a",)}, "m", cost=1.0)

    class Whole(Scripted):
        def answer(self, request: Request) -> Answer:
            return Answer("valid", "whole", {"empathy": ("b",), "safety": ("b",)}, "m", cost=1.0)

    all_requests = requests(1, (CRITERION, OTHER))
    with Ledger(tmp_path / "v.sqlite", "r") as ledger:
        collect(lambda: all_requests, Half(True), ledger, label="t")
        collect(lambda: all_requests, Whole(True), ledger, label="t", retry=True)
        ((_, votes),) = votes_by_request(lambda: all_requests, "scripted", ledger)
        assert [(v.criterion, v.status, v.order) for v in votes] == [
            ("empathy", "valid", ("a",)),
            ("safety", "valid", ("b",)),
        ]
        # Both calls are paid for, whatever is kept of them.
        assert ledger.spent("r").dollars == 2.0


def test_votes_come_back_by_ballot_and_criterion_without_those_of_a_second_asking(tmp_path):
    both = (CRITERION, OTHER)
    all_requests = [
        dataclasses.replace(request, ballot_number=n // 2)
        for n, request in enumerate(requests(4, both))
    ]
    all_requests.insert(1, dataclasses.replace(all_requests[0], repeat=1))
    run(tmp_path / "v.sqlite", all_requests, Scripted(costs=False))
    with Ledger(tmp_path / "v.sqlite") as ledger:
        by_ballot = list(votes_by_ballot(lambda: all_requests, "scripted", ledger))
        assert [
            (s.ballot_number, s.criterion, [v.question_id for v in s.votes]) for s in by_ballot
        ] == [
            (0, "empathy", ["q0", "q1"]),
            (0, "safety", ["q0", "q1"]),
            (1, "empathy", ["q2", "q3"]),
            (1, "safety", ["q2", "q3"]),
        ]
        assert {
            v.criterion for s in by_ballot for v in s.votes if v.criterion != s.criterion
        } == set()
        # A vote is found under whatever number its ballot has in a later run.
        moved = [
            dataclasses.replace(request, ballot_number=request.ballot_number + 7)
            for request in all_requests
        ]
        assert [s.ballot_number for s in votes_by_ballot(lambda: moved, "scripted", ledger)] == [
            7,
            7,
            8,
            8,
        ]
        # The other criterion's requests of a ballot may come later; those of one criterion may not
        # be scattered.
        scattered = [all_requests[0], all_requests[3], all_requests[2]]
        with pytest.raises(
            ValueError, match="the requests of ballot 0 by empathy do not follow one another"
        ):
            list(votes_by_ballot(lambda: scattered, "scripted", ledger))
