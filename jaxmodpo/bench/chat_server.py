"""The least that speaks HTTP and answers as a chat endpoint does, for benchmarks of those who ask.

A module of its own because it is started as a process of its own, which imports nothing else. It
keeps no time and looks at nothing but the numbers that the answer's schema allows, which it ranks
at random.
"""

from __future__ import annotations

import asyncio
import functools
import json
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from jaxmodpo.errors import UserError


@dataclass(eq=False)
class LocalServer:
    """A running server; ``cpu`` is what it has used, in seconds, once it has ended."""

    url: str
    cpu: float = 0.0


@contextmanager
def local_server() -> Iterator[LocalServer]:
    """Start this module's server in a process of its own, which ends with the block or with this
    process.
    """
    command = [sys.executable, "-m", "jaxmodpo.bench.chat_server"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        port = process.stdout.readline().strip()
        if not port:
            raise UserError("the benchmark's server did not start")
        server = LocalServer(f"http://127.0.0.1:{port}/v1")
        try:
            yield server
        finally:
            # The server ends with its standard input, which the system closes if we are killed: no
            # server is left behind in any case.
            process.stdin.close()
            server.cpu = float(process.stdout.readline() or 0.0)


# The numbers of the responses, where the request's JSON schema lists what may be ranked. Looked for
# in the bytes: parsing every request would make the server slower than those whom it is to test.
_NUMBERS = re.compile(rb'"enum": ?\[([0-9, ]+)\]')


class _Completions(asyncio.Protocol):
    """Answers every POST with a chat completion that ranks what its schema allows, in a random
    order.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        # A connection is a stream: what arrives at once may be a part of a request or several.
        self._received += data
        while True:
            head, blank_line, rest = self._received.partition(b"\r\n\r\n")
            length = _content_length(head)
            if not blank_line or len(rest) < length:
                return
            self._transport.write(_response(rest[:length]))
            self._received = rest[length:]


def _content_length(head: bytes) -> int:
    # A request without a body, such as a GET, names no length.
    header = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return int(header[1]) if header else 0


def _response(body: bytes) -> bytes:
    allowed = _NUMBERS.search(body)
    numbers = allowed[1].decode().split(",") if allowed else ["1"]
    random.shuffle(numbers)
    completion = _completion().replace("NUMBERS", ", ".join(numbers)).encode()
    # The headers that clients look at: rate limits far from reached, and an id for the log.
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id:"
        b" req_0123456789abcdef0123456789abcdef\r\nx-ratelimit-remaining-requests:"
        b" 9999\r\nx-ratelimit-remaining-tokens: 1999999\r\ncontent-length: "
    )
    return head + str(len(completion)).encode() + b"\r\n\r\n" + completion


# Written once, with a place for the numbers: JSON of every answer anew would cost more than all
# else that the server does.
@functools.cache
def _completion() -> str:
    """Return an answer as OpenAI's endpoint sends it, with ``NUMBERS`` in the ranking's place."""
    message = {
        "role": "assistant",
        "content": '{"ranking": [NUMBERS]}',
        "refusal": None,
        "annotations": [],
    }
    usage = {
        "prompt_tokens": 1224,
        "completion_tokens": 18,
        "total_tokens": 1242,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }
    return json.dumps(
        {
            "id": "chatcmpl-0123456789abcdef0123456789abc",
            "object": "chat.completion",
            "created": 1_800_000_000,
            "model": "bench-1",
            "choices": [
                {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
            ],
            "usage": usage,
            "service_tier": "default",
            "system_fingerprint": None,
        }
    )


async def _serve() -> None:
    """Serve until standard input ends: the port is the first line said, the seconds of CPU time the
    last.
    """
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Completions, "127.0.0.1", 0, backlog=1024)
    began = time.process_time()
    print(server.sockets[0].getsockname()[1], flush=True)

    # Standard input is read by a thread, since asyncio has no pipe on every system.
    def watch() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=watch, daemon=True).start()
    await ended.wait()
    print(time.process_time() - began, flush=True)


def main() -> None:
    """Be the server."""
    asyncio.run(_serve())


if __name__ == "__main__":
    main()
