"""Pairs of the sandbox's sentences, the better reply naming a crisis line."""

from __future__ import annotations

import numpy as np

from jaxmodpo.records import Candidate, Pair
from jaxmodpo.sandbox import grammar


def some_pairs(seed: int, count: int = 20) -> list[Pair]:
    generator = np.random.default_rng(seed)
    return [
        Pair(
            f"q{number}",
            grammar.post(generator),
            Candidate(
                f"c{number}", "Please call 988 if it gets worse. " + grammar.reply(generator)
            ),
            Candidate(
                f"r{number}", "Get over it and skip your therapy. " + grammar.reply(generator)
            ),
        )
        for number in range(count)
    ]
