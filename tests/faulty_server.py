"""A local OpenAI-compatible server that answers well, badly, late, twice or not at all: by a
script, or by chance. It answers judges, who ask for JSON of a schema, and the sampler, who does
not.

It is as small as an HTTP server can be, so that thousands of faults take seconds, and it writes
down what it did: when each call came, how many were there at once, and which prompt it gave which
answer.
"""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import json
import random
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MODEL = "model-that-answered"

FAULTS = (
    "429",
    "429 Retry-After",
    "429 Retry-After date",
    "429 retry-after-ms",
    "429 x-ratelimit",
    "200 x-ratelimit",
    "500",
    "503",
    "503 Retry-After",
    "html",
    "late",
    "cut before",
    "cut within",
    "truncated JSON",
    "malformed JSON",
    "no completion",
    "not UTF-8",
    "answer truncated",
    "answer no JSON",
    "wrong permutation",
    "answer twice",
    "surrogate",
    "refusal",
    "filtered answer",
    "filtered prompt",
    "too long",
    "id again",
    "empty answer",
)
"""Everything that can go wrong for one request. "401" ends a run; any other name answers well."""

PASSING = frozenset(FAULTS[:17]) - {"200 x-ratelimit"}
"""Of them, those after which a request is asked again."""

OUTCOMES = {
    "answer truncated": "parse_error",
    "answer no JSON": "parse_error",
    "wrong permutation": "parse_error",
    "answer twice": "parse_error",
    "surrogate": "parse_error",
    "refusal": "refusal",
    "filtered answer": "content_filter",
    "filtered prompt": "content_filter",
    "too long": "rejected",
    "empty answer": "parse_error",
}
"""The status with which a request ends after the others; "valid" where none is named."""


def ranking_of(prompt: str, count: int) -> list[int]:
    """The right answer to a prompt, which hangs on all of it: an answer to another one is told
    apart.
    """
    numbers = list(range(1, count + 1))
    return sorted(numbers, key=lambda n: hashlib.blake2b(f"{n} {prompt}".encode()).digest())


def reply_to(prompt: str) -> str:
    """The right reply to a prompt, for whoever asks for no JSON; it hangs on all of it likewise."""
    return f"I hear you: {hashlib.blake2b(prompt.encode(), digest_size=16).hexdigest()}"


def prompt_of(body: dict[str, Any]) -> str:
    return "\n".join(message["content"] for message in body["messages"])


@dataclass
class Call:
    """What the server saw and did; ``came`` and ``left`` are monotonic seconds, the latter 0 before
    it left.
    """

    prompt: str
    fault: str
    came: float
    at_once: int
    left: float = 0.0


@dataclass
class FaultyServer:
    """Answers each call as ``script(number, prompt)`` says: by the name of a fault, or well.

    Attributes:
        script: called with the number of the call, from 0.
        retry_after: seconds that it asks to wait, where it does.
        latency: seconds of every answer.
        late: seconds of one that is too late.
        limit: of calls at once; more are pushed back (429), whatever the script says.
    """

    script: Callable[[int, str], str] = lambda number, prompt: ""
    retry_after: float = 0.05
    latency: float = 0.0
    late: float = 1.5
    limit: int | None = None
    calls: list[Call] = field(default_factory=list)
    answered: Counter[str] = field(default_factory=Counter)
    """By prompt: answers that were sent whole, and that end a request."""

    def __post_init__(self) -> None:
        self._lock, self._count, self._inside, self._closing = threading.Lock(), 0, 0, False
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> FaultyServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    @staticmethod
    def by_chance(
        seed: int, share: float, faults: tuple[str, ...] = FAULTS
    ) -> Callable[[int, str], str]:
        """A script in which this share of the calls has a fault, drawn by the seed."""
        chance, lock = random.Random(seed), threading.Lock()

        def script(number: int, prompt: str) -> str:
            with lock:
                return chance.choice(faults) if chance.random() < share else ""

        return script

    def wait_until_idle(self) -> None:
        """Return when nothing that was asked is still to be answered."""
        time.sleep(0.02)
        while self._inside:
            time.sleep(0.005)

    # ------------------------------------------------------------------ HTTP

    def _accept(self) -> None:
        while not self._closing:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError), connection.makefile("rb") as reader:
            while True:
                length = None
                while (line := reader.readline()) not in (b"\r\n", b""):
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                if length is None:
                    return
                data = reader.read(length)
                if len(data) < length:  # whoever asked was killed
                    return
                if not self._answer(connection, json.loads(data)):
                    # Closed in the middle, and not in order: whoever reads on finds the connection
                    # reset.
                    connection.setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0"
                    )
                    return

    def _answer(self, connection: socket.socket, body: dict[str, Any]) -> bool:
        """Answer one call; return whether the connection is still good."""
        came, prompt = time.monotonic(), prompt_of(body)
        with self._lock:
            number, self._count = self._count, self._count + 1
            self._inside += 1
            at_once = self._inside
        fault = self.script(number, prompt)
        if self.limit is not None and at_once > self.limit:
            fault = "429"
        call = Call(prompt, fault, came, at_once)
        with self._lock:
            self.calls.append(call)
        time.sleep(self.latency + (self.late if fault == "late" else 0.0))
        status, headers, reply = self._reply(fault, body, prompt, number)
        data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
        lines = [
            f"HTTP/1.1 {status} -",
            "Content-Type: application/json",
            f"Content-Length: {len(data)}",
        ]
        if fault != "id again":
            lines.append(f"x-request-id: req-{number}")
        lines += [*(f"{name}: {value}" for name, value in headers.items()), "", ""]
        whole = "\r\n".join(lines).encode() + data
        cut = {"cut before": 0, "cut within": len(whole) - len(data) // 2}.get(fault)
        with self._lock:
            # Before it is sent: who has the answer finds it counted.
            self._inside -= 1
            call.left = time.monotonic()
            if fault not in PASSING:
                self.answered[prompt] += 1
        connection.sendall(whole[:cut])
        return cut is None

    def _reply(
        self, fault: str, body: dict[str, Any], prompt: str, number: int
    ) -> tuple[int, dict[str, str], Any]:
        seconds = self.retry_after
        if fault.startswith("429") or fault.startswith("503"):
            headers = {
                "429 Retry-After": {"Retry-After": str(seconds)},
                "503 Retry-After": {"Retry-After": str(seconds)},
                "429 Retry-After date": {
                    "Retry-After": email.utils.formatdate(time.time() + seconds, usegmt=True)
                },
                "429 retry-after-ms": {
                    "retry-after-ms": str(seconds * 1000),
                    "Retry-After": "3000",
                },
                "429 x-ratelimit": {
                    "x-ratelimit-remaining-requests": "0",
                    "x-ratelimit-reset-requests": f"{seconds * 1000:.0f}ms",
                },
            }
            return (
                int(fault[:3]),
                headers.get(fault, {}),
                {"error": {"message": "slow down", "code": "rate_limit"}},
            )
        if fault == "401":
            return 401, {}, {"error": {"message": "bad key", "code": "invalid_api_key"}}
        if fault == "500":
            return 500, {}, {"error": {"message": "broken", "code": None}}
        if fault == "html":
            return 502, {}, b"<html><body>Bad gateway</body></html>"
        if fault == "filtered prompt":
            return 400, {}, {"error": {"message": "filtered", "code": "content_filter"}}
        if fault == "too long":
            return 400, {}, {"error": {"message": "too long", "code": "context_length_exceeded"}}
        if fault == "no completion":
            return 200, {}, {"error": "overloaded"}
        if fault == "not UTF-8":
            return 200, {}, b'{"choices": "\xff\xfe"}'
        good = self._completion(fault, body, prompt, number)
        if fault == "truncated JSON":
            return 200, {}, json.dumps(good).encode()[:-20]
        if fault == "malformed JSON":
            return 200, {}, json.dumps(good).encode().replace(b'"', b"'", 3)
        if fault == "200 x-ratelimit":
            reset = f"{seconds * 1000:.0f}ms"
            return (
                200,
                {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": reset},
                good,
            )
        return 200, {}, good

    def _completion(
        self, fault: str, body: dict[str, Any], prompt: str, number: int
    ) -> dict[str, Any]:
        schema: dict[str, Any] = {}
        content, finish, refusal = reply_to(prompt), "stop", None
        if "response_format" in body:
            schema = body["response_format"]["json_schema"]["schema"]["properties"]
            content = json.dumps({name: _value(prompt, part) for name, part in schema.items()})
        if fault == "answer truncated":
            content, finish = content[: len(content) // 2], "length"
        elif fault == "answer no JSON":
            content = "I like the second reply."
        elif fault == "wrong permutation":
            content = json.dumps({name: [1] * 5 for name in schema})
        elif fault == "answer twice":
            content += content[:-1]
        elif fault == "surrogate":
            content = "What a nice reply \ud83d"
        elif fault == "refusal":
            content, refusal = "", "I cannot help with that."
        elif fault == "empty answer":
            content = ""
        elif fault == "filtered answer":
            content, finish = "", "content_filter"
        message = {"role": "assistant", "content": content, "refusal": refusal}
        return {
            "id": "chatcmpl-0" if fault == "id again" else f"chatcmpl-{number}",
            "object": "chat.completion",
            "created": 0,
            "model": MODEL,
            "choices": [{"index": 0, "finish_reason": finish, "message": message}],
            "usage": {
                "prompt_tokens": 100,
                "completion_tokens": 10,
                "prompt_tokens_details": {"cached_tokens": 50},
            },
        }


def _value(prompt: str, part: dict[str, Any]) -> Any:
    if part["type"] == "array":
        return ranking_of(prompt, len(part["items"]["enum"]))
    return part["enum"][ranking_of(prompt, len(part["enum"]))[0] - 1]


def marked(prompt: str) -> tuple[str, str]:
    """The question and the persona of a prompt whose texts name them as ``question-N`` and
    ``persona-N``.
    """
    question, persona = re.search(r"question-(\w+)", prompt), re.search(r"persona-(\w+)", prompt)
    assert question is not None and persona is not None
    return question[1], persona[1]
