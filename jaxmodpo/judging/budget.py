"""What a run may spend, in calls and in dollars, counted as calls begin and end.

A module of its own because the pool's threads share it with nothing else: a call begins only where
what is spent, what is under way and one more call fit into the budget.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Self

from jaxmodpo.errors import UserError
from jaxmodpo.judging.judge import Answer
from jaxmodpo.judging.ledger import Spent


@dataclass(eq=False)
class Budget:
    """A limit of calls and dollars for a run, over all the times it is started.

    Attributes:
        most_calls: None for no limit.
        most_dollars: None for no limit.
        calls: made so far, in earlier starts too.
        dollars: spent so far.
        priced: of the calls, those whose price is known; their mean price is taken for those under
            way.
        expected: dollars of one call, as long as none has a price.
    """

    most_calls: int | None = None
    most_dollars: float | None = None
    calls: int = 0
    dollars: float = 0.0
    priced: int = 0
    expected: float = 0.0
    _under_way: int = field(init=False, default=0)
    _unpriced: int = field(init=False, default=0)
    _settled: threading.Condition = field(init=False, default_factory=threading.Condition)

    @classmethod
    def after(cls, spent: Spent, most_calls: int | None, most_dollars: float | None) -> Self:
        """Return the budget of a run whose earlier starts, by its ledger, have spent this much."""
        return cls(
            most_calls=most_calls,
            most_dollars=most_dollars,
            calls=spent.calls,
            dollars=spent.dollars,
            priced=spent.counted_calls,
        )

    def reserve(self, stop: threading.Event | None = None) -> bool:
        """Begin a call.

        Args:
            stop: given by threads that share the budget. Where only calls under way stand in the
                way, it waits for them, since one that fails costs nothing; and as long as nobody
                knows what a call costs, one is made at a time.

        Returns:
            False where ``stop`` was set while it waited; the call is then not begun.

        Raises:
            UserError: it would exceed the budget.
        """
        with self._settled:
            while True:
                refusal = self._refusal()
                others = stop is not None and self._under_way > 0
                # Before the first price is known every call counts as nothing: thirty threads
                # would begin thirty calls, whatever the budget. So the first call is made alone.
                unsure = self.most_dollars is not None and not (self.priced or self.expected)
                if refusal is None and not (others and unsure):
                    self._under_way += 1
                    return True
                if refusal is not None and not others:
                    raise UserError(refusal)
                if stop is not None and stop.is_set():
                    return False
                # A stop wakes nobody.
                self._settled.wait(0.2)

    def _refusal(self) -> str | None:
        """Return why no further call may begin; None where one may."""
        if self.most_calls is not None and self.calls + self._under_way >= self.most_calls:
            return (
                f"the budget of {self.most_calls:,} calls is spent; raise --budget-calls and run"
                " the same command again"
            )
        if self.most_dollars is not None and self._unpriced and not self.dollars:
            return (
                "the endpoint does not count tokens, so that --budget cannot be kept; limit the"
                " calls by --budget-calls"
            )
        if self.most_dollars is None:
            return None
        # Calls under way count at their mean price so far, since none has its own yet: a budget
        # can be passed by what a few calls cost more than the mean, and by no more.
        mean_price = self.dollars / self.priced if self.priced else 0.0
        calls_begun = self._under_way + 1
        promised = calls_begun * max(self.expected, mean_price)
        if self.dollars + promised > self.most_dollars:
            return (
                f"the budget of ${self.most_dollars:,.2f} is spent (${self.dollars:,.4f} in"
                f" {self.calls:,} calls); raise --budget and run the same command again"
            )
        return None

    def settle(self, answer: Answer | None) -> None:
        """End a call: with its answer, or None where none came, which costs nothing."""
        with self._settled:
            self._under_way -= 1
            if answer is not None:
                self.calls += 1
                self.dollars += answer.cost or 0.0
                if answer.cost is not None:
                    self.priced += 1
                elif answer.status == "valid":
                    # A failed call may well cost nothing; a vote without a price says that this
                    # endpoint does not count.
                    self._unpriced += 1
            self._settled.notify_all()


class Reservations:
    """The calls of a run of batches that a budget counts as under way: each until it is settled or
    given back.

    A batch's calls are begun hours before they are answered, and some of them by an earlier
    process.

    Args:
        budget: that the calls are reserved in.
    """

    def __init__(self, budget: Budget):
        self._budget = budget
        self._count = 0
        self._lock = threading.Lock()

    def take(self) -> None:
        """Reserve one call.

        Raises:
            UserError: the budget is spent.
        """
        self._budget.reserve()
        self._count += 1

    def take_earlier(self, calls: int) -> None:
        """Reserve calls that were begun earlier; where they are beyond the budget, no other will
        begin.
        """
        for _ in range(calls):
            try:
                self.take()
            except UserError:
                return

    def settle(self, answer: Answer) -> None:
        """Count a call's answer; one of an earlier start that had no room in the budget is not
        counted.
        """
        with self._lock:
            is_reserved = self._count > 0
            self._count = max(0, self._count - 1)
        if is_reserved:
            self._budget.settle(answer)

    def give_back(self) -> None:
        """Give back what was not settled: the calls will not be answered in this run."""
        for _ in range(self._count):
            self._budget.settle(None)
        self._count = 0
