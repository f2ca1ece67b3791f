"""Put requests to a judge, resumably: what the ledger already holds is not asked again.

The module owns the promise that whatever was answered is on disk, however the run ends, that no two
processes ask the same, and that a run of a million votes needs no more memory than one of a
thousand: requests are generated twice, once to be asked and once to be counted, and never kept.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from jaxmodpo.judging.judge import Answer, Call, Judge, Request, Status, call_key, vote_keys
from jaxmodpo.judging.ledger import Ledger
from jaxmodpo.judging.votes import Vote, check_votes, votes_of
from jaxmodpo.progress import Progress

logger = logging.getLogger(__name__)

MakeRequests = Callable[[], Iterable[Request]]
"""Generates the run's requests, the same each time."""

# Calls whose votes are looked up by one query, and claimed by one.
_LOOK_UP = 256
# Votes of a judge that costs nothing are committed so many together: what is lost with a killed
# process is answered again in a moment.
_KEEP_TOGETHER = 2048
# Seconds between two looks at what other processes are asking: at first, and at most.
_LOOK_AGAIN = 2.0
_LOOK_SELDOM = 60.0

UNANSWERED: frozenset[Status] = frozenset({"error", "expired"})
"""Statuses that mean that nobody answered: an unfinished run asks these again by itself."""


def is_open(status: Status | None, retry: bool) -> bool:
    """Return whether a vote is to be asked for: there is none, nobody answered, or failed ones are
    asked again.
    """
    return status is None or status in UNANSWERED or (retry and status != "valid")


def collect(
    requests: MakeRequests,
    judge: Judge,
    ledger: Ledger,
    *,
    label: str,
    total: int | None = None,
    retry: bool = False,
) -> Counter[Status]:
    """Ask every request that the ledger has no answer to.

    A judge that costs has each answer on disk before it counts; votes of a free one are kept in
    batches. What another process is asking is left to it and waited for. Votes are read back by
    :func:`votes_by_ballot`.

    Args:
        requests: generates the requests.
        judge: the judge.
        ledger: where votes are kept.
        label: of the progress bar and the log.
        total: how many votes there will be, for the progress bar.
        retry: ask failed votes of any kind again, and not only those that nobody answered.

    Returns:
        How many votes of each status were given now.

    Raises:
        ValueError: a request shows two responses with one id.
        UserError: the judge found that no request of this run can succeed, or the budget is spent.
    """
    run = _Run(judge, ledger, retry)
    pause = _LOOK_AGAIN
    with Progress(label, total, "votes", smoothing=0.05) as run.bar:
        # Each turn looks at all requests anew. The first asks nearly everything; later ones wait
        # for what other processes ask, and ask it themselves where such a process dies.
        while True:
            run.elsewhere = 0
            run.again = 0
            before = run.new_votes.total()
            try:
                judge.ask(run.unanswered(requests()), run.put)
            finally:
                # However it ends, by Ctrl-C too: answers are kept, and what is claimed and not
                # answered is free for others at once.
                run.keep()
                ledger.claims.release_all()
            if not run.elsewhere and not run.again:
                break
            # What was under way when it was looked at may be answered by now, as a batch of an
            # earlier start is.
            if not run.elsewhere or run.new_votes.total() > before:
                continue
            logger.info(
                "%s: %d votes are under way in another process; waiting for them",
                label,
                run.elsewhere,
            )
            time.sleep(pause)
            # Seldom in the end: the other process may have hours to go, and each look reads the
            # whole ledger.
            pause = min(2 * pause, _LOOK_SELDOM)
    return run.new_votes


# --------------------------------------------------------------------------- reading votes back


def votes_by_request(
    requests: MakeRequests,
    identity: str,
    ledger: Ledger,
) -> Iterator[tuple[Request, list[Vote]]]:
    """Yield each request with its votes, one for each of its criteria, in the order of the
    requests.

    Raises:
        KeyError: a request without a vote.
        UserError: a vote in the ledger names another question, persona or criterion than its
            request.
    """
    for group in _groups(_calls(requests(), identity)):
        keys_by_call = [vote_keys(call) for call in group]
        votes = ledger.votes(list(itertools.chain.from_iterable(keys_by_call)))
        for call, keys in zip(group, keys_by_call, strict=True):
            votes_of_request = [votes[key] for key in keys]
            check_votes(call.request, votes_of_request)
            yield call.request, votes_of_request


class BallotVotes(NamedTuple):
    """All votes on one ballot or unit by one criterion; ``ballot_number`` is what its requests
    carried.
    """

    ballot_number: int
    criterion: str
    votes: list[Vote]


def votes_by_ballot(requests: MakeRequests, identity: str, ledger: Ledger) -> Iterator[BallotVotes]:
    """Yield the votes on each ballot by each criterion, ready to be counted.

    Only one ballot's votes are in memory at a time, so its requests must follow one another.
    Votes of a repeated request are left out: they show how steady the judge is, and decide nothing.

    Raises:
        KeyError, UserError: as :func:`votes_by_request`.
        ValueError: a ballot's requests by one criterion are scattered, so that its votes would be
            counted in parts.
    """
    complete = set[tuple[int, str]]()
    every_pair = votes_by_request(requests, identity, ledger)
    # Generators, so that no more than one ballot is read at a time.
    asked_once = (pair for pair in every_pair if not _is_repeated(pair))
    ballots = itertools.groupby(asked_once, key=_ballot_number)
    for ballot_number, pairs in ballots:
        by_criterion: dict[str, list[Vote]] = {}
        for _, votes in pairs:
            for vote in votes:
                by_criterion.setdefault(vote.criterion, []).append(vote)
        for criterion, votes in by_criterion.items():
            # groupby starts a new group wherever the ballot changes: scattered requests would make
            # two results of one ballot, and the second would replace the first in silence.
            if (ballot_number, criterion) in complete:
                raise ValueError(
                    f"the requests of ballot {ballot_number} by {criterion} do not follow one another"
                )
            complete.add((ballot_number, criterion))
            yield BallotVotes(ballot_number, criterion, votes)


def _is_repeated(request_and_votes: tuple[Request, list[Vote]]) -> bool:
    request, _ = request_and_votes
    return request.repeat > 0


def _ballot_number(request_and_votes: tuple[Request, list[Vote]]) -> int:
    request, _ = request_and_votes
    return request.ballot_number


def _groups(calls: Iterator[Call]) -> Iterator[list[Call]]:
    while group := list(itertools.islice(calls, _LOOK_UP)):
        yield group


def _calls(requests: Iterable[Request], identity: str) -> Iterator[Call]:
    for request in requests:
        response_ids = {response.response_id for response in request.responses}
        if len(response_ids) < len(request.responses):
            raise ValueError(
                f"question {request.question_id}: two shown responses have the same id"
            )
        yield Call(call_key(request, identity), request)


# --------------------------------------------------------------------------- one collection


@dataclass(eq=False)
class _Run:
    """The state of one :func:`collect`.

    Attributes:
        judge: is asked.
        ledger: keeps the votes.
        retry: whether failed votes are asked again.
        bar: shows how far the run is.
        new_votes: those given now, by status.
        elsewhere: votes that another process is asking for, as of this turn.
        again: votes that this process is asking for already, as of this turn.
    """

    judge: Judge
    ledger: Ledger
    retry: bool
    bar: Progress = field(init=False)
    new_votes: Counter[Status] = field(init=False, default_factory=Counter)
    elsewhere: int = field(init=False, default=0)
    again: int = field(init=False, default=0)
    _newest_before: int = field(init=False)
    _kept_later: list[Vote] = field(init=False, default_factory=list)
    _counted: int = field(init=False, default=0)
    _shown: int = field(init=False, default=0)
    _dollars: float = field(init=False, default=0.0)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._newest_before = self.ledger.newest()

    def unanswered(self, requests: Iterable[Request]) -> Iterator[Call]:
        """Yield what is to be asked, claimed where it costs; count the others."""
        votes_considered = 0
        for group in _groups(_calls(requests, self.judge.identity)):
            votes_considered += _votes(group)
            unanswered = self._unanswered_of(group)
            if unanswered and self.judge.costs:
                unanswered = self._claimed(unanswered)
            to_come = self.elsewhere + self.again + _votes(unanswered)
            self._show(votes_considered - to_come)
            yield from unanswered

    def _claimed(self, calls: list[Call]) -> list[Call]:
        """Claim requests, and return those that are this process's to ask; count the votes of the
        others.
        """
        claims = self.ledger.claims
        # A request that stands in the run twice may be under way here already. It is nobody else's,
        # and is looked at again when it has its answer.
        keys_under_way_here = claims.held(_keys(calls))
        others: list[Call] = []
        for call in calls:
            if call.key in keys_under_way_here:
                self.again += _votes([call])
            else:
                others.append(call)
        claimed_keys = claims.take(_keys(others))
        claimed = [call for call in others if call.key in claimed_keys]
        self.elsewhere += _votes(others) - _votes(claimed)
        # Another process may have answered between the look at the votes and the claim, and given
        # its claim back: only now that nobody else can ask is what the ledger lacks certain.
        still_unanswered = self._unanswered_of(claimed)
        answered_meanwhile = [call for call in claimed if call not in still_unanswered]
        claims.release(_keys(answered_meanwhile))
        return _once(still_unanswered)

    def _unanswered_of(self, group: Sequence[Call]) -> list[Call]:
        """Return the requests that lack a vote by one of their criteria at least."""
        keys_by_call = [vote_keys(call) for call in group]
        keys = list(itertools.chain.from_iterable(keys_by_call))
        statuses = self.ledger.statuses(keys)
        open_keys = {key for key in keys if is_open(statuses.get(key), self.retry)}
        # What failed in this run, here or in another process, is not asked a second time. Without
        # this, two runs that ask failed votes again would go on with each other's for ever.
        failed_keys = [key for key in open_keys if key in statuses]
        open_keys -= self.ledger.voted_since(self._newest_before, failed_keys)
        unanswered: list[Call] = []
        for call, own_keys in zip(group, keys_by_call, strict=True):
            if not open_keys.isdisjoint(own_keys):
                unanswered.append(call)
        return unanswered

    def put(self, call: Call, answer: Answer) -> None:
        """Keep an answer; at once where it cost something."""
        votes = votes_of(call, answer, judge=self.judge.identity, run=self.ledger.run)
        if self.judge.costs:
            if len(votes) > 1:
                votes = self._not_valid_before(votes)
            # Not under the lock: threads that wait here together are committed together.
            self.ledger.add(votes, [call.key])
        with self._lock:
            if not self.judge.costs:
                self._kept_later += votes
            for vote in votes:
                self.new_votes[vote.status] += 1
            self._dollars += answer.cost or 0.0
            self._counted += len(votes)
            if self._dollars:
                self.bar.set_postfix_str(f"${self._dollars:,.2f}", refresh=False)
            self.bar.update(len(votes))
        if len(self._kept_later) >= _KEEP_TOGETHER:
            self.keep()

    def _not_valid_before(self, votes: list[Vote]) -> list[Vote]:
        """Leave out criteria that an earlier call answered: its answers stay; the others bear the
        call's cost.
        """
        statuses_before = self.ledger.statuses([vote.key for vote in votes])
        not_yet_valid = [vote for vote in votes if statuses_before.get(vote.key) != "valid"]
        if len(not_yet_valid) in (0, len(votes)):
            return votes
        # A call's cost is divided among its votes, and those that are left out take none of it.
        factor = len(votes) / len(not_yet_valid)
        return [_times_paid(vote, factor) for vote in not_yet_valid]

    def keep(self) -> None:
        """Write down what waits to be."""
        with self._lock:
            votes = self._kept_later
            self._kept_later = []
        if votes:
            self.ledger.add(votes)

    def _show(self, votes_present: int) -> None:
        """Move the bar on to votes that were there before; they are no sign of speed."""
        with self._lock:
            ahead = votes_present - self._shown - self._counted
            if ahead > 0:
                self._shown += ahead
                self.bar.skip(ahead)


def _times_paid(vote: Vote, factor: float) -> Vote:
    """Return a vote whose part of its call's tokens and cost is multiplied; what is unknown stays
    so.
    """
    paid: dict[str, Any] = {}
    for name in ("prompt_tokens", "cached_tokens", "completion_tokens", "cost"):
        amount = getattr(vote, name)
        if amount is not None:
            paid[name] = amount * factor
    return vote._replace(**paid)


def _votes(calls: Sequence[Call]) -> int:
    """Return how many votes requests will bring."""
    return sum(len(call.request.criteria) for call in calls)


def _once(calls: Sequence[Call]) -> list[Call]:
    """Leave out requests that ask the same as an earlier one."""
    by_key = {call.key: call for call in calls}
    return list(by_key.values())


def _keys(calls: Sequence[Call]) -> list[str]:
    return [call.key for call in calls]
