"""A request, and votes on it, for tests of what keeps them."""

from __future__ import annotations

import hashlib

from jaxmodpo.criteria import Criterion
from jaxmodpo.judging.judge import Answer, Call, Request, Status
from jaxmodpo.judging.votes import Vote, votes_of
from jaxmodpo.records import Candidate

EMPATHY, SAFETY = Criterion("empathy", "d", "b", "w"), Criterion("safety", "e", "c", "x")


REQUEST = Request(
    "compare",
    "q1",
    "a post",
    "p1",
    "a private profile",
    (EMPATHY,),
    (Candidate("a", "first text"), Candidate("b", "second text")),
)


def asked(name: str = "1", request: Request = REQUEST) -> Call:
    return Call(hashlib.blake2b(name.encode(), digest_size=16).hexdigest(), request)


def vote(
    name: str, status: Status = "valid", order: tuple[str, ...] | None = ("a",), run: str = ""
) -> Vote:
    orders = {"empathy": order} if order is not None and status == "valid" else {}
    return votes_of(asked(name), Answer(status, "said", orders, "m"), judge="j", run=run)[0]


def keys(*names: str) -> list[str]:
    return [asked(name).key for name in names]
