"""``jaxmodpo evaluate``: models answer the same questions, personas say which reply is better.

For each criterion and each pair of models, every unit (a question and the number of the reply) is
put to the personas, blinded and with balanced positions, and the majority decides it. This follows
the paper's "Evaluation Methodology"; it is a module of its own because it alone knows how votes
become outcome arrays, which :mod:`jaxmodpo.evaluation.statistics` takes from there.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxmodpo.config import builtin, named_values
from jaxmodpo.costs import Cost, Estimates
from jaxmodpo.errors import UserError
from jaxmodpo.evaluation import statistics
from jaxmodpo.files import write_json, write_table
from jaxmodpo.fingerprints import digest
from jaxmodpo.judging.collect import MakeRequests, SlotVotes, collect, votes_by_slot
from jaxmodpo.judging.criteria import Criterion, load_criteria
from jaxmodpo.judging.forecast import forecast
from jaxmodpo.judging.judge import Request
from jaxmodpo.judging.settings import (
    JudgeConfig,
    groups,
    make_judge,
    open_ledger,
    warn_of_failed,
)
from jaxmodpo.judging.votes import Vote
from jaxmodpo.judging.voting import (
    Missingness,
    Protocol,
    Tally,
    assign_personas,
    both_orders,
    head_to_head_positions,
    tally,
    with_repeats,
)
from jaxmodpo.phase import Phase, open_phase
from jaxmodpo.ranges import Count, CountOrZero, Incidental
from jaxmodpo.records import Candidate, Question, read_personas, read_responses

log = logging.getLogger(__name__)

OUTCOME_COLUMNS = (
    "criterion", "a", "b", "question_id", "reply", "votes_a", "votes_b", "ties", "failed", "identical", "outcome"
)  # fmt: skip

VOTE_BYTES = 550
"""a row of the ledger with its index: ids, shown order, raw and parsed answer, model, tokens"""
STAND_IN = (
    "The judge was the built-in rubric, a stand-in for patients that scores words: these numbers have no "
    "clinical meaning."
)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(JudgeConfig):
    """Compare models head to head: blinded replies, balanced positions, a majority of personas."""

    responses: tuple[str, ...]
    """The models' replies, NAME=FILE.csv each: the same questions with equally many replies."""

    personas: Path
    """The personas who vote, a JSON file from id to text; not those used in training."""

    output_dir: Incidental[Path]
    """Folder for results.json, outcomes.csv and votes.sqlite."""

    criteria: str = "therapeutic"
    """A criteria file, or the name of one of ours."""

    only: tuple[str, ...] = ()
    """The criteria to judge by; all of the file if none is named."""

    personas_per_question: CountOrZero = 0
    """How many personas vote on each question; 0 means all."""

    allow_ties: bool = False
    """Let a persona say that neither reply is better."""

    both_orders: bool = False
    """Show each persona both orders, at twice the calls; a verdict that turns with the order is a tie."""

    protocol: Protocol = "paper"
    """paper: half of the personas see one model first, the other half the other; official-code: what the authors'
    scripts do, all see the same first, by one draw a question."""

    bootstrap: Count = 2000
    """How many times the questions are resampled for the 95% intervals."""

    def check(self) -> None:
        super().check()
        if len(self.files()) < 2:
            raise UserError("--responses needs at least two models to compare, NAME=FILE.csv each")

    def input_paths(self) -> dict[str, Path]:
        paths = {f"responses.{name}": path for name, path in self.files().items()}
        return super().input_paths() | paths | {"criteria": builtin("criteria", self.criteria)}

    def cost(self, estimator: Estimates) -> Cost:
        files = self.files().values()
        units = min(estimator.rows(path) for path in files)
        personas = self.personas_per_question or estimator.rows(self.personas)
        criteria = load_criteria(self.criteria, self.only)
        requests = units * math.comb(len(files), 2) * personas * (2 if self.both_orders else 1)
        requests = round(requests * (1 + self.repeat_share))
        calls = groups(criteria, self.criteria_per_call)
        cost = Cost(judge_calls=requests * len(calls), disk=VOTE_BYTES * requests * len(criteria))
        estimator.pay_judge(cost, self, "compare", 2, round(len(criteria) / len(calls)))
        return cost

    def files(self) -> dict[str, Path]:
        """Return each model's file of replies."""
        return {name: Path(path) for name, path in named_values(self.responses, "--responses").items()}


@dataclass(frozen=True)
class Contest:
    """What is compared: each model's replies, ``[questions][replies]``, and who judges by what."""

    replies: Mapping[str, Sequence[Sequence[Candidate]]]
    questions: Sequence[Question]
    criteria: Sequence[Criterion]
    personas: Mapping[str, str]
    voters: Mapping[str, Sequence[str]]

    @property
    def models(self) -> list[str]:
        return list(self.replies)

    @property
    def replies_per_question(self) -> int:
        return len(next(iter(self.replies.values()))[0])


@dataclass(frozen=True, slots=True)
class Unit:
    """Two models' replies of one number to one question, ``a`` against ``b``."""

    model_a: int
    model_b: int
    question: int
    reply: int
    a: Candidate
    b: Candidate

    @property
    def identical(self) -> bool:
        return self.a.response_text == self.b.response_text


def evaluate(config: EvaluateConfig) -> Phase | None:
    """Judge every pair of models and write win rates, intervals and tests.

    Returns:
        The phase; None for a dry run.

    Raises:
        UserError: bad settings or input; models that do not answer the same questions; a budget that is
            spent; a pair of models without a single valid vote.
    """
    config.check()
    contest = load_contest(config)
    units = list(plan(contest))
    asked, total = _plan(config, contest, units)
    if config.dry_run:
        forecast(config, config.output_dir, asked, total)
        return None
    config.check_machine()
    warn_of_empty_replies(contest)
    phase = open_phase("evaluate", config)
    if phase.finished and not config.goes_on(phase.results):
        return phase
    phase.reopen()
    with open_ledger(config, phase) as ledger:
        judge = make_judge(config, ledger, config.output_dir)
        collect(asked, judge, ledger, label="evaluate", total=total, retry=config.retry_errors)
        tallies, missing = count_votes(config, units, votes_by_slot(asked, judge.identity, ledger))
        used = ledger.spent(ledger.run)
    rows = outcome_rows(contest, units, tallies)
    table = outcome_table(contest, rows)
    _refuse_pairs_without_votes(contest, table)
    counts = count(contest, rows, missing)
    results = summarise(contest, table, resamples=config.bootstrap, seed=config.seed) | {
        "counts": counts,
        "questions": len(contest.questions),
        **judged_of_asked(contest, table),
        "empty_replies": empty_replies(contest),
        "replies_per_question": contest.replies_per_question,
        "judge": judge.identity,
        "note": STAND_IN if config.judge == "rubric" else "",
    }
    write_table(config.output_dir / "outcomes.csv", rows, OUTCOME_COLUMNS)
    write_json(config.output_dir / "results.json", results)
    judged = results["questions_judged"]
    if judged < len(contest.questions):
        log.warning(
            "evaluate: only %d of %d questions were judged by every criterion in every comparison; the win rates are "
            "of those that were (questions_judged_by_comparison in results.json)",
            judged,
            len(contest.questions),
        )
    totals = {name: value for name, value in counts.items() if name != "by_criterion"}
    phase.finish(questions=len(contest.questions), questions_judged=judged, **totals, spent=used._asdict())
    warn_of_failed("evaluate", missing)
    for line in in_words(results):
        log.info("evaluate: %s", line)
    log.info("evaluate: %d models, %d votes, in %s", len(contest.models), counts["votes_asked"], config.output_dir)
    return phase


def _plan(config: EvaluateConfig, contest: Contest, units: Sequence[Unit]) -> tuple[MakeRequests, int]:
    """Return what generates the requests, and how many votes they will bring."""

    def asked() -> Iterator[Request]:
        return with_repeats(requests(config, contest, units), config.repeat_share, config.seed)

    voters = sum(len(contest.voters[contest.questions[u.question].question_id]) for u in units if not u.identical)
    votes = voters * len(contest.criteria) * (2 if config.both_orders else 1)
    return asked, round(votes * (1 + config.repeat_share))


# --------------------------------------------------------------------------- input


def load_contest(config: EvaluateConfig) -> Contest:
    """Read and check everything that is compared."""
    files = config.files()
    questions, replies = read_replies(files)
    refuse_empty_models(files, replies)
    criteria = load_criteria(config.criteria, config.only)
    personas = read_personas(config.personas)
    ids = [question.question_id for question in questions]
    voters = assign_personas(ids, list(personas), config.personas_per_question, config.seed)
    return Contest(replies, questions, criteria, personas, voters)


def refuse_empty_models(files: Mapping[str, Path], replies: Mapping[str, Sequence[Sequence[Candidate]]]) -> None:
    """Refuse a model without a word in any reply, before a vote is paid for.

    Two such models would tie on every question and score 0.5, which reads like a result.
    """
    for name, answered in replies.items():
        if not any(candidate.response_text.strip() for texts in answered for candidate in texts):
            raise UserError(
                f"{files[name]}: every reply of {name} is empty, so there is nothing to compare; "
                "write its replies again with 'jaxmodpo responses', or leave the model out"
            )


def read_replies(files: Mapping[str, Path]) -> tuple[list[Question], dict[str, list[list[Candidate]]]]:
    """Read each model's replies, blinded, in the order of the first model's questions.

    Raises:
        UserError: a model lacks a question, has one more, another text for it, or another number of
            replies; the message names model and question.
    """
    read = {name: _by_question(path) for name, path in files.items()}
    first = next(iter(files))
    questions = [question for question, _ in read[first].values()]
    number = len(next(iter(read[first].values()))[1])
    for name, answered in read.items():
        for question in questions:
            if question.question_id not in answered:
                raise UserError(
                    f"{files[name]}: {name} has no reply to question {question.question_id}, which {first} has; "
                    "all models must answer the same questions"
                )
            other, texts = answered[question.question_id]
            if other.question_text != question.question_text:
                raise UserError(
                    f"{files[name]}: {name} and {first} have different texts for question {question.question_id}; "
                    "all models must answer the same questions"
                )
            if len(texts) != number:
                raise UserError(
                    f"{files[name]}: {name} has {len(texts)} replies to question {question.question_id}, not "
                    f"{number} as {first} to its first; all models need equally many replies to every question"
                )
        extra = [key for key in answered if key not in read[first]]
        if extra:
            raise UserError(
                f"{files[name]}: {name} has a reply to question {extra[0]}, which {first} has not; "
                "all models must answer the same questions"
            )
    return questions, {
        name: [
            [blind(question, n, text) for n, text in enumerate(answered[question.question_id][1])]
            for question in questions
        ]
        for name, answered in read.items()
    }


def _by_question(path: Path) -> dict[str, tuple[Question, list[str]]]:
    answered: dict[str, tuple[Question, list[str]]] = {}
    for row in read_responses(path):
        question, texts = answered.setdefault(row.question_id, (Question(row.question_id, row.question_text), []))
        if question.question_text != row.question_text:
            raise UserError(f"{path}: question {row.question_id} stands there with two different texts")
        texts.append(row.response_text)
    return answered


def blind(question: Question, reply: int, text: str) -> Candidate:
    """Give a reply an id that says nothing of its model, and is the same whatever the model is called."""
    return Candidate(digest([question.question_id, reply, text])[:16], text)


# --------------------------------------------------------------------------- judging


def plan(contest: Contest) -> Iterator[Unit]:
    """Yield every unit of every pair of models, one pair after the other, in a fixed order."""
    for (a, replies_a), (b, replies_b) in itertools.combinations(enumerate(contest.replies.values()), 2):
        for question, both in enumerate(zip(replies_a, replies_b, strict=True)):
            for reply, (candidate_a, candidate_b) in enumerate(zip(*both, strict=True)):
                yield Unit(a, b, question, reply, candidate_a, candidate_b)


def requests(config: EvaluateConfig, contest: Contest, units: Iterable[Unit]) -> Iterator[Request]:
    """Yield the requests of each unit: by criterion (or all that one call asks about), then by persona.

    There are none where the texts are identical. Half of a unit's personas see one model first and
    half the other, whichever model was named first in the settings: the pair is put in the order of
    its names before the positions are drawn. With ``both_orders`` each persona's other order follows.
    A request's slot is the number of its unit.
    """
    names = contest.models
    for slot, unit in enumerate(units):
        if unit.identical:
            continue
        question = contest.questions[unit.question]
        voters = contest.voters[question.question_id]
        swapped = names[unit.model_b] < names[unit.model_a]
        upper, lower = (unit.b, unit.a) if swapped else (unit.a, unit.b)
        pair = sorted((names[unit.model_a], names[unit.model_b]))
        # The authors' scripts draw once a question.
        drawn = (
            [question.question_id] if config.protocol == "official-code" else [question.question_id, unit.reply, *pair]
        )
        positions = head_to_head_positions(digest(drawn), voters, config.seed, config.protocol)
        for group in groups(contest.criteria, config.criteria_per_call):
            for persona in voters:
                shown = (upper, lower) if persona in positions else (lower, upper)
                for order in (shown, shown[::-1])[: 2 if config.both_orders else 1]:
                    yield Request(
                        "compare",
                        question.question_id,
                        question.question_text,
                        persona,
                        contest.personas[persona],
                        group,
                        order,
                        ties=config.allow_ties,
                        slot=slot,
                    )


# --------------------------------------------------------------------------- outcomes


def count_votes(
    config: EvaluateConfig, units: Sequence[Unit], cast: Iterable[SlotVotes]
) -> tuple[dict[tuple[str, int], Tally], Missingness]:
    """Count the votes on each unit by each criterion.

    Args:
        config: the settings.
        units: :func:`plan`'s.
        cast: the votes, whose slot is the number of their unit.

    Returns:
        The counts by criterion and number of the unit, and what is missing. With ``both_orders`` a persona's two
        votes are one verdict. Units of identical texts have no votes and no counts.
    """
    tallies: dict[tuple[str, int], Tally] = {}
    missing = Missingness()
    for slot, criterion, votes in cast:
        for vote in votes:
            missing.add(vote)
        unit = units[slot]
        verdicts = _verdicts(votes, config.both_orders)
        tallies[criterion, slot] = tally(verdicts, unit.a.response_id, unit.b.response_id)
    return tallies, missing


def _verdicts(votes: Sequence[Vote], in_both_orders: bool) -> list[tuple[str, ...] | None]:
    if not in_both_orders:
        return [vote.order for vote in votes]
    by_persona: dict[str, list[Vote]] = {}
    for vote in votes:
        by_persona.setdefault(vote.persona_id, []).append(vote)
    return [both_orders(first, second) for first, second in by_persona.values()]


def outcome_rows(
    contest: Contest, units: Sequence[Unit], tallies: Mapping[tuple[str, int], Tally]
) -> list[dict[str, Any]]:
    """Decide each unit by the majority of its votes: one row per criterion and unit, criteria outermost.

    ``outcome`` is 1 where a won, 0 where b won, 0.5 for as many votes for each or identical texts,
    and empty where no vote was valid. ``reply`` counts from 1.
    """
    names = contest.models
    rows: list[dict[str, Any]] = []
    for criterion in contest.criteria:
        for slot, unit in enumerate(units):
            counts = Tally(0, 0, 0, 0) if unit.identical else tallies[criterion.name, slot]
            decided = unit.identical or counts.a + counts.b + counts.ties > 0
            rows.append(
                {
                    "criterion": criterion.name,
                    "a": names[unit.model_a],
                    "b": names[unit.model_b],
                    "question_id": contest.questions[unit.question].question_id,
                    "reply": unit.reply + 1,
                    "votes_a": counts.a,
                    "votes_b": counts.b,
                    "ties": counts.ties,
                    "failed": counts.failed,
                    "identical": int(unit.identical),
                    "outcome": 0.5 * (1 + (counts.a > counts.b) - (counts.a < counts.b)) if decided else "",
                }
            )
    return rows


def outcome_table(contest: Contest, rows: Sequence[Mapping[str, Any]]) -> dict[str, statistics.Array]:
    """Arrange outcomes by criterion into the arrays ``[models, models, questions, replies]`` of the statistics."""
    model = {name: n for n, name in enumerate(contest.models)}
    question = {q.question_id: n for n, q in enumerate(contest.questions)}
    shape = (len(model), len(model), len(question), contest.replies_per_question)
    table = {criterion.name: np.full(shape, np.nan) for criterion in contest.criteria}
    for row in rows:
        if row["outcome"] != "":
            a, b, at = model[row["a"]], model[row["b"]], (question[row["question_id"]], row["reply"] - 1)
            table[row["criterion"]][(a, b, *at)] = row["outcome"]
            table[row["criterion"]][(b, a, *at)] = 1 - row["outcome"]
    return table


def _refuse_pairs_without_votes(contest: Contest, table: Mapping[str, statistics.Array]) -> None:
    for criterion, outcomes in table.items():
        decided = np.asarray(np.isfinite(outcomes).any(axis=(2, 3)))
        for a, b in itertools.combinations(range(len(contest.models)), 2):
            if not decided[a, b]:
                raise UserError(
                    f"{criterion}: not one vote on {contest.models[a]} against {contest.models[b]} is valid; "
                    "'jaxmodpo votes' shows what the judge said, and --retry-errors asks failed votes again"
                )


def count(contest: Contest, rows: Sequence[Mapping[str, Any]], missing: Missingness) -> dict[str, Any]:
    """Count votes and units, in all and by criterion, and failed votes by persona and by model."""
    voted = missing.by_criterion()
    by_criterion: dict[str, dict[str, Any]] = {}
    for criterion in (c.name for c in contest.criteria):
        own = [row for row in rows if row["criterion"] == criterion]
        of_votes = voted.get(criterion, {"asked": 0, "valid": 0, "failed": {}})
        by_criterion[criterion] = {
            "votes_asked": of_votes["asked"],
            "valid": of_votes["valid"],
            "failed": of_votes["failed"],
            "units": len(own),
            "units_without_valid_vote": sum(row["outcome"] == "" for row in own),
            "units_tied": sum(row["outcome"] == 0.5 for row in own),
            "identical_replies": sum(row["identical"] for row in own),
        }
    totals: dict[str, Any] = {
        name: sum(counts[name] for counts in by_criterion.values())
        for name in next(iter(by_criterion.values()))
        if name != "failed"
    }
    statuses = sorted({status for counts in by_criterion.values() for status in counts["failed"]})
    totals["failed"] = {
        status: sum(counts["failed"].get(status, 0) for counts in by_criterion.values()) for status in statuses
    }
    return totals | {"by_criterion": by_criterion, "missing": missing.summary()}


# --------------------------------------------------------------------------- results


def summarise(contest: Contest, table: Mapping[str, statistics.Array], *, resamples: int, seed: int) -> dict[str, Any]:
    """Turn outcomes into average win rates, pairwise win rates, their intervals, and tests."""
    names, criteria = contest.models, list(table)
    settings = {"resamples": resamples, "seed": seed}
    averages = {c: statistics.estimate_average_win_rates(table[c], **settings) for c in criteria}
    pairs = {c: statistics.estimate_win_rate(table[c], **settings) for c in criteria}

    def square(values: Any) -> dict[str, dict[str, Any]]:
        return {a: {b: values(i, j) for j, b in enumerate(names) if j != i} for i, a in enumerate(names)}

    return {
        "models": {name: {c: float(averages[c].value[n]) for c in criteria} for n, name in enumerate(names)},
        "intervals": {
            name: {c: ends(averages[c].low[n], averages[c].high[n]) for c in criteria} for n, name in enumerate(names)
        },
        "pairwise": {c: square(lambda i, j, c=c: float(pairs[c].value[i, j])) for c in criteria},
        "pairwise_intervals": {
            c: square(lambda i, j, c=c: ends(pairs[c].low[i, j], pairs[c].high[i, j])) for c in criteria
        },
        "tests": {c: tests(names, table[c], **settings) for c in criteria},
        "criteria": criteria,
    }


def ends(low: ArrayLike, high: ArrayLike) -> list[float] | None:
    """Return an interval for JSON; None where there is none."""
    both = np.array([low, high], dtype=np.float64)
    return both.tolist() if np.isfinite(both).all() else None


def judged_of_asked(contest: Contest, table: Mapping[str, statistics.Array]) -> dict[str, Any]:
    """Count the questions with a valid outcome: in all comparisons alike, and in each that lacks some."""
    comparisons = list(itertools.combinations(range(len(contest.models)), 2))
    decided = {criterion: np.asarray(np.isfinite(outcomes).any(axis=-1)) for criterion, outcomes in table.items()}
    everywhere = np.all([of[a, b] for of in decided.values() for a, b in comparisons], axis=0)
    lacking = [
        {"criterion": criterion, "a": contest.models[a], "b": contest.models[b], "judged": int(of[a, b].sum())}
        for criterion, of in decided.items()
        for a, b in comparisons
        if not of[a, b].all()
    ]
    return {"questions_judged": int(everywhere.sum()), "questions_judged_by_comparison": lacking}


def empty_replies(contest: Contest) -> dict[str, int]:
    """Count each model's replies without any text."""
    return {
        name: sum(not candidate.response_text.strip() for replies in answered for candidate in replies)
        for name, answered in contest.replies.items()
    }


def warn_of_empty_replies(contest: Contest) -> None:
    """Say which models have empty replies: they are compared as they are, and two empty ones are a tie."""
    total = len(contest.questions) * contest.replies_per_question
    for name, count in empty_replies(contest).items():
        if count:
            log.warning(
                "evaluate: %d of %s's %d replies are empty; two empty replies to a question count as a tie",
                count,
                name,
                total,
            )


def in_words(results: Mapping[str, Any]) -> list[str]:
    """Return one line for each criterion: every model's average win rate with its interval, best first."""
    lines = []
    for criterion in results["criteria"]:
        rates = {name: by_criterion[criterion] for name, by_criterion in results["models"].items()}
        words = []
        for name in sorted(rates, key=lambda name: -rates[name]):
            interval = results["intervals"][name][criterion]
            width = f" [{100 * interval[0]:.1f}–{100 * interval[1]:.1f}]" if interval else ""
            words.append(f"{name} {100 * rates[name]:.1f}%{width}")
        lines.append(f"average win rates on {criterion}: {', '.join(words)}")
    return lines


def tests(names: Sequence[str], outcomes: statistics.Array, *, resamples: int, seed: int) -> list[dict[str, Any]]:
    """Test every pair of models on one criterion: McNemar's test, and the difference of their averages."""
    differences = statistics.estimate_average_differences(outcomes, resamples=resamples, seed=seed)
    return [
        {
            "a": names[i],
            "b": names[j],
            **statistics.mcnemar(outcomes[i, j])._asdict(),
            "average_difference": float(differences.value[i, j]),
            "average_difference_interval": ends(differences.low[i, j], differences.high[i, j]),
        }
        for i, j in itertools.combinations(range(len(names)), 2)
    ]
