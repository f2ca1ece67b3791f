"""The run of batches: written, sent as there is room, looked at until they end, read, and cleaned
up after.

A batch goes through these states. Each is on disk before the next is begun, so that a process may
die anywhere:

    draft ──close──► waiting ──create──► running ──ends──► read ──► its files and claims are gone
                        ▲                   │                │
                        └──── no room ──────┘                └── what it did not come to goes into a
                        new draft

Its requests are claimed by this process while it is a draft, and by the batch itself from then on:
they belong to nobody else however long the endpoint takes, and a later start that finds the batch
finds them claimed.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jaxmodpo.errors import UserError
from jaxmodpo.judging.batch_answers import BatchAnswers
from jaxmodpo.judging.batch_api import HOPELESS, NO_ROOM, BatchAPI
from jaxmodpo.judging.batch_context import BatchContext
from jaxmodpo.judging.batch_files import BatchFiles, Draft, Header, input_line
from jaxmodpo.judging.batch_limits import error_codes, expect_price, refuse_hopeless
from jaxmodpo.judging.batch_outcomes import Outcome
from jaxmodpo.judging.batch_records import Batch
from jaxmodpo.judging.batch_writer import HOLD, BatchWriter, HeldBatch
from jaxmodpo.judging.budget import Reservations
from jaxmodpo.judging.judge import Answer, Call

if TYPE_CHECKING:
    from openai.types import Batch as EndpointsBatch

logger = logging.getLogger(__name__)

_ENDED = frozenset({"completed", "expired", "cancelled", "failed"})
# Refusals for want of room, one after the other with nothing else under way, before a batch is
# halved.
_REFUSALS = 3
# Answers are kept by several threads, since those that come together are committed together.
_THREADS = 16


@dataclass(eq=False)
class BatchRun:
    """The state of one :meth:`BatchJudge.ask`.

    Attributes:
        context: whom it asks, and where answers go.
        put: keeps an answer.
        open_draft: the draft that new requests go to.
        waiting: written, and to be created as soon as there is room.
        running: at the endpoint, by tag.
        exhausted: there are no more requests to draw, or none may be (``refusal``).
        useless: answers were, and no further batch is sent; those that wait are given back at the
            end.
    """

    context: BatchContext
    put: Callable[[Call, Answer], None]
    open_draft: Draft | None = None
    waiting: list[HeldBatch] = field(default_factory=list)
    running: dict[str, HeldBatch] = field(default_factory=dict)
    exhausted: bool = False
    refusal: Exception | None = None
    useless: bool = False
    _api: BatchAPI = field(init=False)
    _writer: BatchWriter = field(init=False)
    _reservations: Reservations = field(init=False)
    _full: bool = False
    _refused: int = 0

    def __post_init__(self) -> None:
        self._api = BatchAPI(self.context.client, self.context.backoff)
        self._writer = BatchWriter(self.context, self.waiting.append, self.context.max_requests)
        self._reservations = Reservations(self.context.budget)

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to draw, to send or to read."""
        to_be_sent = self.waiting and not self.useless
        return self.exhausted and not self.running and not to_be_sent

    # ------------------------------------------------------------------ earlier starts

    def take_over(self) -> None:
        """Look after this run's unread batches whose process is gone."""
        ledger = self.context.ledger
        unread = [batch.tag for batch in ledger.batches.all() if batch.state != "read"]
        # A batch whose process lives is claimed by that process, and is not among these.
        adopted = ledger.claims.take(unread)
        tagged: dict[str, EndpointsBatch] | None = None
        # Looked at again: another process may have read one before the claim.
        for batch in ledger.batches.all():
            if batch.tag not in adopted:
                continue
            files = BatchFiles(self.context.folder, batch.tag)
            header = files.header()
            is_anothers = header is not None and header.identity != self.context.identity
            if batch.state == "read" or is_anothers:
                ledger.claims.release([batch.tag])
                continue
            batch_id = batch.batch_id
            if batch.state == "prepared":
                # Its process died before it wrote down whether the endpoint has it. Creating it
                # anew might pay for it twice, so that the endpoint is asked for its tag; once for
                # all batches of this kind, since the endpoint's list may be long.
                if tagged is None:
                    tagged = self._api.tagged()
                endpoints_batch = tagged.get(batch.tag)
                batch_id = endpoints_batch.id if endpoints_batch is not None else ""
            if header is None and batch_id:
                raise UserError(
                    f"the file {files.requests}, which says what the batch {batch_id} of this run"
                    " asked, is gone; put it back, or start another run in another ledger"
                )
            header = header or Header("", "", 1)
            adopted_batch = HeldBatch(files, header, batch.requests, batch_id, resumed=True)
            if batch_id:
                self._is_running(adopted_batch)
                self._reservations.take_earlier(adopted_batch.requests)
            else:
                # Never sent: its requests are free again, and are drawn like all others.
                self._forget(adopted_batch)
        if self.running:
            logger.info("going on with %d batches of an earlier start", len(self.running))

    # ------------------------------------------------------------------ writing

    def take_requests(self, requests: Iterator[Call]) -> None:
        """Write drafts, as long as one that is written could be sent at once."""
        # No further than that: a request that is drawn is claimed, and other processes that have
        # room for it could not ask it.
        while not self.exhausted and self._room() and not self.waiting:
            call = next(requests, None)
            if call is None:
                self.exhausted = True
                break
            body = self.context.body(call.request)
            line = input_line(call.key, body)
            if len(line) > self.context.max_bytes:
                fault = f"the request has {len(line):,} bytes, more than a batch may have"
                self.put(call, Answer("error", fault))
                continue
            if not self._reserve(call, line):
                self.context.ledger.claims.release([call.key])
                break
            header = Header(self.context.identity, str(body.get("model") or ""), 1)
            self.open_draft = self._writer.add(self.open_draft, header, call, line)
        if self.exhausted and self.open_draft is not None:
            self._writer.close(self.open_draft)
            self.open_draft = None

    def _reserve(self, call: Call, line: bytes) -> bool:
        """Reserve a call in the budget; return False where it is spent."""
        expect_price(self.context, call.request, line)
        try:
            self._reservations.take()
        except UserError as error:
            # What is under way is read before the run ends.
            self.refusal = error
            self.exhausted = True
            return False
        return True

    # ------------------------------------------------------------------ sending

    def send(self) -> None:
        """Create the batches that wait, as far as there is room."""
        while self.waiting and self._room() and not self.useless:
            batch = self.waiting[0]
            batch.file_id = batch.file_id or self._api.upload(batch.files.input)
            # From here until the endpoint's answer is on disk the batch may be there without our
            # knowing. A start that finds it prepared looks for its tag at the endpoint.
            batch.unsure = True
            created = self._api.create(batch.file_id, batch.tag)
            if created is None:
                self._no_room(batch)
                return
            batch.batch_id = created.id
            self._is_running(batch)
            self.waiting.remove(batch)

    def _room(self) -> bool:
        """Return whether another batch may be created now."""
        # One at a time: an endpoint checks its limits while it validates, so that a batch in that
        # state may still be refused for want of room, and so would every batch sent after it.
        statuses = {batch.status for batch in self.running.values()}
        # A batch that was never polled is taken to be validating, too.
        validates = not statuses.isdisjoint({"", "validating"})
        has_place = len(self.running) < self.context.max_batches
        return has_place and not validates and not self._full

    def _is_running(self, batch: HeldBatch) -> None:
        """Write down that a batch is at the endpoint."""
        record = Batch(batch.tag, batch.batch_id, "submitted", batch.requests)
        self.context.ledger.batches.record(record)
        self.running[batch.tag] = batch
        self._hold(batch)
        logger.info("batch %s has %d requests", batch.batch_id, batch.requests)

    def _hold(self, batch: HeldBatch) -> None:
        """Have a batch's requests be its own from now on for as long as it may take."""
        keys = [call.key for call in batch.files.calls()]
        self.context.ledger.claims.give_to_batch(keys, batch.tag, HOLD)
        batch.claimed_at = time.monotonic()

    def _no_room(self, batch: HeldBatch) -> None:
        """Keep a batch that was refused for later, or halve it where nothing else is in its way."""
        self.context.ledger.batches.record(Batch(batch.tag, "", "prepared", batch.requests))
        batch.unsure = False
        if self.running.pop(batch.tag, None) is not None:
            self.waiting.insert(0, batch)
        self._full = True
        if self.running:
            return
        # Nothing of ours fills the account. Another program's batches may, and end some time; only
        # after several refusals is it this batch that is too large by itself.
        self._refused += 1
        if self._refused >= _REFUSALS:
            self._halve(batch)

    def _halve(self, batch: HeldBatch) -> None:
        """Write a batch anew as two, and all later ones no larger than these."""
        if batch.requests == 1:
            raise UserError(
                "the Batch API has no room for a single request (enqueued tokens); run the same"
                " command again when other batches of the account have ended"
            )
        self._refused = 0
        self._writer.max_requests = (batch.requests + 1) // 2
        logger.info(
            "batches have %d requests at most from here on: the account's limit of enqueued tokens",
            self._writer.max_requests,
        )
        self.waiting.remove(batch)
        every_key = {call.key for call in batch.files.calls()}
        self._again(batch, every_key, batch.header)
        self._forget(batch)

    # ------------------------------------------------------------------ reading

    def poll(self) -> bool:
        """Look how the batches stand and read those that ended; return whether there were any."""
        any_ended = False
        # While nothing runs, the room that was lacking is looked for again at every poll.
        self._full = self._full and bool(self.running)
        for batch in list(self.running.values()):
            polled = self._api.retrieve(batch.batch_id)
            if polled.status != batch.status:
                logger.info("batch %s is %s", batch.batch_id, polled.status.replace("_", " "))
            batch.status = polled.status
            # At half of their time, so that a batch which waits for days keeps its claims even
            # where a poll or two fails.
            if time.monotonic() - batch.claimed_at > HOLD / 2:
                self._hold(batch)
            if polled.status in _ENDED:
                any_ended |= self._end(batch, polled)
            elif polled.status != "validating":
                # It has begun, so that the account has room for batches of this size.
                self._refused = 0
        return any_ended

    def _end(self, batch: HeldBatch, ended: EndpointsBatch) -> bool:
        """Read a batch that ended; return False where it had not begun."""
        batch.file_id = ended.input_file_id or batch.file_id
        if ended.status == "failed":
            codes = error_codes(ended)
            if NO_ROOM in codes:
                self._no_room(batch)
                return False
            if hopeless := HOPELESS.intersection(codes):
                self._forget(batch)
                raise UserError(
                    f"the Batch API refused a batch ({min(hopeless)}); change the settings or the"
                    " account"
                )
        counts = Counter[str]()
        # First every answer is kept, then what is missing goes into a new batch, and only then is
        # this one forgotten. A process that dies in between finds it unread and reads it again:
        # answers that it put are recognized by their request ids, and none is paid twice.
        again = self._read(batch, ended, counts)
        if again:
            logger.info(
                "batch %s did not come to %d of its requests; asking them again",
                batch.batch_id,
                len(again),
            )
            next_round = batch.header._replace(round=batch.header.round + 1)
            self._again(batch, again, next_round)
        self._forget(batch)
        self._full = False
        self._refused = 0
        refuse_hopeless(counts)
        return True

    def _read(self, batch: HeldBatch, ended: EndpointsBatch, counts: Counter[str]) -> set[str]:
        """Store the answers of a batch that ended; return the keys of requests to ask again, and
        count error codes.

        Answered requests are counted under the empty code.
        """
        ask_again = set[str]()
        is_last_round = batch.header.round >= self.context.rounds

        def may_go_well(outcome: Outcome) -> bool:
            return outcome.passing and outcome.code not in HOPELESS and not is_last_round

        answers = BatchAnswers(
            self.context,
            self._api,
            batch.files,
            ended,
            batch.header.model,
            batch.resumed,
        )
        with ThreadPoolExecutor(_THREADS) as threads:
            for group in answers.outcomes():
                final: list[tuple[Call, Answer]] = []
                for call, outcome in group:
                    counts[outcome.code] += 1
                    if may_go_well(outcome):
                        ask_again.add(call.key)
                        continue
                    call_with_texts = answers.with_texts(call)
                    answer = answers.answer(call_with_texts, outcome)
                    final.append((call_with_texts, answer))
                # On several threads, since the ledger commits together what comes together. The
                # list waits for all of them, and raises what one of them raised.
                list(threads.map(self._settle, final))
                for call, answer in final:
                    self._judge_the_row(call, answer)
        return ask_again

    def _judge_the_row(self, call: Call, answer: Answer) -> None:
        """Send and write no further batch where answer after answer was of no use."""
        # What the endpoint did not come to says nothing of the model.
        if self.useless or answer.status in ("error", "expired"):
            return
        try:
            self.context.watch(answer, call.request)
        except UserError as error:
            # Not raised here: the rest of this batch, and the others that run, are paid for.
            self.refusal = error
            self.exhausted = True
            self.useless = True
            self.open_draft = None

    def _settle(self, call_and_answer: tuple[Call, Answer]) -> None:
        """Store an answer, and count in the budget what it cost instead of what was expected."""
        call, answer = call_and_answer
        self.put(call, answer)
        self._reservations.settle(answer)

    def _again(self, batch: HeldBatch, keys: Container[str], header: Header) -> None:
        """Write some of a batch's requests into new batches: those that are still its own."""
        # A request whose claim ran out may have been asked by another process since.
        own_keys = self.context.ledger.claims.take_from_batch(batch.tag)
        if not own_keys:
            return
        draft = None
        for call, line in self._lines(batch):
            if call.key in keys and call.key in own_keys:
                draft = self._writer.add(draft, header, call, line)
        if draft is not None:
            self._writer.close(draft)

    def _lines(self, batch: HeldBatch) -> Iterator[tuple[Call, bytes]]:
        """Yield a batch's requests with their lines.

        Raises:
            UserError: the lines are damaged or gone. The batch is done with, or every start would
                end here.
        """
        try:
            yield from batch.files.lines()
        except (UserError, FileNotFoundError) as error:
            self._forget(batch)
            raise UserError(
                f"what the batch {batch.batch_id or batch.tag} did not come to cannot be sent"
                f" again: {error}; its answers are kept, and the same command asks its other"
                " requests anew"
            ) from None

    # ------------------------------------------------------------------ ending

    def _forget(self, batch: HeldBatch) -> None:
        """Be done with a batch: its requests are free, its files deleted."""
        ledger = self.context.ledger
        ledger.claims.release_batch(batch.tag)
        # Before it counts as read, since nobody would look for it then: the input holds profiles,
        # and must not stay on a disk for good because a process died here.
        batch.files.input.unlink(missing_ok=True)
        ledger.batches.record(Batch(batch.tag, batch.batch_id, "read", batch.requests))
        batch.files.delete()
        self.running.pop(batch.tag, None)
        ledger.claims.release([batch.tag])
        if batch.file_id:
            self._api.delete(batch.file_id)

    def leave(self) -> None:
        """Give back what was not sent; what is at the endpoint, or may be, stays for a later
        start.
        """
        claims = self.context.ledger.claims
        for tag, draft in list(self._writer.drafts.items()):
            draft.close()
            claims.release(draft.keys)
            self._forget(HeldBatch(draft.files, draft.header, len(draft.keys)))
            del self._writer.drafts[tag]
        for batch in self.waiting:
            if not batch.unsure:
                self._forget(batch)
        # A later start takes these over, and can do so at once where their tags are not claimed.
        batches_kept = [*self.running.values(), *self.waiting]
        claims.release([batch.tag for batch in batches_kept])
        self._reservations.give_back()
