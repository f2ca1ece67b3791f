"""Journals: files of one JSON object a line that grow while a phase runs, and survive its death.

Results are written once and whole (:mod:`jaxmodpo.files`). Work in progress cannot wait for the
end: replies that took hours, or a training's figures, are appended row by row, and a run that was
killed goes on from the rows that are there::

    journal = Journal(folder / "sampled.jsonl")
    journal.rows                            # what an earlier process has done
    journal.append({"number": 3, "response_text": "…"})       # on disk when this returns
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxmodpo.errors import UserError
from jaxmodpo.files import PRIVATE, Row, link_sentence, whole_lines, write_jsonl
from jaxmodpo.parsing import parse_json


class Journal:
    """An append-only JSONL file that survives a kill at any moment.

    Each :meth:`append` is on disk when it returns. A torn last line, which only a kill can leave,
    is cut off on opening.
    """

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._open()
        self.rows: list[Row]
        self.rows, whole_bytes = _whole_rows(path)
        # Cut off before anything is added: a new row behind a torn one would be a line of both.
        self._file.truncate(whole_bytes)

    def _open(self) -> None:
        """Open the file to append to, for its owner's eyes alone, and never through a link that
        somebody planted.
        """
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.fdopen(os.open(self.path, flags, PRIVATE), "ab")
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise UserError(link_sentence(self.path)) from None

    def append(self, *rows: Mapping[str, Any]) -> None:
        """Add rows and sync them to disk in one go."""
        self.extend(rows)
        self.sync()

    def extend(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows without syncing: for work that costs nothing to do again."""
        for row in rows:
            line = json.dumps(row, ensure_ascii=False, allow_nan=False)
            self._file.write(line.encode() + b"\n")
            self.rows.append(dict(row))

    def sync(self) -> None:
        """Wait until all rows so far are on disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def replace(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Hold these rows and no others, atomically."""
        new_rows = [dict(row) for row in rows]
        if new_rows != self.rows:
            # The open file is the old one even after the rename: it must be opened again.
            self._file.close()
            self.rows = new_rows
            write_jsonl(self.path, self.rows)
            self._open()

    def close(self) -> None:
        """Sync the rows and give the file back."""
        self.sync()
        self._file.close()


def rows_so_far(path: Path) -> list[Row]:
    """Return the rows of a journal that another process may be writing to; it stays as it is."""
    return _whole_rows(path)[0]


def _whole_rows(path: Path) -> tuple[list[Row], int]:
    """Return the rows of a file up to a torn last line, and how many bytes they take."""
    rows: list[Row] = []
    whole_bytes = 0
    with path.open("rb") as file:
        for number, line in enumerate(whole_lines(file), 1):
            try:
                row = parse_json(line)
            except ValueError as error:
                raise UserError(f"{path}, line {number}: not JSON; move the file away") from error
            if not isinstance(row, dict):
                raise UserError(f"{path}, line {number}: not a JSON object; move the file away")
            rows.append(row)
            whole_bytes += len(line)
    return rows, whole_bytes
