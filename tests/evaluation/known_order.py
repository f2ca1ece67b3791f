"""Judges whose verdicts are known, and evaluations by them of replies that state their worth."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jaxmodpo.evaluation import head_to_head
from jaxmodpo.evaluation.head_to_head import EvaluateConfig, evaluate
from jaxmodpo.judging.judge import Answer, Call, Request
from jaxmodpo.judging.ledger import Ledger
from jaxmodpo.judging.votes import Vote
from jaxmodpo.records import Response, write_responses

QUESTIONS, REPLIES, PERSONAS = 6, 2, 4
# Each reply's text states its worth on two criteria.
WORTH = {"good": (9, 2), "fair": (5, 5), "poor": (1, 8)}
WORDS = {str(quality): name for name, (quality, _) in WORTH.items()}


class KnownOrder:
    """Prefers the reply that states the higher worth on the criterion; equal worth is a tie."""

    identity = "known-order:1"
    costs = False

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def verdict(self, request: Request, criterion: str) -> tuple[str, ...] | None:
        n = ["quality", "safety"].index(criterion)
        worth = {r.response_id: int(r.response_text.split()[n]) for r in request.responses}
        best = [name for name, value in worth.items() if value == max(worth.values())]
        return tuple(best) if len(best) == 1 else ()

    def answer(self, request: Request) -> Answer:
        self.requests.append(request)
        orders = {c.name: self.verdict(request, c.name) for c in request.criteria}
        if None in orders.values():
            return Answer("refusal", "no", model="known")
        return Answer(
            "valid",
            "yes",
            {name: order for name, order in orders.items() if order is not None},
            "known",
        )

    def ask(self, requests: Iterator[Call], put: Callable[[Call, Answer], None]) -> None:
        for call in requests:
            put(call, self.answer(call.request))


class FirstShown(KnownOrder):
    """Always prefers what it is shown first."""

    def verdict(self, request: Request, criterion: str) -> tuple[str, ...] | None:
        return (request.responses[0].response_id,)


class Refuses(KnownOrder):
    """Refuses where a reply holds a given word, for the first ``personas`` personas."""

    def __init__(self, word: str, personas: int = PERSONAS) -> None:
        super().__init__()
        self.word, self.refusing = word, {f"p{n}" for n in range(personas)}

    def verdict(self, request: Request, criterion: str) -> tuple[str, ...] | None:
        if request.persona_id in self.refusing and any(
            self.word in r.response_text for r in request.responses
        ):
            return None
        return super().verdict(request, criterion)


def reply(name: str, question: int, n: int) -> Response:
    worth = " ".join(map(str, WORTH[name]))
    return Response(
        f"q{question}", f"post {question}", f"r{n}", f"{worth} reply {n} to q{question}"
    )


def config_for(work: Path, out: str = "out", **settings) -> EvaluateConfig:
    names = settings.pop("names", list(WORTH))
    fields: dict[str, Any] = {
        "judge": "rubric",
        "responses": tuple(f"{name}={work / name}.csv" for name in names),
        "personas": work / "personas.json",
        "criteria": str(work / "criteria.yaml"),
        "output_dir": work / out,
        "bootstrap": 50,
        **settings,
    }
    return EvaluateConfig(**fields)


def run(
    work: Path, monkeypatch: pytest.MonkeyPatch, voter: KnownOrder, out: str = "out", **settings
) -> dict:
    monkeypatch.setattr(head_to_head, "make_judge", lambda *_: voter)
    evaluate(config_for(work, out, **settings))
    return json.loads((work / out / "results.json").read_text())


def rewrite(work: Path, name: str, change) -> None:
    """Write a model's replies again with ``change`` applied to each; None leaves it out."""
    replies = [change(reply(name, q, n), q, n) for q in range(QUESTIONS) for n in range(REPLIES)]
    write_responses(work / f"{name}.csv", [r for r in replies if r is not None])


def counted(work: Path, out: str) -> list[Vote]:
    """The votes that count, without the calls' names and times, which differ between any two
    runs.
    """
    with Ledger(work / out / "votes.sqlite") as ledger:
        votes = [vote._replace(call="", time="") for vote in ledger.every_vote(effective_only=True)]
    return sorted(votes, key=lambda vote: vote.key)


def outcomes(work: Path, out: str = "out") -> list[dict[str, str]]:
    with (work / out / "outcomes.csv").open(newline="") as file:
        return list(csv.DictReader(file))
