"""Scores that were recorded before, as a scorer: nobody is asked, and no model is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from jaxmodpo.criteria import Criterion
from jaxmodpo.errors import UserError
from jaxmodpo.judging.export import read_votes
from jaxmodpo.judging.judge import Answer, Call, Request
from jaxmodpo.judging.ledger import Ledger
from jaxmodpo.judging.replay import ReplayJudge, is_export
from jaxmodpo.judging.votes import Vote
from jaxmodpo.toxicity.scorers import named_scores


@dataclass(eq=False)
class ReplayScorer:
    """Answers from a ledger or an export of one.

    Attributes:
        recorded: the ledger or the file.
        scorer: a part of the recorded scorer's identity; needed where several were recorded.

    Raises:
        UserError: no scores there, or no one scorer of that name.
    """

    recorded: str
    scorer: str = ""
    costs: bool = field(init=False, default=False)
    sends_to: str = field(init=False, default="")

    def __post_init__(self) -> None:
        self._judge = ReplayJudge(self.recorded, self.scorer)
        self.identity = self._judge.identity
        names = _names_of_first_call(self.recorded, self.identity)
        self.criteria: tuple[Criterion, ...] = named_scores(names)

    def is_cut(self, request: Request) -> bool:
        return False

    def ask(self, requests: Iterator[Call], put: Callable[[Call, Answer], None]) -> None:
        self._judge.ask(requests, put)


def _names_of_first_call(recorded: str, identity: str) -> list[str]:
    """Return what one call of a scorer was asked for, in its order, which is a part of the keys."""
    names: list[str] = []
    first_call = ""
    for vote in _recorded_votes(recorded):
        if vote.kind != "score" or vote.judge != identity:
            continue
        first_call = first_call or vote.call
        if vote.call != first_call:
            break
        names.append(vote.criterion)
    if not names:
        raise UserError(f"{recorded} holds votes of {identity} and no scores")
    return names


def _recorded_votes(recorded: str) -> Iterator[Vote]:
    if is_export(recorded):
        yield from read_votes(Path(recorded))
        return
    with Ledger(recorded, read_only=True) as ledger:
        yield from ledger.every_vote(kinds={"score"})
