"""HTTP servers of tests: a free port of this machine, and JSON out."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class JSONHandler(BaseHTTPRequestHandler):
    """Answers calls of one connection; what is called is up to its subclasses."""

    # Connections stay open, as those of real endpoints do.
    protocol_version = "HTTP/1.1"
    # Headers and body are two packets; else the second would wait 40 ms for the other side's word
    # that it has the first.
    disable_nagle_algorithm = True

    def body(self) -> bytes:
        """Return what was sent."""
        length = int(self.headers["Content-Length"])
        return self.rfile.read(length)

    def reply(
        self, value: Any, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a value as JSON, or bytes as they are."""
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: pytest shows what a test prints."""


class LocalServer:
    """Serves a handler on a port of its own, until the ``with`` block ends.

    Attributes:
        url: the base URL, as an OpenAI client takes it.
    """

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Answer no more; may be called again."""
        self._http.shutdown()
        self._http.server_close()
