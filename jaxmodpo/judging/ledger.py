"""Every vote ever given in a run, on disk, under a hash of what was asked.

A ledger makes judging resumable and answerable: a vote that is in it is not asked for again, and
what was shown and said can be looked up. Rows hold ids, never a persona's or a reply's text.
"""

from __future__ import annotations

import hashlib
import itertools
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self

from jaxmodpo.artifacts import Journal, write_jsonl
from jaxmodpo.errors import UserError
from jaxmodpo.judging.hashing import text_digest
from jaxmodpo.judging.judge import Answer, Request, Status


@dataclass(frozen=True, slots=True)
class Vote:
    """One answer to one request.

    Attributes:
        key: :func:`request_key` of the request.
        kind: a ranking of all shown, or the better of two.
        question_id: as in the request; so are ``persona_id``, ``criterion`` (its name) and ``repeat``.
        shown: response ids in the order shown.
        order: response ids, best first, for ``rank``; the winner alone or, for a tie, nothing for
            ``compare``; None unless ``status`` is valid.
        status: valid, or what went wrong.
        raw: what the judge said.
        model: the model that answered.
    """

    key: str
    kind: Literal["rank", "compare"]
    question_id: str
    persona_id: str
    criterion: str
    shown: tuple[str, ...]
    order: tuple[str, ...] | None
    status: Status
    raw: str
    model: str
    repeat: int

    @classmethod
    def of(cls, key: str, request: Request, answer: Answer) -> Vote:
        """Put a request and its answer together."""
        return cls(
            key,
            request.kind,
            request.question_id,
            request.persona_id,
            request.criterion.name,
            tuple(r.response_id for r in request.responses),
            answer.order,
            answer.status,
            answer.raw,
            answer.model,
            request.repeat,
        )


_FIELDS = tuple(f.name for f in fields(Vote))


def request_key(request: Request, identity: str) -> str:
    """Hash everything an answer depends on: the request, the order shown, and the judge's identity.

    Each text's digest is remembered, since a million requests share a few thousand texts.
    32 hexadecimal digits.
    """
    criterion = request.criterion
    parts = [
        identity,
        request.kind,
        request.question_id,
        request.question_text,
        request.persona_id,
        request.persona_text,
        criterion.name,
        criterion.description,
        criterion.better_when,
        criterion.worse_when,
        str(request.repeat),
    ]
    for response in request.responses:
        parts += (response.response_id, response.response_text)
    return hashlib.blake2b(b"".join(map(text_digest, parts)), digest_size=16).hexdigest()


class Ledger:
    """The votes of one run: a JSONL file, and an index of it in memory.

    A failed vote stays in the file when the question is asked again; the newest vote under a key is
    the one that counts. Use it as a context manager, or :meth:`close` it, before its file is read.

    Raises:
        UserError: the file holds something else than votes.
    """

    def __init__(self, path: Path):
        self.path = path
        self._journal = Journal(path)
        self._votes = [_vote(row, f"{path}, line {number}") for number, row in enumerate(self._journal.rows, 1)]
        # Votes are kept here in a third of the space; the journal need not keep them too.
        self._journal.rows.clear()
        self._latest = {vote.key: vote for vote in self._votes}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def latest(self, key: str) -> Vote | None:
        """Return the newest vote under a key, valid or failed."""
        return self._latest.get(key)

    def valid(self, key: str) -> Vote | None:
        """Return the valid vote under a key, or None if it is still to be asked."""
        vote = self._latest.get(key)
        return vote if vote is not None and vote.status == "valid" else None

    def add(self, votes: Sequence[Vote]) -> None:
        """Append votes: they are on disk when this returns, and only then in the index."""
        self._journal.append(*map(_row, votes))
        self._journal.rows.clear()
        self._votes += votes
        self._latest.update((vote.key, vote) for vote in votes)

    def arrange(self, keys: Iterable[str]) -> None:
        """Rewrite the file, atomically, in the order of ``keys``, so that it does not tell who answered first.

        Votes under other keys go first, and failed votes before the vote that replaced them.
        """
        position = {key: n for n, key in enumerate(keys)}
        places = [position.get(vote.key, -1) for vote in self._votes]
        if all(a <= b for a, b in itertools.pairwise(places)):
            return
        self._votes.sort(key=lambda vote: position.get(vote.key, -1))
        self._journal.close()
        write_jsonl(self.path, map(_row, self._votes))
        self._journal = Journal(self.path)
        self._journal.rows.clear()

    def close(self) -> None:
        self._journal.close()


def _row(vote: Vote) -> dict[str, Any]:
    return {name: getattr(vote, name) for name in _FIELDS}


def _vote(row: Any, where: str) -> Vote:
    if not isinstance(row, dict) or row.keys() != set(_FIELDS):
        raise UserError(f"{where}: not a vote ({', '.join(_FIELDS)}); move the file away")
    intern, order = sys.intern, row["order"]
    return Vote(
        key=row["key"],
        kind=row["kind"],
        question_id=intern(row["question_id"]),
        persona_id=intern(row["persona_id"]),
        criterion=intern(row["criterion"]),
        shown=tuple(map(intern, row["shown"])),
        order=None if order is None else tuple(map(intern, order)),
        status=row["status"],
        raw=row["raw"],
        model=intern(row["model"]),
        repeat=row["repeat"],
    )
