"""The endpoint judge against a local server that answers well, badly, or not at all."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from typing import Any

import pytest
from asked_judge import answered, endpoint_preferences, judge, request
from chat_server import KEY, Reply, said

from jaxmodpo.endpoints.patient_calls import PATIENCE
from jaxmodpo.endpoints.usage import Usage
from jaxmodpo.errors import UserError
from jaxmodpo.files import write_json
from jaxmodpo.judging.answer_forms import answer_schema, parse_orders
from jaxmodpo.judging.preferences import preferences
from jaxmodpo.judging.prompts import Prompts

# --------------------------------------------------------------------------- answers


def test_a_ranking_is_read_as_ids_and_the_answering_model_is_kept(server):
    server.script = lambda body: (200, said('{"ranking": [3, 1, 2]}'))
    answer = answered(judge(server), request())
    assert (answer.status, answer.orders, answer.model) == (
        "valid",
        {"empathy": ("z", "x", "y")},
        "model-that-answered",
    )
    assert answer.raw == '{"ranking": [3, 1, 2]}'


def test_a_comparison_is_read_as_the_winners_id(server):
    server.script = lambda body: (200, said('{"better": "B"}'))
    assert answered(judge(server), request("compare", 2)).orders == {"empathy": ("y",)}


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
        (
            (400, {"error": {"message": "filtered", "code": "content_filter"}}),
            "content_filter",
            "HTTP 400",
        ),
        (
            (400, {"error": {"message": "too long", "code": "context_length_exceeded"}}),
            "rejected",
            "too long",
        ),
        ((403, {"error": {"message": "flagged", "code": None}}), "error", "HTTP 403"),
        ((200, said({"text": "[1, 2, 3]"})), "parse_error", "text"),
        ((200, said('{"ranking": [1, 2, 3]}{"ranking": [3, 2, 1]}')), "parse_error", "}{"),
        ((200, said("[" * 100_000)), "parse_error", "[[["),
        ((200, said('{"ranking": [1, 2, ' + "9" * 5000 + "]}")), "parse_error", "999"),
        ((400, {"error": {"message": "odd", "code": {"not": "a word"}}}), "rejected", "HTTP 400"),
        ((400, {"error": "just words"}), "rejected", "HTTP 400"),
        ((400, b"<html>no JSON</html>"), "rejected", "HTTP 400"),
        ((307, b""), "error", "HTTP 307"),
    ],
)
def test_every_bad_answer_has_a_named_status(server, reply, status, raw):
    server.script = lambda body: reply
    answer = answered(judge(server), request())
    assert (answer.status, answer.orders) == (status, {})
    assert raw in answer.raw
    assert len(server.calls) == 1


@pytest.mark.parametrize(
    "body",
    [
        b'{"choices": [{"mess',
        b"",
        b"<html>busy</html>",
        b"\xff\xfe{}",
        b"[" * 100_000,
        b"null",
        b'{"choices": []}',
        b'{"error": "overloaded"}',
        b'{"error": {"code": 502, "message": "upstream"}}',
    ],
)
def test_what_is_no_answer_is_asked_again_and_ends_as_an_error(server, body):
    server.script = lambda _: (200, body)
    answer = answered(judge(server, attempts=3), request())
    assert (answer.status, answer.orders, len(server.calls)) == ("error", {}, 3)
    replies = iter([(200, body), (200, said('{"ranking": [1, 2, 3]}'))])
    server.script = lambda _: next(replies)
    assert answered(judge(server), request()).status == "valid"


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_a_passing_failure_is_tried_again(server, status):
    replies = iter(
        [(status, {"error": {"message": "busy"}}), (200, said('{"ranking": [1, 2, 3]}'))]
    )
    server.script = lambda body: next(replies)
    assert answered(judge(server), request()).status == "valid"
    assert len(server.calls) == 2


def test_a_lasting_failure_ends_as_an_error(server):
    server.script = lambda body: (500, {"error": {"message": "broken"}})
    answer = answered(judge(server, attempts=3), request())
    assert (answer.status, answer.orders) == ("error", {})
    assert "HTTP 500" in answer.raw and len(server.calls) == 3


def test_no_server_at_all_is_an_error(server):
    there = judge(server, attempts=1)
    server.close()
    assert answered(there, request()).status == "error"


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (
            (401, {"error": {"message": f"bad key {KEY}", "code": "invalid_api_key"}}),
            "refused the key in OPENAI_API_KEY",
        ),
        (
            (404, {"error": {"message": "gone", "code": "model_not_found"}}),
            "has no model asked-model",
        ),
        (
            (
                400,
                {"error": {"message": "no", "code": "unsupported_value", "param": "temperature"}},
            ),
            r"/v1 said unsupported_value \(temperature\) for the model asked-model: 'no'; change the"
            r" settings or the account$",
        ),
        ((429, {"error": {"message": "pay", "code": "insufficient_quota"}}), "insufficient_quota"),
        (
            (429, {"error": {"message": "pay", "type": "insufficient_quota"}}),
            "gives no more credit",
        ),
        (
            (429, {"error": {"message": "pay", "code": "billing_not_active"}}),
            "gives no more credit",
        ),
        (
            (402, {"error": {"message": f"Insufficient Balance {KEY}", "code": "odd"}}),
            "gives no more credit",
        ),
        (
            (
                400,
                {"error": {"message": "Billing hard limit", "code": "billing_hard_limit_reached"}},
            ),
            "no more credit",
        ),
        ((400, {"error": {"message": "Your credit balance is too low"}}), "gives no more credit"),
        (
            (200, {"error": {"message": "Insufficient credits", "code": 402}}),
            "gives no more credit",
        ),
        (
            (
                400,
                {
                    "error": {
                        "message": "'response_format' of type 'json_schema' is not supported",
                        "code": None,
                    }
                },
            ),
            "'json_schema' is not supported.*give --structured json_object",
        ),
        (
            (400, {"error": {"message": "no", "code": "unsupported_value", "param": KEY}}),
            r"\(\[key\]\)",
        ),
    ],
)
def test_what_no_retry_can_mend_stops_the_run_with_a_sentence(server, reply, words):
    server.script = lambda body: reply
    with pytest.raises(UserError, match=words) as caught:
        answered(judge(server, attempts=1), request())
    assert KEY not in str(caught.value) and server.url in str(caught.value)


def test_waiting_for_a_rate_limit_is_no_attempt_but_has_an_end(server):
    busy = (429, {"error": {"message": "slow down"}})
    replies = iter([busy] * (PATIENCE - 1) + [(200, said('{"ranking": [1, 2, 3]}'))])
    server.script = lambda body: next(replies)
    assert answered(judge(server, attempts=1), request()).status == "valid"
    assert len(server.calls) == PATIENCE
    server.script = lambda body: busy
    answer = answered(judge(server, attempts=1), request())
    assert answer.status == "error" and "slow down" in answer.raw
    assert len(server.calls) == 2 * PATIENCE


def test_a_wait_of_hours_ends_the_run_with_a_sentence(server):
    server.script = lambda body: (429, {"error": {"message": "tomorrow"}})
    server.headers = {"retry-after-ms": "", "Retry-After": "7200"}
    with pytest.raises(
        UserError, match=r"asks to wait 7,200 seconds; run the same command again then"
    ):
        judge(server).answer(request())


def test_an_answer_takes_no_label_of_the_other_kind():
    assert parse_orders('{"better": "C"}', request("compare", 2)) == {}
    assert parse_orders('{"better": ["A"]}', request("compare", 2)) == {}
    assert parse_orders('{"better": "A"}', request("rank", 2)) == {}
    assert parse_orders('{"better": "tie"}', request("compare", 2)) == {}


def test_one_question_that_the_endpoint_does_not_take_stops_no_run(server, tmp_path):
    """Its votes are kept as rejected, and not asked again by a second start; all others end
    valid.
    """
    rows = [
        f"q{q},{'too long' if q == 0 else 'post'} {q},r{q}{n},reply {n}"
        for q in range(3)
        for n in range(2)
    ]
    (tmp_path / "r.csv").write_text(
        "\n".join(["question_id,question_text,response_id,response_text", *rows]) + "\n"
    )
    write_json(tmp_path / "p.json", {f"p{n}": f"profile number {n}" for n in range(30)})
    too_long = (400, {"error": {"message": "too long", "code": "context_length_exceeded"}})

    def script(body: dict[str, Any]) -> Reply:
        return (
            too_long
            if "too long 0" in body["messages"][1]["content"]
            else (200, said('{"ranking": [1, 2]}'))
        )

    server.script = script
    phase = preferences(endpoint_preferences(server, tmp_path))
    assert phase is not None and phase.results["criteria"]["empathy"]["failed"] == {"rejected": 30}
    assert (phase.results["votes_valid"], len(server.calls)) == (60, 90)


def test_what_an_endpoint_repeats_of_a_request_is_not_kept(server):
    long_request = replace(
        request(), persona_text="You are a patient called Secret.\nYou live in Nowhere at all."
    )
    echo = {
        "message": f'invalid input: {long_request.persona_text!r} and "You live in Nowhere at all."',
        "code": "odd",
    }
    server.script = lambda body: (400, {"error": echo})
    raw = answered(judge(server), long_request).raw
    assert raw.startswith("HTTP 400: ") and "[...]" in raw
    assert "Secret" not in raw and "Nowhere" not in raw
    server.script = lambda body: (200, {"detail": body["messages"]})
    raw = answered(judge(server), long_request).raw
    assert raw.startswith("not a chat completion") and "Secret" not in raw and "Nowhere" not in raw


# --------------------------------------------------------------------------- what is sent


def test_temperature_is_sent_only_where_it_is_given(server):
    server.script = lambda body: (200, said('{"ranking": [1, 2, 3]}'))
    answered(judge(server), request())
    answered(judge(server, temperature=0.0), request())
    assert "temperature" not in server.calls[0] and server.calls[1]["temperature"] == 0.0
    assert "max_tokens" not in server.calls[0]


def test_the_call_holds_model_schema_messages_and_key(server):
    server.script = lambda body: (200, said('{"ranking": [1, 2, 3]}'))
    answered(judge(server), request())
    (call,) = server.calls
    assert (call["path"], call["model"]) == ("/v1/chat/completions", "asked-model")
    assert call["authorization"] == f"Bearer {KEY}"
    assert call["messages"] == Prompts.load().messages(request())
    form = call["response_format"]
    assert form["type"] == "json_schema" and form["json_schema"]["strict"] is True
    assert form["json_schema"]["schema"] == answer_schema(request())


def test_a_server_on_this_machine_needs_no_key(server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    server.script = lambda body: (200, said('{"ranking": [1, 2, 3]}'))
    assert answered(judge(server), request()).status == "valid"


def test_a_proxy_of_the_environment_does_not_see_what_stays_here(server, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    server.script = lambda body: (200, said('{"ranking": [1, 2, 3]}'))
    assert answered(judge(server, attempts=1), request()).status == "valid"


# --------------------------------------------------------------------------- tokens, costs and
# names


def test_tokens_costs_and_the_calls_name_are_kept(server):
    usage = {
        "prompt_tokens": 1000,
        "completion_tokens": 20,
        "prompt_tokens_details": {"cached_tokens": 600},
    }
    server.script = lambda body: (200, said('{"ranking": [1, 2, 3]}') | {"usage": usage})
    answer = answered(judge(server, model="gpt-5-mini"), request())
    assert answer.usage == Usage(prompt=1000, cached=600, completion=20)
    # By hand: 400 fresh at 0.25, 600 cached at 0.025, 20 of the answer at 2.00 dollars a million.
    assert answer.cost == pytest.approx((400 * 0.25 + 600 * 0.025 + 20 * 2.0) / 1e6, rel=1e-12)
    assert answer.request_id == "c"
    server.headers["x-request-id"] = "req-7"
    assert answered(judge(server), request()).request_id == "req-7"


def test_a_call_without_a_price_has_no_cost_rather_than_none(server):
    server.script = lambda body: (
        200,
        said("{}") | {"usage": {"prompt_tokens": 5, "completion_tokens": 1}},
    )
    assert answered(judge(server), request()).cost is None


@pytest.mark.parametrize(
    "usage",
    [
        None,
        [],
        "much",
        {},
        {"prompt_tokens": "5", "completion_tokens": 1},
        {"prompt_tokens": 5},
        {"prompt_tokens": -5, "completion_tokens": 1},
        {"prompt_tokens": 10**400, "completion_tokens": 1},
        {"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 6}},
        {"prompt_tokens": 5, "completion_tokens": True},
    ],
)
def test_tokens_that_cannot_be_are_not_counted(server, usage):
    server.script = lambda body: (200, said('{"ranking": [1, 2, 3]}') | {"usage": usage})
    answer = answered(judge(server, model="gpt-5-mini"), request())
    assert (answer.status, answer.usage, answer.cost) == ("valid", None, None)


def test_details_may_be_missing_or_null(server):
    for details in (
        {},
        {"prompt_tokens_details": None},
        {"prompt_tokens_details": {"cached_tokens": None}},
    ):
        usage = {"prompt_tokens": 5, "completion_tokens": 1} | details
        server.script = lambda body, usage=usage: (200, said("{}") | {"usage": usage})
        assert answered(judge(server), request()).usage == Usage(5, 0, 1)


# --------------------------------------------------------------------------- ties, several
# criteria, families


def test_a_tie_is_read_only_where_it_was_offered(server):
    server.script = lambda body: (200, said('{"better": "tie"}'))
    assert answered(judge(server), request("compare", 2, ties=True)).orders == {"empathy": ()}
    assert answered(judge(server), request("compare", 2)).status == "parse_error"
    offered, not_offered = [
        call["response_format"]["json_schema"]["schema"] for call in server.calls
    ]
    assert offered["properties"]["better"]["enum"] == ["A", "B", "tie"]
    assert not_offered["properties"]["better"]["enum"] == ["A", "B"]
    assert "tie" in server.calls[0]["messages"][1]["content"]


def test_of_several_criteria_in_a_call_each_is_read_by_itself(server):
    two_criteria = request(criterion=["empathy", "safety"])
    server.script = lambda body: (200, said('{"empathy": [3, 1, 2], "safety": [1, 1, 2]}'))
    answer = answered(judge(server), two_criteria)
    assert (answer.status, answer.orders) == ("valid", {"empathy": ("z", "x", "y")})
    (call,) = server.calls
    schema = call["response_format"]["json_schema"]["schema"]
    assert schema["required"] == list(schema["properties"]) == ["empathy", "safety"]
    for nothing in ('{"ranking": [1, 2, 3]}', '{"empathy": [1], "safety": "2"}', "[]"):
        server.script = lambda body, nothing=nothing: (200, said(nothing))
        assert (answered(judge(server), two_criteria).status) == "parse_error"


def test_the_limit_of_an_answer_is_called_what_the_family_calls_it(server):
    server.script = lambda body: (200, said('{"ranking": [1, 2, 3]}'))
    answered(judge(server, model="gpt-5-mini", max_answer_tokens=9), request())
    answered(judge(server, model="some-llama", max_answer_tokens=9), request())
    assert server.calls[0]["max_completion_tokens"] == server.calls[1]["max_tokens"] == 9
    assert "max_tokens" not in server.calls[0] and "max_completion_tokens" not in server.calls[1]


def test_a_server_without_schemas_is_asked_for_an_object(server):
    server.script = lambda body: (200, said('{"ranking": [1, 2, 3]}'))
    assert answered(judge(server, structured="json_object"), request()).status == "valid"
    assert server.calls[0]["response_format"] == {"type": "json_object"}
    assert '"ranking"' in server.calls[0]["messages"][1]["content"], (
        "the form must stand in the prompt"
    )


def test_a_temperature_that_the_family_does_not_take_is_refused(server):
    with pytest.raises(UserError, match="gpt-5-mini takes no temperature; leave --temperature out"):
        judge(server, model="gpt-5-mini", temperature=0.7)


def test_a_temperature_of_0_is_not_sent_to_a_family_that_takes_none(server):
    server.script = lambda body: (200, said('{"ranking": [1, 2, 3]}'))
    there = judge(server, model="gpt-5-mini", temperature=0.0)
    assert answered(there, request()).status == "valid"
    assert "temperature" not in server.calls[0] and "temperature None" in there.identity


def test_the_papers_withdrawn_model_is_refused_where_it_was(server, monkeypatch):
    there = {"base_url": "https://api.openai.com/v1", "send_personas": True}
    with pytest.raises(
        UserError,
        match="gpt-5-chat-latest was withdrawn in July 2026; name another by --judge-model",
    ):
        judge(server, model="gpt-5-chat-latest", **there)
    judge(server, model="gpt-5-chat-latest")  # elsewhere somebody may serve one by that name


# --------------------------------------------------------------------------- answers as models give
# them

RIGHT = '{"ranking": [3, 1, 2]}'
DRAFT = '{"ranking": [1, 2, 3]}'


@pytest.mark.parametrize(
    "reply",
    [
        said(f"```json\n{RIGHT}\n```"),
        said(f"<think>\nMaybe {DRAFT}?\n</think>\n\n{RIGHT}"),
        said(f"Maybe {DRAFT}.\n</think>\n{RIGHT}"),
        said([{"type": "thinking", "thinking": []}, {"type": "text", "text": RIGHT}]),
        said(None, "tool_calls", tool_calls=[{"function": {"name": "answer", "arguments": RIGHT}}]),
        said('{"reasons": "' + "It is warm. " * 300 + '", ' + RIGHT[1:]),
    ],
)
def test_the_answer_is_read_out_of_its_wrapping(server, reply):
    server.script = lambda body: (200, reply)
    assert answered(judge(server), request()).orders == {"empathy": ("z", "x", "y")}


@pytest.mark.parametrize(
    "text",
    [
        f"First {DRAFT}, or rather {RIGHT}",
        f"<think>\nMaybe {DRAFT}",
        '{"draft": ' + DRAFT + ', "ranking": [3, 1',
        '{"ranking": [1, 2, 3], "ranking": [3, 1, 2]}',
    ],
)
def test_an_answer_of_two_readings_is_none(server, text):
    server.script = lambda body: (200, said(text))
    assert answered(judge(server), request()).status == "parse_error"


def test_an_answer_is_read_before_texts_of_the_request_are_cut_out(server):
    misleading = replace(
        request(criterion=["empathy", "safety"]), question_text='"safety": [2, 1, 3]'
    )
    server.script = lambda body: (
        200,
        said('{\n"empathy": [3, 1, 2],\n"safety": [2, 1, 3]\n}' + " " * 60),
    )
    assert answered(judge(server), misleading).orders == {
        "empathy": ("z", "x", "y"),
        "safety": ("y", "x", "z"),
    }


@pytest.mark.parametrize(
    ("ends", "told", "most"),
    [
        (["stop"], "3. answers in a row could not be read, the last with 'I like the second", 40),
        # Of one question; refusals alone would say something of it. Every second of the answers
        # cannot be read, and the 30th of those ends the run: about the 60th of all, since three
        # other calls may be under way when it comes, or have come before it.
        (
            ["stop", "content_filter"],
            r"(5[6-9]|6\d) answers in a row were no votes \(content_filter, parse_error\)",
            70,
        ),
    ],
)
def test_answers_in_a_row_that_are_no_votes_end_a_run_early(server, tmp_path, ends, told, most):
    rows = [f"q{q},post {q},r{q}{n},reply {n}" for q in range(4) for n in range(2)]
    (tmp_path / "r.csv").write_text(
        "\n".join(["question_id,question_text,response_id,response_text", *rows]) + "\n"
    )
    write_json(tmp_path / "p.json", {f"p{n}": f"profile number {n}" for n in range(100)})
    call_numbers = itertools.count()
    server.script = lambda body: (
        200,
        said("I like the second.", ends[next(call_numbers) % len(ends)]),
    )
    config = endpoint_preferences(server, tmp_path, max_concurrency=4)
    with pytest.raises(UserError, match=told):
        preferences(config)
    assert 30 <= len(server.calls) < most


def test_a_deployment_names_the_limit_that_it_takes(server):
    refused = {
        "message": (
            "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        )
    }
    server.script = lambda body: (
        (400, {"error": refused}) if "max_tokens" in body else (200, said('{"ranking": [1, 2, 3]}'))
    )
    there = judge(server, model="my-deployment", max_answer_tokens=9)
    assert [answered(there, request()).status for _ in range(2)] == ["valid"] * 2
    assert [("max_tokens" in call) for call in server.calls] == [True, False, False]


def test_a_key_that_a_server_repeats_as_a_name_is_kept_nowhere(server):
    server.headers["x-request-id"] = KEY
    server.script = lambda body: (
        200,
        said('{"ranking": [1, 2, 3]}') | {"id": KEY, "model": f"m {KEY[:-2]}"},
    )
    answer = answered(judge(server), request())
    assert (answer.request_id, answer.model) == ("[key]", "m [key]")


def test_two_attempts_that_take_all_their_time_end_a_call(server):
    def script(body: dict[str, Any]) -> Reply:
        time.sleep(0.4)
        return 200, said("{}")

    server.script = script
    answer = answered(judge(server, timeout=0.1), request())
    assert answer.status == "error" and "Timeout" in answer.raw
    assert len(server.calls) == 2
