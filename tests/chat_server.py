"""A chat endpoint on this machine that answers as a script says, for judges and for the sampler."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from local_http import JSONHandler, LocalServer

KEY = "sk-very-secret-0123456789"
Reply = tuple[int, Any]


class Server(LocalServer):
    """Answers each call with ``script(body)``: a status and a body; keeps the calls."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.headers = {"retry-after-ms": "1"}
        self.script: Callable[[dict[str, Any]], Reply] = lambda body: (200, said("{}"))
        server = self

        class Handler(JSONHandler):
            def do_POST(self) -> None:
                body = json.loads(self.body())
                call = {"authorization": self.headers["Authorization"], "path": self.path}
                server.calls.append(body | call)
                status, reply = server.script(body)
                self.reply(reply, status, server.headers)

        super().__init__(Handler)


def said(content: Any, finish: str | None = "stop", **message: Any) -> dict[str, Any]:
    """A chat completion, as an endpoint sends it."""
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 0,
        "model": "model-that-answered",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish,
                "message": {"role": "assistant", "content": content, **message},
            }
        ],
    }
