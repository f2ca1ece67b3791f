"""Replies from an endpoint: nothing leaves without leave, nothing is paid for twice."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from jaxmodpo.errors import UserError
from jaxmodpo.files import read_json
from jaxmodpo.records import Question, read_responses, write_questions
from jaxmodpo.sampling import endpoint
from jaxmodpo.sampling.command import ResponsesConfig, responses

KEY = "sk-very-secret-0123456789"


class Server:
    """Answers each call with ``script(body, number)``: a status and a body."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.script: Callable[[dict[str, Any], int], tuple[int, Any]] = lambda body, number: (
            200,
            said(f"r{number}"),
        )
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.calls.append(body)
                status, reply = server.script(body, len(server.calls))
                data = json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.send_header("retry-after-ms", "1")
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()


def said(content: str, finish: str | None = "stop") -> dict[str, Any]:
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "finish_reason": finish, "message": message}
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 0,
        "model": "gpt-that-answered",
        "choices": [choice],
    }


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def config(folder: Path, server: Server, **changes: Any) -> ResponsesConfig:
    write_questions(folder / "q.csv", [Question(f"q{n}", f"post {n}") for n in range(6)])
    settings: dict[str, Any] = {
        "engine": "endpoint", "endpoint_model": "gpt", "base_url": server.url, "questions": folder / "q.csv",
        "output_dir": folder / "out", "samples": 2, "max_new_tokens": 99, "max_concurrency": 3,
    }  # fmt: skip
    return ResponsesConfig(**settings | changes)


def test_each_reply_is_asked_once_with_the_papers_prompt_and_no_system_message(server, tmp_path):
    phase = responses(config(tmp_path, server, model_name="gpt_4o"))
    rows = read_responses(tmp_path / "out" / "responses.csv")
    assert len(rows) == len(server.calls) == 12 and {row.model_name for row in rows} == {"gpt_4o"}
    prompts = [call["messages"] for call in server.calls]
    assert all([message["role"] for message in prompt] == ["user"] for prompt in prompts)
    assert (
        sorted(prompt[0]["content"] for prompt in prompts)[0]
        == "You are a therapist. Respond to this person's question:\npost 0"
    )
    assert all(call["temperature"] == 0.8 and call["max_tokens"] == 99 for call in server.calls)
    assert phase.results["answering_models"] == {"gpt-that-answered": 12}
    asked = {call["messages"][0]["content"] for call in server.calls}
    assert len(asked) == 6
    assert KEY not in (tmp_path / "out" / "manifest.json").read_text()


def test_failed_calls_alone_are_asked_again(server, tmp_path):
    def script(body, number):
        if "post 3" in body["messages"][0]["content"]:
            return 400, {"error": {"message": f"no such luck, {KEY}", "code": "weird"}}
        return 200, said("fine", "length")

    server.script = script
    with pytest.raises(
        UserError, match=r"2 of 12 calls .* failed.*the same command asks for those alone"
    ) as failed:
        responses(config(tmp_path, server))
    assert KEY not in str(failed.value)
    before = len(server.calls)
    server.script = lambda body, number: (200, said("fine now"))
    phase = responses(config(tmp_path, server))
    assert len(server.calls) == before + 2
    texts = [row.response_text for row in read_responses(tmp_path / "out" / "responses.csv")]
    assert texts.count("fine now") == 2 and phase.results["cut_at_max_new_tokens"] == 10


def test_what_holds_for_every_call_ends_the_run_and_keeps_what_was_answered(server, tmp_path):
    server.script = lambda body, number: (
        (200, said("fine"))
        if number < 5
        else (429, {"error": {"message": "", "code": "insufficient_quota"}})
    )
    with pytest.raises(UserError, match="gives no more credit, insufficient_quota"):
        responses(config(tmp_path, server, max_concurrency=1))
    kept = (tmp_path / "out" / "sampled.jsonl").read_text().splitlines()
    assert len(kept) == 4
    server.script = lambda body, number: (200, said("later"))
    responses(config(tmp_path, server))
    texts = [row.response_text for row in read_responses(tmp_path / "out" / "responses.csv")]
    assert texts.count("fine") == 4 and texts.count("later") == 8
    assert read_json(tmp_path / "out" / "manifest.json")["status"] == "finished"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"base_url": "https://api.example.com/v1"},
            "people's posts would be sent to api.example.com",
        ),
        ({"endpoint_model": ""}, "--endpoint-model; there is no default"),
        ({"model": Path("mistral")}, "takes no --model"),
        ({"prompt_style": "chat"}, "takes no --prompt-style"),
        ({"batch_size": 8, "base_dtype": "nf4"}, "takes no --batch-size and no --base-dtype"),
        ({"max_concurrency": 0}, "must be at least 1"),
        ({"engine": "local"}, "the local engine needs --model"),
    ],
)
def test_nothing_is_asked_that_should_not_be(server, tmp_path, changes, said):
    with pytest.raises(UserError, match=said):
        responses(config(tmp_path, server, **changes))
    assert not server.calls and not (tmp_path / "out").exists()


def test_a_foreign_endpoint_needs_leave_and_a_key(server, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    foreign = config(tmp_path, server, base_url="https://api.example.com/v1", send_questions=True)
    with pytest.raises(UserError, match="OPENAI_API_KEY holds no key"):
        responses(foreign)


def test_calls_under_way_together_all_take_the_newer_name_of_the_limit(server, tmp_path):
    together = threading.Barrier(4, timeout=10)
    refused = {"message": "'max_tokens' is not supported. Use 'max_completion_tokens' instead."}

    def script(body, number):
        if "max_tokens" not in body:
            return 200, said("fine")
        together.wait()
        return 400, {"error": refused | {"code": "unsupported_parameter", "param": "max_tokens"}}

    server.script = script
    phase = responses(config(tmp_path, server, max_concurrency=4))
    assert phase.results["responses"] == 12 and len(server.calls) == 16


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (
            (200, {"choices": []}),
            r"brought no text, the last failure with: .*; a larger --max-new-tokens",
        ),
        ((200, None), r"brought no text; a larger --max-new-tokens"),
        (
            (400, {"error": {"message": "no such luck"}}),
            r"brought no text, the last failure with: .*no such luck",
        ),
    ],
)
def test_calls_that_bring_no_text_end_the_run_before_all_are_paid(
    server, tmp_path, monkeypatch, reply, told
):
    monkeypatch.setattr(endpoint, "ATTEMPTS", 1)
    status, body = reply
    server.script = lambda *_: (status, said("", "length") if body is None else body)
    settings = config(tmp_path, server, samples=20)
    with pytest.raises(UserError, match=rf"\d\d calls in a row to http://127.0.0.1:\d+/v1 {told}"):
        responses(settings)
    # 41 are needed for three questions of 20 replies each; a few more are under way by then.
    assert 41 <= len(server.calls) <= 41 + 3
    before = len(server.calls)
    server.script = lambda *_: (200, said("a reply"))
    responses(settings)
    assert len(server.calls) == 120 + (0 if body is None else before)
    assert len(read_responses(tmp_path / "out" / "responses.csv")) == 120


def test_one_question_that_an_endpoint_refuses_ends_no_run(server, tmp_path):
    server.script = lambda body, _: (
        200,
        said("" if "post 3" in body["messages"][0]["content"] else "a reply"),
    )
    phase = responses(config(tmp_path, server, samples=40))
    assert len(server.calls) == 240 and phase.results["empty_by_kind"] == {"empty": 40}


@pytest.mark.parametrize(
    ("finish", "cut"),
    [("stop", 0), ("eos_token", 0), (None, 0), ("length", 12), ("max_tokens", 12)],
)
def test_only_what_was_cut_at_its_limit_counts_as_cut(server, tmp_path, finish, cut):
    server.script = lambda *_: (200, said("a reply", finish))
    assert responses(config(tmp_path, server)).results["cut_at_max_new_tokens"] == cut
