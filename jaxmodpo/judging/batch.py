"""A judge that hands its requests to OpenAI's Batch API: half the price, within a day.

The module owns the promise that nothing is paid twice and nothing lost over hours in which the
process may die. A batch is written down, with a tag that it carries at the endpoint, before it is
created; its requests are claimed in its name, and a later run finds it, reads it and goes on. What a
batch did not come to is asked again in another one.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jaxmodpo.errors import UserError
from jaxmodpo.failures import ACCOUNT_CODES
from jaxmodpo.judging.batch_api import HOPELESS, NO_ROOM, BatchAPI
from jaxmodpo.judging.batch_files import EXPIRED, BatchFiles, Draft, Header, Outcome, input_line, outcomes
from jaxmodpo.judging.batch_records import Batch
from jaxmodpo.judging.budget import Budget
from jaxmodpo.judging.judge import Answer, Asked, Request, Usage, vote_keys
from jaxmodpo.judging.ledger import Ledger

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types import Batch as Seen

    from jaxmodpo.judging.endpoint import EndpointJudge

log = logging.getLogger(__name__)

Item = TypeVar("Item")

HOLD = 26 * 3600.0
"""Seconds for which a batch's requests are its own: its 24 hours, and time to read it."""

_ENDED = frozenset({"completed", "expired", "cancelled", "failed"})
# Refusals for want of room, one after the other with nothing else under way, before a batch is halved.
_REFUSALS = 3
_TOGETHER = 512
# For a budget's first guess.
_BYTES_PER_TOKEN, _ANSWER_TOKENS = 4, 40
# Answers are kept by several threads, since those that come together are committed together.
_THREADS = 16


@dataclass(eq=False)
class BatchJudge:
    """Asks a model through the Batch API. Votes are interchangeable with the endpoint judge's.

    Statuses: those of ``read`` for what was answered; ``content_filter``; ``expired`` where a request
    was not come to in ``rounds`` batches; ``error`` for everything else, with the endpoint's words.

    Attributes:
        client: makes no attempts of its own.
        ledger: the one that the answers are kept in; it also keeps the batches and whose each request is.
        folder: for the files of batches; they are deleted once read.
        body: returns the JSON body of one chat completion.
        read: turns a chat completion, or whatever was sent for one, into an answer.
        identity: the endpoint judge's.
        discount: the share of the price that is taken off ``read``'s costs.
        budget: what may be spent; what is in batches that are under way counts as its mean call so far.
        price: dollars for a call's tokens, undiscounted: what a call counts for while there is no mean.
        poll_seconds: between two looks at the batches.
        max_requests: of one batch.
        max_bytes: of one batch's input file.
        max_batches: at the endpoint at once.
        rounds: batches in which a request that was not come to is asked, at most.
        backoff: seconds before a failed call's second attempt.
        said: returns what an endpoint said without the key and without the request's own texts.
        name: returns a name that an endpoint gave without the key, and of a length that names have.
        look: takes each answer in turn, and raises where one after the other was of no use.
    """

    client: OpenAI
    ledger: Ledger
    folder: Path
    body: Callable[[Request], dict[str, Any]]
    read: Callable[[Any, Request], Answer]
    identity: str
    discount: float = 0.0
    budget: Budget = field(default_factory=Budget)
    price: Callable[[Usage], float | None] = lambda usage: None
    poll_seconds: float = 60.0
    max_requests: int = 50_000
    max_bytes: int = 200_000_000
    max_batches: int = 20
    rounds: int = 3
    backoff: float = 1.0
    said: Callable[[str, Request], str] = lambda text, request: text
    name: Callable[[str], str] = lambda text: text
    look: Callable[[Answer, Request], None] = lambda answer, request: None
    costs: bool = field(init=False, default=True)

    @classmethod
    def of(
        cls, judge: EndpointJudge, ledger: Ledger, folder: Path, discount: float, *, poll_seconds: float = 60.0
    ) -> BatchJudge:
        """Make the batch judge that asks what an endpoint judge would ask, within its budget."""
        return cls(
            judge.client,
            ledger,
            folder,
            judge.body,
            judge.read,
            judge.identity,
            discount,
            judge.budget,
            judge.family.cost,
            poll_seconds,
            said=judge.said,
            name=judge.name,
            look=judge.look_at_the_row,
        )

    def ask(self, requests: Iterator[Asked], put: Callable[[Asked, Answer], None]) -> None:
        """Read the batches of an earlier start, then answer all requests.

        On Ctrl-C batches stay at the endpoint, and the next start reads them.

        Raises:
            UserError: what will hold for every request (key, model, credit, budget), an endpoint that
                does not answer, or the files of an unread batch are gone.
        """
        work = _Work(self, put)
        try:
            work.take_over()
            while True:
                work.send()
                work.draw(requests)
                work.send()
                if work.done:
                    break
                if not work.look():
                    time.sleep(self.poll_seconds)
        except BaseException as error:
            if work.running and isinstance(error, KeyboardInterrupt | UserError):
                log.warning(
                    "the endpoint goes on with what it has (batches: %d); the same command reads it, within 30 days",
                    len(work.running),
                )
            raise
        finally:
            work.leave()
        if work.refusal is not None:
            raise work.refusal


@dataclass(eq=False)
class _Mine:
    """A batch that this process looks after.

    ``unsure`` means that it may be at the endpoint without our knowing; ``resumed`` that an earlier
    process may have put some of its answers; ``held`` is when its claims were last made to hold.
    """

    files: BatchFiles
    header: Header
    requests: int
    batch_id: str = ""
    file_id: str = ""
    status: str = ""
    unsure: bool = False
    resumed: bool = False
    held: float = 0.0

    @property
    def tag(self) -> str:
        return self.files.tag


@dataclass(eq=False)
class _Work:
    """The state of one :meth:`BatchJudge.ask`.

    Attributes:
        judge: whose it is.
        put: keeps an answer.
        drafts: being written, by tag; ``drawn`` is the one that new requests go to.
        waiting: written, and to be created as soon as there is room.
        running: at the endpoint, by tag.
        exhausted: there are no more requests to draw, or none may be (``refusal``).
        useless: answers were, and no further batch is sent; those that wait are given back at the end.
        most: requests of a new batch; lowered where the endpoint has room for small ones only.
    """

    judge: BatchJudge
    put: Callable[[Asked, Answer], None]
    drafts: dict[str, Draft] = field(default_factory=dict)
    drawn: Draft | None = None
    waiting: list[_Mine] = field(default_factory=list)
    running: dict[str, _Mine] = field(default_factory=dict)
    exhausted: bool = False
    refusal: Exception | None = None
    useless: bool = False
    most: int = field(init=False)
    _api: BatchAPI = field(init=False)
    _full: bool = False
    _refused: int = 0
    _reserved: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.most = self.judge.max_requests
        self._api = BatchAPI(self.judge.client, self.judge.backoff)

    @property
    def done(self) -> bool:
        return self.exhausted and not (self.running or (self.waiting and not self.useless))

    # ------------------------------------------------------------------ earlier starts

    def take_over(self) -> None:
        """Look after this run's unread batches whose process is gone."""
        ledger = self.judge.ledger
        mine = ledger.claims.take([batch.tag for batch in ledger.batches.all() if batch.state != "read"])
        tagged: dict[str, Seen] | None = None
        # Looked at again: another process may have read one before the claim.
        for batch in ledger.batches.all():
            if batch.tag not in mine:
                continue
            files = BatchFiles(self.judge.folder, batch.tag)
            header = files.header()
            if batch.state == "read" or (header is not None and header.identity != self.judge.identity):
                ledger.claims.release([batch.tag])
                continue
            batch_id = batch.batch_id
            if batch.state == "prepared":
                tagged = self._api.tagged() if tagged is None else tagged
                batch_id = tagged[batch.tag].id if batch.tag in tagged else ""
            if header is None and batch_id:
                raise UserError(
                    f"the file {files.requests}, which says what the batch {batch_id} of this run asked, is gone; put "
                    "it back, or start another run in another ledger"
                )
            taken = _Mine(files, header or Header("", "", 1), batch.requests, batch_id, resumed=True)
            if batch_id:
                self._is_running(taken)
                self._reserve_all(taken.requests)
            else:
                self._forget(taken)
        if self.running:
            log.info("going on with %d batches of an earlier start", len(self.running))

    def _reserve_all(self, requests: int) -> None:
        """Count calls that were begun earlier; where they are beyond the budget, no other will begin."""
        for _ in range(requests):
            try:
                self.judge.budget.reserve()
            except UserError:
                return
            self._reserved += 1

    # ------------------------------------------------------------------ writing

    def draw(self, requests: Iterator[Asked]) -> None:
        """Write drafts, as long as one that is written could be sent at once."""
        while not self.exhausted and self._room() and not self.waiting:
            asked = next(requests, None)
            if asked is None:
                self.exhausted = True
                break
            body = self.judge.body(asked.request)
            line = input_line(asked.key, body)
            if len(line) > self.judge.max_bytes:
                self.put(asked, Answer("error", f"the request has {len(line):,} bytes, more than a batch may have"))
                continue
            if not self._reserve(asked.request, line):
                self.judge.ledger.claims.release([asked.key])
                break
            header = Header(self.judge.identity, str(body.get("model") or ""), 1)
            self.drawn = self._write(self.drawn, header, asked, line)
        if self.exhausted and self.drawn is not None:
            self._close(self.drawn)
            self.drawn = None

    def _reserve(self, request: Request, line: bytes) -> bool:
        budget = self.judge.budget
        if budget.most_dollars is not None:
            # A whole batch is under way before the first call has a price.
            guessed = Usage(len(line) // _BYTES_PER_TOKEN, 0, _ANSWER_TOKENS * len(request.criteria))
            budget.expected = 0.0 if budget.priced else self._discounted(self.judge.price(guessed)) or 0.0
        try:
            budget.reserve()
        except UserError as error:
            # What is under way is read before the run ends.
            self.refusal, self.exhausted = error, True
            return False
        self._reserved += 1
        return True

    def _write(self, draft: Draft | None, header: Header, asked: Asked, line: bytes) -> Draft:
        """Add a request to a draft, or to a new one where it is full; return the one now open."""
        if draft is not None and not draft.fits(line):
            self._close(draft)
            draft = None
        if draft is None:
            tag = uuid.uuid4().hex
            # Written down first, so that files are never left behind.
            self.judge.ledger.claims.take([tag])
            self.judge.ledger.batches.record(Batch(tag, "", "prepared", 0))
            draft = Draft(BatchFiles(self.judge.folder, tag), header, self.most, self.judge.max_bytes)
            self.drafts[tag] = draft
        draft.add(asked, line)
        return draft

    def _close(self, draft: Draft) -> None:
        draft.close()
        batch = _Mine(draft.files, draft.header, len(draft.keys))
        self.judge.ledger.batches.record(Batch(batch.tag, "", "prepared", batch.requests))
        self.judge.ledger.claims.give_to_batch(draft.keys, batch.tag, HOLD)
        del self.drafts[batch.tag]
        self.waiting.append(batch)

    # ------------------------------------------------------------------ sending

    def send(self) -> None:
        """Create the batches that wait, as far as there is room."""
        while self.waiting and self._room() and not self.useless:
            batch = self.waiting[0]
            batch.file_id = batch.file_id or self._api.upload(batch.files.input)
            batch.unsure = True
            made = self._api.create(batch.file_id, batch.tag)
            if made is None:
                self._no_room(batch)
                return
            batch.batch_id = made.id
            self._is_running(batch)
            self.waiting.remove(batch)

    def _room(self) -> bool:
        """Return whether another batch may be created now: one at a time, since each may be refused."""
        validating = any(batch.status in ("", "validating") for batch in self.running.values())
        return len(self.running) < self.judge.max_batches and not validating and not self._full

    def _is_running(self, batch: _Mine) -> None:
        self.judge.ledger.batches.record(Batch(batch.tag, batch.batch_id, "submitted", batch.requests))
        self.running[batch.tag] = batch
        self._hold(batch)
        log.info("batch %s has %d requests", batch.batch_id, batch.requests)

    def _hold(self, batch: _Mine) -> None:
        self.judge.ledger.claims.give_to_batch([asked.key for asked in batch.files.asked()], batch.tag, HOLD)
        batch.held = time.monotonic()

    def _no_room(self, batch: _Mine) -> None:
        """Keep a batch that was refused for later, or halve it where nothing else is in its way."""
        self.judge.ledger.batches.record(Batch(batch.tag, "", "prepared", batch.requests))
        batch.unsure = False
        if self.running.pop(batch.tag, None) is not None:
            self.waiting.insert(0, batch)
        self._full = True
        if self.running:
            return
        self._refused += 1
        if self._refused < _REFUSALS:
            return
        if batch.requests == 1:
            raise UserError(
                "the Batch API has no room for a single request (enqueued tokens); run the same command again when "
                "other batches of the account have ended"
            )
        self._refused, self.most = 0, (batch.requests + 1) // 2
        log.info("batches have %d requests at most from here on: the account's limit of enqueued tokens", self.most)
        self.waiting.remove(batch)
        self._again(batch, {asked.key for asked in batch.files.asked()}, batch.header)
        self._forget(batch)

    # ------------------------------------------------------------------ reading

    def look(self) -> bool:
        """Look how the batches stand and read those that ended; return whether there were any."""
        ended = False
        # The room that there was not is looked for again at every look while nothing runs.
        self._full = self._full and bool(self.running)
        for batch in list(self.running.values()):
            seen = self._api.retrieve(batch.batch_id)
            if seen.status != batch.status:
                log.info("batch %s is %s", batch.batch_id, seen.status.replace("_", " "))
            batch.status = seen.status
            if time.monotonic() - batch.held > HOLD / 2:
                self._hold(batch)
            if seen.status in _ENDED:
                ended |= self._end(batch, seen)
            elif seen.status != "validating":
                self._refused = 0
        return ended

    def _end(self, batch: _Mine, seen: Seen) -> bool:
        """Read a batch that ended; return False where it had not begun."""
        batch.file_id = seen.input_file_id or batch.file_id
        codes = [error.code or "" for error in (seen.errors.data or [] if seen.errors else [])]
        if seen.status == "failed":
            if NO_ROOM in codes:
                self._no_room(batch)
                return False
            if hopeless := HOPELESS.intersection(codes):
                self._forget(batch)
                code = sorted(hopeless)[0]
                raise UserError(f"the Batch API refused a batch ({code}); change the settings or the account")
        counts = Counter[str]()
        again = self._read(batch, seen, counts)
        if again:
            log.info("batch %s did not come to %d of its requests; asking them again", batch.batch_id, len(again))
            self._again(batch, again, batch.header._replace(round=batch.header.round + 1))
        self._forget(batch)
        self._full, self._refused = False, 0
        hopeless = HOPELESS & counts.keys()
        if ACCOUNT_CODES & counts.keys() or (hopeless and not counts[""]):
            raise UserError(
                f"the judge's model answered {counts['']:,} of {sum(counts.values()):,} requests of a batch: "
                f"{sorted(hopeless)[0]}; change the settings or the account"
            )
        return True

    def _read(self, batch: _Mine, seen: Seen, counts: Counter[str]) -> set[str]:
        """Put what a batch says; return the keys of what is to be asked again, and count codes (none: answered)."""
        again = set[str]()
        last = batch.header.round >= self.judge.rounds
        offsets = batch.files.offsets()
        with ThreadPoolExecutor(_THREADS) as threads:
            for some in _in_lists(self._outcomes(batch, seen), _TOGETHER):
                if batch.resumed:
                    some = self._not_yet_put(some)
                final = list[tuple[Asked, Answer]]()
                for asked, outcome in some:
                    counts[outcome.code] += 1
                    asked = self._with_texts(batch, asked, offsets)
                    if outcome.passing and outcome.code not in HOPELESS and not last:
                        again.add(asked.key)
                    else:
                        final.append((asked, self._answer(batch, outcome, asked.request)))
                list(threads.map(lambda pair: self._settle(*pair), final))
                for asked, answer in final:
                    self._look_at(asked, answer)
        return again

    def _with_texts(self, batch: _Mine, asked: Asked, offsets: Mapping[str, int]) -> Asked:
        """Return a request with what was sent as its persona's text, since an endpoint's words may repeat it."""
        if asked.key not in offsets:
            return asked
        return Asked(asked.key, replace(asked.request, persona_text=batch.files.sent(offsets[asked.key])))

    def _look_at(self, asked: Asked, answer: Answer) -> None:
        """Send and write no further batch where the answers so far, one after the other, were of no use."""
        # What the endpoint did not come to says nothing of the model.
        if self.useless or answer.status in ("error", "expired"):
            return
        try:
            self.judge.look(answer, asked.request)
        except UserError as error:
            self.refusal, self.exhausted, self.useless, self.drawn = error, True, True, None

    def _outcomes(self, batch: _Mine, seen: Seen) -> Iterator[tuple[Asked, Outcome]]:
        """Yield an outcome for each request of a batch, once: of its output, its errors, or its absence in both.

        Request ids come as they are kept, since a resumed batch compares them with those of votes.
        """
        unread = {asked.key: asked for asked in batch.files.asked()}
        numbers = {key: number for number, key in enumerate(unread, 1)}
        for kind, file_id in (("output", seen.output_file_id), ("errors", seen.error_file_id)):
            if file_id:
                self._api.download(file_id, batch.files.answers(kind))
                for outcome in outcomes(batch.files.answers(kind)):
                    asked = unread.pop(outcome.key, None)
                    if asked is not None:
                        yield asked, outcome._replace(request_id=self.judge.name(outcome.request_id))
        for key, asked in unread.items():
            outcome = _absent(key, numbers[key], seen)
            yield asked, outcome._replace(request_id=self.judge.name(outcome.request_id))

    def _not_yet_put(self, some: list[tuple[Asked, Outcome]]) -> list[tuple[Asked, Outcome]]:
        """Leave out what an earlier process put before it died."""
        first = {asked.key: vote_keys(asked)[0] for asked, _ in some}
        votes = self.judge.ledger.votes(list(first.values()))
        put = {key: votes[first[key]].request_id for key in first if first[key] in votes}
        return [(asked, outcome) for asked, outcome in some if put.get(asked.key) != outcome.request_id]

    def _answer(self, batch: _Mine, outcome: Outcome, request: Request) -> Answer:
        if outcome.answered:
            answer = self.judge.read(outcome.completion, request)
            return replace(
                answer, cost=self._discounted(answer.cost), request_id=outcome.request_id or answer.request_id
            )
        status = "error"
        if outcome.code in ("content_filter", "content_policy_violation"):
            status = "content_filter"
        elif outcome.code == EXPIRED:
            status = "expired"
        elif outcome.code in ACCOUNT_CODES or outcome.said.startswith("HTTP 402"):
            # Of the account, not of the request: the same command asks it again once the account is paid.
            status = "error"
        elif outcome.said.startswith("HTTP 4") and not outcome.passing:
            status = "rejected"
        said = self.judge.said(outcome.said, request)
        return Answer(status, said, model=batch.header.model, request_id=outcome.request_id)

    def _discounted(self, dollars: float | None) -> float | None:
        return None if dollars is None else dollars * (1 - self.judge.discount)

    def _settle(self, asked: Asked, answer: Answer) -> None:
        self.put(asked, answer)
        with self._lock:
            counted, self._reserved = self._reserved > 0, max(0, self._reserved - 1)
        if counted:
            self.judge.budget.settle(answer)

    def _again(self, batch: _Mine, keys: Container[str], header: Header) -> None:
        """Write some of a batch's requests into new batches: those that are still its own."""
        own, draft = self.judge.ledger.claims.take_from_batch(batch.tag), None
        if not own:
            return
        for asked, line in self._lines(batch):
            if asked.key in keys and asked.key in own:
                draft = self._write(draft, header, asked, line)
        if draft is not None:
            self._close(draft)

    def _lines(self, batch: _Mine) -> Iterator[tuple[Asked, bytes]]:
        """Yield a batch's requests with their lines.

        Raises:
            UserError: the lines are damaged or gone. The batch is done with, or every start would end here.
        """
        try:
            yield from batch.files.lines()
        except (UserError, FileNotFoundError) as error:
            self._forget(batch)
            raise UserError(
                f"what the batch {batch.batch_id or batch.tag} did not come to cannot be sent again: {error}; its "
                "answers are kept, and the same command asks its other requests anew"
            ) from None

    # ------------------------------------------------------------------ ending

    def _forget(self, batch: _Mine) -> None:
        """Be done with a batch: its requests are free, its files deleted."""
        ledger = self.judge.ledger
        ledger.claims.release_batch(batch.tag)
        # Before it counts as read, since nobody would look for it then.
        batch.files.input.unlink(missing_ok=True)
        ledger.batches.record(Batch(batch.tag, batch.batch_id, "read", batch.requests))
        batch.files.delete()
        self.running.pop(batch.tag, None)
        ledger.claims.release([batch.tag])
        if batch.file_id:
            self._api.delete(batch.file_id)

    def leave(self) -> None:
        """Give back what was not sent; what is at the endpoint, or may be, stays for a later start."""
        for tag, draft in list(self.drafts.items()):
            draft.close()
            self.judge.ledger.claims.release(draft.keys)
            self._forget(_Mine(draft.files, draft.header, len(draft.keys)))
            del self.drafts[tag]
        for batch in self.waiting:
            if not batch.unsure:
                self._forget(batch)
        self.judge.ledger.claims.release([batch.tag for batch in [*self.running.values(), *self.waiting]])
        for _ in range(self._reserved):
            self.judge.budget.settle(None)
        self._reserved = 0


def _absent(key: str, number: int, seen: Seen) -> Outcome:
    """Return what became of a request, the ``number``-th line of its batch, that no file speaks of."""
    if seen.status == "failed":
        errors = (seen.errors.data if seen.errors else None) or []
        own = next((error for error in errors if error.line == number), None)
        if own is not None:
            return Outcome(key, False, code=own.code or "", said=f"refused: {own.message}", request_id=seen.id)
        told = f"the batch failed: {errors[0].code}: {errors[0].message}" if errors else "the batch failed"
        return Outcome(key, False, code="batch_failed", said=told, passing=True, request_id=seen.id)
    if seen.status == "expired":
        said = "the batch expired before it came to this request"
        return Outcome(key, False, code=EXPIRED, said=said, passing=True, request_id=seen.id)
    if seen.status == "cancelled":
        return Outcome(key, False, code="batch_cancelled", said="the batch was cancelled", request_id=seen.id)
    said = "neither the output nor the errors of the batch have a line for this request that can be read"
    return Outcome(key, False, code="no_line", said=said, passing=True, request_id=seen.id)


def _in_lists(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while some := list(itertools.islice(iterator, size)):
        yield some
