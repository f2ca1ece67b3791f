"""The rules of voting: who votes, what is shown where, and what many votes amount to.

Pure functions of ids, votes and a seed, apart from any judge, so that balance and aggregation can
be proved by tests. Nothing here depends on a position in a list, except where the protocol
``official-code`` asks for that. Source: the paper's "Preference Collection Using Patient Personas"
and "Evaluation Methodology".
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal, NamedTuple

from jaxmodpo.errors import UserError
from jaxmodpo.judging.hashing import drawn_bytes
from jaxmodpo.judging.judge import Request
from jaxmodpo.judging.votes import Vote
from jaxmodpo.rankings import Comparison, two_by_two
from jaxmodpo.results.votes import FailedVotes, VotesAsked

PairRule = Literal["best-worst", "all"]
TieRule = Literal["seed", "drop"]
VotingProtocol = Literal["paper", "official-code"]
"""What the paper says, or what its authors' scripts do where they differ: replies in the order of
the file, ties broken by it, and one draw a question of who is shown first, shared by all
personas."""

# The points of the first and of the last rank; the others lie between them at equal distances.
_BEST_POINTS = Fraction(10)
_WORST_POINTS = Fraction(-10)


# --------------------------------------------------------------------------- who votes, in which
# order


def assign_personas(
    question_ids: Sequence[str],
    persona_ids: Sequence[str],
    per_question: int,
    seed: int,
) -> dict[str, list[str]]:
    """Draw the personas of each question so that all serve equally often: counts differ by at most
    one.

    Questions are taken in a seeded order; each gets those who served least so far, and among equals
    those whom the seed names.

    Args:
        question_ids: distinct.
        persona_ids: distinct.
        per_question: how many personas each question gets; 0 means all.
        seed: fixes the draw.

    Returns:
        For every question, in the order given, its personas, in the order given.

    Raises:
        UserError: ``per_question`` is negative or more than there are personas.
    """
    if not 0 <= per_question <= len(persona_ids):
        raise UserError(
            f"--personas-per-question is {per_question}, but there are {len(persona_ids)} personas;"
            " 0 asks all of them"
        )
    if per_question in (0, len(persona_ids)):
        return {question: list(persona_ids) for question in question_ids}
    times_served = dict.fromkeys(persona_ids, 0)
    voters: dict[str, set[str]] = {}
    # The order of the questions is drawn as well: who has served least hangs on the questions
    # before, and a question's place in the file must not say who judges it.
    drawn_order = sorted(question_ids, key=lambda question: drawn_bytes(seed, "question", question))
    for question in drawn_order:
        turns: list[tuple[int, bytes, str]] = []
        for persona in persona_ids:
            lot = drawn_bytes(seed, "serve", question, persona)
            turns.append((times_served[persona], lot, persona))
        first_turns = sorted(turns)[:per_question]
        voters[question] = {persona for _, _, persona in first_turns}
        for persona in voters[question]:
            times_served[persona] += 1
    assigned: dict[str, list[str]] = {}
    for question in question_ids:
        assigned[question] = [persona for persona in persona_ids if persona in voters[question]]
    return assigned


def shown_order(
    response_ids: Sequence[str],
    question_id: str,
    persona_id: str,
    seed: int,
    protocol: VotingProtocol = "paper",
) -> tuple[str, ...]:
    """Permute responses for one persona; the same for all criteria, whatever order they are given
    in.

    The protocol ``official-code`` shows them as they are given.
    """
    if protocol == "official-code":
        return tuple(response_ids)

    # Each response has a number of its own, which no other response and no list position enters:
    # this is what makes the order a fact of the names, and not of the file.
    def lot(response_id: str) -> bytes:
        return drawn_bytes(seed, "show", question_id, persona_id, response_id)

    return tuple(sorted(response_ids, key=lot))


def head_to_head_positions(
    unit: str,
    persona_ids: Sequence[str],
    seed: int,
    protocol: VotingProtocol = "paper",
) -> frozenset[str]:
    """Draw the half of the personas that see A first; the others see B first.

    Of an odd number the unit's draw also says which side has one more. The protocol
    ``official-code`` lets all of them see the same first.

    Args:
        unit: names what is compared: question, reply and pair. Each unit has its own draw.
        persona_ids: those who vote on it.
        seed: fixes the draw.
        protocol: see :data:`VotingProtocol`.
    """
    coin = drawn_bytes(seed, "coin", unit)[0] & 1
    if protocol == "official-code":
        return frozenset(persona_ids if coin else ())

    def lot(persona_id: str) -> bytes:
        return drawn_bytes(seed, "first", unit, persona_id)

    drawn_order = sorted(persona_ids, key=lot)
    # Halves exactly, instead of a coin for each persona, since judges lean to what they see first:
    # with equal halves that lean cancels in every unit. The coin only settles who is one too many.
    half = (len(drawn_order) + coin) // 2
    return frozenset(drawn_order[:half])


def asked_again(request: Request, fraction: float, seed: int) -> bool:
    """Draw whether a request belongs to the fraction that is asked a second time."""
    response_ids = [response.response_id for response in request.responses]
    criteria = [criterion.name for criterion in request.criteria]
    lot = drawn_bytes(
        seed,
        "again",
        request.question_id,
        request.persona_id,
        *response_ids,
        *criteria,
    )
    # Eight bytes are a uniform integer below 2^64.
    uniform = int.from_bytes(lot[:8], "little")
    return uniform < fraction * 2**64


def with_repeats(requests: Iterable[Request], fraction: float, seed: int) -> Iterator[Request]:
    """Yield each request, and after some of them the same with ``repeat`` 1."""
    for request in requests:
        yield request
        if fraction and asked_again(request, fraction, seed):
            yield dataclasses.replace(request, repeat=1)


# --------------------------------------------------------------------------- rankings


def position_weights(count: int, custom_points: Sequence[float] = ()) -> tuple[Fraction, ...]:
    """Return the points of each rank, best first: linear from 10 to -10, exact.

    For five that is the paper's 10, 5, 0, -5, -10; for ``count`` n, rank r from 0, it is
    10 - 20 r / (n - 1).

    Args:
        count: how many responses are ranked, at least two.
        custom_points: the points to use instead.

    Raises:
        UserError: ``custom_points`` has another length than ``count``, rises somewhere, or gives
            all ranks the same.
    """
    if count < 2:
        raise ValueError(f"a ranking needs at least two responses, not {count}")
    if custom_points:
        return _checked_points(count, custom_points)
    step = (_BEST_POINTS - _WORST_POINTS) / (count - 1)
    points = [_BEST_POINTS - rank * step for rank in range(count)]
    return tuple(points)


def _checked_points(count: int, points: Sequence[float]) -> tuple[Fraction, ...]:
    if len(points) != count:
        raise UserError(
            f"--position-weights has {len(points)} numbers, but a question has {count} responses"
        )
    rises = any(better < worse for better, worse in itertools.pairwise(points))
    if rises or points[0] == points[-1]:
        raise UserError("--position-weights must fall from the first rank to the last")
    return tuple(Fraction(value) for value in points)


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
        ranks: list[int] = []
        for group in self.ranking:
            shared_rank = len(ranks) + 1
            ranks += [shared_rank] * len(group)
        return tuple(ranks)

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
    protocol: VotingProtocol = "paper",
) -> Aggregate | None:
    """Add up the points of one question's rankings by one criterion.

    Sums are exact, so that equal points are equal. Failed votes do not count.

    Args:
        votes: all votes of the question, of kind ``rank``, by one criterion.
        response_ids: the question's responses.
        weights: points by rank, best first, as :func:`position_weights` gives them.
        seed: fixes the order inside a tie.
        min_valid_votes: below this many there is no result.
        protocol: ``official-code`` orders the responses of a tie as ``response_ids`` are.

    Returns:
        None where there are too few valid votes.
    """
    if len(weights) != len(response_ids):
        raise ValueError(f"{len(weights)} weights for {len(response_ids)} responses")
    what_was_asked = {(vote.question_id, vote.criterion) for vote in votes}
    if len(what_was_asked) > 1:
        raise ValueError("votes of several questions or criteria cannot be added up")
    orders = [vote.order for vote in votes if vote.order is not None]
    if len(orders) < max(1, min_valid_votes):
        return None
    points = _points(orders, response_ids, weights)
    question_id = votes[0].question_id
    criterion = votes[0].criterion

    def within_a_tie(response_id: str) -> bytes | int:
        if protocol == "official-code":
            return response_ids.index(response_id)
        return drawn_bytes(seed, "tie", question_id, criterion, response_id)

    def best_first(response_id: str) -> tuple[Fraction, bytes | int]:
        return -points[response_id], within_a_tie(response_id)

    order = sorted(response_ids, key=best_first)
    ranking: list[tuple[str, ...]] = []
    # groupby compares neighbors: equal points stand side by side, since the order is sorted.
    for _, group in itertools.groupby(order, key=points.__getitem__):
        ranking.append(tuple(group))
    return Aggregate(question_id, points, tuple(ranking), len(orders))


def _points(
    orders: Iterable[Sequence[str]],
    response_ids: Sequence[str],
    weights: Sequence[Fraction | float],
) -> dict[str, Fraction]:
    """Add up each response's points.

    Fractions, because floats would break ties: 0.1 + 0.2 and 0.3 are the same points, and only as
    fractions are they equal. How often each response had each rank is counted first, so that a
    thousand votes cost a thousand additions of integers and a handful of fractions.
    """
    times_at_rank = Counter[tuple[str, int]]()
    for order in orders:
        for rank, name in enumerate(order):
            times_at_rank[name, rank] += 1
    points: dict[str, Fraction] = {}
    for name in response_ids:
        total = Fraction(0)
        for rank, weight in enumerate(weights):
            total += times_at_rank[name, rank] * Fraction(weight)
        points[name] = total
    return points


def preference_pairs(result: Aggregate, rule: PairRule, ties: TieRule) -> list[tuple[str, str]]:
    """Turn an aggregate into (chosen, rejected) pairs; chosen always has more points than rejected.

    Args:
        result: of :func:`aggregate`.
        rule: ``best-worst`` makes one pair of the first and the last; ``all`` makes one of every
            two responses with different points.
        ties: where several share the first or the last place, ``seed`` lets the seed name one of
            them and ``drop`` makes no best-worst pair.
    """
    order = result.order
    ranks = result.ranks
    # Rank 1 is the best, and comparisons are of scores, which are better where they are higher.
    scores = [-rank for rank in ranks]
    comparisons = [comparison for comparison in two_by_two(scores) if not comparison.is_tie]
    if rule == "best-worst":
        best_group = result.ranking[0]
        worst_group = result.ranking[-1]
        ends_are_shared = len(best_group) + len(worst_group) > 2
        if ties == "drop" and ends_are_shared:
            return []
        # The first comparison is of the two ends: of what is first in the seed's order, and last.
        comparisons = comparisons[:1]
    else:
        # The file lists the pairs of the best group first, against the groups below it in turn.
        def place_in_file(pair: Comparison) -> tuple[int, int, int, int]:
            return ranks[pair.better], ranks[pair.worse], pair.better, pair.worse

        comparisons.sort(key=place_in_file)
    pairs: list[tuple[str, str]] = []
    for comparison in comparisons:
        better = order[comparison.better]
        worse = order[comparison.worse]
        pairs.append((better, worse))
    return pairs


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

    criteria: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    personas: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    models: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, vote: Vote) -> None:
        """Count a vote."""
        model = vote.model or "none"
        self.criteria[vote.criterion][vote.status] += 1
        self.personas[vote.persona_id][vote.status] += 1
        self.models[model][vote.status] += 1

    def by_criterion(self) -> dict[str, VotesAsked]:
        """Return the counts by criterion, in the order met."""
        return {name: _votes_asked(statuses) for name, statuses in self.criteria.items()}

    def summary(self) -> FailedVotes:
        """Return the counts by persona, of those with failed votes, and by model."""
        failing_personas: dict[str, VotesAsked] = {}
        for name, statuses in sorted(self.personas.items()):
            counts = _votes_asked(statuses)
            if counts.failed:
                failing_personas[name] = counts
        models: dict[str, VotesAsked] = {}
        for name, statuses in sorted(self.models.items()):
            models[name] = _votes_asked(statuses)
        return FailedVotes(personas_with_failed_votes=failing_personas, models=models)


def _votes_asked(statuses: Counter[str]) -> VotesAsked:
    failed = dict(sorted(statuses.items()))
    failed.pop("valid", None)
    return VotesAsked(asked=statuses.total(), valid=statuses["valid"], failed=failed)
