"""Workers draw what they do themselves and stop together; the limit grows by rounds and shrinks
once a round.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from jaxmodpo.endpoints.pool import Limiter, drain

# --------------------------------------------------------------------------- drain


def test_every_item_is_worked_on_once_and_no_more_are_drawn_than_there_are_workers():
    calls_drawn, ahead, lock, finished = 0, [], threading.Lock(), []

    def items() -> Iterator[int]:
        nonlocal calls_drawn
        for n in range(300):
            with lock:
                calls_drawn += 1
            yield n

    def work(n: int) -> None:
        with lock:
            ahead.append(calls_drawn - len(finished))
        time.sleep(0.0002)
        with lock:
            finished.append(n)

    drain(items(), work, workers=5, stop=threading.Event())
    assert sorted(finished) == list(range(300)) and max(ahead) <= 5


def test_no_more_threads_than_workers_ever_exist():
    before, most = threading.active_count(), 0

    def work(n: int) -> None:
        nonlocal most
        most = max(most, threading.active_count())

    drain(iter(range(2000)), work, workers=3, stop=threading.Event())
    assert most <= before + 3 and threading.active_count() == before


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_the_first_error_of_the_work_stops_the_drawing_and_lets_the_rest_finish(error):
    stop, begun, ended = threading.Event(), [], []
    barrier = threading.Barrier(4)

    def work(n: int) -> None:
        begun.append(n)
        barrier.wait(5)  # all four workers have one
        if n == 2:
            raise error("two")
        assert stop.wait(5)
        ended.append(n)

    with pytest.raises(error, match="two"):
        drain(itertools.count(), work, workers=4, stop=stop)
    assert sorted(begun) == [0, 1, 2, 3] and sorted(ended) == [0, 1, 3]


def test_an_error_of_the_iterator_is_raised_after_what_was_drawn_is_done():
    finished = []

    def items() -> Iterator[int]:
        yield from range(3)
        raise ValueError("no fourth")

    def work(n: int) -> None:
        time.sleep(0.02)
        finished.append(n)

    with pytest.raises(ValueError, match="no fourth"):
        drain(items(), work, workers=2, stop=threading.Event())
    assert sorted(finished) == [0, 1, 2]


def test_a_stop_set_from_outside_ends_it_in_order():
    stop, finished = threading.Event(), []

    def work(n: int) -> None:
        finished.append(n)
        if len(finished) == 10:
            stop.set()

    drain(itertools.count(), work, workers=1, stop=stop)
    assert finished == list(range(10))


def test_ctrl_c_in_the_main_thread_waits_for_what_is_under_way(monkeypatch):
    started, finished = threading.Semaphore(0), []

    def work(n: int) -> None:
        started.release()
        time.sleep(0.2)
        finished.append(n)

    real, interrupts = threading.Thread.join, [KeyboardInterrupt]

    def join(self, timeout=None):
        if interrupts and self.name.startswith("judge"):
            for _ in range(3):
                assert started.acquire(timeout=5)
            raise interrupts.pop()
        real(self, timeout)

    monkeypatch.setattr(threading.Thread, "join", join)
    with pytest.raises(KeyboardInterrupt):
        drain(itertools.count(), work, workers=3, stop=threading.Event())
    assert sorted(finished) == [0, 1, 2]


def test_ctrl_c_while_the_threads_still_start_waits_for_what_is_under_way():
    finished, started = [], threading.Event()

    def work(n: int) -> None:
        if not started.is_set():
            started.set()
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.3)
        finished.append(n)

    numbers = itertools.count()
    with pytest.raises(KeyboardInterrupt):
        drain(numbers, work, workers=400, stop=threading.Event())
    assert len(finished) == next(numbers)
    assert not [t for t in threading.enumerate() if t.name.startswith("judge")]


# --------------------------------------------------------------------------- Limiter


def enter(limiter: Limiter) -> float:
    entered = limiter.enter()
    assert entered is not None
    return entered


def test_the_limit_starts_small_and_doubles_with_each_round_of_successes_up_to_the_most():
    limiter, limits = Limiter(50, threading.Event()), []
    for _ in range(5):
        limits.append(limiter.limit)
        for entered in [enter(limiter) for _ in range(limiter.limit)]:
            limiter.leave(entered, pushed_back=False)
    assert limits == [8, 16, 32, 50, 50]
    assert Limiter(3, threading.Event()).limit == 3


def test_calls_that_were_under_way_together_halve_the_limit_once():
    limiter = Limiter(64, threading.Event())
    for _ in range(3):
        for entered in [enter(limiter) for _ in range(limiter.limit)]:
            limiter.leave(entered, pushed_back=False)
    assert limiter.limit == 64
    for expected in (32, 16, 8, 4, 2, 1, 1):
        for entered in [enter(limiter) for _ in range(limiter.limit)]:
            limiter.leave(entered, pushed_back=True)
        assert limiter.limit == expected


def test_after_a_push_back_the_limit_grows_by_one_a_round():
    limiter, limits = Limiter(64, threading.Event()), []
    limiter.leave(enter(limiter), pushed_back=True)
    for _ in range(6):
        limits.append(limiter.limit)
        for entered in [enter(limiter) for _ in range(limiter.limit)]:
            limiter.leave(entered, pushed_back=False)
    assert limits[0] == 4
    # Each of n successes adds 1/n', n' being a little more than n: nearly one a round, never more.
    assert (
        all(0 <= after - before <= 1 for before, after in itertools.pairwise(limits))
        and limits[-1] >= 8
    )


def test_no_more_than_the_limit_are_ever_inside():
    limiter, inside, most, lock = Limiter(6, threading.Event()), 0, 0, threading.Lock()

    def call(n: int) -> None:
        nonlocal inside, most
        for turn in range(15):
            entered = enter(limiter)
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.001)
            with lock:
                inside -= 1
            limiter.leave(entered, pushed_back=turn == 3 and n == 0)

    threads = [threading.Thread(target=call, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 2 <= most <= 6


def test_a_pause_holds_every_call_back_and_the_longest_counts():
    limiter = Limiter(4, threading.Event())
    begun = time.monotonic()
    limiter.pause(0.3)
    limiter.pause(0.05)
    waited = []

    def call() -> None:
        limiter.leave(enter(limiter), pushed_back=False)
        waited.append(time.monotonic() - begun)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert min(waited) >= 0.3


def test_a_stop_ends_all_waiting():
    stop = threading.Event()
    limiter, results = Limiter(1, stop), []
    enter(limiter)

    def call() -> None:
        results.append(limiter.enter())

    def sleep() -> None:
        limiter.wait(60)
        results.append(None)

    threads = [
        threading.Thread(target=call),
        threading.Thread(target=call),
        threading.Thread(target=sleep),
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join(5)
    assert results == [None, None, None]
    assert limiter.enter() is None
