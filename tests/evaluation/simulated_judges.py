"""Judges whose leanings are known: their votes in a ledger, and what is said of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from jaxmodpo.evaluation.judges import open_ledgers
from jaxmodpo.evaluation.reliability import analyze
from jaxmodpo.judging.ledger import Ledger
from jaxmodpo.judging.votes import Vote
from jaxmodpo.results.judges import Judges
from jaxmodpo.results.versioned import plain
from jaxmodpo.schema import read_as


def vote(
    question: int, persona: int, shown: Sequence[str], order: Sequence[str] | None, **more: object
) -> Vote:
    settings: dict[str, object] = {
        "kind": "compare" if len(shown) == 2 else "rank",
        "criterion": "empathy",
        "repeat": 0,
        "status": "error" if order is None else "valid",
        "raw": "said",
        "model": "m",
        "judge": "endpoint m",
        "run": "r",
        **more,
    }
    key = (
        f"{question} {persona} {shown} {settings['criterion']} {settings['repeat']}"
        f" {settings['judge']}"
    )
    return Vote(
        key=key,
        question_id=f"q{question}",
        persona_id=f"p{persona}",
        shown=tuple(shown),
        order=None if order is None else tuple(order),
        **settings,  # type: ignore[arg-type]
    )


def stored(path: Path, votes: Iterable[Vote]) -> Path:
    with Ledger(path) as ledger:
        ledger.add(list(votes))
    return path


def said_of(*paths: Path, run: str | None = None, resamples: int = 400):
    with open_ledgers([str(path) for path in paths]) as ledgers:
        rows = analyze(ledgers, run=run, resamples=resamples)
    assert plain(shaped(rows)) == rows, "the file's type has every key that is counted"
    return rows


def shaped(rows: dict) -> Judges:
    return read_as(rows, Judges, "judges.json")


def only(rows: Sequence[dict], **names: object) -> dict:
    matching = [row for row in rows if all(row[name] == value for name, value in names.items())]
    assert len(matching) == 1
    return matching[0]


Says = Callable[[np.random.Generator, int, Sequence[int]], Sequence[int]]
"""of a generator, the question and the responses' numbers as shown: the order, best first"""


def asked(
    says: Says,
    *,
    shown: int = 2,
    questions: int = 60,
    personas: int = 20,
    seed: int = 0,
    **more: object,
):
    """Votes of a simulated judge, positions drawn for each persona."""
    rng, places = np.random.default_rng(seed), np.random.default_rng(99)
    for question, persona in itertools.product(range(questions), range(personas)):
        numbers = [int(n) for n in places.permutation(shown)]
        if shown == 2:
            numbers = [0, 1] if (persona + question) % 2 else [1, 0]
        order = says(rng, question, numbers)
        names = [f"q{question}-{number}" for number in range(shown)]
        yield vote(
            question, persona, [names[n] for n in numbers], [names[n] for n in order], **more
        )


def coin(rng, question, numbers):
    return [numbers[int(rng.integers(2))]]


def leaning(share: float) -> Says:
    return lambda rng, question, numbers: [numbers[int(rng.random() >= share)]]


def judging(strength: float, first: float = 0.0) -> Says:
    """A judge that feels a response's worth, position and noise."""

    def says(rng, question, numbers):
        worth = np.random.default_rng(question).normal(size=len(numbers))
        felt = strength * worth[list(numbers)] + rng.gumbel(size=len(numbers))
        felt[0] += first
        order = [numbers[n] for n in np.argsort(-felt)]
        return order[:1] if len(numbers) == 2 else order

    return says
