"""Batches while they are written: from the first request to the moment when they could be sent.

A request belongs to this process while its batch is a draft, and to the batch itself once the draft
is closed. The module owns that handover, and the rule that a batch stands in the ledger before any
file of it exists: whatever a killed process leaves behind is then found by its tag.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from jaxmodpo.judging.batch_context import BatchContext
from jaxmodpo.judging.batch_files import BatchFiles, Draft, Header
from jaxmodpo.judging.batch_records import Batch
from jaxmodpo.judging.judge import Call

HOLD = 26 * 3600.0
"""Seconds for which a batch's requests are its own: its 24 hours, and time to read it."""


@dataclass(eq=False)
class HeldBatch:
    """A batch that this process looks after.

    Attributes:
        files: what it asks.
        header: whose it is, and how often its requests were asked.
        requests: how many it has.
        batch_id: the endpoint's name of it; empty until it is created.
        file_id: the endpoint's name of its input file; empty until that is uploaded.
        status: what the endpoint last said of it.
        unsure: it may be at the endpoint without our knowing.
        resumed: an earlier process may have put some of its answers.
        claimed_at: when its claims were last made to hold.
    """

    files: BatchFiles
    header: Header
    requests: int
    batch_id: str = ""
    file_id: str = ""
    status: str = ""
    unsure: bool = False
    resumed: bool = False
    claimed_at: float = 0.0

    @property
    def tag(self) -> str:
        return self.files.tag


@dataclass(eq=False)
class BatchWriter:
    """Writes requests into batches, each of as many as an endpoint takes.

    Attributes:
        context: of the judge whose they are.
        when_written: takes each batch that is closed, and could be sent.
        max_requests: of a new batch; lowered where the endpoint has room for small ones only.
        drafts: those that are being written, by tag.
    """

    context: BatchContext
    when_written: Callable[[HeldBatch], None]
    max_requests: int
    drafts: dict[str, Draft] = field(default_factory=dict)

    def add(self, draft: Draft | None, header: Header, call: Call, line: bytes) -> Draft:
        """Add a request to a draft, or to a new one where it is full; return the one now open."""
        if draft is not None and not draft.fits(line):
            self.close(draft)
            draft = None
        if draft is None:
            draft = self._begin(header)
        draft.add(call, line)
        return draft

    def _begin(self, header: Header) -> Draft:
        tag = uuid.uuid4().hex
        ledger = self.context.ledger
        # The tag is claimed like a request, so that a second process of the same run, which finds
        # the batch in the ledger, does not take it for one whose process is gone.
        ledger.claims.take([tag])
        # Written down first, so that files are never left behind: a start that finds a record
        # without files forgets it, and nobody would ever find files without a record.
        ledger.batches.record(Batch(tag, "", "prepared", 0))
        files = BatchFiles(self.context.folder, tag)
        draft = Draft(files, header, self.max_requests, self.context.max_bytes)
        self.drafts[tag] = draft
        return draft

    def close(self, draft: Draft) -> None:
        """Make a draft durable and give it its requests."""
        # The order matters where the process dies between two of these steps. The files come
        # first: the record promises them. The claims come last: until then the requests are
        # claimed by this process, and are free as soon as it is gone.
        draft.close()
        batch = HeldBatch(draft.files, draft.header, len(draft.keys))
        ledger = self.context.ledger
        ledger.batches.record(Batch(batch.tag, "", "prepared", batch.requests))
        ledger.claims.give_to_batch(draft.keys, batch.tag, HOLD)
        del self.drafts[batch.tag]
        self.when_written(batch)
