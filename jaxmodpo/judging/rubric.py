"""The built-in judge: a stand-in for patients that counts phrases and has no clinical meaning.

It lets the whole flow run without a key or a network, and its verdicts can be traced to the phrases
of :mod:`jaxmodpo.rubric`. It shows that a pipeline works, never that a reply would help anybody.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from statistics import NormalDist
from typing import NamedTuple

from jaxmodpo.criteria import OVERALL
from jaxmodpo.errors import UserError
from jaxmodpo.judging.hashing import drawn_bytes
from jaxmodpo.judging.judge import Answer, Call, Request
from jaxmodpo.records import Candidate
from jaxmodpo.rubric import load_rubric

MODEL = "rubric stand-in"

# Lines of a profile such as "- Empathy: 4/5 importance".
_RATING = re.compile(r"^-\s*(.+?):\s*(\d+(?:\.\d+)?)/5 importance", re.MULTILINE)


# What a persona did not rate counts fully.
_UNRATED = 5.0


class _Rating(NamedTuple):
    """A response's utility, and what decides between equal ones; compared in this order."""

    utility: float
    lot: bytes
    response_id: str


class RubricJudge:
    """Scores words. A stand-in without clinical meaning: no result of it says anything about
    patients.

    The score of a text on a criterion, in [-2, 1], with p positive and n negative phrases found
    and saturation s, is::

        score = min(p, s) / s - min(n, s) / s - deductions

    A persona's utility is importance / 5 * score + noise. Importance is read from the persona's
    ratings; safety, and what a persona did not rate, counts 5. ``overall`` is the mean score over
    the rated criteria and safety, weighted by importance. The noise is Gaussian and hangs on the
    seed, the persona, the question, the reply's id and text, the criterion and the repeat: never on
    the shown position or on the order of calls.

    Args:
        seed: of the noise.
        noise: its standard deviation, in units of score.
    """

    costs = False

    def __init__(self, seed: int, noise: float):
        if noise < 0:
            raise UserError(f"rubric_noise is {noise}; a standard deviation cannot be negative")
        self._rubric = load_rubric()
        self._seed = seed
        self._noise = NormalDist(0.0, noise) if noise > 0 else None
        self.identity = (
            f"{MODEL} without clinical meaning; phrases {self._rubric.version}; seed {seed}; noise"
            f" {noise}"
        )
        self.score = functools.lru_cache(maxsize=2**18)(self._rubric.score)
        self.importances = functools.lru_cache(maxsize=2**14)(self._importances)

    def ask(self, requests: Iterator[Call], put: Callable[[Call, Answer], None]) -> None:
        """Answer one request after the other."""
        for call in requests:
            put(call, self.answer(call.request))

    def answer(self, request: Request) -> Answer:
        """Rank the replies by utility, or name the one with more; equal utilities are a tie in
        ``compare``.

        Raises:
            UserError: a score is asked for. A utility is no share of anything, and has no scale
                from 0 to 1.
        """
        if request.kind == "score":
            raise UserError("the rubric compares replies and gives no scores; name another judge")
        orders: dict[str, tuple[str, ...]] = {}
        for criterion in request.criteria:
            orders[criterion.name] = self._order(request, criterion.name)
        return Answer("valid", "", orders, MODEL)

    def _order(self, request: Request, criterion: str) -> tuple[str, ...]:
        ratings: list[_Rating] = []
        for response in request.responses:
            ratings.append(self._rating(request, response, criterion))
        # By utility, and by the draw where utilities are equal, so that the shown position never
        # decides.
        ratings.sort(reverse=True)
        if request.kind == "rank":
            return tuple(rating.response_id for rating in ratings)
        best, second = ratings
        return (best.response_id,) if best.utility > second.utility else ()

    def _rating(self, request: Request, response: Candidate, criterion: str) -> _Rating:
        text = response.response_text
        utility = self._noiseless_utility(text, request.persona_text, criterion)
        lot = drawn_bytes(
            self._seed,
            request.persona_id,
            request.question_id,
            response.response_id,
            text,
            criterion,
            str(request.repeat),
        )
        if self._noise is not None:
            # The middle of one of 2^52 equal intervals: neither 0 nor 1, whose quantiles are
            # infinite.
            interval = int.from_bytes(lot[:8], "little") >> 12
            uniform = (interval + 0.5) / 2**52
            # A hash is uniform; the inverse of a Gaussian's distribution makes it Gaussian.
            utility += self._noise.inv_cdf(uniform)
        return _Rating(utility, lot, response.response_id)

    def _noiseless_utility(self, text: str, persona_text: str, criterion: str) -> float:
        importances = self.importances(persona_text)
        if criterion != OVERALL:
            importance = importances.get(criterion, _UNRATED)
            return importance / 5 * self.score(text, criterion)
        weighted_scores = [
            importance * self.score(text, name) for name, importance in importances.items()
        ]
        return sum(weighted_scores) / sum(importances.values())

    def _importances(self, persona_text: str) -> dict[str, float]:
        """Return the importance, 0 to 5, of every criterion that personas rate, and 5 for
        safety.
        """
        ratings_by_label: dict[str, float] = {}
        for label, value in _RATING.findall(persona_text):
            ratings_by_label[label.strip().casefold()] = float(value)
        importances: dict[str, float] = {}
        for name, phrases in self._rubric.phrases.items():
            if phrases.rated_as is not None:
                label = phrases.rated_as.casefold()
                importances[name] = ratings_by_label.get(label, _UNRATED)
        # Nobody was asked how important safety is.
        importances["safety"] = _UNRATED
        return importances
