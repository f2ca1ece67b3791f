"""A chat endpoint on this machine that answers as a script says, and a judge that asks it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from jaxmodpo.criteria import load_criteria
from jaxmodpo.judging.endpoint import EndpointJudge
from jaxmodpo.judging.endpoint_settings import Endpoint
from jaxmodpo.judging.judge import Answer, Request
from jaxmodpo.records import Candidate

KEY = "sk-very-secret-0123456789"
Reply = tuple[int, Any]


class Server:
    """Answers each call with ``script(body)``: a status and a body; keeps the calls."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.headers = {"retry-after-ms": "1"}
        self.script: Callable[[dict[str, Any]], Reply] = lambda body: (200, said("{}"))
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.calls.append(
                    body | {"authorization": self.headers["Authorization"], "path": self.path}
                )
                status, reply = server.script(body)
                data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                for name, value in server.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()


def said(content: Any, finish: str = "stop", **message: Any) -> dict[str, Any]:
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


def judge(server: Server, **settings: Any) -> EndpointJudge:
    settings = {"base_url": server.url, "model": "asked-model"} | settings
    return EndpointJudge(Endpoint(**settings), backoff=0.001)


def answered(judge: EndpointJudge, asked: Request) -> Answer:
    answer = judge.answer(asked)
    assert answer is not None, "only a stop leaves a request without an answer"
    return answer


def request(
    kind: Literal["rank", "compare"] = "rank",
    count=3,
    criterion: str | Sequence[str] = "empathy",
    ties=False,
) -> Request:
    return Request(
        kind,
        "q",
        "the $post",
        "p",
        "You are a patient.\n",
        tuple(
            load_criteria("therapeutic", [criterion] if isinstance(criterion, str) else criterion)
        ),
        tuple(Candidate("xyzuv"[n], f"reply {n}") for n in range(count)),
        ties,
    )
