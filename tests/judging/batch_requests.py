"""Requests that are put to a batch judge, and what is left when all are answered, for tests of
batches.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxmodpo.criteria import Criterion
from jaxmodpo.endpoints.usage import Usage
from jaxmodpo.judging.batch import BatchJudge
from jaxmodpo.judging.batch_context import BatchContext
from jaxmodpo.judging.judge import Answer, Call, Request, call_key, vote_keys
from jaxmodpo.judging.ledger import Ledger
from jaxmodpo.judging.votes import votes_of
from jaxmodpo.records import Candidate

IDENTITY = "endpoint u; model m"
SECRET = "a private profile"
CRITERIA = (Criterion("empathy", "d", "b", "w"), Criterion("safety", "d", "b", "w"))


def requests(count: int) -> list[Request]:
    shown = (Candidate("a", "first reply ü"), Candidate("b", "second reply"))
    return [
        Request("compare", f"q{n}", "a post", "p", SECRET, CRITERIA, shown) for n in range(count)
    ]


def body(request: Request) -> dict[str, Any]:
    text = " ".join(
        [request.persona_text, request.question_text, *(r.response_text for r in request.responses)]
    )
    return {"model": "m", "messages": [{"role": "user", "content": text}]}


def read(completion: Any, request: Request) -> Answer:
    content = completion["choices"][0]["message"]["content"]
    names = dict(zip("AB", (r.response_id for r in request.responses), strict=True))
    try:
        orders = {criterion: (names[label],) for criterion, label in json.loads(content).items()}
    except (ValueError, KeyError):
        return Answer("parse_error", content, {}, completion["model"], Usage(100, 0, 10), 0.04)
    return Answer("valid", content, orders, completion["model"], Usage(100, 0, 10), 0.04)


def make_client(url: str) -> Any:
    from openai import DefaultHttpxClient, OpenAI

    http = DefaultHttpxClient(trust_env=False, follow_redirects=False)
    return OpenAI(base_url=url, api_key="k", max_retries=0, http_client=http, timeout=10)


def make_judge(url: str, ledger: Ledger, folder: Path, **settings: Any) -> BatchJudge:
    settings: dict[str, Any] = {"poll_seconds": 0.01, "backoff": 0.001, "discount": 0.5} | settings
    client = make_client(url)
    return BatchJudge(BatchContext(client, ledger, folder, body, read, IDENTITY, **settings))


def ask(judge: BatchJudge, wanted: list[Request]) -> int:
    """Ask what nobody answered yet and nobody else asks, until all is answered; return how many
    were put.
    """
    ledger, count = judge.context.ledger, 0
    given = set[str]()

    def put(asked: Call, answer: Answer) -> None:
        nonlocal count
        ledger.add(votes_of(asked, answer, judge=judge.identity, run=ledger.run), [asked.key])
        given.add(asked.key)
        count += 1

    def unanswered(asked: Call) -> bool:
        statuses = ledger.statuses(vote_keys(asked))
        open_again = {"error", "expired"} & set(statuses.values())
        return asked.key not in given and (not statuses or bool(open_again))

    while True:
        elsewhere = 0

        def draw() -> Iterator[Call]:
            nonlocal elsewhere
            for request in wanted:
                asked = Call(call_key(request, judge.identity), request)
                if not unanswered(asked):
                    continue
                if not ledger.claims.take([asked.key]):
                    elsewhere += 1
                elif unanswered(asked):
                    yield asked
                else:
                    ledger.claims.release([asked.key])

        judge.ask(draw(), put)
        if not elsewhere:
            return count
        time.sleep(0.02)


def statuses(ledger: Ledger) -> Counter[str]:
    return Counter(vote.status for vote in ledger.every_vote())


def all_done(ledger: Ledger, folder: Path) -> None:
    """Every batch is read, no file is left, and no request is claimed."""
    assert all(batch.state == "read" for batch in ledger.batches.all())
    assert not folder.exists() or list(folder.iterdir()) == []
    keys = [call_key(request, IDENTITY) for request in requests(100)]
    assert ledger.claims.take(keys) == set(keys)
