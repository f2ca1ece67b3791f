"""Votes as files that others can read: JSON Lines and Parquet, out of a ledger and back.

A ledger is a database for running; what is published or analyzed elsewhere is one file. A million
votes pass through without being held in memory.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxmodpo.costs import Cost, Estimates
from jaxmodpo.errors import UserError, nearest
from jaxmodpo.files import atomic_path, check_writable
from jaxmodpo.judging.ledger import Ledger
from jaxmodpo.judging.votes import FIELDS, Vote, as_record, from_record
from jaxmodpo.parsing import JsonObject, parse_json
from jaxmodpo.ranges import CommandSettings

logger = logging.getLogger(__name__)

# Votes of one row group of a Parquet file; raw answers make them some tens of megabytes.
_GROUP = 20_000
# Rows that are read at once: a row group of another program may not fit into memory.
_ROWS_READ = 5_000

_AMOUNTS = ("prompt_tokens", "cached_tokens", "completion_tokens", "cost")


@dataclass(frozen=True, kw_only=True)
class VotesConfig(CommandSettings, help_group="votes"):
    """Write a ledger's votes to a Parquet or JSON Lines file, without any persona's or reply's
    text.
    """

    ledger: str
    """The ledger to read: a run's votes.sqlite, or a database URL."""
    output: Path
    """The file to write. Its ending says which kind: .parquet or .jsonl."""
    run: str | None = None
    """Write only the votes of the run of this name. All runs are written by default."""
    counted: bool = False
    """Write one vote on each thing that was asked, the one that counts: the newest valid vote, or
    the newest one where none is valid. By default every vote is written, failed ones too."""

    def check(self) -> None:
        super().check()
        _writer(self.output)

    def cost(self, estimator: Estimates) -> Cost:
        return Cost()  # takes seconds, and leaves little behind


def votes(config: VotesConfig) -> None:
    """Run ``votes``."""
    config.check()
    write = _writer(config.output)
    with Ledger(config.ledger, read_only=True) as ledger:
        exported = ledger.every_vote(config.run, effective_only=config.counted)
        # The first is drawn before anything is written, so that a misspelt run leaves no file.
        first = next(exported, None)
        if first is None:
            of_run = ""
            if config.run is not None:
                of_run = f" of the run '{config.run}'{nearest(config.run, ledger.runs())}"
            raise UserError(f"the ledger {ledger.shown_location} holds no votes{of_run}")
        check_writable(config.output)
        with atomic_path(config.output, private=True) as temporary:
            count = write(temporary, itertools.chain([first], exported))
    logger.info("%s: %d votes", config.output, count)


def read_votes(path: Path) -> Iterator[Vote]:
    """Yield the votes of an exported file, in its order.

    Raises:
        UserError: unreadable, of another kind, or a row that is not a vote.
    """
    records_of = _read_parquet if path.suffix == ".parquet" else _read_json_lines
    try:
        for number, record in enumerate(records_of(path), 1):
            yield from_record(record, f"{path}, row {number}")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None


def _writer(path: Path) -> Callable[[Path, Iterator[Vote]], int]:
    """Return what writes votes into a file of this ending, and says how many."""
    if path.suffix == ".parquet":
        return _write_parquet
    if path.suffix == ".jsonl":
        return _write_json_lines
    raise UserError(f"--output {path} must end in .parquet or .jsonl")


def _write_json_lines(path: Path, exported: Iterator[Vote]) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for vote in exported:
            line = json.dumps(as_record(vote), ensure_ascii=False, allow_nan=False)
            file.write(line + "\n")
            count += 1
    return count


def _write_parquet(path: Path, exported: Iterator[Vote]) -> int:
    import pyarrow
    from pyarrow import parquet

    count = 0
    schema = _schema()
    with parquet.ParquetWriter(path, schema, compression="zstd") as file:
        while group := list(itertools.islice(exported, _GROUP)):
            records = [as_record(vote) for vote in group]
            file.write_table(pyarrow.Table.from_pylist(records, schema))
            count += len(group)
    return count


def _schema() -> Any:
    """Return a column for each of a vote's fields, in their order."""
    import pyarrow as pa

    # Written down rather than inferred: a group of votes without one cost would else have a column
    # of nulls, which no other group's numbers can follow.
    types = {
        "repeat": pa.int32(),
        "shown": pa.list_(pa.string()),
        "order": pa.list_(pa.string()),
        **dict.fromkeys(_AMOUNTS, pa.float64()),
        "score": pa.float64(),
    }
    columns = []
    for name in FIELDS:
        may_lack = name in ("order", "score", *_AMOUNTS)
        columns.append(pa.field(name, types.get(name, pa.string()), nullable=may_lack))
    return pa.schema(columns)


def _read_json_lines(path: Path) -> Iterator[JsonObject]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield parse_json(line)
            except ValueError:
                raise UserError(f"{path}, line {number}: not JSON") from None


def _read_parquet(path: Path) -> Iterator[JsonObject]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            for group in file.iter_batches(_ROWS_READ):
                yield from group.to_pylist()
    except (pyarrow.ArrowException, UnicodeDecodeError):
        raise UserError(f"{path} is not a Parquet file of votes") from None
