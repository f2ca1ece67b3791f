"""The endpoint judge against a local server that answers well, badly, or not at all."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import pytest

from jaxmodpo.artifacts import Candidate, write_json
from jaxmodpo.errors import UserError
from jaxmodpo.judging.criteria import load_criteria
from jaxmodpo.judging.endpoint import EndpointJudge, parse_order
from jaxmodpo.judging.judge import Request
from jaxmodpo.judging.preferences import PreferencesConfig, preferences
from jaxmodpo.judging.prompts import answer_schema, messages

KEY = "sk-very-secret-0123456789"
Reply = tuple[int, Any]


class Server:
    """Answers each call with ``script(body)``: a status and a body; keeps the calls."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.script: Callable[[dict[str, Any]], Reply] = lambda body: (200, said("{}"))
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.calls.append(body | {"authorization": self.headers["Authorization"], "path": self.path})
                status, reply = server.script(body)
                data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
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


def said(content: str | None, finish: str = "stop", **message: Any) -> dict[str, Any]:
    """A chat completion, as an endpoint sends it."""
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 0,
        "model": "model-that-answered",
        "choices": [
            {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content, **message}}
        ],
    }


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def judge(server: Server, **settings: Any) -> EndpointJudge:
    return EndpointJudge(server.url, "asked-model", **settings)


def request(kind: Literal["rank", "compare"] = "rank", count=3, criterion="empathy") -> Request:
    return Request(
        kind,
        "q",
        "the $post",
        "p",
        "You are a patient.\n",
        load_criteria("therapeutic", [criterion])[0],
        tuple(Candidate("xyzuv"[n], f"reply {n}") for n in range(count)),
    )


# --------------------------------------------------------------------------- answers


def test_a_ranking_is_read_as_ids_and_the_answering_model_is_kept(server):
    server.script = lambda body: (200, said('{"ranking": [3, 1, 2]}'))
    answer = judge(server).answer(request())
    assert (answer.status, answer.order, answer.model) == ("valid", ("z", "x", "y"), "model-that-answered")
    assert answer.raw == '{"ranking": [3, 1, 2]}'


def test_a_comparison_is_read_as_the_winners_id(server):
    server.script = lambda body: (200, said('{"better": "B"}'))
    assert judge(server).answer(request("compare", 2)).order == ("y",)


@pytest.mark.parametrize(
    ("reply", "status", "raw"),
    [
        ((200, said('{"ranking": [1, 1, 2]}')), "parse_error", '{"ranking": [1, 1, 2]}'),
        ((200, said('{"ranking": [1, 2]}')), "parse_error", '{"ranking": [1, 2]}'),
        ((200, said('{"ranking": [0, 1, 2]}')), "parse_error", '{"ranking": [0, 1, 2]}'),
        ((200, said('{"ranking": [true, 2, 3]}')), "parse_error", '{"ranking": [true, 2, 3]}'),
        ((200, said('{"ranking": "321"}')), "parse_error", '{"ranking": "321"}'),
        ((200, said("[3, 2, 1]")), "parse_error", "[3, 2, 1]"),
        ((200, said('{"ranking": [3, 1', finish="length")), "parse_error", '{"ranking": [3, 1'),
        ((200, said("I like the second.")), "parse_error", "I like the second."),
        ((200, said(None)), "parse_error", ""),
        ((200, said(None, refusal="I cannot.")), "refusal", "I cannot."),
        ((200, said("", finish="content_filter")), "content_filter", ""),
        ((400, {"error": {"message": "filtered", "code": "content_filter"}}), "content_filter", "HTTP 400"),
        ((400, {"error": {"message": "too long", "code": "context_length_exceeded"}}), "error", "too long"),
        ((403, {"error": {"message": "flagged", "code": None}}), "error", "HTTP 403"),
        ((200, {"choices": []}), "error", "not a chat completion"),
        ((200, {"error": "overloaded"}), "error", "not a chat completion"),
        ((200, b'{"choices": [{"mess'), "error", ""),
        ((200, b"null"), "error", "not a chat completion"),
    ],
)
def test_every_bad_answer_has_a_named_status(server, reply, status, raw):
    server.script = lambda body: reply
    answer = judge(server).answer(request())
    assert (answer.status, answer.order) == (status, None)
    assert raw in answer.raw
    assert len(server.calls) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_passing_failure_is_tried_again(server, status):
    replies = iter([(status, {"error": {"message": "busy"}}), (200, said('{"ranking": [1, 2, 3]}'))])
    server.script = lambda body: next(replies)
    assert judge(server).answer(request()).status == "valid"
    assert len(server.calls) == 2


def test_a_lasting_failure_ends_as_an_error(server):
    server.script = lambda body: (500, {"error": {"message": "broken"}})
    answer = judge(server, max_retries=2).answer(request())
    assert (answer.status, answer.order) == ("error", None)
    assert "HTTP 500" in answer.raw and len(server.calls) == 3


def test_no_server_at_all_is_an_error(server):
    there = judge(server, max_retries=0)
    server.http.shutdown()
    server.http.server_close()
    assert there.answer(request()).status == "error"


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (
            (401, {"error": {"message": f"bad key {KEY}", "code": "invalid_api_key"}}),
            "refused the key in OPENAI_API_KEY",
        ),
        ((404, {"error": {"message": "gone", "code": "model_not_found"}}), "has no model asked-model"),
        (
            (400, {"error": {"message": "no", "code": "unsupported_value", "param": "temperature"}}),
            r"unsupported_value \(temperature\) for the model asked-model",
        ),
        ((429, {"error": {"message": "pay", "code": "insufficient_quota"}}), "insufficient_quota"),
    ],
)
def test_what_no_retry_can_mend_stops_the_run_with_a_sentence(server, reply, words):
    server.script = lambda body: reply
    with pytest.raises(UserError, match=words) as caught:
        judge(server, max_retries=0).answer(request())
    assert KEY not in str(caught.value) and server.url in str(caught.value)


def test_parse_order_takes_no_label_of_the_other_kind():
    assert parse_order('{"better": "C"}', request("compare", 2)) is None
    assert parse_order('{"better": ["A"]}', request("compare", 2)) is None
    assert parse_order('{"better": "A"}', request("rank", 2)) is None


# --------------------------------------------------------------------------- what is sent


def test_temperature_is_sent_only_where_it_is_given(server):
    server.script = lambda body: (200, said('{"ranking": [1, 2, 3]}'))
    judge(server).answer(request())
    judge(server, temperature=0.0).answer(request())
    assert "temperature" not in server.calls[0] and server.calls[1]["temperature"] == 0.0
    assert "max_tokens" not in server.calls[0]


def test_the_call_holds_model_schema_messages_and_key(server):
    server.script = lambda body: (200, said('{"ranking": [1, 2, 3]}'))
    judge(server).answer(request())
    (call,) = server.calls
    assert (call["path"], call["model"]) == ("/v1/chat/completions", "asked-model")
    assert call["authorization"] == f"Bearer {KEY}"
    assert call["messages"] == messages(request())
    form = call["response_format"]
    assert form["type"] == "json_schema" and form["json_schema"]["strict"] is True
    assert form["json_schema"]["schema"] == answer_schema(request())


def test_a_server_on_this_machine_needs_no_key(server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    server.script = lambda body: (200, said('{"ranking": [1, 2, 3]}'))
    assert judge(server).answer(request()).status == "valid"


def test_a_proxy_of_the_environment_does_not_see_what_stays_here(server, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    server.script = lambda body: (200, said('{"ranking": [1, 2, 3]}'))
    assert judge(server, max_retries=0).answer(request()).status == "valid"


# --------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("url", "model", "settings", "words"),
    [
        ("http://localhost:1/v1", "", {}, "--judge endpoint needs --judge-model"),
        ("https://api.example.com/v1", "m", {}, "sent to api.example.com; give --send-personas"),
        ("https://127.0.0.1.example.com/v1", "m", {}, "give --send-personas"),
        ("https://localhost.example.com/v1", "m", {}, "give --send-personas"),
        ("http://192.168.0.7:8000/v1", "m", {}, "give --send-personas"),
        ("https://api.example.com/v1", "m", {"send_personas": True, "api_key_env": "NOT_SET"}, "NOT_SET holds no key"),
        ("https://me:pw@api.example.com/v1", "m", {}, "neither a user name nor a query"),
        ("http://localhost/v1?key=pw", "m", {}, "neither a user name nor a query"),
        ("localhost:8000", "m", {}, "must begin with http"),
        ("http://[::1/v1", "m", {}, "is not a URL"),
    ],
)
def test_settings_that_cannot_serve_are_refused_with_a_sentence(monkeypatch, url, model, settings, words):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(UserError) as caught:
        EndpointJudge(url, model, **settings)
    assert words in str(caught.value)
    assert KEY not in str(caught.value) and ":pw" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://localhost:1/v1", "http://127.0.0.9:1/v1", "http://[::1]:1/v1"])
def test_loopback_hosts_are_this_machine(monkeypatch, url):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert url in EndpointJudge(url, "m").identity, "neither a key nor --send-personas is asked for"


def test_another_machine_is_allowed_with_the_flag_and_a_key(monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    made = EndpointJudge("https://api.example.com/v1", "m", send_personas=True, api_key_env="MY_KEY")
    assert made.costs and KEY not in made.identity


def test_the_identity_tells_models_urls_and_temperatures_apart(server):
    identities = {
        judge(server).identity,
        judge(server, temperature=0.0).identity,
        EndpointJudge(server.url, "other").identity,
        EndpointJudge(server.url + "/x", "asked-model").identity,
    }
    assert len(identities) == 4


# --------------------------------------------------------------------------- the key


def test_the_key_appears_in_no_file_log_or_output(server, tmp_path, caplog, capsys):
    caplog.set_level(logging.DEBUG, logger="jaxmodpo")
    (tmp_path / "r.csv").write_text("question_id,question_text,response_id,response_text\nq,post,a,x\nq,post,b,y\n")
    write_json(tmp_path / "p.json", {f"p{n}": "profile" for n in range(4)})
    replies = iter(
        [
            (200, said('{"ranking": [1, 2]}')),
            (200, said(f"my key is {KEY}")),
            (400, {"error": {"message": f"the key {KEY} asks too much", "code": "odd"}}),
            (200, {"error": KEY}),
        ]
    )
    server.script = lambda body: next(replies)
    config = PreferencesConfig(
        judge="endpoint",
        base_url=server.url,
        judge_model="m",
        responses=tmp_path / "r.csv",
        personas=tmp_path / "p.json",
        output_dir=tmp_path / "out",
        only=("empathy",),
        personas_per_question=0,
        max_concurrency=1,
    )
    phase = preferences(config)
    assert phase.results["criteria"]["empathy"]["failed"] == {"error": 2, "parse_error": 1}
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert {"votes.jsonl", "manifest.json", "empathy_pairs.json"} <= {path.name for path in files}
    assert not any(KEY.encode() in path.read_bytes() for path in files)
    assert KEY not in caplog.text and KEY not in "".join(capsys.readouterr())
