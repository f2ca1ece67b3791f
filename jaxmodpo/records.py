"""Questions, responses, pairs, rankings and personas, and the files they lie in: the formats of the
paper's authors.

A pair on its way into a file and out of it::

    kind = Candidate("a", "That is hard.")
    pair = Pair("q1", "I cannot sleep.", chosen=kind, rejected=Candidate("b", "So what?"))
    write_pairs(path, [pair])
    pair_from_mapping(read_json(path)[0], str(path)) == pair

Which other layouts of pairs are read is up to :mod:`jaxmodpo.data.pairs`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jaxmodpo.errors import UserError
from jaxmodpo.files import Row, read_json, read_table, write_json, write_table
from jaxmodpo.parsing import is_serialized
from jaxmodpo.schema import is_number


@dataclass(frozen=True)
class Question:
    """A help-seeking post."""

    question_id: str
    question_text: str


@dataclass(frozen=True)
class Response:
    """A reply to a question, and where it comes from.

    Attributes:
        question_id: the question.
        question_text: its text.
        response_id: the reply's own within its question.
        response_text: its text.
        model_name: empty while only one model is at work.
        adapter: digest of the adapter that sampled it; empty for a base model alone.
        settings: digest of all that it depends on besides.
        number: its own among this model's replies to the question, from 0; None where nobody knows.
        model: the folder of the base model that sampled it, or the model that answered at an
            endpoint, which may be another than was asked; empty where nobody knows.
        seed: of its run; None where its draws have none.
        sent_seed: its own, made of the run's, its question and its number, as an endpoint was sent
            it; None where it was sent none.
        finish_reason: a :data:`FinishReason`; empty where nobody knows.
        tokens: how many were sampled, an end token included; None where nobody knows.
        prompt_tokens: how many its prompt has; None where nobody knows.
    """

    question_id: str
    question_text: str
    response_id: str
    response_text: str
    model_name: str = ""
    number: int | None = None
    model: str = ""
    adapter: str = ""
    settings: str = ""
    seed: int | None = None
    sent_seed: int | None = None
    finish_reason: str = ""
    tokens: int | None = None
    prompt_tokens: int | None = None

    @property
    def is_cut(self) -> bool:
        """Whether it is not whole, whoever cut it: a policy must not learn to end there."""
        return self.is_cut_at_limit or self.finish_reason == "filter"

    @property
    def is_cut_at_limit(self) -> bool:
        """Whether it was cut at the most tokens that it might have: its model did not come to an
        end, which says something of the model, as a filter's cut does not.
        """
        return self.finish_reason == "length"


FinishReason = Literal["end", "stop", "length", "filter"]
"""why a reply is over: an end token, a stop string, the most tokens that it may have, or an
endpoint's filter of contents"""


@dataclass(frozen=True)
class Candidate:
    """A reply inside a pair or a ranking.

    Attributes:
        response_id: its own within its question.
        response_text: its text.
        is_cut: whether it ends where its sampler stopped it and not by itself. A policy must not
            learn to end there.
    """

    response_id: str
    response_text: str
    is_cut: bool = False


@dataclass(frozen=True)
class Pair:
    """A preference: ``chosen`` is better than ``rejected`` on one criterion.

    Attributes:
        question_id: the question.
        question_text: its text.
        chosen: the better reply.
        rejected: the worse one.
        conversation: whether ``question_text`` was put together from several messages, or from one
            that is not the user's. It is no part of a pair's file, which knows the text alone.
    """

    question_id: str
    question_text: str
    chosen: Candidate
    rejected: Candidate
    # Not compared: the same pair read from a file and made in memory is one pair.
    conversation: bool = dataclasses.field(default=False, compare=False)


@dataclass(frozen=True)
class Ranking:
    """All replies to one question, best first, on one criterion.

    Attributes:
        question_id: the question.
        question_text: its text.
        candidates: the replies.
        ranks: of each, from 1; tied replies share one, and what follows them takes its place in the
            list, as in 1, 1, 3. By default no two replies are tied.
    """

    question_id: str
    question_text: str
    candidates: tuple[Candidate, ...]
    ranks: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        ranks = self.ranks or tuple(range(1, len(self.candidates) + 1))
        assert len(ranks) == len(self.candidates), self.question_id
        rank_before = 0
        for number, rank in enumerate(ranks, 1):
            # Its own number in the list, or a tie with the reply before.
            assert rank in (number, rank_before), ranks
            rank_before = rank
        object.__setattr__(self, "ranks", ranks)

    @property
    def all_tied(self) -> bool:
        """Whether it prefers no reply to another."""
        return len(set(self.ranks)) < 2


def read_questions(path: Path) -> list[Question]:
    """Read ``question_id, question_text``; ids must be unique."""
    rows = read_table(path, ["question_id", "question_text"])
    _refuse_doubles(path, "question_id", (row["question_id"] for row in rows))
    questions: list[Question] = []
    for number, row in enumerate(rows, 1):
        text = plain_text(row["question_text"], f"{path}, row {number}, question_text")
        questions.append(Question(row["question_id"], text))
    return questions


def write_questions(path: Path, questions: Sequence[Question]) -> None:
    """Write ``question_id, question_text``."""
    rows = [dataclasses.asdict(question) for question in questions]
    write_table(path, rows, ["question_id", "question_text"])


def read_responses(path: Path) -> list[Response]:
    """Read ``question_id, question_text, response_id, response_text`` and, if there,
    ``model_name`` and ``finish_reason``.

    Files of the paper's evaluation have no ``response_id``: replies are then numbered within their
    question, from 0, in the file's order.
    """
    rows = read_table(path, ["question_id", "question_text", "response_text"])
    _number_replies(rows)
    # A response's id is its own within its question; files of other people count from 1 in each.
    _refuse_doubles(
        path, "response_id", (f"{row['question_id']}/{row['response_id']}" for row in rows)
    )
    responses: list[Response] = []
    for number, row in enumerate(rows, 1):
        responses.append(
            Response(
                question_id=row["question_id"],
                question_text=plain_text(
                    row["question_text"], f"{path}, row {number}, question_text"
                ),
                response_id=row["response_id"],
                response_text=plain_text(
                    row["response_text"], f"{path}, row {number}, response_text"
                ),
                model_name=row.get("model_name", ""),
                finish_reason=row.get("finish_reason", ""),
            )
        )
    return responses


def _number_replies(rows: Sequence[dict[str, str]]) -> None:
    """Give replies an id where their file has no column for it; a file has it in all rows or
    none.
    """
    counts: dict[str, int] = {}
    for row in rows:
        if "response_id" not in row:
            number = counts.get(row["question_id"], 0)
            counts[row["question_id"]] = number + 1
            row["response_id"] = f"{row['question_id']}_{number}"


def write_responses(path: Path, responses: Sequence[Response]) -> None:
    """Write what :func:`read_responses` reads, and where each reply comes from; of that only what
    is known of some.
    """
    rows = [dataclasses.asdict(response) for response in responses]
    always = ["question_id", "question_text", "response_id", "response_text"]
    columns: list[str] = []
    for field in dataclasses.fields(Response):
        values = {row[field.name] for row in rows}
        is_known_of_some = bool(values - {"", None})
        if field.name in always or is_known_of_some:
            columns.append(field.name)
    write_table(path, rows, columns)


def _refuse_doubles(path: Path, field: str, values: Iterable[str]) -> None:
    earlier: set[str] = set()
    for value in values:
        if value in earlier:
            raise UserError(f"{path}: the {field} {value} stands there twice")
        earlier.add(value)


def read_personas(path: Path) -> dict[str, str]:
    """Read ``{persona_id: persona_text}``."""
    personas = read_json(path)
    if not isinstance(personas, dict) or not personas:
        raise UserError(f'{path} must hold {{"persona_id": "persona text", …}}, at least one')
    for persona, text in personas.items():
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{path}: the persona {persona} has no text")
    return personas


def identifier(value: Any, location: str) -> str:
    """Return an id as text: a text as it stands, a whole number without a point.

    A column of whole numbers with a gap becomes one of floats in many tools, so that 12 comes as
    12.0.

    Raises:
        UserError: nothing, an empty text, another kind of value, or a float beyond what floats hold
            exactly.
    """
    # Beyond 2⁵³ neighboring whole numbers are one float: two people's ids would become one.
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and value.strip():
        return value
    raise UserError(f"{location}: an id must be a text or a whole number, not {value!r:.60}")


def plain_text(value: Any, location: str) -> str:
    """Return a text as it stands.

    Raises:
        UserError: it is none, or a list of chat messages as Python or JSON write it, which nobody
            said.
    """
    if not isinstance(value, str):
        raise UserError(f"{location}: must be a text, not {value!r:.60}")
    if is_serialized(value):
        raise UserError(
            f"{location}: a list of messages in Python's or JSON's words stands where a text belongs:"
            f" {value!r:.60}; write the text alone, or keep the messages as JSON Lines or Parquet"
        )
    return value


def pair_from_mapping(row: Any, location: str) -> Pair:
    """Read one pair in the authors' layout; ``location`` names it in errors ("f.json, item 3")."""
    question_id, question_text = _question_of(row, location)
    chosen = _candidate(row, "chosen", location)
    rejected = _candidate(row, "rejected", location)
    return Pair(question_id, question_text, chosen, rejected)


def _question_of(row: Any, location: str) -> tuple[str, str]:
    question_id = _value(row, "question_id", location)
    text = _value(row, "question_text", location)
    return (
        identifier(question_id, f"{location}, question_id"),
        plain_text(text, f"{location}, question_text"),
    )


def _candidate(row: Any, field: str, location: str) -> Candidate:
    reply = _value(row, field, location)
    reply_location = f"{location}, {field}"
    response_id = _value(reply, "response_id", reply_location)
    text = _value(reply, "response_text", reply_location)
    return Candidate(
        identifier(response_id, f"{reply_location}, response_id"),
        plain_text(text, f"{reply_location}, response_text"),
        _is_cut(reply, reply_location),
    )


def _is_cut(reply: Mapping[str, Any], location: str) -> bool:
    is_cut = reply.get("is_cut", False)
    if not isinstance(is_cut, bool):
        raise UserError(f"{location}: is_cut must be true or false, not {is_cut!r:.60}")
    return is_cut


def _candidate_row(candidate: Candidate) -> Row:
    """Return a reply in the authors' layout, which knows whole replies alone."""
    row = dataclasses.asdict(candidate)
    if not candidate.is_cut:
        del row["is_cut"]
    return row


def _value(row: Any, field: str, location: str) -> Any:
    if not isinstance(row, Mapping):
        raise UserError(f"{location}: must be a mapping with {field}, not {row!r:.60}")
    if field not in row:
        raise UserError(f"{location}: lacks the field {field}")
    return row[field]


def write_pairs(path: Path, pairs: Sequence[Pair]) -> None:
    """Write pairs in the authors' layout, for their owner's eyes alone."""
    rows: list[Row] = []
    for pair in pairs:
        rows.append(
            {
                "question_id": pair.question_id,
                "question_text": pair.question_text,
                "chosen": _candidate_row(pair.chosen),
                "rejected": _candidate_row(pair.rejected),
            }
        )
    write_json(path, rows, private=True)


def read_rankings(path: Path) -> list[Ranking]:
    """Read ``{criterion}_rankings.json``, each best first; equal ranks are ties, in the file's
    order.
    """
    rows = read_json(path)
    if not isinstance(rows, list):
        raise UserError(f"{path} must hold a list of rankings, not {type(rows).__name__}")
    rankings = [_ranking(row, f"{path}, ranking {number}") for number, row in enumerate(rows, 1)]
    _refuse_doubles(path, "question_id", (ranking.question_id for ranking in rankings))
    return rankings


def _ranking(row: Any, location: str) -> Ranking:
    """Read one ranking; whatever numbers its ranks are, they become 1, 1, 3."""
    question_id, question_text = _question_of(row, location)
    listed = _value(row, "ranking", location)
    if not isinstance(listed, list):
        raise UserError(
            f"{location}: ranking must be a list of rank, response_id, response_text, not"
            f" {listed!r:.60}"
        )
    ranked: list[tuple[float, Candidate]] = []
    for number, reply in enumerate(listed, 1):
        rank = _value(reply, "rank", f"{location}, reply {number}")
        if not is_number(rank):
            raise UserError(
                f"{location}, reply {number}: the rank must be a number, not {rank!r:.60}"
            )
        candidate = _candidate({"reply": reply}, "reply", f"{location}, number {number}")
        ranked.append((rank, candidate))
    # Stable: tied replies keep the file's order, which decides who stands for them.
    ranked.sort(key=lambda rank_and_reply: rank_and_reply[0])
    candidates = tuple(candidate for _, candidate in ranked)
    _refuse_two_replies_of_one_id(candidates, location)
    ranks = [rank for rank, _ in ranked]
    closed_up = tuple(ranks.index(rank) + 1 for rank in ranks)
    return Ranking(question_id, question_text, candidates, closed_up)


def _refuse_two_replies_of_one_id(candidates: Sequence[Candidate], location: str) -> None:
    """Refuse an id that stands for two replies; the same reply may have been sampled twice."""
    texts: dict[str, str] = {}
    for candidate in candidates:
        text = texts.setdefault(candidate.response_id, candidate.response_text)
        if text != candidate.response_text:
            raise UserError(
                f"{location}: the response_id {candidate.response_id} stands for two different"
                " replies"
            )


def write_rankings(path: Path, rankings: Sequence[Ranking]) -> None:
    """Write ``{criterion}_rankings.json``; tied replies have the same ``rank``."""
    rows: list[Row] = []
    for ranking in rankings:
        replies = []
        for rank, candidate in zip(ranking.ranks, ranking.candidates, strict=True):
            replies.append({"rank": rank, **_candidate_row(candidate)})
        rows.append(
            {
                "question_id": ranking.question_id,
                "question_text": ranking.question_text,
                "ranking": replies,
            }
        )
    write_json(path, rows, private=True)
