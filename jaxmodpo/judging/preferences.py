"""``jaxmodpo preferences``: personas rank the replies to each question, and rankings become pairs.

For each criterion, each question's personas rank all its replies, shown in an order of their own;
ranks become points, points a ranking, and its ends a preference pair. Source: the paper's "Preference Collection
Using Patient Personas". What is asked and how votes add up is :mod:`jaxmodpo.judging.voting`'s; this
module joins it to files.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxmodpo.artifacts import (
    Candidate,
    Pair,
    Phase,
    Question,
    Ranking,
    read_personas,
    read_responses,
    write_pairs,
    write_rankings,
)
from jaxmodpo.config import builtin
from jaxmodpo.errors import UserError
from jaxmodpo.judging.collect import collect
from jaxmodpo.judging.criteria import Criterion, load_criteria
from jaxmodpo.judging.judge import Request
from jaxmodpo.judging.ledger import Ledger, Vote
from jaxmodpo.judging.settings import JudgeConfig, make_judge
from jaxmodpo.judging.voting import (
    PairRule,
    TieRule,
    aggregate,
    assign_personas,
    count_votes,
    position_weights,
    preference_pairs,
    shown_order,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PreferencesConfig(JudgeConfig):
    """Let personas rank the replies to each question, criterion by criterion."""

    responses: Path
    """question_id, question_text, response_id, response_text: two or more replies to a question"""
    personas: Path
    """{persona_id: persona text}; not those who will evaluate"""
    output_dir: Path
    """{criterion}_pairs.json, {criterion}_rankings.json and votes.jsonl are written here"""
    criteria: str = "therapeutic"
    """a criteria file, or the name of one of ours (therapeutic, gricean)"""
    only: tuple[str, ...] = ()
    """the criteria to ask about; all of the file if none is named"""
    personas_per_question: int = 50
    """how many personas rank each question's replies; 0 means all"""
    pairs: PairRule = "best-worst"
    """best-worst: one pair a question, of the first and the last; all: every two replies that differ in points"""
    ties: TieRule = "seed"
    """where several share the first or last place: let the seed name one, or drop the question"""
    min_valid_votes: int = 1
    """a question with fewer valid votes gives no pair and no ranking"""


@dataclass(frozen=True)
class Ballot:
    """One question with its replies and the personas who rank them."""

    question: Question
    replies: Mapping[str, Candidate]
    voters: Sequence[str]


def preferences(config: PreferencesConfig) -> Phase:
    """Run ``preferences``; a vote in the ledger is not asked again.

    Raises:
        UserError: bad settings or input, or a criterion that ends without a single pair.
    """
    if config.min_valid_votes < 1:
        raise UserError(f"--min-valid-votes is {config.min_valid_votes}; it must be at least 1")
    criteria = load_criteria(config.criteria, config.only)
    judge = make_judge(config)
    inputs = {
        "responses": config.responses,
        "personas": config.personas,
        "criteria": builtin("criteria", config.criteria),
    }
    phase = Phase.open("preferences", config, config.output_dir, inputs)
    if phase.finished:
        log.info("preferences: %s is finished", config.output_dir)
        return phase
    personas = read_personas(config.personas)
    ballots, left_out = read_ballots(config, list(personas))
    total = len(criteria) * sum(len(ballot.voters) for ballot in ballots)
    with Ledger(config.output_dir / "votes.jsonl") as ledger:
        votes = collect(
            requests(ballots, criteria, personas, config.seed),
            judge,
            ledger,
            max_concurrency=config.max_concurrency,
            label="preferences",
            total=total,
        )
    by_ballot: dict[tuple[str, str], list[Vote]] = {}
    for vote in votes:
        by_ballot.setdefault((vote.criterion, vote.question_id), []).append(vote)
    voted = count_votes(votes)
    counts: dict[str, dict[str, Any]] = {}
    for criterion in criteria:
        cast = [by_ballot[criterion.name, ballot.question.question_id] for ballot in ballots]
        pairs, rankings, outcome = count_out(config, ballots, cast)
        counts[criterion.name] = voted[criterion.name] | outcome
        if not pairs:
            raise UserError(
                f"{criterion.name}: no question gave a pair ({_described(counts[criterion.name])}); see "
                f"{config.output_dir / 'votes.jsonl'}; running the same command again asks failed votes again"
            )
        write_pairs(config.output_dir / f"{criterion.name}_pairs.json", pairs)
        write_rankings(config.output_dir / f"{criterion.name}_rankings.json", rankings)
        log.info("preferences: %s: %s", criterion.name, _described(counts[criterion.name]))
    phase.finish(
        judge=judge.identity,
        questions=len(ballots),
        questions_with_fewer_than_two_replies=left_out,
        votes_asked=len(votes),
        votes_valid=sum(c["valid"] for c in counts.values()),
        criteria=counts,
    )
    if any(c["failed"] for c in counts.values()):
        log.warning(
            "preferences: to ask the failed votes again, delete %s and run the same command",
            config.output_dir / "manifest.json",
        )
    return phase


def read_ballots(config: PreferencesConfig, persona_ids: Sequence[str]) -> tuple[list[Ballot], int]:
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
            raise UserError(f"{config.responses}: the question {row.question_id} stands there with two different texts")
        candidate = Candidate(row.response_id, row.response_text)
        replies.setdefault(row.question_id, {})[row.response_id] = candidate
    votable = [question for question, candidates in replies.items() if len(candidates) >= 2]
    if not votable:
        raise UserError(f"{config.responses}: no question has two replies, so there is nothing to prefer")
    left_out = len(replies) - len(votable)
    if left_out:
        log.warning("preferences: %d questions have fewer than two replies and are left out", left_out)
    voters = assign_personas(votable, persona_ids, config.personas_per_question, config.seed)
    return [Ballot(Question(q, texts[q]), replies[q], voters[q]) for q in votable], left_out


def requests(
    ballots: Sequence[Ballot], criteria: Sequence[Criterion], personas: Mapping[str, str], seed: int
) -> Iterator[Request]:
    """Yield what is asked: by criterion, then by question, then by persona."""
    for criterion in criteria:
        for ballot in ballots:
            question = ballot.question
            for persona in ballot.voters:
                shown = shown_order(list(ballot.replies), question.question_id, persona, seed)
                yield Request(
                    "rank",
                    question.question_id,
                    question.question_text,
                    persona,
                    personas[persona],
                    criterion,
                    tuple(ballot.replies[name] for name in shown),
                )


def count_out(
    config: PreferencesConfig, ballots: Sequence[Ballot], cast: Sequence[Sequence[Vote]]
) -> tuple[list[Pair], list[Ranking], dict[str, int]]:
    """Turn one criterion's votes into pairs and rankings, and count what became of the questions.

    A pair of identical texts is dropped. Where ties are dropped, a question with any tie has no
    ranking, since the file could only show it as an order.

    Args:
        config: the settings.
        ballots: the questions.
        cast: the votes on each ballot.

    Returns:
        Pairs, rankings, and counts: pairs, rankings, questions below the minimum of valid votes,
        questions with a tie, questions all of whose replies tie, identical pairs dropped, questions without a pair.
    """
    pairs: list[Pair] = []
    rankings: list[Ranking] = []
    too_few = tied = all_tied = identical = without_pair = 0
    for ballot, votes in zip(ballots, cast, strict=True):
        names = list(ballot.replies)
        result = aggregate(
            votes,
            names,
            position_weights(len(names)),
            seed=config.seed,
            min_valid_votes=config.min_valid_votes,
        )
        if result is None:
            too_few += 1
            without_pair += 1
            continue
        tied += result.has_ties
        all_tied += len(result.ranking) == 1
        question_id, text = ballot.question.question_id, ballot.question.question_text
        if not (config.ties == "drop" and result.has_ties):
            rankings.append(Ranking(question_id, text, tuple(ballot.replies[n] for n in result.order)))
        found = [
            Pair(question_id, text, ballot.replies[chosen], ballot.replies[rejected])
            for chosen, rejected in preference_pairs(result, config.pairs, config.ties)
        ]
        kept = [pair for pair in found if pair.chosen.response_text != pair.rejected.response_text]
        identical += len(found) - len(kept)
        without_pair += not kept
        pairs += kept
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
