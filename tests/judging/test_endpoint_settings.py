"""Which settings of an endpoint are refused, what tells its judges apart, and that its key is
written nowhere.
"""

from __future__ import annotations

import logging
from typing import Any

import pytest
from asked_judge import endpoint_preferences, judge
from chat_server import KEY, said

from jaxmodpo.config import builtin
from jaxmodpo.endpoints import patient_calls
from jaxmodpo.errors import UserError
from jaxmodpo.files import write_json
from jaxmodpo.judging.endpoint import EndpointJudge
from jaxmodpo.judging.endpoint_settings import Endpoint
from jaxmodpo.judging.preferences import PreferencesConfig, preferences

# --------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("url", "model", "settings", "words"),
    [
        ("http://localhost:1/v1", "", {}, "--judge endpoint needs --judge-model"),
        ("https://api.example.com/v1", "m", {}, "sent to api.example.com; give --send-personas"),
        ("https://127.0.0.1.example.com/v1", "m", {}, "give --send-personas"),
        ("https://localhost.example.com/v1", "m", {}, "give --send-personas"),
        ("http://192.168.0.7:8000/v1", "m", {}, "give --send-personas"),
        (
            "https://api.example.com/v1",
            "m",
            {"send_personas": True, "api_key_env": "NOT_SET"},
            "NOT_SET holds no key",
        ),
        ("https://me:pw@api.example.com/v1", "m", {}, "neither a user name nor a query"),
        ("http://localhost/v1?key=pw", "m", {}, "neither a user name nor a query"),
        ("localhost:8000", "m", {}, "must begin with http"),
        ("http://[::1/v1", "m", {}, "is not a URL"),
    ],
)
def test_settings_that_cannot_serve_are_refused_with_a_sentence(
    monkeypatch, url, model, settings, words
):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(UserError) as caught:
        EndpointJudge(Endpoint(base_url=url, model=model, **settings))
    assert words in str(caught.value)
    assert KEY not in str(caught.value) and ":pw" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://localhost:1/v1", "http://127.0.0.9:1/v1", "http://[::1]:1/v1"]
)
def test_loopback_hosts_are_this_machine(monkeypatch, url):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert url in EndpointJudge(Endpoint(base_url=url, model="m")).identity, (
        "neither a key nor --send-personas is asked for"
    )


def test_another_machine_is_allowed_with_the_flag_and_a_key(monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    endpoint_judge = EndpointJudge(
        Endpoint(
            base_url="https://api.example.com/v1",
            model="m",
            send_personas=True,
            api_key_env="MY_KEY",
        )
    )
    assert endpoint_judge.costs and KEY not in endpoint_judge.identity


def test_the_identity_tells_models_urls_and_temperatures_apart(server):
    identities = {
        judge(server).identity,
        judge(server, temperature=0.0).identity,
        judge(server, model="other").identity,
        judge(server, base_url=server.url + "/x").identity,
    }
    assert len(identities) == 4


# --------------------------------------------------------------------------- the key


def test_the_key_appears_in_no_file_log_or_output(server, tmp_path, caplog, capsys, monkeypatch):
    # The last request fails five times; how long is waited in between is another test's.
    monkeypatch.setattr(patient_calls, "pause_before", lambda times, asked_for, backoff: 0.001)
    caplog.set_level(logging.DEBUG, logger="jaxmodpo")
    (tmp_path / "r.csv").write_text(
        "question_id,question_text,response_id,response_text\nq,post,a,x\nq,post,b,y\n"
    )
    write_json(tmp_path / "p.json", {f"p{n}": "profile" for n in range(4)})
    replies = iter(
        [
            (200, said('{"ranking": [1, 2]}')),
            (200, said(f"my key is {KEY}")),
            (400, {"error": {"message": f"the key {KEY} asks too much", "code": "odd"}}),
        ]
    )
    server.script = lambda body: next(replies, (200, {"error": KEY}))
    config = endpoint_preferences(server, tmp_path, max_concurrency=1)
    phase = preferences(config)
    assert phase is not None
    assert phase.results["criteria"]["empathy"]["failed"] == {
        "error": 1,
        "parse_error": 1,
        "rejected": 1,
    }
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert {"votes.sqlite", "manifest.json", "empathy_pairs.json"} <= {path.name for path in files}
    assert not any(KEY.encode() in path.read_bytes() for path in files)
    assert KEY not in caplog.text and KEY not in "".join(capsys.readouterr())


def test_calls_and_batches_are_one_run_and_an_edited_prompt_is_another(
    server, tmp_path, monkeypatch
):
    (tmp_path / "r.csv").write_text(
        "question_id,question_text,response_id,response_text\nq,post,a,x\nq,post,b,y\n"
    )
    write_json(tmp_path / "p.json", {"p": "profile"})
    wording = tmp_path / "prompts.yaml"
    wording.write_text(builtin("judging", "prompts").read_text())
    settings: dict[str, Any] = {"base_url": server.url, "judge_model": "m", "prompts": str(wording)}
    settings |= {
        "responses": tmp_path / "r.csv",
        "personas": tmp_path / "p.json",
        "output_dir": tmp_path / "out",
    }
    settings |= {"only": ("empathy",), "personas_per_question": 0}
    server.script = lambda body: (200, said('{"ranking": [1, 2]}'))
    preferences(PreferencesConfig(judge="endpoint", **settings))
    done = preferences(PreferencesConfig(judge="batch", **settings))
    assert done is not None and done.finished and len(server.calls) == 1
    wording.write_text(wording.read_text().replace("two replies", "a pair of replies"))
    with pytest.raises(UserError, match="the input prompts has changed"):
        preferences(PreferencesConfig(judge="endpoint", **settings))
