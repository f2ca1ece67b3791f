"""Votes of one or several ledgers as arrays of small numbers, some seventy bytes a vote.

What is said about judges needs all votes at once: a vote that was asked again replaces an earlier
one, a persona's two votes meet, and so do two judges'. Ledgers are read as a stream, and texts are
kept once. The module is apart so that the statistics see arrays, and never a database.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from jaxmodpo.errors import UserError
from jaxmodpo.judging.effective import effective_positions
from jaxmodpo.judging.ledger import Ledger
from jaxmodpo.judging.votes import Vote, fault_of

Numbers = NDArray[Any]


class Judge(NamedTuple):
    """Who gave valid votes: a judge's identity in one ledger, and the model that answered for
    it.
    """

    name: str
    ledger: str
    identity: str
    model: str


class Source(NamedTuple):
    """Who was asked: a judge's identity in one ledger."""

    name: str
    ledger: str
    identity: str


@dataclass(frozen=True)
class VoteTable:
    """The votes of one kind on equally many responses, one row each; numbers index the
    :class:`Record`'s names.

    Attributes:
        kind: ``rank`` or ``compare``.
        shown: how many responses are shown.
        source: who was asked; ``judge``: who answered, −1 where nobody did.
        unit: a question with a set of responses, apart where other texts have their ids;
            ``question`` its question.
        criterion: by which; ``persona``: as whom; ``repeat``: 0, or the number of a further time of
            asking.
        run: which asked.
        status: valid, or what went wrong; ``model``: the model that is said to have answered.
        ranks: ``[votes, shown]``, of the unit's responses sorted by id: 0 is best, both 0 for a
            tie; zeros where the vote is not valid.
        positions: ``[votes, shown]``, of the same: 0 is shown first.
    """

    kind: str
    shown: int
    source: Numbers
    unit: Numbers
    question: Numbers
    criterion: Numbers
    persona: Numbers
    repeat: Numbers
    run: Numbers
    status: Numbers
    model: Numbers
    ranks: Numbers
    positions: Numbers
    judge: Numbers

    def __len__(self) -> int:
        return len(self.unit)

    def where(self, rows: Numbers) -> Self:
        """Return some of the rows: by a mask or by their numbers."""
        return replace(
            self,
            **{
                name: getattr(self, name)[rows]
                for name in (*_COLUMNS, "ranks", "positions", "judge")
            },
        )

    @property
    def order(self) -> Numbers:
        """Return a number for the order shown, equal where it is the same."""
        return together(*self.positions.T)


_COLUMNS = (
    "source",
    "unit",
    "question",
    "criterion",
    "persona",
    "repeat",
    "run",
    "status",
    "model",
)


@dataclass(frozen=True)
class Record:
    """All votes that count, and the names behind their numbers.

    Attributes:
        tables: one for each kind and number of responses shown.
        judges: by number; so are ``sources``, ``criteria``, ``personas``, ``statuses`` and
            ``models``.
        superseded: how many votes do not count because another one under the same key does.
    """

    tables: list[VoteTable]
    judges: list[Judge]
    sources: list[Source]
    criteria: list[str]
    personas: list[str]
    statuses: list[str]
    models: list[str]
    superseded: int


def together(*columns: Numbers) -> NDArray[np.int64]:
    """Combine columns into one number per row, equal where all columns are; in the order of the
    columns.
    """
    code = np.zeros(len(columns[0]), np.int64)
    size = 1
    for column in columns:
        values = int(column.max(initial=0)) + 1
        if size * values >= 2**62:
            distinct, code = np.unique(code, return_inverse=True)
            size = len(distinct)
        code = code * values + column
        size *= values
    return code


# --------------------------------------------------------------------------- reading


class _Index(dict[Any, int]):
    """Numbers things in the order met."""

    def __missing__(self, thing: Any) -> int:
        self[thing] = number = len(self)
        return number


@dataclass
class _Growing:
    """A table while it is read."""

    columns: dict[str, array[int]] = field(
        default_factory=lambda: {name: array("I") for name in _COLUMNS}
    )
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
    index: dict[str, _Index] = {name: _Index() for name in _COLUMNS}
    growing: dict[tuple[str, int], _Growing] = {}
    places = short_names([ledger.shown_location for ledger in ledgers])
    for ledger, place in zip(ledgers, places, strict=True):
        for vote in ledger.every_vote(run):
            if fault := fault_of(vote):
                raise UserError(
                    f"ledger {place}: the vote {vote.key} on question {vote.question_id} is none:"
                    f" {fault}"
                )
            table = growing.setdefault((vote.kind, len(vote.shown)), _Growing())
            _append(table, vote, place, index)
    if not growing:
        of_run = "" if run is None else f" of the run {run}"
        raise UserError(
            f"ledger: no votes{of_run} in {', '.join(ledger.shown_location for ledger in ledgers)}"
        )
    valid = index["status"]["valid"]
    tables = [
        _table(kind, shown, growing.pop((kind, shown)), valid) for kind, shown in sorted(growing)
    ]
    read = sum(len(table) for table, _ in tables)
    judges, kept = _number_judges([table for table, _ in tables], index, valid)
    return Record(
        kept,
        judges,
        [Source(_source_name(asked, judges), *asked) for asked in index["source"]],
        criteria=list(index["criterion"]),
        personas=list(index["persona"]),
        statuses=list(index["status"]),
        models=list(index["model"]),
        superseded=sum(all_read for _, all_read in tables) - read,
    )


def _append(table: _Growing, vote: Vote, place: str, index: dict[str, _Index]) -> None:
    responses = tuple(sorted(vote.shown))
    numbers = {
        "source": index["source"][place, vote.judge],
        "unit": index["unit"][vote.question_id, responses],
        "question": index["question"][vote.question_id],
        "criterion": index["criterion"][vote.criterion],
        "persona": index["persona"][vote.persona_id],
        "repeat": vote.repeat,
        "run": index["run"][vote.run],
        "status": index["status"][vote.status],
        "model": index["model"][vote.model],
    }
    for name, number in numbers.items():
        table.columns[name].append(number)
    table.keys += _key_bytes(vote.key)
    table.positions += bytes(map(vote.shown.index, responses))
    table.ranks += _ranks(vote, responses)


def _key_bytes(key: str) -> bytes:
    """Return a key's 16 bytes, and of one that is no 32 hexadecimal digits a hash as long."""
    try:
        found = bytes.fromhex(key)
    except ValueError:
        found = b""
    return found if len(found) == 16 else hashlib.blake2b(key.encode(), digest_size=16).digest()


def _ranks(vote: Vote, responses: tuple[str, ...]) -> bytes:
    """Return the rank of each response, the best 0; of a comparison 0 for the better and 1, or 0
    and 0 for a tie.
    """
    if not vote.order:
        return bytes(len(responses))
    if vote.kind == "compare":
        return bytes(response != vote.order[0] for response in responses)
    return bytes(map(vote.order.index, responses))


def _table(kind: str, shown: int, grown: _Growing, valid: int) -> tuple[VoteTable, int]:
    """Return the effective votes, and how many were read."""
    columns = {name: np.frombuffer(column, np.uint32) for name, column in grown.columns.items()}
    ranks, positions = (
        np.frombuffer(rows, np.uint8).reshape(-1, shown) for rows in (grown.ranks, grown.positions)
    )
    nobody = np.full(len(ranks), -1, np.int32)
    table = VoteTable(kind, shown, **columns, ranks=ranks, positions=positions, judge=nobody)
    return _latest(table, np.frombuffer(grown.keys, np.uint64).reshape(-1, 2), valid), len(table)


def _latest(table: VoteTable, keys: Numbers, valid: int) -> VoteTable:
    """Keep the effective vote under each key, in the order read."""
    named = np.stack([table.source.astype(np.uint64), *keys.T], axis=1)
    effective = effective_positions(named, table.status == valid)
    return _told_apart(table.where(effective.positions), effective.first)


def _told_apart(table: VoteTable, met: Numbers) -> VoteTable:
    """Make units of their own of votes that look the same and, by their keys, are not.

    Two runs may give the same ids to other texts, and a table has no texts. A unit on which one
    judge was asked the same twice, with one persona, criterion, order and repeat, falls into one
    for each run.
    """
    request = together(
        table.source, table.unit, table.criterion, table.persona, table.repeat, table.order
    )
    rows = np.arange(len(table))
    twice = _numbered_within(request, rows, met) > 0
    if not twice.any():
        return table
    asked = together(table.source, table.unit)
    run = np.where(np.isin(asked, asked[twice]), _numbered_within(asked, table.run, met), 0)
    again = _numbered_within(together(request, run), rows, met)
    _, unit = np.unique(together(table.unit, run, again), return_inverse=True)
    return replace(table, unit=unit.astype(np.uint32))


def _numbered_within(group: Numbers, member: Numbers, met: Numbers) -> Numbers:
    """Number the members of each group in the order in which they were first met."""
    _, at, pair = np.unique(together(group, member), return_index=True, return_inverse=True)
    first = np.full(len(at), met.max(initial=0))
    np.minimum.at(first, pair, met)
    rows = np.lexsort((first, group[at]))
    begins = np.append(True, group[at[rows[1:]]] != group[at[rows[:-1]]])
    number = np.empty(len(at), np.int64)
    number[rows] = np.arange(len(at)) - np.flatnonzero(begins)[np.cumsum(begins) - 1]
    return number[pair]


# --------------------------------------------------------------------------- names


def _number_judges(
    tables: Sequence[VoteTable], index: dict[str, _Index], valid: int
) -> tuple[list[Judge], list[VoteTable]]:
    """Find the judges, by ledger, identity and model; return them and the tables with their
    numbers.
    """
    width = len(index["model"])
    pairs = [
        np.where(t.status == valid, t.source.astype(np.int64) * width + t.model, -1) for t in tables
    ]
    found = sorted({int(pair) for column in pairs for pair in np.unique(column) if pair >= 0})
    sources, models = list(index["source"]), list(index["model"])
    known = [sources[pair // width] + (models[pair % width],) for pair in found]
    judges = [Judge(name, *judge) for name, judge in zip(_judge_names(known), known, strict=True)]
    # Only valid votes are looked up, and each of their pairs was found.
    numbered = [
        replace(t, judge=np.where(pair >= 0, np.searchsorted(found, pair), -1).astype(np.int32))
        for t, pair in zip(tables, pairs, strict=True)
    ]
    return judges, numbered


def _judge_names(judges: Sequence[tuple[str, str, str]]) -> list[str]:
    """Name each judge, of ledger, identity and model, by as little as tells them apart."""
    return _shortest(
        [[model or identity for _, identity, model in judges]]
        + [[f"{model or identity} ({ledger})" for ledger, identity, model in judges]]
        + [[f"{model} ({ledger}: {identity})" for ledger, identity, model in judges]]
    )


def _source_name(asked: tuple[str, str], judges: Iterable[Judge]) -> str:
    """Name who was asked by the judges that answered."""
    return (
        " or ".join(judge.name for judge in judges if (judge.ledger, judge.identity) == asked)
        or asked[1]
    )


def short_names(places: Sequence[str]) -> list[str]:
    """Name files by as many of their last parts as tell them apart."""
    parts = [Path(place).parts for place in places]
    longest = max(map(len, parts), default=1)
    return _shortest(
        [[str(Path(*part[-count:])) for part in parts] for count in range(1, longest + 1)]
    )


def _shortest(tries: Sequence[list[str]]) -> list[str]:
    return next((names for names in tries if len(set(names)) == len(names)), tries[-1])
