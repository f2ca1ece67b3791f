"""A Batch API on this machine that does as a script says: answers, expires, refuses, loses
answers.
"""

from __future__ import annotations

import email
import email.policy
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from local_http import JSONHandler, LocalServer

from jaxmodpo.judging.batch_outcomes import outcome_of

Lines = list[dict[str, Any]]


class Outcome(dict[str, Any]):
    """How a batch ends: ``status`` and, where there are any, ``output``, ``error`` (lines) and
    ``errors``.
    """


Script = Callable[[int, Lines], Outcome]


def good(number: int, lines: Lines) -> Outcome:
    return Outcome(status="completed", output=[answered(line) for line in lines])


def answered(line: dict[str, Any], content: str = '{"empathy": "A", "safety": "B"}') -> str:
    body = {
        "id": "chatcmpl",
        "object": "chat.completion",
        "model": "m-2026",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": content},
            }
        ],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10},
    }
    response = {"status_code": 200, "request_id": f"req-{line['custom_id']}", "body": body}
    return json.dumps(
        {"id": "batch_req", "custom_id": line["custom_id"], "response": response, "error": None}
    )


def failed(line: dict[str, Any], status: int, code: str) -> str:
    response = {
        "status_code": status,
        "request_id": f"req-{line['custom_id']}",
        "body": {"error": {"code": code}},
    }
    return json.dumps(
        {"id": "batch_req", "custom_id": line["custom_id"], "response": response, "error": None}
    )


def not_come_to(line: dict[str, Any]) -> str:
    error = {"code": "batch_expired", "message": "This request could not be executed in time."}
    return json.dumps(
        {"id": "batch_req", "custom_id": line["custom_id"], "response": None, "error": error}
    )


class Server(LocalServer):
    """A Batch API. ``script`` says how the n-th batch ends; ``looks`` after how many looks it
    does.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.deleted: set[str] = set()
        self.batches: dict[str, dict[str, Any]] = {}
        self.asked: list[Lines] = []
        self.script: Script = good
        self.looks = 1
        self.statuses: Callable[[str, str], int] = lambda method, path: 200
        self.created: Callable[[], bool] = lambda: True
        self.lock = threading.Lock()
        server = self

        class Handler(JSONHandler):
            def do_POST(self) -> None:
                data = self.body()
                status = server.statuses("POST", self.path)
                if status != 200:
                    self.reply({"error": {"message": "no", "code": None}}, status)
                elif self.path == "/v1/files":
                    self.reply(server.upload(data, self.headers["Content-Type"]))
                else:
                    batch = server.create(json.loads(data))
                    # A batch may be there although its answer never arrives.
                    self.reply(batch) if server.created() else self.cut()

            def do_GET(self) -> None:
                status = server.statuses("GET", self.path)
                if status != 200:
                    self.reply({"error": {"message": "no", "code": None}}, status)
                elif self.path.startswith("/v1/batches?"):
                    newest = list(reversed(server.batches.values()))
                    self.reply({"object": "list", "data": newest, "has_more": False})
                elif self.path.startswith("/v1/batches/"):
                    self.reply(server.look(self.path.rsplit("/", 1)[1]))
                else:
                    content = server.files.get(self.path.split("/")[3])
                    if content is None:
                        self.reply({"error": {}}, status=404)
                    else:
                        self.reply(content)

            def do_DELETE(self) -> None:
                server.deleted.add(self.path.rsplit("/", 1)[1])
                self.reply({"id": "f", "deleted": True, "object": "file"})

            def cut(self) -> None:
                self.close_connection = True
                self.connection.close()

        super().__init__(Handler)

    def upload(self, data: bytes, kind: str) -> dict[str, Any]:
        form = email.message_from_bytes(
            b"Content-Type: " + kind.encode() + b"\r\n\r\n" + data, policy=email.policy.HTTP
        )
        parts = dict[Any, Any]()
        for part in form.walk():
            parts[part.get_param("name", header="content-disposition")] = part.get_payload(
                decode=True
            )
        assert parts["purpose"] == b"batch"
        with self.lock:
            file_id = f"file-{len(self.files)}"
            self.files[file_id] = parts["file"]
        return {"id": file_id, "object": "file", "purpose": "batch"}

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        assert (body["endpoint"], body["completion_window"]) == ("/v1/chat/completions", "24h")
        with self.lock:
            self.asked.append(
                [json.loads(line) for line in self.files[body["input_file_id"]].splitlines()]
            )
            batch = {
                "id": f"batch-{len(self.asked)}",
                "object": "batch",
                "status": "validating",
                "created_at": int(time.time()),
                "input_file_id": body["input_file_id"],
                "metadata": body["metadata"],
                "looked": 0,
            }
            self.batches[batch["id"]] = batch
            return batch

    def look(self, batch_id: str) -> dict[str, Any]:
        with self.lock:
            batch = self.batches[batch_id]
            batch["looked"] += 1
            if batch["looked"] > self.looks:
                self.end(batch)
            elif batch["looked"] > 1:
                batch["status"] = "in_progress"
            return batch

    def end(self, batch: dict[str, Any]) -> None:
        if batch["status"] in ("completed", "expired", "failed", "cancelled"):
            return
        number = int(batch["id"].split("-")[1])
        outcome = self.script(number, self.asked[number - 1])
        for kind in ("output", "error"):
            if kind in outcome:
                self.files[f"{kind}-{number}"] = "\n".join(outcome[kind]).encode()
                batch[f"{kind}_file_id"] = f"{kind}-{number}"
        batch["errors"] = {"data": outcome.get("errors", [])}
        batch["status"] = outcome["status"]

    def billed(self) -> Counter[str]:
        """How often each request was answered, in any batch."""
        names = [name for name in self.files if name.startswith("output-")]
        lines = [line for name in names for line in self.files[name].splitlines()]
        return Counter(
            outcome.key
            for line in lines
            if (outcome := outcome_of(line)) is not None and outcome.answered
        )
