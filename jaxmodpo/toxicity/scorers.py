"""What scores replies: a judge that gives numbers from 0 to 1 under fixed names.

A scorer of this machine is a model that is run over many texts at a time (:class:`LocalScorer`).
The services of other machines are in :mod:`jaxmodpo.toxicity.services`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

import numpy as np

from jaxmodpo.criteria import Criterion
from jaxmodpo.errors import UserError, nearest
from jaxmodpo.judging.judge import Answer, Call, Judge, Request

# Texts that are sorted by length together, in batches: neighbors are then nearly as long.
_BATCHES_SORTED = 16
# Rows are padded to a multiple of so many tokens at least; see _row_length.
_LENGTH_STEP = 8

Item = TypeVar("Item")


class Scorer(Judge, Protocol):
    """A judge of single replies."""

    @property
    def criteria(self) -> tuple[Criterion, ...]:
        """What the scores are called."""
        ...

    @property
    def sends_to(self) -> str:
        """The host that texts are sent to; empty where none leave this machine."""
        ...

    def is_cut(self, request: Request) -> bool:
        """Return whether the scorer reads less than the whole of a reply."""
        ...


def named_scores(names: Sequence[str]) -> tuple[Criterion, ...]:
    """Return scores as a request asks for them: by name, since a model needs no question."""
    return tuple(Criterion(name, "", "", "") for name in names)


class ShownScores(NamedTuple):
    """Which scores a run shows.

    Attributes:
        names: in the scorer's order.
        headline: the one that says whether a reply is toxic.
    """

    names: tuple[str, ...]
    headline: str


def shown_scores(scorer: Scorer, labels: Sequence[str], headline: str) -> ShownScores:
    """Return the scores that a run shows: those asked for, or all.

    All that a scorer gives are kept in the ledger, so that another choice asks nobody again.

    Args:
        scorer: gives them.
        labels: the names asked for; all if empty.
        headline: the score that says whether a reply is toxic; if empty, the only one, or the one
            that is called so.

    Raises:
        UserError: a name that the scorer does not have, or no score that is called toxic.
    """
    all_names = [criterion.name for criterion in scorer.criteria]
    for name in labels:
        _refuse_unknown(name, all_names, "--labels")
    names = tuple(name for name in all_names if not labels or name in labels)
    if headline:
        _refuse_unknown(headline, names, "--headline")
        return ShownScores(names, headline)
    if len(names) == 1:
        return ShownScores(names, names[0])
    called_toxic = [name for name in names if name.lower() in ("toxicity", "toxic")]
    if len(called_toxic) == 1:
        return ShownScores(names, called_toxic[0])
    raise UserError(
        f"of the scores {', '.join(names)} none is called toxic or toxicity; say with --headline"
        " which of them counts as toxic"
    )


def _refuse_unknown(name: str, names: Sequence[str], setting: str) -> None:
    if name not in names:
        raise UserError(
            f"{setting}: there is no score '{name}'{nearest(name, names)}; there are"
            f" {', '.join(names)}"
        )


ScoreRows = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""tokens ``[B, T]`` and lengths ``[B]`` to scores ``[B, names]``"""


@dataclass(eq=False)
class LocalScorer:
    """A model of this machine, which scores many texts at a time.

    Attributes:
        identity: names everything that shapes the scores.
        model: that is kept with each score.
        criteria: what the scores are called.
        tokens: of a request; None where they are too many for a model that must read all of them.
        cut: whether the model reads less than the whole of a reply.
        load: loads the weights, which are read only where something is to be scored.
        batch_size: texts at a time.
    """

    identity: str
    model: str
    criteria: tuple[Criterion, ...]
    tokens: Callable[[Request], list[int] | None]
    cut: Callable[[Request], bool]
    load: Callable[[], ScoreRows]
    batch_size: int
    # A killed run should lose no more than a batch: hours of a large judge are dear, too.
    costs: bool = field(init=False, default=True)
    sends_to: str = field(init=False, default="")
    _score: ScoreRows | None = field(init=False, default=None)

    def is_cut(self, request: Request) -> bool:
        return self.cut(request)

    def ask(self, requests: Iterator[Call], put: Callable[[Call, Answer], None]) -> None:
        """Score all requests, the longest of some batches first."""
        for calls in _in_lists(requests, _BATCHES_SORTED * self.batch_size):
            scorable: list[tuple[Call, list[int]]] = []
            for call in calls:
                tokens = self.tokens(call.request)
                if tokens is None:
                    put(call, Answer("rejected", "longer than the model takes", model=self.model))
                else:
                    scorable.append((call, tokens))
            scorable.sort(key=_token_count, reverse=True)
            for batch in _in_lists(iter(scorable), self.batch_size):
                self._put_batch(batch, put)

    def _put_batch(
        self, batch: Sequence[tuple[Call, list[int]]], put: Callable[[Call, Answer], None]
    ) -> None:
        if self._score is None:
            self._score = self.load()
        rows = [tokens for _, tokens in batch]
        tokens_BT, lengths_B = _padded(rows, self.batch_size)
        scores = self._score(tokens_BT, lengths_B)
        for (call, _), row in zip(batch, scores, strict=False):
            # A model in half precision may overflow; a NaN is no score, and is told as a failure.
            if not np.isfinite(row).all():
                put(call, Answer("error", "the model gave no number", model=self.model))
                continue
            score_by_name: dict[str, float] = {}
            for criterion, score in zip(self.criteria, row, strict=True):
                score_by_name[criterion.name] = float(score)
            put(call, Answer("valid", "", scores=score_by_name, model=self.model))


def _token_count(scorable: tuple[Call, list[int]]) -> int:
    _, tokens = scorable
    return len(tokens)


def _padded(rows: Sequence[Sequence[int]], batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return tokens ``[batch_size, T]`` and lengths ``[batch_size]``, padded on the right; missing
    rows repeat the first.
    """
    length = _row_length(max(len(row) for row in rows))
    tokens = np.zeros((batch_size, length), np.int32)
    lengths = np.zeros(batch_size, np.int32)
    for number in range(batch_size):
        row = rows[number] if number < len(rows) else rows[0]
        tokens[number, : len(row)] = row
        lengths[number] = len(row)
    return tokens, lengths


def _row_length(longest: int) -> int:
    """Round the longest text's tokens up by an eighth of the next power of two at most.

    So little is padding, and there are only four lengths, each of which is compiled, between a
    power of two and the next.
    """
    power_of_two = 1 << (longest - 1).bit_length()
    step = max(_LENGTH_STEP, power_of_two // 8)
    return -(-longest // step) * step


def _in_lists(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    while group := list(itertools.islice(items, size)):
        yield group
