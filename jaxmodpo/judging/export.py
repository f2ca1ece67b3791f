"""Votes as files that others can read: JSON Lines and Parquet, out of a ledger and back.

A ledger is a database for running; what is published or analysed elsewhere is one file. A million
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
from jaxmodpo.judging.votes import Vote, as_record, from_record
from jaxmodpo.parsing import parse_json
from jaxmodpo.ranges import Settings

log = logging.getLogger(__name__)

# Of one row group of a Parquet file; raw answers make them some tens of megabytes.
_GROUP = 20_000


@dataclass(frozen=True, kw_only=True)
class VotesConfig(Settings, help_group="votes"):
    """Write a ledger's votes to a Parquet or JSON Lines file, without any persona's or reply's
    text.
    """

    ledger: str
    """a run's ledger, or a database URL"""
    output: Path
    """ends in .parquet or .jsonl"""
    run: str | None = None
    """votes of this run alone"""
    counted: bool = False
    """of several votes on the same thing only the one that counts: the newest valid one, or the
    newest"""

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
        first = next(exported, None)
        if first is None:
            of_run = (
                ""
                if config.run is None
                else f" of the run '{config.run}'{nearest(config.run, ledger.runs())}"
            )
            raise UserError(f"the ledger {ledger.shown_location} holds no votes{of_run}")
        check_writable(config.output)
        with atomic_path(config.output, private=True) as temporary:
            count = write(temporary, itertools.chain([first], exported))
    log.info("%s: %d votes", config.output, count)


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
    if path.suffix not in (".parquet", ".jsonl"):
        raise UserError(f"--output {path} must end in .parquet or .jsonl")
    return _write_parquet if path.suffix == ".parquet" else _write_json_lines


def _write_json_lines(path: Path, exported: Iterator[Vote]) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for vote in exported:
            count += 1
            file.write(json.dumps(as_record(vote), ensure_ascii=False, allow_nan=False) + "\n")
    return count


def _write_parquet(path: Path, exported: Iterator[Vote]) -> int:
    import pyarrow
    from pyarrow import parquet

    count, schema = 0, _schema()
    with parquet.ParquetWriter(path, schema, compression="zstd") as file:
        while group := [as_record(vote) for vote in itertools.islice(exported, _GROUP)]:
            file.write_table(pyarrow.Table.from_pylist(group, schema))
            count += len(group)
    return count


def _schema() -> Any:
    """Return a column for each of a vote's fields, in their order."""
    import pyarrow as pa

    text, numbers = pa.string(), ("prompt_tokens", "cached_tokens", "completion_tokens", "cost")
    types = {
        "repeat": pa.int32(),
        "shown": pa.list_(text),
        "order": pa.list_(text),
        **dict.fromkeys(numbers, pa.float64()),
    }
    may_lack = ("order", *numbers)
    return pa.schema(
        [
            pa.field(name, types.get(name, text), nullable=name in may_lack)
            for name in Vote.__dataclass_fields__
        ]
    )


def _read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield parse_json(line)
            except ValueError:
                raise UserError(f"{path}, line {number}: not JSON") from None


def _read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            for group in file.iter_batches(5000):
                yield from group.to_pylist()
    except (pyarrow.ArrowException, UnicodeDecodeError):
        raise UserError(f"{path} is not a Parquet file of votes") from None
