"""Several hosts that sample one set of replies, each its own share.

Replies do not depend on each other, so the hosts never wait for each other's numbers: each has the
whole model on its own chips, takes every n-th question, and keeps its own journal. The first host
owns the folder. When its own share is done it waits for the others' and writes the replies of all::

    out/sampled.jsonl              the first host's replies so far
    out/.shares/0/share.json       how it was started: with which settings, as one of how many hosts
    out/.shares/1/sampled.jsonl    the second host's replies so far
    out/.shares/1/share.json       how that was started, and whether its share is whole

All of it is removed when the replies are written, so it lies in a folder of which no model can have
the name.

A host that dies loses nothing but time: started again, it samples what its journal lacks, and the
first one waits for it meanwhile. The number of hosts may change between two starts: each host
leaves out what any journal of the folder has, whoever wrote it. Hosts that do not agree are another
matter, since the first one would wait for a share that nobody samples: it looks at how the others
were started, and refuses to wait for them.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jaxmodpo.errors import UserError
from jaxmodpo.files import read_json, write_json
from jaxmodpo.journals import rows_so_far
from jaxmodpo.launched import Place
from jaxmodpo.locks import FolderLock, Held, lock
from jaxmodpo.phase import identity_difference
from jaxmodpo.results.manifest import Identity
from jaxmodpo.results.versioned import plain
from jaxmodpo.sampling.journal import PlannedReply, ReplyKey, rows_by_key

logger = logging.getLogger(__name__)

SHARES = ".shares"
"""the name, in a run's folder, of the folder for what hosts other than the first have sampled"""
RECORD = "share.json"
JOURNAL = "sampled.jsonl"
SECONDS_BETWEEN_LOOKS = 2.0
SECONDS_BETWEEN_LINES = 60.0
SECONDS_TO_AGREE = 60.0
"""how long the first host waits for a host that was started otherwise, earlier, to be started
anew"""


@dataclass(frozen=True, kw_only=True)
class ShareRecord:
    """How a host was started, which it writes for the others to read.

    Attributes:
        identity: settings and inputs of its run.
        hosts: that it was told of.
        start: names this start of it, so that a later one can be told from it.
        is_whole: whether its share is sampled.
    """

    identity: Identity
    hosts: int
    start: str = field(default_factory=lambda: uuid.uuid4().hex)
    is_whole: bool = False


def share_folder(output_dir: Path, number: int) -> Path:
    """Return where a host keeps what it tells the others; all but the first keep their journal
    there too.
    """
    return output_dir / SHARES / str(number)


def share_journal(output_dir: Path, number: int) -> Path:
    """Return a host's journal; that of the first lies in the run's folder itself."""
    return (output_dir if number == 0 else share_folder(output_dir, number)) / JOURNAL


def own_share(planned_replies: Sequence[PlannedReply], place: Place) -> list[PlannedReply]:
    """Return the replies that a host samples: all to every n-th question, whose prompt it prefills
    once.
    """
    number_of: dict[str, int] = {}
    for planned_reply in planned_replies:
        number_of.setdefault(planned_reply.question.question_id, len(number_of))
    share: list[PlannedReply] = []
    for planned_reply in planned_replies:
        question_number = number_of[planned_reply.question.question_id]
        if question_number % place.count == place.number:
            share.append(planned_reply)
    return share


def lock_share(folder: Path) -> FolderLock:
    """Take a share's folder for this process.

    Raises:
        UserError: another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return lock(folder, "responses")
    except Held as held:
        raise UserError(
            f"{folder} is in use by {held}; two processes were given one share of the replies"
        ) from None


def sampled_by_others(
    output_dir: Path, own_journal: Path, settings_key: str
) -> dict[ReplyKey, dict[str, Any]]:
    """Return the replies of these settings in all journals of a run's folder but one's own.

    Hosts of an earlier start are among them, also where there were more of them. Journals are read
    and not opened, since their hosts may be writing to them.
    """
    replies: dict[ReplyKey, dict[str, Any]] = {}
    journals = [output_dir / JOURNAL, *sorted((output_dir / SHARES).glob(f"*/{JOURNAL}"))]
    for path in journals:
        if path != own_journal and path.is_file():
            replies |= rows_by_key(rows_so_far(path), path, settings_key)
    return replies


class Hosts:
    """The hosts of one run, as one of them sees them.

    ::

        hosts = Hosts.join(output_dir, Place(0, 3), identity)
        ...                         # samples its share
        hosts.wait()                # until the other two have theirs
    """

    def __init__(
        self,
        output_dir: Path,
        place: Place,
        record: ShareRecord,
        earlier: Mapping[int, ShareRecord],
    ):
        self._output_dir = output_dir
        self._place = place
        self._record = record
        # What others said when this host was started may come from an earlier start of theirs.
        self._earlier = earlier

    @classmethod
    def join(cls, output_dir: Path, place: Place, identity: Identity) -> Hosts:
        """Tell the others how this host was started."""
        earlier = _records(output_dir)
        hosts = cls(output_dir, place, ShareRecord(identity=identity, hosts=place.count), earlier)
        hosts._write()
        for number, record in earlier.items():
            disagreement = hosts._disagreement(number, record)
            if number != place.number and number < place.count and disagreement:
                logger.warning("%s; start host %d anew", disagreement, number)
        return hosts

    def finish(self) -> None:
        """Tell the others that this host's share is whole."""
        self._record = replace(self._record, is_whole=True)
        self._write()

    def wait(self) -> None:
        """Wait until every other host's share is whole.

        Raises:
            UserError: a host was started with other settings, or as one of another number of hosts.
        """
        began = time.monotonic()
        last_line = began - SECONDS_BETWEEN_LINES
        while waiting := self._unfinished(time.monotonic() - began):
            if time.monotonic() - last_line >= SECONDS_BETWEEN_LINES:
                last_line = time.monotonic()
                logger.info(
                    "this host's share is sampled; waiting for the shares of hosts %s (from 0)",
                    ", ".join(map(str, waiting)),
                )
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def _unfinished(self, waited: float) -> list[int]:
        """Return the hosts whose share is not whole, after so many seconds of waiting."""
        records = _records(self._output_dir)
        # A host beyond our count that was started after us disagrees with us too.
        for number, record in records.items():
            disagreement = self._disagreement(number, record)
            if number == self._place.number or not disagreement:
                continue
            is_new = self._earlier.get(number) != record
            is_needed = number < self._place.count
            if is_new or (is_needed and waited >= SECONDS_TO_AGREE):
                raise UserError(
                    f"{disagreement}; start every host with the same settings and the same number"
                    " of hosts. What was sampled is kept"
                )
        return [
            number for number in range(1, self._place.count) if not self._is_whole(records, number)
        ]

    def _is_whole(self, records: Mapping[int, ShareRecord], number: int) -> bool:
        record = records.get(number)
        return record is not None and record.is_whole and not self._disagreement(number, record)

    def _disagreement(self, number: int, record: ShareRecord) -> str:
        """Say how another host was started otherwise than this one; empty where it was not."""
        settings = identity_difference(record.identity, self._record.identity)
        if settings:
            return (
                f"host {number} was started with other settings than this one, host"
                f" {self._place.number} ({settings})"
            )
        if record.hosts != self._place.count:
            return (
                f"host {number} was started with --share {number} {record.hosts}, and this one with"
                f" --share {self._place.number} {self._place.count}"
            )
        return ""

    def _write(self) -> None:
        folder = share_folder(self._output_dir, self._place.number)
        write_json(folder / RECORD, plain(self._record))


def _records(output_dir: Path) -> dict[int, ShareRecord]:
    """Return how the hosts were started that have sampled in a folder, by their number."""
    records: dict[int, ShareRecord] = {}
    for path in sorted((output_dir / SHARES).glob(f"*/{RECORD}")):
        if path.parent.name.isdecimal():
            records[int(path.parent.name)] = read_json(path, ShareRecord)
    return records
