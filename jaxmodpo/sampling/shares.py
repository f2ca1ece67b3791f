"""Several hosts that sample one set of replies, each its own share.

Replies do not depend on each other, so the hosts never wait for each other's numbers: each has the
whole model on its own chips, takes every n-th question, and keeps its own journal. The first host
owns the folder. When its own share is done it waits for the others' and writes the replies of all::

    out/sampled.jsonl              the first host's replies so far
    out/.shares/1/sampled.jsonl    the second one's
    out/.shares/1/finished.json    its share is whole

All of it is removed when the replies are written, so it lies in a folder of which no model can have
the name.

A host that dies loses nothing but time: started again, it samples what its journal lacks, and the
first one waits for it meanwhile.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxmodpo.errors import UserError
from jaxmodpo.files import read_json, write_json
from jaxmodpo.journals import Journal
from jaxmodpo.launched import Place
from jaxmodpo.locks import FolderLock, Held, lock
from jaxmodpo.sampling.journal import ReplyKey, ReplySlot, sampled

logger = logging.getLogger(__name__)

FINISHED = "finished.json"
SHARES = ".shares"
"""the name, in a run's folder, of the folder for what hosts other than the first have sampled"""
SECONDS_BETWEEN_LOOKS = 2.0
SECONDS_BETWEEN_LINES = 60.0


def share_folder(output_dir: Path, number: int) -> Path:
    """Return where a host keeps its journal; the first one in the run's folder itself."""
    return output_dir if number == 0 else output_dir / SHARES / str(number)


def own_share(slots: Sequence[ReplySlot], place: Place) -> list[ReplySlot]:
    """Return the replies that a host samples: all to every n-th question, whose prompt it prefills
    once.
    """
    number_of: dict[str, int] = {}
    for slot in slots:
        number_of.setdefault(slot.question.question_id, len(number_of))
    return [
        slot for slot in slots if number_of[slot.question.question_id] % place.count == place.number
    ]


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


def mark_finished(folder: Path, settings_key: str, place: Place) -> None:
    """Say that a share is whole, so that the first host may read it."""
    write_json(folder / FINISHED, {"settings": settings_key, "hosts": place.count})


def is_finished(folder: Path, settings_key: str, place: Place) -> bool:
    """Return whether a share of these settings and so many hosts is whole."""
    path = folder / FINISHED
    if not path.is_file():
        return False
    return read_json(path) == {"settings": settings_key, "hosts": place.count}


def wait_for_shares(
    output_dir: Path, settings_key: str, place: Place
) -> dict[ReplyKey, dict[str, Any]]:
    """Wait until every other host's share is whole, and return their replies.

    Args:
        output_dir: of the run.
        settings_key: of their rows.
        place: this host's, the first.
    """
    waiting = list(range(1, place.count))
    replies: dict[ReplyKey, dict[str, Any]] = {}
    last_line = 0.0
    while True:
        for number in list(waiting):
            folder = share_folder(output_dir, number)
            if is_finished(folder, settings_key, place):
                waiting.remove(number)
                journal = Journal(folder / "sampled.jsonl")
                journal.close()
                replies |= sampled(journal, settings_key)
        if not waiting:
            return replies
        if time.monotonic() - last_line >= SECONDS_BETWEEN_LINES:
            last_line = time.monotonic()
            logger.info(
                "this host's share is sampled; waiting for the shares of hosts %s (from 0)",
                ", ".join(map(str, waiting)),
            )
        time.sleep(SECONDS_BETWEEN_LOOKS)
