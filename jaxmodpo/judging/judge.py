"""What a judge is: something that answers one request about the replies to one question.

A request shows a persona some replies in a recorded order and asks about one criterion: for a
ranking of all of them, or for the better of two. Preference collection and evaluation ask through
the same types, so that any judge serves both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from jaxmodpo.artifacts import Candidate
from jaxmodpo.judging.criteria import Criterion

Status = Literal["valid", "parse_error", "refusal", "content_filter", "error"]


@dataclass(frozen=True)
class Request:
    """One judgement to ask for; ``responses`` are in the order shown."""

    kind: Literal["rank", "compare"]
    question_id: str
    question_text: str
    persona_id: str
    persona_text: str
    criterion: Criterion
    responses: tuple[Candidate, ...]
    repeat: int = 0


@dataclass(frozen=True)
class Answer:
    """What a judge said.

    ``order`` holds response ids, best first, for ``rank``; the winner alone for ``compare``, or
    nothing for a tie. It is None unless ``status`` is ``valid``. ``model`` is the one that answered.
    """

    status: Status
    raw: str
    order: tuple[str, ...] | None
    model: str


class Judge(Protocol):
    """Answers requests; ``identity`` names everything that shapes its answers, ``costs`` whether they cost money."""

    identity: str
    costs: bool

    def answer(self, request: Request) -> Answer: ...
