"""Ledgers read into vote tables: the effective votes, numbered, and units told apart.

A ledger may hold millions of votes. They pass some thousands at a time into growing columns of
machine numbers, and never stand in memory as objects.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from jaxmodpo.errors import UserError
from jaxmodpo.evaluation.judge_names import number_judges, short_names, source_name
from jaxmodpo.evaluation.vote_table import COLUMNS, Numbers, Record, VoteSource, VoteTable, together
from jaxmodpo.judging.effective import effective_positions
from jaxmodpo.judging.judge import PREFERENCES, Kind, Status
from jaxmodpo.judging.ledger import Ledger
from jaxmodpo.judging.tables import VoteColumns, answer_of
from jaxmodpo.judging.votes import Vote, fault_of


class _Index(dict[Any, int]):
    """Numbers things in the order in which they are looked up first."""

    def __missing__(self, thing: Any) -> int:
        number = len(self)
        self[thing] = number
        return number


def _empty_columns() -> dict[str, array[int]]:
    return {name: array("I") for name in COLUMNS}


@dataclass
class _Growing:
    """A table while it is read."""

    columns: dict[str, array[int]] = field(default_factory=_empty_columns)
    keys: bytearray = field(default_factory=bytearray)
    ranks: bytearray = field(default_factory=bytearray)
    positions: bytearray = field(default_factory=bytearray)


def read_votes(ledgers: Sequence[Ledger], run: str | None = None) -> Record:
    """Read the votes of ledgers, of one run or of all.

    Of several votes of one judge under one key, which says everything that was asked, the effective
    one is kept.

    Raises:
        UserError: a vote is not what its kind needs, or there is none.
    """
    # One index for all tables, so that a number means the same in each of them.
    index: dict[str, _Index] = {name: _Index() for name in COLUMNS}
    growing: dict[tuple[str, int], _Growing] = {}
    names = short_names([ledger.shown_location for ledger in ledgers])
    for ledger, name in zip(ledgers, names, strict=True):
        # Scores say of one reply what it is, and not which of several is preferred.
        for columns in ledger.every_column(run, kinds=PREFERENCES):
            _append(growing, columns, name, index)
    if not growing:
        of_run = "" if run is None else f" of the run {run}"
        raise UserError(
            f"ledger: no votes{of_run} in {', '.join(ledger.shown_location for ledger in ledgers)}"
        )
    valid = index["status"]["valid"]
    tables: list[VoteTable] = []
    superseded = 0
    for kind, response_count in sorted(growing):
        # Popped, so that a table's growing columns are gone before the next one is built.
        all_votes, keys = _as_table(kind, response_count, growing.pop((kind, response_count)))
        effective_votes = _effective(all_votes, keys, valid)
        superseded += len(all_votes) - len(effective_votes)
        tables.append(effective_votes)
    sources = list(index["source"])
    models = list(index["model"])
    judges, tables_with_judges = number_judges(tables, sources, models, valid)
    return Record(
        tables_with_judges,
        judges,
        [VoteSource(source_name(source, judges), *source) for source in sources],
        criteria=list(index["criterion"]),
        personas=list(index["persona"]),
        statuses=list(index["status"]),
        models=models,
        superseded=superseded,
    )


class _Answer(NamedTuple):
    """What many votes have in common: what was shown, and what was answered.

    Attributes:
        table: the kind and the number of responses shown.
        responses: sorted by id, the same whatever order a persona saw them in.
        positions: of each response, where it was shown, as bytes.
        ranks: of each response, likewise.
        fault: what keeps the votes from being any; empty where nothing does.
    """

    table: tuple[str, int]
    responses: tuple[str, ...]
    positions: bytes
    ranks: bytes
    fault: str


# Remembered, since a million votes name the same few replies, in the same few orders.
@functools.lru_cache(maxsize=2**17)
def _answer(kind: Kind, shown: str, order: str | None, status: Status) -> _Answer:
    vote = answer_of(kind, shown, order, status)
    table = (vote.kind, len(vote.shown))
    responses = tuple(sorted(vote.shown))
    fault = fault_of(vote)
    if fault:
        return _Answer(table, responses, b"", b"", fault)
    positions = bytes(map(vote.shown.index, responses))
    return _Answer(table, responses, positions, _ranks(vote, responses), "")


def _append(
    growing: dict[tuple[str, int], _Growing],
    votes: VoteColumns,
    ledger_name: str,
    index: dict[str, _Index],
) -> None:
    """Add some votes to the tables' columns.

    Raises:
        UserError: one of them is not what its kind needs.
    """
    answers = list(map(_answer, votes.kind, votes.shown, votes.order, votes.status))
    for key, question_id, answer in zip(votes.key, votes.question_id, answers, strict=True):
        if answer.fault:
            raise UserError(
                f"ledger {ledger_name}: the vote {key} on question {question_id} is none:"
                f" {answer.fault}"
            )
    all_responses = [answer.responses for answer in answers]
    # Each column at once, since a million votes one by one take four times as long.
    things: dict[str, Iterable[Any]] = {
        "source": zip(itertools.repeat(ledger_name), votes.judge),
        "unit": zip(votes.question_id, all_responses, strict=True),
        "question": votes.question_id,
        "criterion": votes.criterion,
        "persona": votes.persona_id,
        "run": votes.run,
        "status": votes.status,
        "model": votes.model,
    }
    numbers: dict[str, Iterable[int]] = {"repeat": votes.repeat}
    for name, column in things.items():
        numbers[name] = [index[name][thing] for thing in column]
    for of_table in dict.fromkeys(answer.table for answer in answers):
        is_in_table = [answer.table == of_table for answer in answers]
        table = growing.setdefault(of_table, _Growing())
        for name, column in numbers.items():
            table.columns[name].extend(itertools.compress(column, is_in_table))
        own_answers = list(itertools.compress(answers, is_in_table))
        table.keys += _key_bytes(list(itertools.compress(votes.key, is_in_table)))
        table.positions += b"".join([answer.positions for answer in own_answers])
        table.ranks += b"".join([answer.ranks for answer in own_answers])


def _key_bytes(keys: Sequence[str]) -> bytes:
    """Return each key's 16 bytes, and of one that is no 32 hexadecimal digits a hash as long."""
    try:
        as_bytes = bytes.fromhex("".join(keys))
    except ValueError:
        as_bytes = b""
    # Millions of keys are converted at once. ``fromhex`` passes over blanks between digits, so
    # that keys of the right lengths may still be something else: the bytes are counted too.
    key_lengths = set(map(len, keys))
    if key_lengths == {32} and len(as_bytes) == 16 * len(keys):
        return as_bytes
    return b"".join(map(_bytes_of_key, keys))


def _bytes_of_key(key: str) -> bytes:
    try:
        as_bytes = bytes.fromhex(key)
    except ValueError:
        as_bytes = b""
    if len(as_bytes) == 16:
        return as_bytes
    return hashlib.blake2b(key.encode(), digest_size=16).digest()


def _ranks(vote: Vote, responses: tuple[str, ...]) -> bytes:
    """Return the rank of each response, the best 0; of a comparison 0 for the better and 1, or 0
    and 0 for a tie.
    """
    if not vote.order:
        return bytes(len(responses))
    if vote.kind == "compare":
        return bytes(response != vote.order[0] for response in responses)
    return bytes(map(vote.order.index, responses))


def _as_table(kind: str, response_count: int, grown: _Growing) -> tuple[VoteTable, Numbers]:
    """Return all votes of one kind as a table without judges, and their keys: ``[votes, 2]``."""
    columns = {name: np.frombuffer(column, np.uint32) for name, column in grown.columns.items()}
    ranks = np.frombuffer(grown.ranks, np.uint8).reshape(-1, response_count)
    positions = np.frombuffer(grown.positions, np.uint8).reshape(-1, response_count)
    nobody = np.full(len(ranks), -1, np.int32)
    table = VoteTable(
        kind, response_count, **columns, ranks=ranks, positions=positions, judge=nobody
    )
    return table, np.frombuffer(grown.keys, np.uint64).reshape(-1, 2)


def _effective(table: VoteTable, keys: Numbers, valid: int) -> VoteTable:
    """Keep the effective vote under each key, in the order read."""
    # Two judges that were asked the same have one key, and neither replaces the other.
    keys_by_source = np.stack([table.source.astype(np.uint64), *keys.T], axis=1)
    effective = effective_positions(keys_by_source, table.status == valid)
    return _told_apart(table.where(effective.positions), effective.first)


def _told_apart(table: VoteTable, first_reads: Numbers) -> VoteTable:
    """Split units whose ids coincide across runs although their texts differ.

    Two runs may give the same ids to other texts, and a table has no texts. A unit on which one
    judge was asked the same twice, with one persona, criterion, order and repeat, falls into one
    for each run.

    Args:
        table: effective votes; no two of them have one key.
        first_reads: for each vote, when one under its key was read first.
    """
    # Equal requests with different keys: the keys know texts that the ids do not tell apart.
    request = together(
        table.source, table.unit, table.criterion, table.persona, table.repeat, table.order
    )
    rows = np.arange(len(table))
    is_doubled = _numbered_within(request, rows, first_reads) > 0
    if not is_doubled.any():
        return table
    source_and_unit = together(table.source, table.unit)
    is_ambiguous = np.isin(source_and_unit, source_and_unit[is_doubled])
    # Numbered by first reading and not by the run's number, so that two judges' runs match: the
    # first texts of one judge are taken for the first texts of the other.
    run_number = _numbered_within(source_and_unit, table.run, first_reads)
    run = np.where(is_ambiguous, run_number, 0)
    # Within one run the same may still be doubled; those votes fall into units of their own too.
    occurrence = _numbered_within(together(request, run), rows, first_reads)
    _, unit = np.unique(together(table.unit, run, occurrence), return_inverse=True)
    return replace(table, unit=unit.astype(np.uint32))


def _numbered_within(group: Numbers, member: Numbers, first_reads: Numbers) -> Numbers:
    """Number the members of each group in the order in which they were first read.

    For groups a a b a with members x y x x, read in this order, the numbers are 0 1 0 0.
    """
    _, representative, pair = np.unique(
        together(group, member), return_index=True, return_inverse=True
    )
    # When each pair of group and member was read first.
    pair_read = np.full(len(representative), first_reads.max(initial=0))
    np.minimum.at(pair_read, pair, first_reads)
    # Sorted by group, then by reading; a pair's number is its distance from its group's beginning.
    pair_group = group[representative]
    in_order = np.lexsort((pair_read, pair_group))
    groups_in_order = pair_group[in_order]
    begins_group = np.append(True, groups_in_order[1:] != groups_in_order[:-1])
    beginning = np.flatnonzero(begins_group)[np.cumsum(begins_group) - 1]
    number = np.empty(len(representative), np.int64)
    number[in_order] = np.arange(len(representative)) - beginning
    return number[pair]
