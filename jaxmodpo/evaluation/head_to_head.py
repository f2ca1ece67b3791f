"""``jaxmodpo evaluate``: models answer the same questions, personas say which reply is better.

For each criterion and each pair of models, every unit (a question and the number of the reply) is
put to the personas, blinded and with balanced positions, and the majority decides it. This follows
the paper's "Evaluation Methodology". What is compared is read in
:mod:`jaxmodpo.evaluation.contest`; how outcomes become win rates, intervals and tests is in
:mod:`jaxmodpo.evaluation.outcomes`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from jaxmodpo.config import builtin, named_values
from jaxmodpo.costs import Cost, Estimates
from jaxmodpo.criteria import load_criteria
from jaxmodpo.errors import UserError
from jaxmodpo.evaluation.ballot_box import BallotBox, count_votes
from jaxmodpo.evaluation.collected import read_collected, results_of_collected
from jaxmodpo.evaluation.contest import (
    Contest,
    UnevenQuestions,
    Unit,
    empty_replies,
    plan,
    read_replies,
    refuse_empty_models,
    warn_of_empty_replies,
)
from jaxmodpo.evaluation.cut_replies import count_cut
from jaxmodpo.evaluation.group_differences import write_differences
from jaxmodpo.evaluation.outcomes import (
    OUTCOME_COLUMNS,
    Outcomes,
    count,
    count_judged,
    in_words,
    incomplete_comparisons,
    outcome_rows,
    outcome_table,
    refuse_pairs_without_votes,
    summarize,
)
from jaxmodpo.evaluation.panels import panel_intervals
from jaxmodpo.evaluation.persona_groups import groups_of_personas, rates_of_groups, read_populations
from jaxmodpo.evaluation.planned_power import power_in_words
from jaxmodpo.evaluation.ratings import rate_models
from jaxmodpo.evaluation.reply_lengths import bin_lengths, control_length, mean_tokens, read_lengths
from jaxmodpo.files import write_table
from jaxmodpo.fingerprints import digest
from jaxmodpo.judging.collect import MakeRequests, collect, votes_by_ballot
from jaxmodpo.judging.forecast import forecast
from jaxmodpo.judging.judge import Request
from jaxmodpo.judging.prices import pay_judge
from jaxmodpo.judging.settings import (
    JudgeConfig,
    JudgeKind,
    groups,
    make_judge,
    open_ledger,
    warn_of_failed,
)
from jaxmodpo.judging.voting import (
    VotingProtocol,
    assign_personas,
    head_to_head_positions,
    with_repeats,
)
from jaxmodpo.phase import Phase, in_phase
from jaxmodpo.ranges import CommandSettings, Count, CountOrZero, Incidental
from jaxmodpo.records import read_personas
from jaxmodpo.results.evaluation import RESULTS, Counts, EvaluationResults, TiesRule
from jaxmodpo.results.versioned import write_result
from jaxmodpo.statistics.groups import SMALLEST_GROUP

logger = logging.getLogger(__name__)


class Resampling(TypedDict):
    """How win rates and their intervals are computed."""

    ties: TiesRule
    resamples: int
    seed: int


VOTE_BYTES = 550
"""a row of the ledger with its index: ids, shown order, raw and parsed answer, model, tokens"""
STAND_IN = (
    "The judge was the built-in rubric, a stand-in for patients that scores words: these numbers"
    " have no clinical meaning."
)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(JudgeConfig, CommandSettings, help_group="votes"):
    """Compare models head to head: blinded replies, balanced positions, a majority of personas."""

    judge: JudgeKind | None = None  # pyrefly: ignore
    """Who judges: as in preferences. It has no default, and --votes needs none."""

    votes: tuple[Path, ...] = ()
    """Votes that somebody else collected, to be counted without a judge: result folders of the
    paper's authors (MODEL1_vs_MODEL2), or JSON files of rows."""

    responses: tuple[str, ...] = ()
    """The models' replies, NAME=FILE.csv each: the same questions with equally many replies."""

    personas: Path | None = None
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
    """Show each persona both orders, at twice the calls; a verdict that turns with the order is a
    tie."""

    protocol: VotingProtocol = "paper"
    """paper: half of the personas see one model first, the other half the other; official-code:
    what the authors' scripts do, all see the same first, by one draw a question."""

    uneven_questions: UnevenQuestions = "refuse"
    """Where models answer different questions. refuse: end with how many are common; common:
    compare on those that all of them answer."""

    ties: TiesRule = "half"
    """What a tied question is for a win rate. half: half a win for either model; left-out: nothing,
    as in the paper. The tests leave ties out either way."""

    participants: Path | None = None
    """The all_personas.json that lies beside the personas, for votes by population: the personas'
    texts do not say it."""

    smallest_group: Count = SMALLEST_GROUP
    """The personas below which nothing but its size is shown of a group: with few, a figure is one
    person's. A lower number shows more of a small panel, and more of single people."""

    bootstrap: Count = 2000
    """How many times the questions are resampled for the 95% intervals, and the personas with
    them."""

    def check(self) -> None:
        super().check()
        if self.votes:
            if self.judge or self.responses or self.personas or self.participants:
                raise UserError(
                    "--votes are counted as they are; give no --judge, --responses, --personas or"
                    " --participants"
                )
            return
        if self.judge is None or self.personas is None:
            raise UserError(
                "evaluate needs --judge, --responses and --personas, or --votes that somebody else"
                " collected"
            )
        if len(self.files()) < 2:
            raise UserError("--responses needs at least two models to compare, NAME=FILE.csv each")

    def check_machine(self) -> None:
        """Refuse a judge that cannot work here; votes that are there need none."""
        if not self.votes:
            super().check_machine()

    def input_paths(self) -> dict[str, Path]:
        if self.votes:
            return super().input_paths()
        paths = {f"responses.{name}": path for name, path in self.files().items()}
        return super().input_paths() | paths | {"criteria": builtin("criteria", self.criteria)}

    def cost(self, estimator: Estimates) -> Cost:
        if self.votes:
            return Cost()  # counts, and asks nobody
        assert self.personas is not None
        files = self.files().values()
        units = min(estimator.rows(path) for path in files)
        personas = self.personas_per_question or estimator.rows(self.personas)
        criteria = load_criteria(self.criteria, self.only)
        pairs_of_models = math.comb(len(files), 2)
        orders = 2 if self.both_orders else 1
        distinct_requests = units * pairs_of_models * personas * orders
        requests = round(distinct_requests * (1 + self.repeat_share))
        calls = groups(criteria, self.criteria_per_call)
        votes = requests * len(criteria)
        cost = Cost(judge_calls=requests * len(calls), disk=VOTE_BYTES * votes)
        criteria_per_call = round(len(criteria) / len(calls))
        pay_judge(cost, self, "compare", 2, criteria_per_call, self.allow_ties)
        return cost

    def files(self) -> dict[str, Path]:
        """Return each model's file of replies."""
        return {
            name: Path(path) for name, path in named_values(self.responses, "--responses").items()
        }


def evaluate(config: EvaluateConfig) -> Phase | None:
    """Judge every pair of models and write win rates, intervals and tests.

    Returns:
        The phase; None for a dry run.

    Raises:
        UserError: bad settings or input; models that do not answer the same questions; a budget
            that is spent; a pair of models without a single valid vote.
    """
    config.check()
    if config.votes:
        return _recount(config)
    contest = load_contest(config)
    units = list(plan(contest))
    if config.dry_run:
        forecast(config, config.output_dir, *_plan(config, contest, units))
        # Before votes are paid for: what a panel of this size could tell apart at all.
        voters: set[str] = set()
        for voters_of_question in contest.voters.values():
            voters.update(voters_of_question)
        print(power_in_words(len(contest.models), len(contest.questions), len(voters)))
        return None
    return _judge(config, contest, units)


@in_phase("evaluate")
def _recount(config: EvaluateConfig, phase: Phase) -> None:
    """Count votes that somebody else collected, and write the same statistics of them."""
    contest, rows = read_collected(config.votes, config.only)
    table = outcome_table(contest, rows)
    refuse_pairs_without_votes(contest, table, config.ties)
    resampling: Resampling = {
        "ties": config.ties,
        "resamples": config.bootstrap,
        "seed": config.seed,
    }
    results = results_of_collected(contest, rows, table, **resampling)
    write_table(config.output_dir / "outcomes.csv", rows, OUTCOME_COLUMNS)
    write_result(config.output_dir / RESULTS, results)
    phase.finish(
        questions=results.questions,
        questions_judged=results.questions_judged,
        votes=results.counts.valid,
    )
    for line in in_words(results):
        logger.info("evaluate: %s", line)


@in_phase("evaluate")
def _judge(config: EvaluateConfig, phase: Phase, contest: Contest, units: Sequence[Unit]) -> None:
    """Ask for the votes, count them, and write win rates, intervals and tests."""
    warn_of_empty_replies(contest)
    # Before anybody is asked, so that a wrong file costs no votes.
    populations = read_populations(config.participants, contest.personas)
    asked, total = _plan(config, contest, units)
    with open_ledger(config, phase) as ledger:
        judge = make_judge(config, ledger, config.output_dir)
        collect(asked, judge, ledger, label="evaluate", total=total, retry=config.retry_errors)
        # Read back from the ledger, not kept while asking: a run that goes on counts the votes of
        # all its starts.
        tallies, missing, ballots = count_votes(
            units, votes_by_ballot(asked, judge.identity, ledger), config.both_orders
        )
        used = ledger.spent(ledger.run)
    rows = outcome_rows(contest, units, tallies)
    table = outcome_table(contest, rows)
    refuse_pairs_without_votes(contest, table, config.ties)
    counts = count(contest, rows, missing)
    groups = groups_of_personas(contest, ballots, populations)
    results = _results(config, contest, table, ballots, groups, counts, judge.identity)
    write_table(config.output_dir / "outcomes.csv", rows, OUTCOME_COLUMNS)
    write_differences(config.output_dir, contest, table, ballots, groups, config.smallest_group)
    write_result(config.output_dir / RESULTS, results)
    if results.questions_judged < results.questions:
        # A win rate over half of the questions looks like any other one.
        logger.warning(
            "evaluate: only %d of %d questions were judged by every criterion in every comparison;"
            " the win rates are of those that were (questions_judged_by_comparison in"
            " results.json)",
            results.questions_judged,
            results.questions,
        )
    # The manifest has the totals, results.json all of it.
    totals = {name: value for name, value in vars(counts).items() if name != "by_criterion"}
    phase.finish(
        questions=results.questions,
        questions_judged=results.questions_judged,
        **totals,
        spent=used._asdict(),
    )
    warn_of_failed("evaluate", missing)
    for line in in_words(results):
        logger.info("evaluate: %s", line)
    logger.info(
        "evaluate: %d models, %d votes, in %s",
        len(contest.models),
        counts.votes_asked,
        config.output_dir,
    )


def _results(
    config: EvaluateConfig,
    contest: Contest,
    table: Outcomes,
    ballots: BallotBox,
    groups: Mapping[str, Sequence[str]],
    counts: Counts,
    judge: str,
) -> EvaluationResults:
    """Return all figures of an evaluation that a judge was asked for."""
    # From outcomes alone, so that the rates can be computed again from outcomes.csv.
    resampling: Resampling = {
        "ties": config.ties,
        "resamples": config.bootstrap,
        "seed": config.seed,
    }
    win_rates = summarize(contest, table, **resampling)
    lengths = read_lengths(config.files(), contest)
    return EvaluationResults(
        **vars(win_rates),
        counts=counts,
        questions=len(contest.questions),
        questions_judged=count_judged(contest, table),
        questions_judged_by_comparison=incomplete_comparisons(contest, table),
        empty_replies=empty_replies(contest),
        replies_per_question=contest.replies_per_question,
        judge=judge,
        note=STAND_IN if config.judge == "rubric" else "",
        cut_replies=count_cut(config.files()),
        panels=panel_intervals(contest, table, ballots, **resampling),
        ratings=rate_models(contest, table, **resampling),
        groups=rates_of_groups(
            contest,
            table,
            ballots,
            groups,
            smallest=config.smallest_group,
            resamples=config.bootstrap,
            seed=config.seed,
        ),
        mean_tokens=mean_tokens(lengths),
        length_controlled=control_length(contest, table, lengths, **resampling),
        length_bins=bin_lengths(contest, table, lengths, **resampling),
    )


def _plan(
    config: EvaluateConfig, contest: Contest, units: Sequence[Unit]
) -> tuple[MakeRequests, int]:
    """Return what generates the requests, and how many votes they will bring."""

    def asked() -> Iterator[Request]:
        return with_repeats(requests(config, contest, units), config.repeat_share, config.seed)

    voters = 0
    for unit in units:
        # Nobody is asked to choose between two replies that are the same.
        if not unit.identical:
            question = contest.questions[unit.question]
            voters += len(contest.voters[question.question_id])
    orders = 2 if config.both_orders else 1
    votes = voters * len(contest.criteria) * orders
    return asked, round(votes * (1 + config.repeat_share))


# --------------------------------------------------------------------------- input


def load_contest(config: EvaluateConfig) -> Contest:
    """Read and check everything that is compared."""
    files = config.files()
    questions, replies = read_replies(files, config.uneven_questions)
    refuse_empty_models(files, replies)
    criteria = load_criteria(config.criteria, config.only)
    assert config.personas is not None
    personas = read_personas(config.personas)
    ids = [question.question_id for question in questions]
    voters = assign_personas(ids, list(personas), config.personas_per_question, config.seed)
    return Contest(replies, questions, criteria, personas, voters)


# --------------------------------------------------------------------------- judging


def requests(config: EvaluateConfig, contest: Contest, units: Iterable[Unit]) -> Iterator[Request]:
    """Yield the requests of each unit: by criterion (or all that one call asks about), then by
    persona.

    There are none where the texts are identical. Half of a unit's personas see one model first and
    half the other, whichever model was named first in the settings: the pair is put in the order of
    its names before the positions are drawn. With ``both_orders`` each persona's other order
    follows. A request's ballot number is that of its unit.
    """
    names = contest.models
    for ballot_number, unit in enumerate(units):
        if unit.identical:
            continue
        question = contest.questions[unit.question]
        voters = contest.voters[question.question_id]
        swapped = names[unit.model_b] < names[unit.model_a]
        upper, lower = (unit.b, unit.a) if swapped else (unit.a, unit.b)
        pair = sorted((names[unit.model_a], names[unit.model_b]))
        # Each unit has a draw of its own; the authors' scripts draw once a question.
        drawn_for = [question.question_id, unit.reply, *pair]
        if config.protocol == "official-code":
            drawn_for = [question.question_id]
        positions = head_to_head_positions(digest(drawn_for), voters, config.seed, config.protocol)
        for group in groups(contest.criteria, config.criteria_per_call):
            for persona in voters:
                shown = (upper, lower) if persona in positions else (lower, upper)
                orders = [shown]
                if config.both_orders:
                    orders.append(shown[::-1])
                for order in orders:
                    yield Request(
                        "compare",
                        question.question_id,
                        question.question_text,
                        persona,
                        contest.personas[persona],
                        group,
                        order,
                        ties=config.allow_ties,
                        ballot_number=ballot_number,
                    )
