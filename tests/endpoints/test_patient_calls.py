"""An errand is asked again as often as that may help, and every attempt's price is settled once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from chat_server import Server, said

from jaxmodpo.endpoints.chat_calls import Completion, LimitName
from jaxmodpo.endpoints.failures import Failure, Meaning
from jaxmodpo.endpoints.patient_calls import Errand, PatientCalls
from jaxmodpo.errors import UserError

BUSY = (429, {"error": {"message": "slow down"}})
BROKEN = (500, {"error": {"message": "broken"}})


@dataclass
class Words(Errand[str]):
    """Asks for words, and notes what becomes of each attempt."""

    may_begin: bool = True
    raises: bool = False
    events: list[Any] = field(default_factory=list)

    def body(self, limit_name: LimitName) -> dict[str, Any]:
        return {"messages": [], limit_name: 9}

    def clean(self, failure: Failure) -> Failure:
        return failure

    def read(self, completion: Completion) -> str:
        if self.raises:
            raise ValueError("unreadable")
        return completion.body["choices"][0]["message"]["content"]

    def failed(self, meaning: Meaning, failure: Failure) -> str:
        return f"{meaning}: {failure.shown}"

    def hopeless(self, meaning: Meaning, failure: Failure) -> UserError:
        return UserError(f"{meaning}: {failure.message}")

    def begin(self, stop: threading.Event) -> bool:
        self.events.append("begin")
        return self.may_begin

    def end(self, result: str | None) -> None:
        self.events.append(result)

    def broke_off(self) -> None:
        self.events.append("broke off")


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


def calls(server: Server) -> PatientCalls:
    return PatientCalls(
        server.url, "", "it", timeout=10, attempts=3, max_concurrency=4, backoff=0.001
    )


def test_waits_are_no_attempts_and_each_attempt_is_settled(server):
    replies = iter([BUSY, BROKEN, BUSY, BUSY, BROKEN, BUSY, (200, said("fine"))])
    server.script = lambda body: next(replies)
    errand = Words()
    assert calls(server).run(errand) == "fine"
    assert errand.events == [*["begin", None] * 6, "begin", "fine"]


def test_the_last_failure_is_what_it_ends_with(server):
    server.script = lambda body: BROKEN
    errand = Words()
    assert calls(server).run(errand) == "passing: HTTP 500: broken"
    assert errand.events == ["begin", None] * 3


def test_what_may_not_begin_is_not_asked(server):
    errand = Words(may_begin=False)
    assert calls(server).run(errand) is None
    assert (errand.events, server.calls) == (["begin"], [])


def test_an_attempt_that_ends_in_an_exception_counts_as_made_and_gives_its_place_back(server):
    server.script = lambda body: (200, said("fine"))
    asking = calls(server)
    for _ in range(6):  # more than there are places
        errand = Words(raises=True)
        with pytest.raises(ValueError, match="unreadable"):
            asking.run(errand)
        assert errand.events == ["begin", "broke off"]
    assert asking.run(Words()) == "fine"
    server.script = lambda body: (401, {"error": {"message": "no"}})
    hopeless = Words()
    with pytest.raises(UserError, match="key: no"):
        asking.run(hopeless)
    assert hopeless.events == ["begin", "broke off"]


def test_a_renamed_limit_is_used_by_the_next_attempt(server):
    refused = {"message": "'max_tokens' is not supported. Use 'max_completion_tokens' instead."}
    refused |= {"code": "unsupported_parameter", "param": "max_tokens"}
    server.script = lambda body: (
        (400, {"error": refused}) if "max_tokens" in body else (200, said("fine"))
    )
    assert calls(server).run(Words()) == "fine"
    assert [sorted(call.keys() & {"max_tokens", "max_completion_tokens"}) for call in server.calls] == [
        ["max_tokens"], ["max_completion_tokens"],
    ]  # fmt: skip
