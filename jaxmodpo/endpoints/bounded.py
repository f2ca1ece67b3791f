"""A connection pool whose answers have an end: a limit for each whole answer, in seconds and in
bytes.

The HTTP library limits the wait for each read alone, so that a server which sends a byte now and
then, or never stops sending, would hold a worker or fill the memory for good. Apart from
:mod:`jaxmodpo.endpoints.address`, since it knows sockets and nothing of what is asked.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import httpcore2
import httpx2
from openai import DefaultHttpxClient

MOST_BYTES = 16 * 2**20
"""Of one answer."""

MOST_ENCODED_BYTES = 2**18
"""Of an answer that is compressed, although nobody asked for that: it may unpack to a thousand
times as much."""

_this_thread = threading.local()


class BoundedClient(DefaultHttpxClient):
    """Sends requests whose answers, headers and all, must be there within ``seconds``.

    A request whose answer is streamed, as a batch's files are, has a limit for each read alone.
    """

    def __init__(self, *, seconds: float, **settings: Any):
        super().__init__(**settings)
        self._seconds = seconds
        # An answer of a few hundred bytes gains nothing by being compressed, and one that is may
        # unpack to gigabytes.
        self.headers["Accept-Encoding"] = "identity"
        for transport in (self._transport, *self._mounts.values()):
            if isinstance(transport, httpx2.HTTPTransport):
                # No public setting reaches the sockets below the pool; a test holds that this one
                # does.
                pool: Any = transport._pool
                pool._network_backend = _Backend(pool._network_backend)

    def send(
        self, request: httpx2.Request, *, stream: bool = False, **settings: Any
    ) -> httpx2.Response:
        if stream:
            return super().send(request, stream=True, **settings)
        # One limit for the whole answer, headers and all. The sockets look it up: they know
        # nothing of the request that they read for, but they read in the thread that sent it.
        _this_thread.deadline = time.monotonic() + self._seconds
        try:
            # Streamed, whatever was asked for: the library would else read all of the body before
            # anybody could count it.
            response = super().send(request, stream=True, **settings)
            try:
                is_encoded = response.headers.get("content-encoding", "identity") != "identity"
                most_bytes = MOST_ENCODED_BYTES if is_encoded else MOST_BYTES
                response.stream = _BoundedStream(response.stream, most_bytes)
                response.read()
            except BaseException:
                response.close()
                raise
            return response
        finally:
            _this_thread.deadline = None


class _BoundedStream(httpx2.SyncByteStream):
    """An answer's body that ends with an error beyond so many bytes."""

    def __init__(self, stream: Any, most_bytes: int):
        self._stream = stream
        self._most_bytes = most_bytes

    def __iter__(self) -> Iterator[bytes]:
        received = 0
        for data in self._stream:
            received += len(data)
            if received > self._most_bytes:
                raise httpx2.ReadError(f"the answer is longer than {self._most_bytes:,} bytes")
            yield data

    def close(self) -> None:
        self._stream.close()


class _Backend(httpcore2.NetworkBackend):
    """Opens connections whose reads end at the deadline of the thread that reads."""

    def __init__(self, backend: httpcore2.NetworkBackend):
        self._backend = backend

    def connect_tcp(self, *arguments: Any, **settings: Any) -> httpcore2.NetworkStream:
        return _Stream(self._backend.connect_tcp(*arguments, **settings))

    def connect_unix_socket(self, *arguments: Any, **settings: Any) -> httpcore2.NetworkStream:
        return _Stream(self._backend.connect_unix_socket(*arguments, **settings))

    def sleep(self, seconds: float) -> None:
        self._backend.sleep(seconds)


class _Stream(httpcore2.NetworkStream):
    """A connection: each read waits no longer than what is left until the deadline."""

    def __init__(self, stream: httpcore2.NetworkStream):
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        deadline = getattr(_this_thread, "deadline", None)
        if deadline is not None:
            seconds_left = deadline - time.monotonic()
            if seconds_left <= 0:
                raise httpcore2.ReadTimeout("the whole answer took too long")
            timeout = seconds_left if timeout is None else min(timeout, seconds_left)
        return self._stream.read(max_bytes, timeout)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        self._stream.close()

    def start_tls(self, *arguments: Any, **settings: Any) -> httpcore2.NetworkStream:
        return _Stream(self._stream.start_tls(*arguments, **settings))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
