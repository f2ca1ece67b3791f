"""How a ranking becomes preference pairs: the one place that decides which two replies make a pair.

Personas' votes, files of rankings and answers with scores all end in a list of replies, best first,
and a score for each. :func:`two_by_two` compares every two of them; who calls it says which of
these comparisons become pairs::

    replies = ["a", "b", "c"]
    [(replies[pair.better], replies[pair.worse]) for pair in two_by_two([10, 3, 3])]
    # [("a", "c"), ("a", "b"), ("b", "c")], of gaps 7, 7 and 0: the last two replies are tied
"""

from __future__ import annotations

import collections
import itertools
import logging
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from jaxmodpo.errors import UserError
from jaxmodpo.ranges import Count
from jaxmodpo.records import Candidate, Pair, Ranking

logger = logging.getLogger(__name__)


PairsPerQuestion = Literal["best-worst", "all"] | Count
"""how many pairs are made of a ranking: of its ends, of every two replies, or a number, the widest
gaps first"""


class Comparison(NamedTuple):
    """Two replies of one question.

    Attributes:
        better: the place in the list of the reply with the higher score, or of the first of two
            that are tied.
        worse: the place of the other.
        gap: the difference of their scores.
    """

    better: int
    worse: int
    gap: Any

    @property
    def is_tie(self) -> bool:
        """Whether neither reply is preferred."""
        return self.gap == 0


def two_by_two(scores: Sequence[Any]) -> list[Comparison]:
    """Compare every two replies of a question, the widest gap first.

    Among equal gaps, the better reply stands first, and then the pair whose other reply is worse.
    So the first comparison is that of the two ends, and a longer part of the list contains every
    shorter one.

    Args:
        scores: numbers of any exact or inexact type, best first: none is higher than the one
            before.
    """
    assert all(here >= below for here, below in itertools.pairwise(scores)), scores
    comparisons: list[Comparison] = []
    for better, worse in itertools.combinations(range(len(scores)), 2):
        comparisons.append(Comparison(better, worse, scores[better] - scores[worse]))
    # A longer part of this list contains every shorter one, so that more pairs of a question never
    # mean other pairs.
    return sorted(comparisons, key=lambda pair: (-pair.gap, pair.better, -pair.worse))


@dataclass
class LeftOut:
    """How many pairs were not made of rankings, since they would prefer nothing.

    Attributes:
        tied: the two responses share a rank.
        identical: they have the same text.
    """

    tied: int = 0
    identical: int = 0

    def add(self, more: LeftOut) -> None:
        """Add another count to this one."""
        self.tied += more.tied
        self.identical += more.identical

    def as_dict(self) -> dict[str, int]:
        """Return the counts under the names that manifests have for them."""
        return {"tied_pairs_left_out": self.tied, "identical_pairs_left_out": self.identical}


def pairs_of(
    rankings: Sequence[Ranking], per_question: PairsPerQuestion, left_out: LeftOut | None = None
) -> list[Pair]:
    """Make preference pairs of rankings.

    Responses that share a rank are no preference, so that no pair is made of them; nor is one of
    two responses of the same text. Both are counted, in the log too.

    Args:
        rankings: best first.
        per_question: ``best-worst`` makes one pair a ranking, of its ends; ``all`` one of every two
            responses; a number that many, the widest gaps between ranks first and among equals the
            better response, so that 1 is best-worst and each number's pairs contain those of the
            smaller ones. Where several share the first or the last rank, the first or last in the
            list stands for them.
        left_out: counts what is left out.

    Returns:
        Pairs in the rankings' order.

    Raises:
        UserError: a number below 1, or no pair at all.
    """
    if isinstance(per_question, int) and per_question < 1:
        raise UserError(
            f"--pairs-per-question must be best-worst, all or at least 1, not {per_question}"
        )
    counts = LeftOut()
    pairs: list[Pair] = []
    for ranking in rankings:
        pairs += _pairs_of_one(ranking, per_question, counts)
    if left_out is not None:
        left_out.add(counts)
    if not pairs:
        raise UserError(
            "the rankings give no pair: all their responses are tied or have the same text"
        )
    if counts.tied or counts.identical:
        logger.info(
            "%d pairs of %d rankings; left out: %d of tied responses, %d of responses with the same"
            " text",
            len(pairs),
            len(rankings),
            counts.tied,
            counts.identical,
        )
    return pairs


def _pairs_of_one(
    ranking: Ranking, per_question: PairsPerQuestion, left_out: LeftOut
) -> Iterator[Pair]:
    """Yield a ranking's pairs, the widest gaps between ranks first."""
    # The best rank is the lowest number, and the best score the highest.
    comparisons = two_by_two([-rank for rank in ranking.ranks])
    if per_question == "best-worst":
        comparisons = comparisons[:1]
    elif per_question != "all":
        comparisons = comparisons[:per_question]
    for comparison in comparisons:
        better = ranking.candidates[comparison.better]
        worse = ranking.candidates[comparison.worse]
        if comparison.is_tie:
            left_out.tied += 1
        elif better.response_text == worse.response_text:
            left_out.identical += 1
        else:
            yield Pair(ranking.question_id, ranking.question_text, better, worse)


def _text_of(_: Ranking, candidate: Candidate) -> Hashable:
    """Return what makes two replies of a ranking the same unless a caller says otherwise."""
    return candidate.response_text


def without_repeats(
    rankings: Sequence[Ranking],
    left_out: LeftOut,
    key: Callable[[Ranking, Candidate], Hashable] = _text_of,
) -> list[Ranking]:
    """Return rankings in which no text stands twice, since none is better than itself; its best
    place is kept.

    Args:
        rankings: best first; those that prefer nothing any more are left out.
        left_out: counts the pairs of the same text.
        key: what makes two replies of a ranking the same; their texts, unless it is given.
    """
    shortened: list[Ranking] = []
    for original in rankings:
        ranking = _without_repeats(original, left_out, key)
        if ranking is original or not ranking.all_tied:
            shortened.append(ranking)
    return shortened


def _without_repeats(
    ranking: Ranking, left_out: LeftOut, key: Callable[[Ranking, Candidate], Hashable]
) -> Ranking:
    """Return a ranking in which each text stands once, at its best place; the same one if none
    stands twice.
    """
    texts = [key(ranking, candidate) for candidate in ranking.candidates]
    repeated_pairs = _pairs_within(texts)
    if repeated_pairs == 0:
        return ranking
    left_out.identical += repeated_pairs
    first_index: dict[Hashable, int] = {}
    for index, text in enumerate(texts):
        first_index.setdefault(text, index)
    candidates = tuple(ranking.candidates[index] for index in first_index.values())
    ranks = [ranking.ranks[index] for index in first_index.values()]
    # Those that follow a removed reply move up: 1, 2, 4 become 1, 2, 3, and 1, 1, 4 become 1, 1, 3.
    closed_up = tuple(ranks.index(rank) + 1 for rank in ranks)
    return replace(ranking, candidates=candidates, ranks=closed_up)


def tied_pairs(rankings: Sequence[Ranking]) -> int:
    """Count the pairs of replies that are tied in the rankings."""
    return sum(_pairs_within(ranking.ranks) for ranking in rankings)


def _pairs_within(values: Iterable[Hashable]) -> int:
    """Count the pairs of equal values."""
    counts = collections.Counter(values).values()
    return sum(math.comb(count, 2) for count in counts)
