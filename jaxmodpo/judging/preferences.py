"""``jaxmodpo preferences``: personas rank the replies to each question, and rankings become pairs.

For each criterion, each question's personas rank all its replies, shown in an order of their own;
ranks become points, points a ranking, and its ends a preference pair. Source: the paper's
"Preference Collection Using Patient Personas". What is asked and how votes add up is
:mod:`jaxmodpo.judging.voting`'s; this module joins it to files.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxmodpo.config import builtin
from jaxmodpo.costs import Cost, Estimates
from jaxmodpo.criteria import Criterion, load_criteria
from jaxmodpo.errors import UserError
from jaxmodpo.judging.collect import MakeRequests, SlotVotes, collect, votes_by_slot
from jaxmodpo.judging.forecast import forecast
from jaxmodpo.judging.judge import Request
from jaxmodpo.judging.settings import (
    JudgeConfig,
    groups,
    make_judge,
    open_ledger,
    warn_of_failed,
)
from jaxmodpo.judging.voting import (
    Aggregate,
    Missingness,
    PairRule,
    Protocol,
    TieRule,
    aggregate,
    assign_personas,
    position_weights,
    preference_pairs,
    shown_order,
    with_repeats,
)
from jaxmodpo.phase import Phase, in_phase
from jaxmodpo.ranges import Count, CountOrZero, Incidental
from jaxmodpo.records import (
    Candidate,
    Pair,
    Question,
    Ranking,
    read_personas,
    read_responses,
    write_pairs,
    write_rankings,
)

log = logging.getLogger(__name__)

VOTE_BYTES = 680
"""a row of the ledger with its index: ids, shown order, raw and parsed answer, model, tokens"""
PAIR_BYTES = 3_600
"""a pair in JSON: two replies and the question"""


@dataclass(frozen=True, kw_only=True)
class PreferencesConfig(JudgeConfig, help_group="votes"):
    """Let personas rank the replies to each question, criterion by criterion."""

    responses: Path
    """question_id, question_text, response_id, response_text: two or more replies to a question"""
    personas: Path
    """a JSON file of {persona_id: persona text}; not those who will evaluate"""
    output_dir: Incidental[Path]
    """folder for {criterion}_pairs.json, {criterion}_rankings.json and votes.sqlite"""
    criteria: str = "therapeutic"
    """a criteria file, or the name of one of ours (therapeutic, gricean)"""
    only: tuple[str, ...] = ()
    """the criteria to ask about; all of the file if none is named"""
    personas_per_question: CountOrZero = 50
    """how many personas rank each question's replies; 0 means all"""
    pairs: PairRule = "best-worst"
    """best-worst: one pair a question, of the first and the last; all: every two replies that
    differ in points"""
    ties: TieRule = "seed"
    """where several share the first or last place: let the seed name one, or drop the question"""
    min_valid_votes: Count = 1
    """a question with fewer valid votes gives no pair and no ranking"""
    position_weights: tuple[float, ...] = ()
    """points of each rank, best first; linear from 10 to -10 if empty (of five: 10, 5, 0, -5,
    -10)"""
    protocol: Protocol = "paper"
    """paper: each persona sees the replies in an order of its own; official-code: what the authors'
    scripts do, all see the file's order, which also breaks ties"""

    def input_paths(self) -> dict[str, Path]:
        return super().input_paths() | {"criteria": builtin("criteria", self.criteria)}

    def cost(self, estimator: Estimates) -> Cost:
        replies = estimator.rows(self.responses)
        replies_per_question = estimator.replies_per_question(self.responses)
        questions = replies // replies_per_question
        personas = self.personas_per_question or estimator.rows(self.personas)
        criteria = load_criteria(self.criteria, self.only)
        pairs_per_question = 1
        if self.pairs == "all":
            pairs_per_question = math.comb(replies_per_question, 2)
        # Later phases of the experiment read these files, and are priced by their rows.
        for criterion in criteria:
            pairs = self.output_dir / f"{criterion.name}_pairs.json"
            rankings = self.output_dir / f"{criterion.name}_rankings.json"
            estimator.counts[pairs] = questions * pairs_per_question
            estimator.counts[rankings] = questions
            estimator.per_question[rankings] = replies_per_question
        requests = round(questions * personas * (1 + self.repeat_share))
        calls_per_request = len(groups(criteria, self.criteria_per_call))
        votes = requests * len(criteria)
        files_rows = 2 * questions * len(criteria)
        cost = Cost(
            judge_calls=requests * calls_per_request,
            disk=VOTE_BYTES * votes + PAIR_BYTES * files_rows,
        )
        criteria_per_call = round(len(criteria) / calls_per_request)
        estimator.pay_judge(cost, self, "rank", replies_per_question, criteria_per_call)
        return cost


@dataclass(frozen=True)
class Ballot:
    """One question with its replies and the personas who rank them."""

    question: Question
    replies: Mapping[str, Candidate]
    voters: Sequence[str]


def preferences(config: PreferencesConfig) -> Phase | None:
    """Run ``preferences``; what the ledger has an answer to is not asked again.

    Returns:
        The phase; None for a dry run.

    Raises:
        UserError: bad settings or input, a budget that is spent, or a criterion that ends without a
            single pair.
    """
    config.check()
    criteria = load_criteria(config.criteria, config.only)
    if config.dry_run:
        forecast(config, config.output_dir, *_plan(config, criteria))
        return None
    return _collect(config, criteria)


@in_phase("preferences")
def _collect(config: PreferencesConfig, phase: Phase, criteria: Sequence[Criterion]) -> None:
    """Ask for the votes, count them, and write pairs and rankings."""
    ballots, left_out = read_ballots(config)
    make_requests, total = _plan(config, criteria, ballots)
    with open_ledger(config, phase) as ledger:
        judge = make_judge(config, ledger, config.output_dir)
        collect(
            make_requests,
            judge,
            ledger,
            label="preferences",
            total=total,
            retry=config.retry_errors,
        )
        # Read back from the ledger, not kept while asking: a run that goes on counts the votes of
        # all its starts, and by the same rule.
        slot_votes = votes_by_slot(make_requests, judge.identity, ledger)
        results, missing = count_votes(config, criteria, ballots, slot_votes)
        used = ledger.spent(ledger.run)
    counts = _write(config, criteria, ballots, results, missing)
    phase.finish(
        judge=judge.identity,
        questions=len(ballots),
        questions_with_fewer_than_two_replies=left_out,
        votes_asked=sum(count["asked"] for count in counts.values()),
        votes_valid=sum(count["valid"] for count in counts.values()),
        criteria=counts,
        missing=missing.summary(),
        spent=used._asdict(),
    )
    warn_of_failed("preferences", missing)


def _plan(
    config: PreferencesConfig,
    criteria: Sequence[Criterion],
    ballots: Sequence[Ballot] | None = None,
) -> tuple[MakeRequests, int]:
    """Return what generates the requests, and how many votes they will bring."""
    personas = read_personas(config.personas)
    if ballots is None:
        ballots, _ = read_ballots(config)

    def make_requests() -> Iterator[Request]:
        once = requests(config, ballots, criteria, personas)
        return with_repeats(once, config.repeat_share, config.seed)

    voters = sum(len(ballot.voters) for ballot in ballots)
    total = len(criteria) * voters
    return make_requests, round(total * (1 + config.repeat_share))


# --------------------------------------------------------------------------- what is asked


def read_ballots(config: PreferencesConfig) -> tuple[list[Ballot], int]:
    """Read the replies by question and assign the personas.

    Returns:
        The ballots in the file's order of questions, and how many questions were left out because
        they have fewer than two replies.

    Raises:
        UserError: a question with two texts, or no question with two replies.
    """
    replies: dict[str, dict[str, Candidate]] = {}
    texts: dict[str, str] = {}
    for row in read_responses(config.responses):
        if texts.setdefault(row.question_id, row.question_text) != row.question_text:
            raise UserError(
                f"{config.responses}: the question {row.question_id} stands there with two"
                " different texts"
            )
        candidate = Candidate(row.response_id, row.response_text)
        replies.setdefault(row.question_id, {})[row.response_id] = candidate
    votable = [question for question, candidates in replies.items() if len(candidates) >= 2]
    if not votable:
        raise UserError(
            f"{config.responses}: no question has two replies, so there is nothing to prefer"
        )
    left_out = len(replies) - len(votable)
    if left_out:
        log.warning(
            "preferences: %d questions have fewer than two replies and are left out", left_out
        )
    for question in votable:
        # Refuses weights of another number now, and not after a day of votes.
        position_weights(len(replies[question]), config.position_weights)
    personas = list(read_personas(config.personas))
    voters = assign_personas(votable, personas, config.personas_per_question, config.seed)
    ballots: list[Ballot] = []
    for question_id in votable:
        question = Question(question_id, texts[question_id])
        ballots.append(Ballot(question, replies[question_id], voters[question_id]))
    return ballots, left_out


def requests(
    config: PreferencesConfig,
    ballots: Sequence[Ballot],
    criteria: Sequence[Criterion],
    personas: Mapping[str, str],
) -> Iterator[Request]:
    """Yield what is asked: by criterion (or all that one call asks about), then by question, then
    by persona.

    A request's slot is the number of its ballot.
    """
    for group in groups(criteria, config.criteria_per_call):
        for slot, ballot in enumerate(ballots):
            question = ballot.question
            for persona in ballot.voters:
                response_order = shown_order(
                    list(ballot.replies),
                    question.question_id,
                    persona,
                    config.seed,
                    config.protocol,
                )
                yield Request(
                    kind="rank",
                    question_id=question.question_id,
                    question_text=question.question_text,
                    persona_id=persona,
                    persona_text=personas[persona],
                    criteria=group,
                    responses=tuple(ballot.replies[name] for name in response_order),
                    slot=slot,
                )


# --------------------------------------------------------------------------- what came of it


def count_votes(
    config: PreferencesConfig,
    criteria: Sequence[Criterion],
    ballots: Sequence[Ballot],
    cast: Iterable[SlotVotes],
) -> tuple[dict[str, list[Aggregate | None]], Missingness]:
    """Add up the votes on each ballot by each criterion.

    Args:
        config: the settings.
        criteria: by which votes were cast.
        ballots: in the order that :func:`requests` numbered them in.
        cast: the votes, whose slot is the number of their ballot.

    Returns:
        By criterion, a result for each ballot (None below the minimum of valid votes); and what is
        missing.
    """
    results: dict[str, list[Aggregate | None]] = {}
    for criterion in criteria:
        results[criterion.name] = [None] * len(ballots)
    missing = Missingness()
    for slot, criterion_name, votes in cast:
        for vote in votes:
            missing.add(vote)
        names = list(ballots[slot].replies)
        results[criterion_name][slot] = aggregate(
            votes,
            names,
            position_weights(len(names), config.position_weights),
            seed=config.seed,
            min_valid_votes=config.min_valid_votes,
            protocol=config.protocol,
        )
    return results, missing


def _write(
    config: PreferencesConfig,
    criteria: Sequence[Criterion],
    ballots: Sequence[Ballot],
    results: Mapping[str, Sequence[Aggregate | None]],
    missing: Missingness,
) -> dict[str, dict[str, Any]]:
    """Write each criterion's pairs and rankings; return its counts."""
    counts: dict[str, dict[str, Any]] = {}
    for criterion in criteria:
        name = criterion.name
        outcome = count_out(config, ballots, results[name])
        counts[name] = missing.by_criterion()[name] | outcome.counts()
        described = _described(counts[name])
        if not outcome.pairs:
            advice = (
                "'jaxmodpo votes' shows every answer, and --retry-errors asks failed votes again"
            )
            if config.judge == "replay":
                advice = "what was recorded is of other replies, personas or settings than these"
            raise UserError(f"{name}: no question gave a pair ({described}); {advice}")
        write_pairs(config.output_dir / f"{name}_pairs.json", outcome.pairs)
        write_rankings(config.output_dir / f"{name}_rankings.json", outcome.rankings)
        log.info("preferences: %s: %s", name, described)
    return counts


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
    config: PreferencesConfig, ballots: Sequence[Ballot], results: Sequence[Aggregate | None]
) -> CriterionOutcome:
    """Turn one criterion's results into pairs and rankings, and count what became of the questions.

    A pair of identical texts is dropped. In a ranking, equal points share a rank.

    Args:
        config: the settings.
        ballots: the questions.
        results: of each ballot; None where there are too few valid votes.
    """
    outcome = CriterionOutcome()
    for ballot, result in zip(ballots, results, strict=True):
        if result is None:
            outcome.too_few_votes += 1
            outcome.without_pair += 1
            continue
        outcome.tied += result.has_ties
        outcome.all_tied += len(result.ranking) == 1
        outcome.rankings.append(_ranking(ballot, result))
        voted_pairs = _pairs(config, ballot, result)
        # A pair of one text says nothing, and would teach a model to prefer it to itself.
        distinct_pairs = [
            pair for pair in voted_pairs if pair.chosen.response_text != pair.rejected.response_text
        ]
        outcome.identical += len(voted_pairs) - len(distinct_pairs)
        outcome.without_pair += not distinct_pairs
        outcome.pairs += distinct_pairs
    return outcome


def _ranking(ballot: Ballot, result: Aggregate) -> Ranking:
    replies = tuple(ballot.replies[name] for name in result.order)
    question = ballot.question
    return Ranking(question.question_id, question.question_text, replies, result.ranks)


def _pairs(config: PreferencesConfig, ballot: Ballot, result: Aggregate) -> list[Pair]:
    question = ballot.question
    pairs: list[Pair] = []
    for better, worse in preference_pairs(result, config.pairs, config.ties):
        chosen_reply = ballot.replies[better]
        rejected_reply = ballot.replies[worse]
        pairs.append(
            Pair(question.question_id, question.question_text, chosen_reply, rejected_reply)
        )
    return pairs


def _described(counts: Mapping[str, Any]) -> str:
    """Return one criterion's counts as a sentence."""
    failed = "".join(f", {count} {status}" for status, count in counts["failed"].items())
    return (
        f"{counts['asked']} votes, {counts['valid']} valid{failed}; "
        f"{counts['pairs']} pairs, {counts['questions_with_ties']} questions with ties, "
        f"{counts['questions_below_min_valid_votes']} with too few votes, "
        f"{counts['identical_pairs_dropped']} identical pairs dropped"
    )
