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
from typing import Any, BinaryIO, NamedTuple, TypedDict

from jaxmodpo.criteria import Criterion
from jaxmodpo.endpoints.messages import message_text
from jaxmodpo.errors import UserError
from jaxmodpo.judging.judge import Call, Kind, Request
from jaxmodpo.parsing import parse_json
from jaxmodpo.records import Candidate
from jaxmodpo.schema import Tally, read_as

URL = "/v1/chat/completions"


class Header(NamedTuple):
    """Whose batch it is: the judge's identity, the model asked for, and how often its requests were
    asked, from 1.
    """

    identity: str
    model: str
    round: int


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
        """Delete all files of the batch, whichever of them there are."""
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
            # The first line is the header.
            file.readline()
            for number, line in enumerate(file, 2):
                location = f"{self.requests}, line {number}"
                record = read_as(_parsed(line, location), _Record, location)
                yield _call_of(record)

    def offsets(self) -> dict[str, int]:
        """Return where each request's line of the input file begins, by key.

        Lines that are gone or damaged have none: answers that are paid for are read all the same.
        """
        offsets: dict[str, int] = {}
        if not self.input.exists():
            return offsets
        offset = 0
        with self.input.open("rb") as file:
            for line in file:
                with contextlib.suppress(UserError):
                    parsed_line = read_as(_parsed(line, ""), _Input, "")
                    offsets[parsed_line["custom_id"]] = offset
                offset += len(line)
        return offsets

    def sent(self, offset: int) -> str:
        """Return the texts of the messages that the input file's line at ``offset`` sends, end to
        end.
        """
        with self.input.open("rb") as file:
            file.seek(offset)
            line = _parsed(file.readline(), str(self.input))
        body = read_as(line, _Input, str(self.input))["body"]
        texts = [message_text(message.get("content")) for message in body["messages"]]
        return "\n".join(texts)

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
        keys: of the requests that it has so far.
    """

    files: BatchFiles
    header: Header
    max_requests: int
    max_bytes: int
    keys: list[str] = field(init=False, default_factory=list)
    _bytes: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        # Nobody else on the machine may list, or read, what is asked about whom.
        self.files.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._input = private_file(self.files.input)
        self._requests = private_file(self.files.requests)
        self._requests.write(_line(self.header._asdict()))

    def fits(self, line: bytes) -> bool:
        """Return whether a further request's line keeps the endpoint's limits."""
        has_room = len(self.keys) < self.max_requests
        return has_room and self._bytes + len(line) <= self.max_bytes

    def add(self, call: Call, line: bytes) -> None:
        """Write a request and its line of the input file."""
        self._input.write(line)
        self._requests.write(_line(_record(call)))
        self.keys.append(call.key)
        self._bytes += len(line)

    def close(self) -> None:
        """Write both files to the disk; nothing where that is done."""
        for file in (self._input, self._requests):
            if not file.closed:
                file.flush()
                # The batch is created right after this. Without the sync a power cut could take
                # the only record of what is asked, and paid for, at the endpoint.
                os.fsync(file.fileno())
                file.close()


def private_file(path: Path) -> BinaryIO:
    """Create a file, or empty it, that only its owner may read."""
    # No link is followed: a folder that others can write to could hold one, with a name of ours,
    # to a file that is to be overwritten.
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    return os.fdopen(os.open(path, flags, 0o600), "wb")


def input_line(key: str, body: dict[str, Any]) -> bytes:
    """Return a request's line of the input file."""
    return _line({"custom_id": key, "method": "POST", "url": URL, "body": body})


def _line(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode() + b"\n"


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
    kind: Kind
    question_id: str
    persona_id: str
    criteria: list[str]
    responses: list[str]
    ties: bool
    yes_no: bool
    repeat: Tally


def _record(call: Call) -> _Record:
    """Return what ``TAG.requests.jsonl`` says of a call: ids and names, and no texts."""
    request = call.request
    return {
        "key": call.key,
        "kind": request.kind,
        "question_id": request.question_id,
        "persona_id": request.persona_id,
        "criteria": [criterion.name for criterion in request.criteria],
        "responses": [response.response_id for response in request.responses],
        "ties": request.ties,
        "yes_no": request.yes_no,
        "repeat": request.repeat,
    }


def _call_of(record: _Record) -> Call:
    """Return the call of a record; its texts are empty, and its key is the whole one's."""
    criteria = tuple(Criterion(name, "", "", "") for name in record["criteria"])
    responses = tuple(Candidate(response_id, "") for response_id in record["responses"])
    request = Request(
        kind=record["kind"],
        question_id=record["question_id"],
        question_text="",
        persona_id=record["persona_id"],
        persona_text="",
        criteria=criteria,
        responses=responses,
        ties=record["ties"],
        yes_no=record["yes_no"],
        repeat=record["repeat"],
    )
    return Call(record["key"], request)
