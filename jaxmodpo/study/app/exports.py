"""Answers as files: CSV, JSON Lines and Parquet, with or without what tells the models."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxmodpo.files import atomic_path, check_writable, write_jsonl, write_table
from jaxmodpo.study.annotation_files import COLUMNS
from jaxmodpo.study.app.store import Store

ENDINGS = (".csv", ".jsonl", ".parquet")

_TELLING = ("question_id", "reply", "choice")
"""columns that tell which model a rater preferred, or lead to its reply in the evaluation"""

BLINDED_COLUMNS = tuple(column for column in COLUMNS if column not in _TELLING)


def export_answers(store: Store, path: Path, *, blinded: bool) -> int:
    """Write all answers and return how many there are. The file is for its owner's eyes alone.

    Args:
        path: its ending, one of ``ENDINGS``, says which kind of file.
        blinded: leave out what tells the models; ``study analyze`` needs it.
    """
    columns = BLINDED_COLUMNS if blinded else COLUMNS
    rows = [
        {column: getattr(stored.annotation, column) for column in columns}
        for stored in store.answers.all()
    ]
    check_writable(path)
    if path.suffix == ".csv":
        write_table(path, rows, columns)
    elif path.suffix == ".jsonl":
        write_jsonl(path, rows)
    else:
        _write_parquet(path, rows, columns)
    return len(rows)


def export_audit(store: Store, path: Path) -> int:
    """Write the audit trail as CSV and return how many entries it has."""
    entries = [dataclasses.asdict(entry) for entry in store.audit()]
    write_table(path, entries, ("at", "actor", "event", "rater", "detail"))
    return len(entries)


def _write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    types = {"reply": pa.int64(), "seconds": pa.float64()}
    fields = [pa.field(name, types.get(name, pa.string())) for name in columns]
    schema = pa.schema(fields)
    with atomic_path(path, private=True) as temporary:
        parquet.write_table(pa.Table.from_pylist(list(rows), schema), temporary)
