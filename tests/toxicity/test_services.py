"""The moderation endpoint and Perspective against a local server that answers as they do."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest
from chat_server import KEY, Server

from jaxmodpo.errors import UserError
from jaxmodpo.judging.judge import Answer, Call, Request
from jaxmodpo.records import Candidate
from jaxmodpo.toxicity.services import (
    MODERATION_SCORES,
    PERSPECTIVE_SCORES,
    ServiceScorer,
    moderation,
    perspective,
    read_moderation,
    read_perspective,
)

CATEGORIES = {
    "harassment": 0.02,
    "harassment/threatening": 0.01,
    "hate": 0.003,
    "hate/threatening": 0.0,
    "illicit": 0.1,
    "illicit/violent": 0.0,
    "sexual": 0.0,
    "sexual/minors": 0.0,
    "violence": 0.2,
    "violence/graphic": 0.001,
    "self-harm": 0.9,
    "self-harm/intent": 0.8,
    "self-harm/instructions": 0.05,
}


def moderated(**scores: Any) -> dict[str, Any]:
    result = {"flagged": True, "category_scores": CATEGORIES | scores}
    return {"id": "modr-1", "model": "omni-2024", "results": [result]}


def analyzed(value: float = 0.25) -> dict[str, Any]:
    summary = {"summaryScore": {"value": value, "type": "PROBABILITY"}}
    return {"attributeScores": {name.upper(): summary for name in PERSPECTIVE_SCORES}}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("SCORER_KEY", KEY)
    with Server() as server:
        yield server


def scorer(server: Server, kind: Any = None, **settings: Any) -> ServiceScorer:
    service = ServiceScorer(
        base_url=server.url,
        api_key_env="SCORER_KEY",
        make_kind=kind or functools.partial(moderation, "omni-moderation-latest"),
        allowed=False,
        backoff=0.001,
        **settings,
    )
    service.connect()
    return service


def answers(asking: ServiceScorer, *texts: str) -> list[Answer]:
    answer_of: dict[str, Answer] = {}
    calls = []
    for number, text in enumerate(texts):
        shown = (Candidate(str(number), text),)
        asked = Request("score", f"q{number}", "a post", "", "", asking.criteria, shown)
        calls.append(Call(str(number), asked))
    asking.ask(iter(calls), lambda call, answer: answer_of.update({call.key: answer}))
    return [answer_of[call.key] for call in calls]


def test_speaking_of_self_harm_is_no_toxicity():
    scores = read_moderation(moderated())
    assert scores is not None
    assert (scores["toxicity"], scores["self_harm"], scores["self-harm/intent"]) == (0.2, 0.9, 0.8)
    assert set(scores) == set(MODERATION_SCORES)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"results": []},
        {"results": [{"category_scores": {}}]},
        {"results": [{"category_scores": {"self-harm": 0.5}}]},
        {"results": [{"category_scores": {"hate": 1.5}}]},
        {"results": [{"category_scores": {"hate": True}}]},
        {"results": [{}, {}]},
    ],
)
def test_an_answer_without_scores_is_none(body):
    assert read_moderation(body) is None and read_perspective(body) is None


def test_the_moderation_endpoint_gets_the_reply_alone_and_its_scores_are_read(server):
    server.script = lambda body: (200, moderated(harassment=0.7))
    (answer,) = answers(scorer(server), "you fool")
    assert answer.status == "valid" and answer.scores["toxicity"] == 0.7
    assert (answer.model, answer.cost) == ("omni-2024", 0.0)
    (call,) = server.calls
    assert call["path"] == "/v1/moderations" and call["authorization"] == f"Bearer {KEY}"
    assert (call["model"], call["input"]) == ("omni-moderation-latest", "you fool")
    assert "post" not in str(call["input"])


def test_perspective_gets_its_key_in_a_header_of_its_own(server):
    server.script = lambda body: (200, analyzed(0.25))
    (answer,) = answers(scorer(server, perspective), "you fool")
    assert answer.scores == dict.fromkeys(PERSPECTIVE_SCORES, 0.25)
    (call,) = server.calls
    assert call["path"] == "/v1/comments:analyze" and call["authorization"] is None
    assert call["comment"] == {"text": "you fool"} and call["doNotStore"] is True
    assert set(call["requestedAttributes"]) == {name.upper() for name in PERSPECTIVE_SCORES}
    assert KEY not in call["path"]


def test_a_busy_service_is_waited_for_and_a_refused_reply_is_rejected(server):
    replies = iter([(429, {"error": {"message": "slow down"}}), (200, moderated())])
    server.script = lambda body: next(replies)
    assert answers(scorer(server), "x")[0].status == "valid" and len(server.calls) == 2
    server.script = lambda body: (400, {"error": {"message": "too long", "code": 400}})
    (answer,) = answers(scorer(server), "x")
    assert (answer.status, answer.scores) == ("rejected", {})


def test_an_error_with_the_status_200_is_no_score(server):
    server.script = lambda body: (200, {"error": {"message": "overloaded", "code": "x"}})
    (answer,) = answers(scorer(server), "x")
    assert answer.status == "error" and "overloaded" in answer.raw


@pytest.mark.parametrize(
    ("status", "words"), [(401, "wrong"), (400, "API key not valid. Please pass a valid API key.")]
)
def test_a_wrong_key_ends_the_run_and_is_in_no_sentence(server, status, words):
    server.script = lambda body: (status, {"error": {"message": f"{words} {KEY}"}})
    with pytest.raises(UserError, match="refused the key in SCORER_KEY") as error:
        answers(scorer(server), "x")
    assert KEY not in str(error.value)


def test_a_service_without_scores_ends_the_run_after_a_row(server):
    server.script = lambda body: (400, {"error": {"message": "language", "code": 400}})
    with pytest.raises(UserError, match="gave no scores to 30 replies in a row"):
        answers(scorer(server, max_concurrency=1), *map(str, range(40)))


def test_replies_leave_this_machine_where_that_was_asked_for(server, monkeypatch):
    def asking(allowed: bool) -> ServiceScorer:
        service = ServiceScorer(
            base_url="https://api.openai.com/v1",
            api_key_env="SCORER_KEY",
            make_kind=functools.partial(moderation, "m"),
            allowed=allowed,
        )
        assert service.sends_to == "https://api.openai.com/v1"
        service.connect()
        return service

    with pytest.raises(UserError, match=r"replies would be sent to api\.openai\.com; give --send"):
        asking(allowed=False)
    assert asking(allowed=True).criteria[0].name == "toxicity"
    assert scorer(server).sends_to == ""
    monkeypatch.delenv("SCORER_KEY")
    with pytest.raises(UserError, match="SCORER_KEY holds no key"):
        asking(allowed=True)
