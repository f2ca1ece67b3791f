"""A judge that says again what was recorded: a published run can be analyzed anew without a key.

It takes the recorded judge's identity, under which requests have the keys that they had then, and
looks each one up. What was not recorded is an error, and is never asked.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from jaxmodpo.errors import UserError
from jaxmodpo.judging.export import read_votes
from jaxmodpo.judging.judge import Answer, Call, vote_keys
from jaxmodpo.judging.ledger import Ledger, import_votes
from jaxmodpo.judging.votes import Vote, fault_of

NOT_RECORDED = Answer("error", "not recorded")

_LOOK_UP = 256


@dataclass(eq=False)
class ReplayJudge:
    """Answers from a ledger, or from votes exported to a ``.jsonl`` or ``.parquet`` file.

    Each criterion's vote is as it was recorded, failed ones too, with the model and the request id
    of then; tokens and costs are not counted again.

    Attributes:
        recorded: the ledger (a path or a database URL) or the file.
        judge_model: a part of the recorded judge's identity; needed where several were recorded.

    Raises:
        UserError: nothing there, no votes, or no one judge of that name.
    """

    recorded: str | Path
    judge_model: str = ""
    identity: str = field(init=False)
    costs: bool = field(init=False, default=False)
    _ledger: Ledger = field(init=False)
    _folder: tempfile.TemporaryDirectory[str] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        path = Path(self.recorded)
        if is_export(self.recorded):
            # Looked up in any order: a million votes are indexed on disk.
            self._folder = tempfile.TemporaryDirectory(prefix="jaxmodpo-replay-")
            self._ledger = Ledger(Path(self._folder.name) / "votes.sqlite")
        else:
            self._ledger = Ledger(self.recorded, read_only=True)
        try:
            if self._folder is not None:
                import_votes(self._ledger, read_votes(path))
            self.identity = self._identity_meant(self._ledger.identities())
        except BaseException:
            self.close()
            raise

    def _identity_meant(self, identities: Sequence[str]) -> str:
        """Return the identity of the judge that is meant: the whole name, or the one that has it as
        a part.
        """
        fitting = [identity for identity in identities if self.judge_model in identity]
        if self.judge_model in fitting:
            return self.judge_model
        if len(fitting) == 1:
            return fitting[0]
        recording = self.recorded_location
        if not identities:
            raise UserError(f"{recording} holds no votes to replay")
        listed = "; ".join(f"'{identity}'" for identity in fitting or identities)
        if fitting:
            raise UserError(
                f"{recording} holds votes of several judges; name one by a part of it in --judge-model:"
                f" {listed}"
            )
        raise UserError(
            f"{recording} holds no votes of a judge '{self.judge_model}', only of {listed}"
        )

    @property
    def recorded_location(self) -> str:
        """What is replayed, without the password that a URL may hold."""
        return self._ledger.shown_location if self._folder is None else str(self.recorded)

    def close(self) -> None:
        """Close the ledger; an index that was made is deleted."""
        self._ledger.close()
        if self._folder is not None:
            self._folder.cleanup()

    def ask(self, requests: Iterator[Call], put: Callable[[Call, Answer], None]) -> None:
        """Answer all requests from what was recorded."""
        while group := list(itertools.islice(requests, _LOOK_UP)):
            keys_by_call = [vote_keys(call) for call in group]
            every_key = list(itertools.chain.from_iterable(keys_by_call))
            recorded = self._ledger.votes(every_key)
            for vote in recorded.values():
                # A ledger may have been edited by hand since: what no judge could have said is
                # not said again.
                if fault := fault_of(vote):
                    raise UserError(
                        f"{self.recorded_location}: the vote {vote.key} is none: {fault}"
                    )
            for call, keys in zip(group, keys_by_call, strict=True):
                votes = [recorded.get(key) for key in keys]
                for answered_call, answer in _answers(call, votes, keys):
                    put(answered_call, answer)


def is_export(recorded: str | Path) -> bool:
    """Return whether recorded votes are a file that was exported, and not a ledger."""
    return "://" not in str(recorded) and Path(recorded).suffix in (".jsonl", ".parquet")


def checked_recording(recorded: str | Path) -> None:
    """Refuse what holds nothing to replay; of a file only the first vote is read.

    Raises:
        UserError: nothing there, no votes, or a first one that cannot be one.
    """
    if is_export(recorded):
        recording = str(recorded)
        first = next(read_votes(Path(recorded)), None)
    else:
        with Ledger(recorded, read_only=True) as ledger:
            recording = ledger.shown_location
            first = next(ledger.every_vote(), None)
    if first is None:
        raise UserError(f"{recording} holds no votes to replay")


def _answers(
    call: Call,
    votes: Sequence[Vote | None],
    keys: Sequence[str],
) -> Iterator[tuple[Call, Answer]]:
    """Yield the answer to a call whose criteria's votes are given, or to each criterion apart.

    Votes of one call stay together. Where a call was asked again for the sake of one criterion, the
    votes that count stem from several calls and may have failed in several ways.
    """
    present = [vote for vote in votes if vote is not None]
    if not present:
        yield call, NOT_RECORDED
        return
    is_complete = len(present) == len(votes)
    is_of_one_call = len({vote.call for vote in present}) == 1
    if is_complete and is_of_one_call:
        yield call, _answer(present)
    else:
        for key, criterion, vote in zip(keys, call.request.criteria, votes, strict=True):
            call_of_criterion = Call(key, replace(call.request, criteria=(criterion,)))
            answer = NOT_RECORDED if vote is None else _answer([vote])
            yield call_of_criterion, answer


def _answer(votes: Sequence[Vote]) -> Answer:
    """Return what a call said, of all its votes: where some are valid, the others are parse
    errors.
    """
    first = votes[0]
    orders = {vote.criterion: vote.order for vote in votes if vote.order is not None}
    scores = {vote.criterion: vote.score for vote in votes if vote.score is not None}
    return Answer(
        "valid" if orders or scores else first.status,
        first.raw,
        orders,
        scores=scores,
        model=first.model,
        request_id=first.request_id,
    )
