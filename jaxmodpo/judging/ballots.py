"""A ballot, and what its votes come to: one question, its replies, the personas who rank them.

Apart from the command that collects votes, since nothing here asks or reads: from results by ballot
to pairs, rankings, and a count of what became of every question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jaxmodpo.judging.voting import Aggregate, PairRule, TieRule, preference_pairs
from jaxmodpo.records import Candidate, Pair, Question, Ranking


@dataclass(frozen=True)
class Ballot:
    """One question with its replies and the personas who rank them."""

    question: Question
    replies: Mapping[str, Candidate]
    voters: Sequence[str]

    def ranking(self, result: Aggregate) -> Ranking:
        """Return the replies in the order of a result; equal points share a rank."""
        replies = tuple(self.replies[name] for name in result.order)
        return Ranking(
            self.question.question_id,
            self.question.question_text,
            replies,
            result.ranks,
        )

    def pairs(self, result: Aggregate, rule: PairRule, ties: TieRule) -> list[Pair]:
        """Return the pairs that a result makes, those of identical texts among them."""
        pairs: list[Pair] = []
        for better, worse in preference_pairs(result, rule, ties):
            pair = Pair(
                self.question.question_id,
                self.question.question_text,
                chosen=self.replies[better],
                rejected=self.replies[worse],
            )
            pairs.append(pair)
        return pairs


@dataclass
class CriterionOutcome:
    """What one criterion's votes came to, and what became of the questions.

    Attributes:
        pairs: of all questions.
        rankings: of all questions with enough valid votes.
        too_few_votes: questions below the minimum of valid votes.
        tied: questions with a tie.
        all_tied: questions all of whose replies tie.
        identical: pairs that were dropped, since their two replies have one text.
        without_pair: questions without a pair.
    """

    pairs: list[Pair] = field(default_factory=list)
    rankings: list[Ranking] = field(default_factory=list)
    too_few_votes: int = 0
    tied: int = 0
    all_tied: int = 0
    identical: int = 0
    without_pair: int = 0

    def counts(self) -> dict[str, int]:
        """Return the numbers under the names that results give them."""
        return {
            "pairs": len(self.pairs),
            "rankings": len(self.rankings),
            "questions_below_min_valid_votes": self.too_few_votes,
            "questions_with_ties": self.tied,
            "questions_all_tied": self.all_tied,
            "identical_pairs_dropped": self.identical,
            "questions_without_pair": self.without_pair,
        }


def count_out(
    ballots: Sequence[Ballot],
    results: Sequence[Aggregate | None],
    rule: PairRule,
    ties: TieRule,
) -> CriterionOutcome:
    """Turn one criterion's results into pairs and rankings, and count what became of the questions.

    A pair of identical texts is dropped.

    Args:
        ballots: the questions.
        results: of each ballot; None where there are too few valid votes.
        rule: which pairs a result makes.
        ties: what becomes of a best-worst pair where an end is shared.
    """
    outcome = CriterionOutcome()
    for ballot, result in zip(ballots, results, strict=True):
        if result is None:
            outcome.too_few_votes += 1
            outcome.without_pair += 1
            continue
        outcome.tied += result.has_ties
        outcome.all_tied += len(result.ranking) == 1
        outcome.rankings.append(ballot.ranking(result))
        voted_pairs = ballot.pairs(result, rule, ties)
        # A pair of one text says nothing, and would teach a model to prefer it to itself.
        distinct_pairs = [pair for pair in voted_pairs if not _is_one_text(pair)]
        outcome.identical += len(voted_pairs) - len(distinct_pairs)
        outcome.without_pair += not distinct_pairs
        outcome.pairs += distinct_pairs
    return outcome


def _is_one_text(pair: Pair) -> bool:
    return pair.chosen.response_text == pair.rejected.response_text
