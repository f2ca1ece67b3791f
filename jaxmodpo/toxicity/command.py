"""``jaxmodpo toxicity``: every reply is scored, and models are compared by their scores.

The flow, from files of replies to Table 1::

    files = ("base=base.csv", "modpo=modpo.csv")
    config = ToxicityConfig(responses=files, scorer="classifier", model=folder, output_dir=out)
    toxicity(config)        # out/toxicity.json, out/scores.csv, out/table.csv
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from jaxmodpo.errors import UserError
from jaxmodpo.files import Row, write_table
from jaxmodpo.judging.collect import collect, is_open, votes_by_request
from jaxmodpo.judging.database import NoLedger
from jaxmodpo.judging.judge import Call, Request, call_key, vote_keys
from jaxmodpo.judging.ledger import Ledger
from jaxmodpo.judging.votes import Vote
from jaxmodpo.phase import Phase, in_phase
from jaxmodpo.results.toxicity import TOXICITY, ModelToxicity, ToxicityResults
from jaxmodpo.results.versioned import write_result
from jaxmodpo.toxicity.replies import Reply, read_replies, with_even_questions
from jaxmodpo.toxicity.scorers import Scorer, shown_scores
from jaxmodpo.toxicity.settings import SERVICES, ToxicityConfig, make_scorer
from jaxmodpo.toxicity.summary import (
    TABLE_COLUMNS,
    Rules,
    ScoredReply,
    paired_tests,
    summarize_model,
    table_rows,
)

logger = logging.getLogger(__name__)

VOTES = "votes.sqlite"

NOTE = (
    "A scorer of toxicity looks for insults, threats and hate. It says nothing of whether a reply"
    " helps, or whether following it is safe."
)
PERSPECTIVE_NOTE = "The Perspective API closes at the end of 2026: keep the ledger of its scores."


def toxicity(config: ToxicityConfig) -> Phase | None:
    """Score every reply, and write Table 1.

    Returns:
        The phase; None for a dry run.

    Raises:
        UserError: bad settings or input, a scorer that cannot work here, or replies of which none
            could be scored.
    """
    config.check()
    if config.dry_run:
        scorer = make_scorer(config)
        shown_scores(scorer, config.labels, config.headline)
        print(forecast(config, scorer, _replies(config, scorer)))
        return None
    return _score(config)


@in_phase("toxicity")
def _score(config: ToxicityConfig, phase: Phase) -> None:
    scorer = make_scorer(config)
    if config.scorer == "perspective":
        logger.warning("%s", PERSPECTIVE_NOTE)
    replies = _replies(config, scorer)
    scored = _collected(config, scorer, replies, phase)
    names, headline = shown_scores(scorer, config.labels, config.headline)
    by_model: dict[str, list[ScoredReply]] = {name: [] for name in config.files()}
    for reply in scored:
        by_model[reply.model].append(reply)
    # Scores of nothing would give a table of zeros and dashes that looks like a result.
    if not any(reply.scores for reply in scored):
        statuses = {reply.status or "empty" for reply in scored}
        listed = ", ".join(sorted(statuses))
        raise UserError(
            f"no reply could be scored ({listed}); see the ledger for what the scorer said, and"
            " --retry-errors to ask again"
        )
    rules = Rules(config.threshold, config.bootstrap, config.seed)
    models: dict[str, ModelToxicity] = {}
    toxic: dict[str, int] = {}
    for name, rows in by_model.items():
        models[name] = summarize_model(rows, names, rules)
        toxic[name] = models[name].scores[headline].above
    note = f"{NOTE} {PERSPECTIVE_NOTE}" if config.scorer == "perspective" else NOTE
    results = ToxicityResults(
        scorer=scorer.identity,
        note=note,
        headline=headline,
        threshold=config.threshold,
        scores=names,
        models=models,
        tests=tuple(paired_tests(by_model, names, rules)),
    )
    _write(config.output_dir, results, scored)
    _warn(results)
    phase.finish(replies=len(scored), headline=headline, toxic=toxic)
    for line in in_words(results):
        logger.info("toxicity: %s", line)


def _replies(config: ToxicityConfig, scorer: Scorer) -> list[Reply]:
    """Read the replies that the settings ask for."""
    replies = read_replies(config.files(), scorer)
    return with_even_questions(replies, config.uneven_questions)


# --------------------------------------------------------------------------- scores


def _collected(
    config: ToxicityConfig, scorer: Scorer, replies: Sequence[Reply], phase: Phase
) -> list[ScoredReply]:
    """Return every reply with its scores, of which the ledger is asked first."""

    def requests() -> Iterator[Request]:
        return (reply.request for reply in replies if reply.request is not None)

    run = phase.manifest.identity.digest()[:32]
    with Ledger(config.ledger or phase.directory / VOTES, run) as ledger:
        total = sum(reply.request is not None for reply in replies) * len(scorer.criteria)
        collect(requests, scorer, ledger, label="toxicity", total=total, retry=config.retry_errors)
        # In the order of the requests, which is that of the replies that have one.
        votes = iter(votes_by_request(requests, scorer.identity, ledger))
        scored: list[ScoredReply] = []
        for reply in replies:
            # Nobody is asked about a reply without text, and it has no score.
            if reply.request is None:
                scored.append(ScoredReply(reply.model, reply.question_id, reply.number, "", {}))
            else:
                _, votes_of_reply = next(votes)
                is_cut = scorer.is_cut(reply.request)
                scored.append(_scored(reply, votes_of_reply, is_cut))
    return scored


def _scored(reply: Reply, votes: Sequence[Vote], is_cut: bool) -> ScoredReply:
    scores: dict[str, float] = {}
    for vote in votes:
        if vote.score is not None:
            scores[vote.criterion] = vote.score
    # All scores of a reply come from one call, so that without any they failed for one reason.
    status = "valid" if scores else votes[0].status
    return ScoredReply(reply.model, reply.question_id, reply.number, status, scores, is_cut)


def forecast(config: ToxicityConfig, scorer: Scorer, replies: Sequence[Reply]) -> str:
    """Return what a run would do: replies to score, what is in the ledger, what leaves the
    machine.
    """
    empty = 0
    # By key, since replies of the same text are one request.
    requests: dict[str, Request] = {}
    for reply in replies:
        if reply.request is None:
            empty += 1
        else:
            key = call_key(reply.request, scorer.identity)
            requests[key] = reply.request
    to_come = _unanswered(config, requests)
    lines = [
        f"{len(replies):,} replies in {len(config.files())} files, {empty:,} of them empty:"
        f" {len(requests):,} different texts; {len(requests) - to_come:,} are in the ledger,"
        f" {to_come:,} to come",
    ]
    if scorer.sends_to:
        lines.append(
            f"these replies would be sent to {scorer.sends_to}, a call each; the service asks no"
            " money for them"
        )
    elif config.scorer in SERVICES:
        lines.append("the service is on this machine")
    else:
        lines.append("no text leaves this machine, and nothing is paid")
    if config.scorer == "perspective":
        lines.append(PERSPECTIVE_NOTE)
    return "\n".join(lines)


def _unanswered(config: ToxicityConfig, requests: Mapping[str, Request]) -> int:
    """Count the requests that lack a score in the ledger."""
    try:
        ledger = Ledger(config.ledger or config.output_dir / VOTES, read_only=True)
    except NoLedger:
        return len(requests)
    # A request has a vote under each of its scores' keys.
    keys_by_request = [vote_keys(Call(key, request)) for key, request in requests.items()]
    with ledger:
        statuses = ledger.statuses(list(itertools.chain.from_iterable(keys_by_request)))

    def is_unanswered(vote_key: str) -> bool:
        return is_open(statuses.get(vote_key), config.retry_errors)

    # A request is asked again as a whole where one of its scores is lacking.
    return sum(any(map(is_unanswered, keys)) for keys in keys_by_request)


# --------------------------------------------------------------------------- output


def _write(folder: Path, results: ToxicityResults, scored: Sequence[ScoredReply]) -> None:
    write_result(folder / TOXICITY, results)
    write_table(folder / "table.csv", table_rows(results.models, results.threshold), TABLE_COLUMNS)
    columns = ("model", "question_id", "number", "status", "cut", *results.scores)
    write_table(folder / "scores.csv", [_score_row(reply) for reply in scored], columns)


def _score_row(reply: ScoredReply) -> Row:
    own_columns = {
        "model": reply.model,
        "question_id": reply.question_id,
        "number": reply.number,
        "status": reply.status or "empty",
        "cut": "yes" if reply.is_cut else "no",
    }
    # Last, so that a label with such a name takes no column's place.
    return dict(reply.scores) | own_columns


def _warn(results: ToxicityResults) -> None:
    for name, model in results.models.items():
        failed = sum(model.failed.values())
        if failed:
            statuses = ", ".join(f"{count} {status}" for status, count in model.failed.items())
            logger.warning(
                "toxicity: %d of %s's %d replies have no scores (%s); --retry-errors asks again",
                failed,
                name,
                model.replies,
                statuses,
            )
        if model.empty or model.cut:
            logger.warning(
                "toxicity: of %s's %d replies %d are empty and not scored, and of %d the beginning"
                " alone is read",
                name,
                model.replies,
                model.empty,
                model.cut,
            )
    questions = {name: model.questions for name, model in results.models.items()}
    if len(set(questions.values())) > 1:
        counts = ", ".join(f"{name} {count}" for name, count in questions.items())
        logger.warning(
            "toxicity: the models answer different numbers of questions (%s); tests compare the"
            " common ones, and --uneven-questions common counts no others",
            counts,
        )


def in_words(results: ToxicityResults) -> list[str]:
    """Return a sentence for each model by the score that counts as toxic."""
    sentences: list[str] = []
    for name, model in results.models.items():
        summary = model.scores[results.headline]
        if summary.mean is None or summary.share is None or summary.share_interval is None:
            sentences.append(f"{name}: no reply has the score {results.headline}")
            continue
        low, high = summary.share_interval
        sentences.append(
            f"{name}: {summary.above} of {summary.scored} replies toxic"
            f" ({100 * summary.share:.1f}%, 95% interval {100 * low:.1f}–{100 * high:.1f}), mean"
            f" {results.headline} {summary.mean:.4f}"
        )
    return sentences
