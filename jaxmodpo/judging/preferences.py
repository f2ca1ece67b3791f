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
from dataclasses import dataclass
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
        pairs_per_question = math.comb(replies_per_question, 2) if self.pairs == "all" else 1
        for criterion in criteria:
            pairs = self.output_dir / f"{criterion.name}_pairs.json"
            rankings = self.output_dir / f"{criterion.name}_rankings.json"
            estimator.counts[pairs] = questions * pairs_per_question
            estimator.counts[rankings], estimator.per_question[rankings] = (
                questions,
                replies_per_question,
            )
        requests = round(questions * personas * (1 + self.repeat_share))
        calls = groups(criteria, self.criteria_per_call)
        votes, files = requests * len(criteria), questions * len(criteria)
        cost = Cost(
            judge_calls=requests * len(calls), disk=VOTE_BYTES * votes + 2 * PAIR_BYTES * files
        )
        estimator.pay_judge(
            cost, self, "rank", replies_per_question, round(len(criteria) / len(calls))
        )
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
        results, missing = count_votes(
            config, criteria, ballots, votes_by_slot(make_requests, judge.identity, ledger)
        )
        used = ledger.spent(ledger.run)
    counts = _write(config, criteria, ballots, results, missing)
    phase.finish(
        judge=judge.identity,
        questions=len(ballots),
        questions_with_fewer_than_two_replies=left_out,
        votes_asked=sum(c["asked"] for c in counts.values()),
        votes_valid=sum(c["valid"] for c in counts.values()),
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
    ballots = read_ballots(config)[0] if ballots is None else ballots

    def asked() -> Iterator[Request]:
        return with_repeats(
            requests(config, ballots, criteria, personas), config.repeat_share, config.seed
        )

    total = len(criteria) * sum(len(ballot.voters) for ballot in ballots)
    return asked, round(total * (1 + config.repeat_share))


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
        pairs, rankings, outcome = count_out(config, ballots, results[criterion.name])
        counts[criterion.name] = missing.by_criterion()[criterion.name] | outcome
        if not pairs:
            advice = (
                "'jaxmodpo votes' shows every answer, and --retry-errors asks failed votes again"
            )
            if config.judge == "replay":
                advice = "what was recorded is of other replies, personas or settings than these"
            raise UserError(
                f"{criterion.name}: no question gave a pair ({_described(counts[criterion.name])});"
                f" {advice}"
            )
        write_pairs(config.output_dir / f"{criterion.name}_pairs.json", pairs)
        write_rankings(config.output_dir / f"{criterion.name}_rankings.json", rankings)
        log.info("preferences: %s: %s", criterion.name, _described(counts[criterion.name]))
    return counts


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
    results: dict[str, list[Aggregate | None]] = {
        criterion.name: [None] * len(ballots) for criterion in criteria
    }
    missing = Missingness()
    for slot, criterion, votes in cast:
        for vote in votes:
            missing.add(vote)
        names = list(ballots[slot].replies)
        results[criterion][slot] = aggregate(
            votes,
            names,
            position_weights(len(names), config.position_weights),
            seed=config.seed,
            min_valid_votes=config.min_valid_votes,
            protocol=config.protocol,
        )
    return results, missing


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
        position_weights(
            len(replies[question]), config.position_weights
        )  # refuses weights of another number
    personas = list(read_personas(config.personas))
    voters = assign_personas(votable, personas, config.personas_per_question, config.seed)
    return [Ballot(Question(q, texts[q]), replies[q], voters[q]) for q in votable], left_out


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
                    "rank",
                    question.question_id,
                    question.question_text,
                    persona,
                    personas[persona],
                    group,
                    tuple(ballot.replies[name] for name in response_order),
                    slot=slot,
                )


def count_out(
    config: PreferencesConfig, ballots: Sequence[Ballot], results: Sequence[Aggregate | None]
) -> tuple[list[Pair], list[Ranking], dict[str, int]]:
    """Turn one criterion's results into pairs and rankings, and count what became of the questions.

    A pair of identical texts is dropped. In a ranking, equal points share a rank.

    Args:
        config: the settings.
        ballots: the questions.
        results: of each ballot; None where there are too few valid votes.

    Returns:
        Pairs, rankings, and counts: pairs, rankings, questions below the minimum of valid votes,
        questions with a tie, questions all of whose replies tie, identical pairs dropped, questions
        without a pair.
    """
    pairs: list[Pair] = []
    rankings: list[Ranking] = []
    too_few = tied = all_tied = identical = without_pair = 0
    for ballot, result in zip(ballots, results, strict=True):
        if result is None:
            too_few += 1
            without_pair += 1
            continue
        tied += result.has_ties
        all_tied += len(result.ranking) == 1
        question_id, text = ballot.question.question_id, ballot.question.question_text
        rankings.append(
            Ranking(question_id, text, tuple(ballot.replies[n] for n in result.order), result.ranks)
        )
        voted_pairs = [
            Pair(question_id, text, ballot.replies[better], ballot.replies[rejected])
            for better, rejected in preference_pairs(result, config.pairs, config.ties)
        ]
        distinct_pairs = [
            pair for pair in voted_pairs if pair.chosen.response_text != pair.rejected.response_text
        ]
        identical += len(voted_pairs) - len(distinct_pairs)
        without_pair += not distinct_pairs
        pairs += distinct_pairs
    return (
        pairs,
        rankings,
        {
            "pairs": len(pairs),
            "rankings": len(rankings),
            "questions_below_min_valid_votes": too_few,
            "questions_with_ties": tied,
            "questions_all_tied": all_tied,
            "identical_pairs_dropped": identical,
            "questions_without_pair": without_pair,
        },
    )


def _described(counts: Mapping[str, Any]) -> str:
    failed = ", ".join(f"{n} {status}" for status, n in counts["failed"].items())
    return (
        f"{counts['asked']} votes, {counts['valid']} valid{f', {failed}' if failed else ''}; "
        f"{counts['pairs']} pairs, {counts['questions_with_ties']} questions with ties, "
        f"{counts['questions_below_min_valid_votes']} with too few votes, "
        f"{counts['identical_pairs_dropped']} identical pairs dropped"
    )
