"""Answers that never end are ended, in time and in bytes."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import openai
import pytest

from jaxmodpo.endpoints.address import make_client

HEADERS = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def _serve(start: bytes, part: bytes, pause: float) -> Iterator[str]:
    server = socket.create_server(("127.0.0.1", 0))

    def work() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                with connection, contextlib.suppress(OSError):
                    connection.recv(65536)
                    connection.sendall(start)
                    for _ in range(2000):
                        connection.sendall(part)
                        time.sleep(pause)

    threading.Thread(target=work, daemon=True).start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}/v1"
    server.close()


@pytest.mark.parametrize(
    ("start", "part", "pause"),
    [
        (HEADERS + b"Content-Length: 100000\r\n\r\n", b" ", 0.05),
        (b"HTTP/1.1 200 OK\r\nX-A: ", b"a", 0.05),
        (
            HEADERS + b"Transfer-Encoding: chunked\r\n\r\n",
            b"F4240\r\n" + b" " * 0xF4240 + b"\r\n",
            0.0,
        ),
        (
            HEADERS + b"Content-Encoding: gzip\r\nContent-Length: 400000\r\n\r\n",
            b"\x1f" * 400000,
            0.0,
        ),
    ],
)
def test_an_answer_without_an_end_is_an_error(start, part, pause):
    for url in _serve(start, part, pause):
        client = make_client(url, "", timeout=0.5, max_retries=0)
        with pytest.raises(openai.APIConnectionError):
            client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "a post"}]
            )
