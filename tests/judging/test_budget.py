"""What a run may spend is not exceeded, by threads that share it either, and is used up where it
can be.
"""

from __future__ import annotations

import random
import threading
import time

import pytest

from jaxmodpo.errors import UserError
from jaxmodpo.judging.budget import Budget
from jaxmodpo.judging.judge import Answer


def answer(cost: float | None) -> Answer:
    return Answer("valid", "", cost=cost)


def test_without_a_limit_nothing_is_refused_and_everything_is_counted():
    budget = Budget()
    for cost in (0.5, None, 0.25):
        assert budget.reserve()
        budget.settle(answer(cost))
    assert (budget.calls, budget.dollars) == (3, 0.75)


def test_calls_are_refused_at_the_limit_those_under_way_and_those_of_earlier_starts_included():
    budget = Budget(most_calls=5, calls=2)
    budget.reserve()
    budget.settle(answer(None))
    budget.reserve()
    budget.reserve()
    with pytest.raises(
        UserError, match="the budget of 5 calls is spent; raise --budget-calls and run the same"
    ):
        budget.reserve()
    budget.settle(None)  # failed, and cost nothing
    budget.reserve()


def test_dollars_are_refused_where_one_more_call_at_the_mean_price_would_exceed_them():
    budget = Budget(most_dollars=1.0, calls=2, dollars=0.4, priced=2)
    budget.reserve()  # 0.6 if it costs the mean, 0.2
    budget.reserve()
    budget.reserve()
    with pytest.raises(
        UserError,
        match=r"the budget of \$1.00 is spent \(\$0.4000 in 2 calls\); raise --budget and",
    ):
        budget.reserve()
    budget.settle(answer(0.1))
    # The mean is 0.5 / 3: with two under way a third fits.
    budget.reserve()


def test_an_expected_price_counts_before_the_first_call():
    budget = Budget(most_dollars=1.0, expected=0.4)
    budget.reserve()
    budget.reserve()
    with pytest.raises(UserError, match="spent"):
        budget.reserve()


def spend(
    budget: Budget, workers: int, costs: list[float | None], seed: int = 0
) -> tuple[list[str], int]:
    """Make calls on threads until the budget is spent; a cost of None fails. Return refusals and
    the most at once.
    """
    refusals, lock, inside, most = [], threading.Lock(), 0, 0
    chance, stop = random.Random(seed), threading.Event()

    def work() -> None:
        nonlocal inside, most
        try:
            while budget.reserve(stop):
                with lock:
                    inside += 1
                    most = max(most, inside)
                    cost, pause = chance.choice(costs), chance.uniform(0, 0.003)
                time.sleep(pause)
                with lock:
                    inside -= 1
                budget.settle(None if cost is None else answer(cost))
        except UserError as error:
            refusals.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return refusals, most


@pytest.mark.parametrize("failing", [False, True])
def test_threads_that_share_a_budget_of_calls_make_exactly_as_many(failing):
    """A call that fails leaves its place to another, and none is told that all is spent while that
    may come.
    """
    budget = Budget(most_calls=40)
    refusals, most_inside = spend(budget, 8, [0.0, None, None] if failing else [0.0])
    assert budget.calls == 40 and len(refusals) == 8 and most_inside <= 8


def test_threads_that_share_a_budget_of_dollars_never_exceed_it_even_with_their_first_calls():
    for seed in range(3):
        budget = Budget(most_dollars=0.1)
        refusals, _ = spend(budget, 16, [0.01], seed)
        assert budget.dollars == pytest.approx(0.1) and budget.calls == 10 and len(refusals) == 16
    dear = Budget(most_dollars=0.1)
    refusals, most_inside = spend(dear, 16, [0.08])
    assert dear.calls == 1 and len(refusals) == 16 and most_inside == 1, (
        "the first call is alone, since its price is unknown"
    )


def test_a_stop_ends_the_waiting():
    budget, stop, results = Budget(most_calls=1), threading.Event(), []
    budget.reserve(stop)
    waiting = threading.Thread(target=lambda: results.append(budget.reserve(stop)))
    waiting.start()
    time.sleep(0.05)
    assert results == []
    stop.set()
    waiting.join(5)
    assert results == [False]


def test_a_budget_of_dollars_ends_a_run_whose_endpoint_counts_no_tokens():
    budget = Budget(most_dollars=1.0)
    budget.reserve()
    budget.settle(Answer("error", ""))
    budget.reserve()
    budget.settle(answer(None))
    with pytest.raises(UserError, match="does not count tokens, so that --budget cannot be kept"):
        budget.reserve()


def test_calls_without_a_price_do_not_make_the_others_seem_cheap():
    budget = Budget(most_dollars=1.0, calls=100, dollars=0.8, priced=4)
    budget.reserve()
    with pytest.raises(UserError, match="is spent"):
        budget.reserve()
