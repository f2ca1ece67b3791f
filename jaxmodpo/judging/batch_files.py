"""The files of one batch: what is asked, which requests these are, and what came back.

Apart from the judge because they are the memory that outlives it: a process that is killed finds in
them what it asked, and needs nothing else to go on. Profiles and replies stand in the input file
alone, which only its owner may read and which is deleted once the batch is read.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, TypedDict

from jaxmodpo.criteria import Criterion
from jaxmodpo.errors import UserError
from jaxmodpo.failures import failure_in
from jaxmodpo.judging.judge import Call, Request
from jaxmodpo.messages import message_text
from jaxmodpo.parsing import parse_json
from jaxmodpo.ranges import Tally
from jaxmodpo.records import Candidate
from jaxmodpo.schema import read_as

URL = "/v1/chat/completions"

# What a line without a code says is cut before it can repeat a profile.
_LONGEST_SAID = 60

EXPIRED = "batch_expired"
"""The code of a request that a batch did not come to."""


class Header(NamedTuple):
    """Whose batch it is: the judge's identity, the model asked for, and how often its requests were
    asked, from 1.
    """

    identity: str
    model: str
    round: int


class Outcome(NamedTuple):
    """What came back for one request.

    ``answered`` says that ``completion`` is what the model answered; where not, ``code`` and
    ``message`` tell what went wrong, and ``passing`` whether it may go well another time.
    """

    key: str
    answered: bool
    completion: Any = None
    code: str = ""
    message: str = ""
    passing: bool = False
    request_id: str = ""


@dataclass(frozen=True)
class BatchFiles:
    """Where a batch's files are: ``TAG.jsonl`` is sent, ``TAG.requests.jsonl`` says what its lines
    ask.
    """

    folder: Path
    tag: str

    @property
    def input(self) -> Path:
        return self.folder / f"{self.tag}.jsonl"

    @property
    def requests(self) -> Path:
        return self.folder / f"{self.tag}.requests.jsonl"

    def answers(self, kind: str) -> Path:
        """Return where a file that came back lies while it is read."""
        return self.folder / f"{self.tag}.{kind}.jsonl"

    def delete(self) -> None:
        for path in self.folder.glob(f"{self.tag}.*"):
            path.unlink(missing_ok=True)

    def header(self) -> Header | None:
        """Return whose batch it is; None where the file is missing, or was cut off before its first
        line ended.
        """
        try:
            with self.requests.open("rb") as file:
                line = parse_json(file.readline())
        except (OSError, ValueError):
            return None
        header = read_as(line, _Header, f"{self.requests}, line 1")
        return Header(header["identity"], header["model"], header["round"])

    def calls(self) -> Iterator[Call]:
        """Yield the requests, in the order of the lines: with ids and names, and with empty
        texts.
        """
        with self.requests.open("rb") as file:
            file.readline()
            for number, line in enumerate(file, 2):
                location = f"{self.requests}, line {number}"
                yield _call_of(read_as(_parsed(line, location), _Record, location))

    def offsets(self) -> dict[str, int]:
        """Return where each request's line of the input file begins, by key.

        Lines that are gone or damaged have none: answers that are paid for are read all the same.
        """
        offsets: dict[str, int] = {}
        if not self.input.exists():
            return offsets
        at = 0
        with self.input.open("rb") as file:
            for line in file:
                with contextlib.suppress(UserError):
                    offsets[read_as(_parsed(line, ""), _Input, "")["custom_id"]] = at
                at += len(line)
        return offsets

    def sent(self, offset: int) -> str:
        """Return the texts of the messages that the input file's line at ``offset`` sends, end to
        end.
        """
        with self.input.open("rb") as file:
            file.seek(offset)
            line = _parsed(file.readline(), str(self.input))
        messages = read_as(line, _Input, str(self.input))["body"]["messages"]
        return "\n".join(message_text(message.get("content")) for message in messages)

    def lines(self) -> Iterator[tuple[Call, bytes]]:
        """Yield each request with its line of the input file.

        Raises:
            UserError: the lines are of other requests.
        """
        unread = {call.key: call for call in self.calls()}
        with self.input.open("rb") as file:
            for number, line in enumerate(file, 1):
                location = f"{self.input}, line {number}"
                key = read_as(_parsed(line, location), _Line, location)["custom_id"]
                if key not in unread:
                    raise UserError(f"{location} is of no request in {self.requests}")
                yield unread.pop(key), line
        if unread:
            raise UserError(f"{self.input} lacks {len(unread)} of the requests in {self.requests}")


@dataclass(eq=False)
class Draft:
    """A batch's files while they are written; :meth:`close` makes them durable.

    Attributes:
        files: where they are.
        header: whose they are.
        max_requests: of the input file.
        max_bytes: of the input file.
    """

    files: BatchFiles
    header: Header
    max_requests: int
    max_bytes: int
    keys: list[str] = field(init=False, default_factory=list)
    _bytes: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.files.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._input, self._requests = (
            private_file(self.files.input),
            private_file(self.files.requests),
        )
        self._requests.write(_line(self.header._asdict()))

    def fits(self, line: bytes) -> bool:
        return len(self.keys) < self.max_requests and self._bytes + len(line) <= self.max_bytes

    def add(self, call: Call, line: bytes) -> None:
        self._input.write(line)
        self._requests.write(_line(_record(call)))
        self.keys.append(call.key)
        self._bytes += len(line)

    def close(self) -> None:
        for file in (self._input, self._requests):
            if not file.closed:
                file.flush()
                os.fsync(file.fileno())
                file.close()


def private_file(path: Path) -> BinaryIO:
    """Create a file, or empty it, that only its owner may read."""
    return os.fdopen(
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb"
    )


def input_line(key: str, body: dict[str, Any]) -> bytes:
    """Return a request's line of the input file."""
    return _line({"custom_id": key, "method": "POST", "url": URL, "body": body})


def _line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _record(call: Call) -> dict[str, Any]:
    request = call.request
    return {
        "key": call.key,
        "kind": request.kind,
        "question_id": request.question_id,
        "persona_id": request.persona_id,
        "criteria": [criterion.name for criterion in request.criteria],
        "responses": [response.response_id for response in request.responses],
        "ties": request.ties,
        "repeat": request.repeat,
    }


def _parsed(line: bytes, location: str) -> Any:
    try:
        return parse_json(line)
    except ValueError as error:
        raise UserError(f"{location}: not JSON ({error})") from None


class _Body(TypedDict):
    messages: list[dict[str, Any]]


class _Line(TypedDict):
    """Whose line of ``TAG.jsonl`` it is."""

    custom_id: str


class _Input(_Line):
    """A line of ``TAG.jsonl``."""

    body: _Body


class _Header(TypedDict):
    """The first line of ``TAG.requests.jsonl``."""

    identity: str
    model: str
    round: Tally


class _Record(TypedDict):
    """What one line of the input file asks."""

    key: str
    kind: Literal["rank", "compare"]
    question_id: str
    persona_id: str
    criteria: list[str]
    responses: list[str]
    ties: bool
    repeat: Tally


def _call_of(record: _Record) -> Call:
    request = Request(
        record["kind"],
        record["question_id"],
        "",
        record["persona_id"],
        "",
        tuple(Criterion(name, "", "", "") for name in record["criteria"]),
        tuple(Candidate(response_id, "") for response_id in record["responses"]),
        record["ties"],
        record["repeat"],
    )
    return Call(record["key"], request)


def outcomes(path: Path) -> Iterator[Outcome]:
    """Yield what the lines of an output or error file say; lines that name no request are passed
    over.
    """
    with path.open("rb") as file:
        for line in file:
            outcome = outcome_of(line)
            if outcome is not None:
                yield outcome


def outcome_of(line: bytes) -> Outcome | None:
    """Read one line of an output or error file; None where it names no request."""
    try:
        value = json.loads(line)
        key = value["custom_id"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    response, error = value.get("response"), value.get("error")
    if not isinstance(response, dict):
        response = {}
    status, body = response.get("status_code"), response.get("body")
    request_id = str(response.get("request_id") or value.get("id") or "")
    inside = failure_in(body) if status == 200 else None
    if status == 200 and inside is None:
        return Outcome(str(key), True, body, request_id=request_id)
    if inside is not None and inside.status:
        # An error in the place of an answer counts by its own status.
        status = inside.status
    if not isinstance(error, dict):
        error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        error = {"message": "a line that says neither an answer nor an error"}
    code, words = str(error.get("code") or ""), str(error.get("message") or "")
    # Without a status nobody answered; a 200 without an answer is none.
    unanswered = not error.get("code") and status in (None, 0, 200)
    retried = isinstance(status, int) and (status in (408, 409, 425, 429) or status >= 500)
    passing = code == EXPIRED or unanswered or retried
    # A code says enough; a message may repeat what was asked, and profiles belong in no ledger.
    words = code or words[:_LONGEST_SAID]
    words = f"HTTP {status}: {words}" if status else words
    return Outcome(
        str(key), False, code=code, message=words, passing=passing, request_id=request_id
    )
