"""Replies from an endpoint: nothing leaves without leave, nothing is paid for twice."""

from __future__ import annotations

import csv
import threading
from pathlib import Path
from typing import Any

import pytest
from chat_server import KEY, Server, said

from jaxmodpo.errors import UserError
from jaxmodpo.files import read_json
from jaxmodpo.journals import Journal
from jaxmodpo.records import Question, read_responses, write_questions
from jaxmodpo.sampling import endpoint
from jaxmodpo.sampling.command import ResponsesConfig, responses, run_responses
from jaxmodpo.sampling.endpoint_reply import finish_reason
from jaxmodpo.sampling.endpoint_settings import Endpoint
from jaxmodpo.sampling.journal import PlannedReply


@pytest.fixture
def server(server: Server) -> Server:
    server.script = lambda body: (200, said(f"r{len(server.calls)}"))
    return server


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
    assert phase.results["answering_models"] == {"model-that-answered": 12}
    asked_prompts = {call["messages"][0]["content"] for call in server.calls}
    assert len(asked_prompts) == 6
    assert KEY not in (tmp_path / "out" / "manifest.json").read_text()


def test_failed_calls_alone_are_asked_again(server, tmp_path):
    def script(body):
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
    server.script = lambda body: (200, said("fine now"))
    phase = responses(config(tmp_path, server))
    assert len(server.calls) == before + 2
    texts = [row.response_text for row in read_responses(tmp_path / "out" / "responses.csv")]
    assert texts.count("fine now") == 2 and phase.results["cut_at_max_new_tokens"] == 10


def test_what_holds_for_every_call_ends_the_run_and_keeps_what_was_answered(server, tmp_path):
    server.script = lambda body: (
        (200, said("fine"))
        if len(server.calls) < 5
        else (429, {"error": {"message": "", "code": "insufficient_quota"}})
    )
    with pytest.raises(UserError, match="gives no more credit, insufficient_quota"):
        responses(config(tmp_path, server, max_concurrency=1))
    lines = (tmp_path / "out" / "sampled.jsonl").read_text().splitlines()
    assert len(lines) == 4
    server.script = lambda body: (200, said("later"))
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
        ({"prompt_date": "2026-01-01"}, "takes no --prompt-date: the endpoint gets the question"),
        ({"stop": ("",)}, "--stop holds an empty text"),
        ({"endpoint_model": "gpt-5"}, "the model gpt-5 takes no temperature and no top_p; give"),
        (
            {"endpoint_model": "o3", "temperature": None, "top_p": 1.0, "stop": ("a",)},
            "the model o3 takes no stop; give no --stop, or a --model-table that says otherwise",
        ),
        (
            {
                "endpoint_model": "gpt-5-chat-latest",
                "base_url": "https://api.openai.com/v1",
                "send_questions": True,
            },
            "was withdrawn in July 2026; name another by --endpoint-model",
        ),
        ({"engine": "local", "model": Path("m"), "dry_run": True}, "is for --engine endpoint"),
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

    def script(body):
        if "max_tokens" not in body:
            return 200, said("fine")
        together.wait()
        return 400, {"error": refused | {"code": "unsupported_parameter", "param": "max_tokens"}}

    server.script = script
    phase = responses(config(tmp_path, server, max_concurrency=4))
    assert phase.results["responses"] == 12 and len(server.calls) == 16


@pytest.mark.parametrize(
    ("reply", "least", "told"),
    [
        # Where nobody answers, 20 calls say so. Of what is said of single questions, 41 are needed
        # for three questions of 20 replies each.
        (
            (200, {"choices": []}),
            20,
            r"failed, the last one \(question q\d\) with: not a chat completion",
        ),
        ((200, None), 41, r"brought no text; a larger --max-new-tokens"),
        (
            (400, {"error": {"message": "no such luck"}}),
            41,
            r"brought no text, the last failure \(question q\d\) with: .*no such luck",
        ),
    ],
)
def test_calls_that_bring_no_text_end_the_run_before_all_are_paid(
    server, tmp_path, monkeypatch, reply, least, told
):
    monkeypatch.setattr(endpoint, "ATTEMPTS", 1)
    status, body = reply
    empty = said("", "length")
    server.script = lambda _: (status, empty if body is None else body)
    settings = config(tmp_path, server, samples=20)
    with pytest.raises(UserError, match=rf"\d\d calls in a row to http://127.0.0.1:\d+/v1 {told}"):
        responses(settings)
    # A few more are under way by then.
    assert least <= len(server.calls) <= least + 3
    before = len(server.calls)
    server.script = lambda body: (200, said("a reply"))
    responses(settings)
    assert len(server.calls) == 120 + (0 if body is None else before)
    assert len(read_responses(tmp_path / "out" / "responses.csv")) == 120


def test_one_question_that_an_endpoint_refuses_ends_no_run(server, tmp_path):
    server.script = lambda body: (
        200,
        said("" if "post 3" in body["messages"][0]["content"] else "a reply"),
    )
    phase = responses(config(tmp_path, server, samples=40))
    assert len(server.calls) == 240 and phase.results["empty_by_kind"] == {"empty": 40}


@pytest.mark.parametrize(
    ("finish", "cut"),
    [
        *(("stop", 0), ("eos_token", 0), (None, 0), ("length", 12), ("max_tokens", 12)),
        ("content_filter", 0),
    ],
)
def test_only_what_was_cut_at_its_limit_counts_as_cut(server, tmp_path, finish, cut):
    server.script = lambda body: (200, said("a reply", finish))
    results = responses(config(tmp_path, server)).results
    assert results["cut_at_max_new_tokens"] == cut
    assert results.get("cut_by_filter", 0) == (12 if finish == "content_filter" else 0)


# --------------------------------------------------------------------------- what is sent and kept


def test_stop_strings_top_p_and_a_seed_for_each_reply_are_sent(server, tmp_path):
    settings = {"stop": ("\nQ:", "END"), "top_p": 0.9, "seed": 7}
    responses(config(tmp_path, server, **settings))
    calls = server.calls
    assert all(call["stop"] == ["\nQ:", "END"] and call["top_p"] == 0.9 for call in calls)
    seeds = {(call["messages"][0]["content"], call["seed"]) for call in calls}
    assert len(seeds) == len({seed for _, seed in seeds}) == 12
    assert all(0 <= seed < 2**31 for _, seed in seeds)
    server.calls.clear()
    again = responses(config(tmp_path, server, **settings, output_dir=tmp_path / "again"))
    assert {(call["messages"][0]["content"], call["seed"]) for call in server.calls} == seeds
    assert again.results["responses"] == 12
    server.calls.clear()
    responses(config(tmp_path, server, seed=8, output_dir=tmp_path / "other"))
    assert not {call["seed"] for call in server.calls} & {seed for _, seed in seeds}
    assert "stop" not in server.calls[0]


def test_the_table_says_what_the_limit_is_called_and_whether_a_seed_is_sent(server, tmp_path):
    table = tmp_path / "models.yaml"
    table.write_text("families: [{match: gpt, limit: max_completion_tokens, seed: false}]")
    responses(config(tmp_path, server, model_table=str(table)))
    assert all(call["max_completion_tokens"] == 99 for call in server.calls)
    assert not any("max_tokens" in call or "seed" in call for call in server.calls)
    with pytest.raises(UserError, match=r"the model gpt takes no seed; give --seed 0, or"):
        responses(config(tmp_path, server, model_table=str(table), seed=3))


def test_a_model_that_takes_neither_is_sent_neither_temperature_nor_top_p(server, tmp_path):
    responses(config(tmp_path, server, endpoint_model="gpt-5", temperature=None, top_p=1.0))
    assert all({"temperature", "top_p", "stop"}.isdisjoint(call) for call in server.calls)
    assert server.calls[0]["max_completion_tokens"] == 99


def test_the_chat_style_sends_the_question_alone(server, tmp_path):
    responses(config(tmp_path, server, prompt_style="chat"))
    assert {call["messages"][0]["content"] for call in server.calls} == {
        f"post {n}" for n in range(6)
    }


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ({"finish_reason": "stop"}, "end"),
        ({"finish_reason": None}, "end"),
        ({"finish_reason": "eos_token"}, "end"),
        ({"finish_reason": "stop", "stop_reason": None, "matched_stop": 2}, "end"),
        ({"finish_reason": "stop", "stop_reason": 128009}, "end"),
        ({"finish_reason": "stop", "stop_reason": "\nQ:"}, "stop"),
        ({"finish_reason": "stop", "matched_stop": "\nQ:"}, "stop"),
        ({"finish_reason": "stop_sequence"}, "stop"),
        ({"finish_reason": "length"}, "length"),
        ({"finish_reason": "max_tokens"}, "length"),
        ({"finish_reason": "content_filter"}, "filter"),
    ],
)
def test_why_a_reply_is_over_in_one_vocabulary(choice, reason):
    assert finish_reason(choice) == reason


def test_each_row_of_the_journal_says_why_it_ended_what_it_took_and_who_answered(server, tmp_path):
    usage = {
        "prompt_tokens": 30,
        "completion_tokens": 20,
        "prompt_tokens_details": {"cached_tokens": 10},
    }
    server.script = lambda body: (200, said("a reply", "length") | {"usage": usage})
    journal = Journal(tmp_path / "sampled.jsonl")
    planned_replies = [PlannedReply(Question("q", "post"), number) for number in range(2)]
    where = Endpoint(base_url=server.url, model="gpt-4o-mini")
    rows = endpoint.ask(where, planned_replies, journal, "s")
    assert rows[1] == {
        "question_id": "q", "number": 1, "model_name": "", "settings": "s",
        "response_text": "a reply", "finish_reason": "length", "model": "model-that-answered",
        "kind": "", "tokens": 20, "prompt_tokens": 30, "cached_tokens": 10,
    }  # fmt: skip
    # By hand: 40 fresh at 0.15, 20 cached at 0.075, 40 of the replies at 0.60 dollars a million.
    total = endpoint.total_spending(rows, where.family)
    assert total["dollars"] == pytest.approx((40 * 0.15 + 20 * 0.075 + 40 * 0.6) / 1e6, rel=1e-12)
    assert (total["calls"], total["counted_calls"], total["completion_tokens"]) == (2, 2, 40)
    server.script = lambda body: (200, said("a reply"))
    uncounted = endpoint.ask(where, planned_replies, journal, "other")
    assert "tokens" not in uncounted[0]
    assert endpoint.total_spending(uncounted, where.family)["counted_calls"] == 0


def test_responses_csv_says_who_answered_which_reply_with_which_seed(server, tmp_path):
    usage = {"prompt_tokens": 30, "completion_tokens": 20}
    server.script = lambda body: (200, said(f"seed {body['seed']}") | {"usage": usage})
    responses(config(tmp_path, server, seed=7))
    with (tmp_path / "out" / "responses.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["response_text"] for row in rows] == [f"seed {row['sent_seed']}" for row in rows]
    assert len({row["sent_seed"] for row in rows}) == len(rows) == 12
    assert [row["number"] for row in rows] == ["0", "1"] * 6
    for name, value in {"model": "model-that-answered", "seed": "7", "prompt_tokens": "30"}.items():
        assert {row[name] for row in rows} == {value}


def test_a_model_that_takes_no_seed_has_none_in_its_file(server, tmp_path):
    server.script = lambda body: (200, said("a reply"))
    responses(config(tmp_path, server, endpoint_model="m", seed=0, model_table=no_seed(tmp_path)))
    head = (tmp_path / "out" / "responses.csv").read_text().splitlines()[0]
    assert "seed" not in head


def test_a_reply_that_the_server_gave_up_is_asked_again_by_the_next_run(server, tmp_path):
    server.script = lambda body: (200, said("half a re", "abort" if "3" in str(body) else "stop"))
    with pytest.raises(
        UserError, match=r"2 of 12 calls .* failed, .* the server gave the reply up"
    ):
        responses(
            config(tmp_path, server, endpoint_model="m", seed=0, model_table=no_seed(tmp_path))
        )
    server.script = lambda body: (200, said("a whole reply"))
    before = len(server.calls)
    responses(config(tmp_path, server, endpoint_model="m", seed=0, model_table=no_seed(tmp_path)))
    assert len(server.calls) == before + 2


def no_seed(folder: Path) -> str:
    (folder / "no_seed.yaml").write_text("families: [{match: m, seed: false}]")
    return str(folder / "no_seed.yaml")


def test_errors_repeat_neither_the_post_nor_the_key(server, tmp_path):
    def script(body):
        post = body["messages"][0]["content"]
        return 400, {"error": {"message": f"invalid: {post!r} {KEY}", "code": KEY}}

    server.script = script
    write_questions(tmp_path / "long.csv", [Question("q", "I have never told anybody of this.")])
    with pytest.raises(UserError, match=r"1 of 1 calls .* failed") as failed:
        responses(config(tmp_path, server, questions=tmp_path / "long.csv", samples=1))
    assert "never told" not in str(failed.value) and KEY not in str(failed.value)


def test_a_question_without_text_is_named_before_anything_is_asked(server, tmp_path):
    write_questions(tmp_path / "some.csv", [Question("q", "a post"), Question("r", " \n")])
    with pytest.raises(UserError, match="the question r has no text to reply to; give it one, or"):
        responses(config(tmp_path, server, questions=tmp_path / "some.csv"))
    assert not server.calls


def test_a_question_that_an_endpoint_does_not_take_is_named(server, tmp_path):
    def script(body):
        if "post 3" in body["messages"][0]["content"]:
            return 400, {"error": {"message": "too long", "code": "context_length_exceeded"}}
        return 200, said("fine")

    server.script = script
    with pytest.raises(UserError, match=r"last one \(question q3\) with: HTTP 400: too long; the"):
        responses(config(tmp_path, server))


# --------------------------------------------------------------------------- the dry run


def test_a_dry_run_says_calls_tokens_and_dollars_and_asks_nothing(server, tmp_path, capsys):
    settings = {"endpoint_model": "gpt-4o-mini", "dry_run": True, "max_new_tokens": 1000}
    assert run_responses(config(tmp_path, server, **settings)) is None
    assert not server.calls and not (tmp_path / "out").exists()
    # A prompt is the instruction of 53 characters, a line end and "post N": 60, so 15 tokens.
    characters = len("You are a therapist. Respond to this person's question:\npost 0")
    prompt = 12 * characters / 4
    dollars = (prompt * 0.15 + 12 * 320 * 0.6) / 1e6
    most = (prompt * 0.15 + 12 * 1000 * 0.6) / 1e6
    assert capsys.readouterr().out.splitlines() == [
        "12 replies; 0 are there, 12 to come, with a call for each",
        f"{prompt:,.0f} tokens of prompts and about 3,840 of replies, counted by characters, 4 of"
        " them for a token, and a reply taken for 320 tokens",
        f"${dollars:,.2f}, and ${most:,.2f} if every reply has 1000 tokens, at the prices of"
        " 2026-06",
    ]


def test_a_dry_run_counts_what_is_there_and_learns_from_it(server, tmp_path, capsys):
    usage = {"prompt_tokens": 25, "completion_tokens": 50}
    quota = (429, {"error": {"message": "", "code": "insufficient_quota"}})
    server.script = lambda body: (
        (200, said("fine") | {"usage": usage}) if len(server.calls) <= 40 else quota
    )
    settings = {"endpoint_model": "unpriced", "samples": 10, "max_concurrency": 1}
    with pytest.raises(UserError, match="gives no more credit"):
        responses(config(tmp_path, server, **settings))
    run_responses(config(tmp_path, server, **settings, dry_run=True))
    assert capsys.readouterr().out.splitlines() == [
        "60 replies; 40 are there, 20 to come, with a call for each",
        "500 tokens of prompts and about 1,000 of replies, counted by the endpoint itself, in 40"
        " replies so far",
        "the table 'models' has no price of unpriced",
    ]
    server.script = lambda body: (200, said("fine"))
    responses(config(tmp_path, server, **settings))
    run_responses(config(tmp_path, server, **settings, dry_run=True))
    assert capsys.readouterr().out.startswith("60 replies; 60 are there, 0 to come")
