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
from jaxmodpo.judging.ballots import Ballot, count_out
from jaxmodpo.judging.collect import BallotVotes, MakeRequests, collect, votes_by_ballot
from jaxmodpo.judging.forecast import forecast
from jaxmodpo.judging.judge import Request
from jaxmodpo.judging.prices import pay_judge
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
    TieRule,
    VotingProtocol,
    aggregate,
    assign_personas,
    position_weights,
    shown_order,
    with_repeats,
)
from jaxmodpo.parsing import JsonObject
from jaxmodpo.phase import Phase, in_phase
from jaxmodpo.ranges import CommandSettings, Count, CountOrZero, Incidental
from jaxmodpo.records import (
    Candidate,
    Question,
    read_personas,
    read_responses,
    write_pairs,
    write_rankings,
)
from jaxmodpo.results.versioned import plain

logger = logging.getLogger(__name__)

VOTE_BYTES = 680
"""a row of the ledger with its index: ids, shown order, raw and parsed answer, model, tokens"""
PAIR_BYTES = 3_600
"""a pair in JSON: two replies and the question"""


@dataclass(frozen=True, kw_only=True)
class PreferencesConfig(JudgeConfig, CommandSettings, help_group="votes"):
    """Let personas rank the replies to each question, criterion by criterion."""

    responses: Path
    """The replies to rank: a CSV file with the columns question_id, question_text, response_id and
    response_text. A question needs two replies or more; others are left out."""
    personas: Path
    """The personas who vote: a JSON file of {persona_id: persona text}. Take others than those who
    will evaluate."""
    output_dir: Incidental[Path]
    """The folder for {criterion}_pairs.json, {criterion}_rankings.json and votes.sqlite."""
    criteria: str = "therapeutic"
    """The criteria to vote by: a YAML file, or the name of one of ours (therapeutic, gricean)."""
    only: tuple[str, ...] = ()
    """The names of the criteria to ask about. All of the file are asked about if none is named."""
    personas_per_question: CountOrZero = 50
    """How many personas rank each question's replies. 0 means all of them. More make the points
    steadier and cost as many more calls."""
    pairs: PairRule = "best-worst"
    """Which pairs a question gives. best-worst: one, of the first and the last reply. all: one of
    every two replies that differ in points."""
    ties: TieRule = "seed"
    """What to do where several replies share the first or the last place. seed: the seed names one
    of them. drop: the question gives no best-worst pair."""
    min_valid_votes: Count = 1
    """The fewest valid votes with which a question still gives pairs and a ranking."""
    position_weights: tuple[float, ...] = ()
    """The points of each rank, best first. They must fall, and be as many as a question has
    replies. If none are given they fall evenly from 10 to -10 (of five: 10, 5, 0, -5, -10)."""
    protocol: VotingProtocol = "paper"
    """In which order replies are shown. paper: in an order of each persona's own. official-code:
    what the authors' scripts do: all see the file's order, which also breaks ties."""

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
        pay_judge(cost, self, "rank", replies_per_question, criteria_per_call)
        return cost


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
        ballot_votes = votes_by_ballot(make_requests, judge.identity, ledger)
        results, missing = count_votes(config, criteria, ballots, ballot_votes)
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
        # One id for two texts would have personas compare replies to different questions.
        if texts.setdefault(row.question_id, row.question_text) != row.question_text:
            raise UserError(
                f"{config.responses}: the question {row.question_id} stands there with two"
                " different texts"
            )
        # Voters do not see that a reply was cut; a training on these pairs can leave it out.
        candidate = Candidate(row.response_id, row.response_text, row.is_cut)
        replies.setdefault(row.question_id, {})[row.response_id] = candidate
    votable = [question for question, candidates in replies.items() if len(candidates) >= 2]
    if not votable:
        raise UserError(
            f"{config.responses}: no question has two replies, so there is nothing to prefer"
        )
    left_out = len(replies) - len(votable)
    if left_out:
        logger.warning(
            "preferences: %d questions have fewer than two replies and are left out",
            left_out,
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

    A request carries the number of its ballot.
    """
    # By criterion first, so that a run that is stopped early has whole criteria.
    for group in groups(criteria, config.criteria_per_call):
        for ballot_number, ballot in enumerate(ballots):
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
                    ballot_number=ballot_number,
                )


# --------------------------------------------------------------------------- what came of it


def count_votes(
    config: PreferencesConfig,
    criteria: Sequence[Criterion],
    ballots: Sequence[Ballot],
    ballot_votes: Iterable[BallotVotes],
) -> tuple[dict[str, list[Aggregate | None]], Missingness]:
    """Add up the votes on each ballot by each criterion.

    Args:
        config: the settings.
        criteria: by which votes were cast.
        ballots: in the order that :func:`requests` numbered them in.
        ballot_votes: the votes on each ballot.

    Returns:
        By criterion, a result for each ballot (None below the minimum of valid votes); and what is
        missing.
    """
    results: dict[str, list[Aggregate | None]] = {}
    for criterion in criteria:
        results[criterion.name] = [None] * len(ballots)
    missing = Missingness()
    for ballot_number, criterion_name, votes in ballot_votes:
        for vote in votes:
            missing.add(vote)
        names = list(ballots[ballot_number].replies)
        results[criterion_name][ballot_number] = aggregate(
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
) -> dict[str, JsonObject]:
    """Write each criterion's pairs and rankings; return its counts."""
    counts: dict[str, JsonObject] = {}
    for criterion in criteria:
        name = criterion.name
        outcome = count_out(ballots, results[name], config.pairs, config.ties)
        counts[name] = plain(missing.by_criterion()[name]) | outcome.counts()
        described = _described(counts[name])
        # Before anything of this criterion is written: an empty file of pairs would fail a training
        # much later, and nobody would look for the reason here.
        if not outcome.pairs:
            advice = (
                "'jaxmodpo votes' shows every answer, and --retry-errors asks failed votes again"
            )
            if config.judge == "replay":
                advice = "what was recorded is of other replies, personas or settings than these"
            raise UserError(f"{name}: no question gave a pair ({described}); {advice}")
        write_pairs(config.output_dir / f"{name}_pairs.json", outcome.pairs)
        write_rankings(config.output_dir / f"{name}_rankings.json", outcome.rankings)
        logger.info("preferences: %s: %s", name, described)
    return counts


def _described(counts: Mapping[str, Any]) -> str:
    """Return one criterion's counts as a sentence."""
    failed = "".join(f", {count} {status}" for status, count in counts["failed"].items())
    return (
        f"{counts['asked']} votes, {counts['valid']} valid{failed}; "
        f"{counts['pairs']} pairs, {counts['questions_with_ties']} questions with ties, "
        f"{counts['questions_below_min_valid_votes']} with too few votes, "
        f"{counts['identical_pairs_dropped']} identical pairs dropped"
    )
