"""``jaxmodpo study simulate``: raters of known reliability answer a study, to rehearse it.

Nobody is asked. Every question has a truth by each criterion: which reply is better. A rater sees
it with a probability, finds the replies equal with another, and is careless or not. What an
analysis must come to is then known: from the truth, and from the raters who count. A careless one
counts who passed the attention checks by chance. The answers are those that the application would
export::

    config = StudySimulateConfig(study=Path("study/study.json"), output_dir=Path("out/rehearsal"))
    study_simulate(config)      # out/rehearsal/annotations.csv, truth.csv, raters.csv
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from jaxmodpo.config import named_values
from jaxmodpo.costs import Cost, Estimates
from jaxmodpo.errors import UserError, nearest
from jaxmodpo.files import Row, write_table
from jaxmodpo.flags.help_groups import HelpGroup
from jaxmodpo.phase import Phase, in_phase
from jaxmodpo.ranges import CommandSettings, CountOrZero, FractionUpToOne, Incidental, Seed
from jaxmodpo.study.annotation_files import write_annotations
from jaxmodpo.study.annotations import ANNOTATIONS, Annotation, Preferred
from jaxmodpo.study.attention import exclusion
from jaxmodpo.study.judged import Judged, read_judged
from jaxmodpo.study.study_file import Assignment, StudyFile, StudyItem, read_study

logger = logging.getLogger(__name__)

TRUTH = "truth.csv"
TRUTH_COLUMNS = ("question_id", "reply", "criterion", "better")

RATERS = "raters.csv"
RATER_COLUMNS = ("rater", "careless", "excluded")

Truth = Mapping[tuple[str, str], Preferred]
"""the better reply, by item and criterion"""

_OTHER: Mapping[Preferred, Preferred] = {"a": "b", "b": "a", "equal": "equal"}


@dataclass(frozen=True)
class SimulatedRater:
    """A rater who does not exist.

    Attributes:
        name: a pseudonym.
        is_careless: whether the choices are made by chance.
        excluded: why the answers are left out; empty where they count.
        answers: in the order in which the items are seen.
    """

    name: str
    is_careless: bool
    excluded: str
    answers: Sequence[Annotation]


# Seconds of an item: the median of a careful rater and of a careless one.
_SECONDS = 70.0
_CARELESS_SECONDS = 9.0


@dataclass(frozen=True, kw_only=True)
class StudySimulateConfig(CommandSettings, help_group="world"):
    """Let raters of known reliability answer a study, to rehearse its analysis before anybody is
    recruited."""

    study: Annotated[Path, HelpGroup("data")]
    """The study file, study.json of study sample."""
    outcomes: Annotated[Path | None, HelpGroup("data")] = None
    """A judge's outcomes.csv, from which the truth is made: where the judge decides, the truth is
    what it says with the probability of --judge-accuracy, and else the other reply. Without it
    --first-better says the truth."""
    output_dir: Annotated[Incidental[Path], HelpGroup("output")]
    """Folder for annotations.csv, truth.csv and raters.csv."""
    reliability: FractionUpToOne = 0.75
    """The probability that a careful rater who prefers a reply prefers the better one."""
    reliability_of: tuple[str, ...] = ()
    """Reliability by single criteria, in place of --reliability: CRITERION=PROBABILITY each, as in
    safety=0.65."""
    tie_rate: FractionUpToOne = 0.1
    """The probability that a rater finds two replies equal."""
    judge_accuracy: FractionUpToOne = 0.75
    """How often the judge's outcomes are true, where --outcomes gives them."""
    first_better: FractionUpToOne = 0.65
    """The share of questions of which the first model's reply is the better one, without
    --outcomes."""
    careless: CountOrZero = 0
    """How many of the raters choose by chance, also in attention checks, which some may pass."""
    seed: Seed = 0
    """Seed of the truth and of the answers."""

    def check(self) -> None:
        super().check()
        self.reliabilities()

    def reliabilities(self) -> dict[str, float]:
        """Return the reliabilities of single criteria.

        Raises:
            UserError: no number from 0 to 1.
        """
        reliabilities: dict[str, float] = {}
        for name, text in named_values(self.reliability_of, "--reliability-of").items():
            try:
                reliability = float(text)
            except ValueError:
                reliability = -1.0
            # Also refuses NaN, which is in no order.
            if not 0 <= reliability <= 1:
                raise UserError(f"--reliability-of {name} must be from 0 to 1, not {text}")
            reliabilities[name] = reliability
        return reliabilities

    def cost(self, estimator: Estimates) -> Cost:
        return Cost()  # takes seconds, and leaves little behind


@in_phase("study simulate")
def study_simulate(config: StudySimulateConfig, phase: Phase) -> None:
    """Write simulated annotations.

    Raises:
        UserError: no study file, an unknown criterion, more careless raters than there are, or
            outcomes that do not compare its models.
    """
    study = read_study(config.study)
    _refuse_impossible(config, study)
    rng = np.random.default_rng(config.seed)
    judged = read_judged(config.outcomes, study.models) if config.outcomes else {}
    truth = draw_truth(config, study, judged, rng)
    raters = simulate(config, study, truth, rng)
    annotations = [answer for rater in raters for answer in rater.answers]
    write_annotations(config.output_dir / ANNOTATIONS, annotations)
    write_table(config.output_dir / TRUTH, _truth_rows(study, truth), TRUTH_COLUMNS)
    write_table(config.output_dir / RATERS, _rater_rows(raters), RATER_COLUMNS)
    excluded = sum(bool(rater.excluded) for rater in raters)
    phase.finish(raters=len(raters), excluded=excluded, annotations=len(annotations))
    logger.info(
        "study simulate: %d answers of %d raters in %s, %d of them left out for their attention",
        len(annotations),
        len(raters),
        config.output_dir,
        excluded,
    )
    undetected = sum(rater.is_careless and not rater.excluded for rater in raters)
    if undetected:
        logger.warning(
            "study simulate: %d careless raters passed the attention checks by chance, and count",
            undetected,
        )


def _refuse_impossible(config: StudySimulateConfig, study: StudyFile) -> None:
    criteria = [criterion.name for criterion in study.criteria]
    for name in config.reliabilities():
        if name not in criteria:
            raise UserError(
                f"--reliability-of: the study has no criterion '{name}'{nearest(name, criteria)}"
            )
    if config.careless > len(study.assignments):
        raise UserError(
            f"--careless {config.careless}: the study has {len(study.assignments)} raters"
        )


# --------------------------------------------------------------------------- truth


def draw_truth(
    config: StudySimulateConfig, study: StudyFile, judged: Judged, rng: np.random.Generator
) -> dict[tuple[str, str], Preferred]:
    """Draw the better reply of every question by every criterion."""
    truth: dict[tuple[str, str], Preferred] = {}
    for item in study.items:
        if item.kind != "question":
            continue
        # Drawn for every criterion by itself, so that criteria are no more alike than the judge's.
        outcomes = judged.get((item.question_id, item.reply), {})
        for criterion in study.criteria:
            outcome = outcomes.get(criterion.name, "equal")
            # Where the judge decides nothing there is a truth all the same; ties are the raters'.
            if outcome == "equal":
                better: Preferred = "a" if rng.random() < config.first_better else "b"
            else:
                is_right = rng.random() < config.judge_accuracy
                better = outcome if is_right else _OTHER[outcome]
            truth[item.item_id, criterion.name] = better
    return truth


def _truth_rows(study: StudyFile, truth: Truth) -> list[Row]:
    rows: list[Row] = []
    for (item_id, criterion), better in truth.items():
        item = study.item(item_id)
        rows.append(
            {
                "question_id": item.question_id,
                "reply": item.reply,
                "criterion": criterion,
                "better": better,
            }
        )
    return rows


def _rater_rows(raters: Sequence[SimulatedRater]) -> list[Row]:
    return [
        {"rater": rater.name, "careless": int(rater.is_careless), "excluded": rater.excluded}
        for rater in raters
    ]


# --------------------------------------------------------------------------- answers


def simulate(
    config: StudySimulateConfig, study: StudyFile, truth: Truth, rng: np.random.Generator
) -> list[SimulatedRater]:
    """Return every rater with the answers to every item that they see. Those are left out who
    failed too many attention checks, as in a real study, careless or not.
    """
    careless = set(rng.choice(len(study.assignments), size=config.careless, replace=False).tolist())
    # With leading zeros, so that names sort as numbers do.
    digits = len(str(len(study.assignments)))
    raters: list[SimulatedRater] = []
    for number, assignment in enumerate(study.assignments):
        name = f"S{assignment.number:0{digits}}"
        is_careless = number in careless
        answers = _answers(config, study, truth, assignment, name, is_careless=is_careless, rng=rng)
        reason = exclusion(study, answers)
        answers = [replace(answer, excluded=reason) for answer in answers]
        raters.append(SimulatedRater(name, is_careless, reason, answers))
    return raters


def _answers(
    config: StudySimulateConfig,
    study: StudyFile,
    truth: Truth,
    assignment: Assignment,
    rater: str,
    *,
    is_careless: bool,
    rng: np.random.Generator,
) -> list[Annotation]:
    """Return one rater's answers, in the order in which they see the items."""
    items = {item.item_id: item for item in study.items}
    reliabilities = config.reliabilities()
    answers: list[Annotation] = []
    for place in assignment.places:
        item = items[place.item_id]
        # Times of people are log-normal, roughly: none is below zero, and a few are long.
        median = _CARELESS_SECONDS if is_careless else _SECONDS
        seconds = round(median * float(rng.lognormal(0, 0.5)), 1)
        for criterion in study.criteria:
            if is_careless:
                choice = _by_chance(rng)
            else:
                reliability = reliabilities.get(criterion.name, config.reliability)
                choice = _careful(item, criterion.name, truth, reliability, config.tie_rate, rng)
            answers.append(
                Annotation(
                    rater=rater,
                    kind=item.kind,
                    question_id=item.question_id,
                    reply=item.reply,
                    item_id=item.item_id,
                    criterion=criterion.name,
                    choice=choice,
                    side=_side(choice, a_is_left=place.a_is_left),
                    seconds=seconds,
                )
            )
    return answers


def _by_chance(rng: np.random.Generator) -> Preferred:
    choices: Sequence[Preferred] = ("a", "b", "equal")
    return choices[int(rng.integers(3))]


def _careful(
    item: StudyItem,
    criterion: str,
    truth: Truth,
    reliability: float,
    tie_rate: float,
    rng: np.random.Generator,
) -> Preferred:
    """Return what a careful rater chooses; in checks and practice always what is right."""
    if item.kind != "question":
        return item.expected.get(criterion, "equal")
    if rng.random() < tie_rate:
        return "equal"
    better = truth[item.item_id, criterion]
    return better if rng.random() < reliability else _OTHER[better]


def _side(choice: Preferred, *, a_is_left: bool) -> Any:
    """Return what a rater presses who prefers a reply."""
    if choice == "equal":
        return "equal"
    return "left" if (choice == "a") == a_is_left else "right"
