"""A judge that asks the chat endpoint of the tests, a run of it, and a request to put to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from chat_server import Server

from jaxmodpo.criteria import load_criteria
from jaxmodpo.judging.endpoint import EndpointJudge
from jaxmodpo.judging.endpoint_settings import Endpoint
from jaxmodpo.judging.judge import Answer, Request
from jaxmodpo.judging.preferences import PreferencesConfig
from jaxmodpo.records import Candidate


def judge(server: Server, **settings: Any) -> EndpointJudge:
    settings: dict[str, Any] = {"base_url": server.url, "model": "asked-model"} | settings
    return EndpointJudge(Endpoint(**settings), backoff=0.001)


def endpoint_preferences(server: Server, folder: Path, **settings: Any) -> PreferencesConfig:
    """Return a run in which every persona of ``p.json`` ranks ``r.csv`` by empathy."""
    return PreferencesConfig(
        judge="endpoint",
        base_url=server.url,
        judge_model="m",
        responses=folder / "r.csv",
        personas=folder / "p.json",
        output_dir=folder / "out",
        only=("empathy",),
        personas_per_question=0,
        **settings,
    )


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
