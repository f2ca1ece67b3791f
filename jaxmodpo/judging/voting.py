"""The rules of voting: who votes, what is shown where, and what many votes amount to.

Pure functions of ids, votes and a seed, apart from any judge, so that balance and aggregation can
be proved by tests. Nothing here ever depends on a position in a list. Source: the paper's
"Preference Collection Using Patient Personas" and "Evaluation Methodology".
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal, NamedTuple

from jaxmodpo.errors import UserError
from jaxmodpo.judging.hashing import draw
from jaxmodpo.judging.judge import Request
from jaxmodpo.judging.votes import Vote
from jaxmodpo.rankings import two_by_two

PairRule = Literal["best-worst", "all"]
TieRule = Literal["seed", "drop"]
Protocol = Literal["paper", "official-code"]
"""What the paper says, or what its authors' scripts do where they differ: replies in the order of
the file, ties broken by it, and one draw a question of who is shown first, shared by all
personas."""


# --------------------------------------------------------------------------- who votes, in which
# order


def assign_personas(
    question_ids: Sequence[str], persona_ids: Sequence[str], per_question: int, seed: int
) -> dict[str, list[str]]:
    """Draw the personas of each question so that all serve equally often: counts differ by at most
    one.

    Questions are taken in a seeded order; each gets those who served least so far, and among equals
    those whom the seed names.

    Args:
        question_ids: distinct.
        persona_ids: distinct.
        per_question: how many personas each question gets; 0 means all.
        seed: of the draw.

    Returns:
        For every question, in the order given, its personas, in the order given.

    Raises:
        UserError: ``per_question`` is negative or more than there are.
    """
    if not 0 <= per_question <= len(persona_ids):
        raise UserError(
            f"--personas-per-question is {per_question}, but there are {len(persona_ids)} personas;"
            " 0 asks all of them"
        )
    if per_question in (0, len(persona_ids)):
        return {question: list(persona_ids) for question in question_ids}
    served = dict.fromkeys(persona_ids, 0)
    serving: dict[str, set[str]] = {}
    for question in sorted(question_ids, key=lambda q: draw(seed, "question", q)):
        turn = sorted(persona_ids, key=lambda p: (served[p], draw(seed, "serve", question, p)))
        serving[question] = set(turn[:per_question])
        for persona in serving[question]:
            served[persona] += 1
    return {q: [p for p in persona_ids if p in serving[q]] for q in question_ids}


def shown_order(
    response_ids: Sequence[str],
    question_id: str,
    persona_id: str,
    seed: int,
    protocol: Protocol = "paper",
) -> tuple[str, ...]:
    """Permute responses for one persona; the same for all criteria, whatever order they are given
    in.

    The protocol ``official-code`` shows them as they are given.
    """
    if protocol == "official-code":
        return tuple(response_ids)
    return tuple(sorted(response_ids, key=lambda r: draw(seed, "show", question_id, persona_id, r)))


def head_to_head_positions(
    unit: str, persona_ids: Sequence[str], seed: int, protocol: Protocol = "paper"
) -> frozenset[str]:
    """Draw the half of the personas that see A first; the others see B first.

    Of an odd number the unit's draw also says which side has one more. The protocol
    ``official-code`` lets all of them see the same first.

    Args:
        unit: names what is compared: question, reply and pair. Each unit has its own draw.
        persona_ids: those who vote on it.
        seed: of the draw.
        protocol: see :data:`Protocol`.
    """
    coin = draw(seed, "coin", unit)[0] & 1
    if protocol == "official-code":
        return frozenset(persona_ids if coin else ())
    ordered = sorted(persona_ids, key=lambda p: draw(seed, "first", unit, p))
    return frozenset(ordered[: (len(ordered) + coin) // 2])


def asked_again(request: Request, share: float, seed: int) -> bool:
    """Draw whether a request belongs to the share that is asked a second time."""
    names = [*(r.response_id for r in request.responses), *(c.name for c in request.criteria)]
    draw_bytes = draw(seed, "again", request.question_id, request.persona_id, *names)
    return int.from_bytes(draw_bytes[:8], "little") < share * 2**64


def with_repeats(requests: Iterable[Request], share: float, seed: int) -> Iterator[Request]:
    """Yield each request, and after some of them the same with ``repeat`` 1."""
    for request in requests:
        yield request
        if share and asked_again(request, share, seed):
            yield dataclasses.replace(request, repeat=1)


# --------------------------------------------------------------------------- rankings


def position_weights(count: int, custom_points: Sequence[float] = ()) -> tuple[Fraction, ...]:
    """Return the points of each rank, best first: linear from 10 to -10, exact.

    For five that is the paper's 10, 5, 0, -5, -10; for ``count`` n, rank r from 0, it is
    10 - 20 r / (n - 1).

    Args:
        count: of responses.
        custom_points: the points to use instead.

    Raises:
        UserError: ``custom_points`` are as many as there are not responses, or do not fall.
    """
    if count < 2:
        raise ValueError(f"a ranking needs at least two responses, not {count}")
    if custom_points:
        if len(custom_points) != count:
            raise UserError(
                f"--position-weights has {len(custom_points)} numbers, but a question has {count} responses"
            )
        if (
            any(better < worse for better, worse in itertools.pairwise(custom_points))
            or custom_points[0] == custom_points[-1]
        ):
            raise UserError("--position-weights must fall from the first rank to the last")
        return tuple(map(Fraction, custom_points))
    return tuple(Fraction(10) - Fraction(20 * rank, count - 1) for rank in range(count))


@dataclass(frozen=True)
class Aggregate:
    """What the personas' rankings of one question's responses amount to.

    Attributes:
        question_id: the question.
        points: by response id.
        ranking: groups of equal points, best first; inside a group the order is the seed's.
        valid_votes: how many votes counted.
    """

    question_id: str
    points: dict[str, Fraction]
    ranking: tuple[tuple[str, ...], ...]
    valid_votes: int

    @property
    def order(self) -> tuple[str, ...]:
        """Return all responses, best first, ties broken by the seed."""
        return tuple(itertools.chain.from_iterable(self.ranking))

    @property
    def ranks(self) -> tuple[int, ...]:
        """Return the ranks of :attr:`order`, from 1; equal points share a rank, as in 1, 1, 3."""
        starts = itertools.accumulate((len(group) for group in self.ranking), initial=1)
        return tuple(
            start for start, group in zip(starts, self.ranking, strict=False) for _ in group
        )

    @property
    def has_ties(self) -> bool:
        return any(len(group) > 1 for group in self.ranking)


def aggregate(
    votes: Sequence[Vote],
    response_ids: Sequence[str],
    weights: Sequence[Fraction | float],
    *,
    seed: int,
    min_valid_votes: int = 1,
    protocol: Protocol = "paper",
) -> Aggregate | None:
    """Add up the points of one question's rankings by one criterion.

    Sums are exact, so that equal points are equal. Failed votes do not count.

    Args:
        votes: all votes of the question, of kind ``rank``, by one criterion.
        response_ids: the question's responses.
        weights: points by rank, best first, as :func:`position_weights` gives them.
        seed: of the order inside a tie.
        min_valid_votes: below this many there is no result.
        protocol: ``official-code`` orders the responses of a tie as ``response_ids`` are.

    Returns:
        None where there are too few valid votes.
    """
    if len(weights) != len(response_ids):
        raise ValueError(f"{len(weights)} weights for {len(response_ids)} responses")
    if len({(vote.question_id, vote.criterion) for vote in votes}) > 1:
        raise ValueError("votes of several questions or criteria cannot be added up")
    orders = [vote.order for vote in votes if vote.order is not None]
    if len(orders) < max(1, min_valid_votes):
        return None
    times = Counter((name, rank) for order in orders for rank, name in enumerate(order))
    points = {
        name: sum(
            (times[name, rank] * Fraction(weight) for rank, weight in enumerate(weights)),
            Fraction(0),
        )
        for name in response_ids
    }
    question_id, criterion = votes[0].question_id, votes[0].criterion
    file_position = {name: n for n, name in enumerate(response_ids)}

    def within_a_tie(name: str) -> bytes | int:
        return (
            file_position[name]
            if protocol == "official-code"
            else draw(seed, "tie", question_id, criterion, name)
        )

    order = sorted(response_ids, key=lambda name: (-points[name], within_a_tie(name)))
    ranking = tuple(tuple(group) for _, group in itertools.groupby(order, key=points.__getitem__))
    return Aggregate(question_id, points, ranking, len(orders))


def preference_pairs(result: Aggregate, rule: PairRule, ties: TieRule) -> list[tuple[str, str]]:
    """Turn an aggregate into (chosen, rejected) pairs; chosen always has more points than rejected.

    Args:
        result: of :func:`aggregate`.
        rule: ``best-worst`` makes one pair of the first and the last; ``all`` makes one of every
            two responses with different points.
        ties: where several share the first or the last place, ``seed`` lets the seed name one of
            them and ``drop`` makes no best-worst pair.
    """
    order, ranks = result.order, result.ranks
    comparisons = [
        comparison for comparison in two_by_two([-rank for rank in ranks]) if not comparison.is_tie
    ]
    if rule == "best-worst":
        first, last = result.ranking[0], result.ranking[-1]
        ends_are_shared = len(first) + len(last) > 2
        comparisons = [] if ties == "drop" and ends_are_shared else comparisons[:1]
    else:
        # The file lists the pairs of the best group first, against the groups below it in turn.
        comparisons.sort(
            key=lambda pair: (ranks[pair.better], ranks[pair.worse], pair.better, pair.worse)
        )
    return [(order[comparison.better], order[comparison.worse]) for comparison in comparisons]


# --------------------------------------------------------------------------- comparisons


class Tally(NamedTuple):
    """Counts of one unit's votes."""

    a: int
    b: int
    ties: int
    failed: int


def both_orders(first: Vote, second: Vote) -> tuple[str, ...] | None:
    """Return one persona's verdict from its votes in both orders.

    Who wins in both orders wins; a verdict that turns with the order is a tie; where one of the two
    failed there is none, since the other may have been the position's.
    """
    if first.order is None or second.order is None:
        return None
    return first.order if first.order == second.order else ()


def tally(orders: Iterable[tuple[str, ...] | None], a: str, b: str) -> Tally:
    """Count the verdicts of a comparison between the responses with ids ``a`` and ``b``; None
    failed.
    """
    counts = Counter(orders)
    if not counts.keys() <= {(a,), (b,), (), None}:
        raise ValueError(f"a vote for neither {a} nor {b}")
    return Tally(counts[(a,)], counts[(b,)], counts[()], counts[None])


# --------------------------------------------------------------------------- counts


@dataclass
class Missingness:
    """How many votes there are and how many failed: by criterion, by persona and by the model that
    answered.

    Votes that failed are counted and never made up for.
    """

    criteria: dict[str, Counter[str]] = field(default_factory=dict)
    personas: dict[str, Counter[str]] = field(default_factory=dict)
    models: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, vote: Vote) -> None:
        """Count a vote."""
        for counts, name in (
            (self.criteria, vote.criterion),
            (self.personas, vote.persona_id),
            (self.models, vote.model or "none"),
        ):
            counts.setdefault(name, Counter())[vote.status] += 1

    def by_criterion(self) -> dict[str, dict[str, Any]]:
        """Return ``{criterion: {asked, valid, failed: {status: count}}}``, in the order met."""
        return {name: _counted(counts) for name, counts in self.criteria.items()}

    def summary(self) -> dict[str, Any]:
        """Return the counts by persona, of those with failed votes, and by model."""
        personas = {name: _counted(counts) for name, counts in sorted(self.personas.items())}
        return {
            "personas_with_failed_votes": {
                name: counts for name, counts in personas.items() if counts["failed"]
            },
            "models": {name: _counted(counts) for name, counts in sorted(self.models.items())},
        }


def _counted(counts: Counter[str]) -> dict[str, Any]:
    return {
        "asked": counts.total(),
        "valid": counts["valid"],
        "failed": {status: n for status, n in sorted(counts.items()) if status != "valid"},
    }
