"""``jaxmodpo study sample``: picks the questions of a human study from an evaluation.

The sample keeps the full set's joint distribution of the judge's outcomes on some criteria, as the
paper's does (its "Human Validation Study"): otherwise a study of few questions could have easy ones
alone. What raters are shown, in which order and on which side, is drawn here too::

    config = StudySampleConfig(
        evaluation=Path("out/evaluation"), models=("modpo", "base"), output_dir=Path("study")
    )
    study_sample(config)        # study/study.json
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from jaxmodpo.config import builtin
from jaxmodpo.costs import Cost, Estimates
from jaxmodpo.criteria import Criterion, load_criteria
from jaxmodpo.errors import UserError
from jaxmodpo.fingerprints import fingerprint
from jaxmodpo.flags.help_groups import HelpGroup
from jaxmodpo.phase import Phase, in_phase
from jaxmodpo.ranges import CommandSettings, Count, CountOrZero, Incidental
from jaxmodpo.report.run_folders import OUTCOMES
from jaxmodpo.results.evaluation import RESULTS
from jaxmodpo.results.versioned import write_result
from jaxmodpo.schema import Tally
from jaxmodpo.study.authored import ChecksFile, asked, load_checks, load_texts
from jaxmodpo.study.candidates import Candidate, Candidates, read_candidates
from jaxmodpo.study.design import balanced_sides, raters_of_items, spread
from jaxmodpo.study.strata import stratified_sample
from jaxmodpo.study.study_file import (
    STUDY,
    Assignment,
    Place,
    Recruitment,
    StudyCriterion,
    StudyFile,
    StudyItem,
)

logger = logging.getLogger(__name__)

# Of a secret seed: as many as every program reads from JSON as a whole number.
_SEED_BITS = 63


@dataclass(frozen=True, kw_only=True)
class StudySampleConfig(CommandSettings, help_group="selection"):
    """Pick the questions of a blinded human study from an evaluation, and plan who sees which."""

    evaluation: Annotated[Path, HelpGroup("data")]
    """The output folder of the evaluation whose judge the study is to check."""
    models: tuple[str, ...]
    """Two of its models. Figures are of the first over the second: name the aligned one first."""
    output_dir: Annotated[Incidental[Path], HelpGroup("output")]
    """Folder for study.json. It says which model wrote which reply: keep it from raters."""
    questions: Count = 100
    """How many questions to pick."""
    replies: tuple[Count, ...] = (1,)
    """Which of the models' replies to each question are compared, from 1. Several make as many
    items of each question; intervals are over questions all the same."""
    stratify_by: tuple[str, ...] = ("safety", "overall")
    """Criteria whose outcomes, taken together, the sample has in the same shares as the full
    set."""
    criteria: Annotated[str, HelpGroup("data")] = "therapeutic"
    """What raters compare replies by: a criteria file, or the name of one of ours. clinicians has
    what therapeutic has, worded for professionals."""
    only: tuple[str, ...] = ()
    """The criteria that raters are asked for; all of the file if none is named."""
    raters: Count = 6
    """How many raters the study has room for."""
    ratings_per_question: CountOrZero = 0
    """How many raters see each question, or each of its items; 0 means all."""
    recruitment: Recruitment = "personal-links"
    """How raters come: personal-links, each by a link of their own; prolific, through Prolific."""
    texts: Annotated[str, HelpGroup("text")] = "texts"
    """The study's title, information, consent, instructions and content warning: a YAML file. Ours
    is a template; copy it and fill it in."""
    checks: Annotated[str, HelpGroup("text")] = "checks"
    """Attention checks and practice items: a YAML file, or the name of ours."""
    attention_failures_allowed: CountOrZero = 1
    """Attention checks that a rater may fail before being left out of the analysis."""
    rehearsal: bool = False
    """Let placeholders stand in the texts, for a study in which nobody takes part."""
    seed: Tally | None = None
    """Seed of the sample, of orders and of sides. By default a secret one is drawn, and written
    into study.json; give that one to draw the same study again. Whoever knows it can compute who
    sees which model on which side."""

    def check(self) -> None:
        super().check()
        if len(self.models) != 2 or self.models[0] == self.models[1]:
            raise UserError("--models needs two different models, the aligned one first")
        if self.ratings_per_question > self.raters:
            raise UserError(
                f"--ratings-per-question {self.ratings_per_question} needs as many --raters, and"
                f" there are {self.raters}"
            )
        if not self.replies or len(set(self.replies)) < len(self.replies):
            raise UserError("--replies needs a number at least, and each once")
        criteria = load_criteria(self.criteria, self.only)
        load_texts(self.texts, is_rehearsal=self.rehearsal)
        load_checks(self.checks, [criterion.name for criterion in criteria])

    def input_paths(self) -> dict[str, Path]:
        return {
            "results": self.evaluation / RESULTS,
            "outcomes": self.evaluation / OUTCOMES,
            "criteria": builtin("criteria", self.criteria),
            "texts": builtin("study", self.texts),
            "checks": builtin("study", self.checks),
        }

    def cost(self, estimator: Estimates) -> Cost:
        return Cost()  # takes seconds, and leaves little behind


@in_phase("study sample")
def study_sample(config: StudySampleConfig, phase: Phase) -> None:
    """Write the study file.

    Raises:
        UserError: bad settings; an evaluation without the models or with changed replies; fewer
            usable questions than are to be picked.
    """
    candidates = read_candidates(
        config.evaluation, config.models, config.replies, config.stratify_by
    )
    _refuse_too_few(config, candidates)
    # The code is open, and so may the evaluation be: with a seed that can be guessed, or found by
    # trying all 2^32, anybody could compute the sides.
    seed = secrets.randbits(_SEED_BITS) if config.seed is None else config.seed
    rng = np.random.default_rng(seed)
    strata = [_stratum(candidate, config.stratify_by) for candidate in candidates.usable]
    sampled_indices = stratified_sample(strata, config.questions, rng)
    picked = [candidates.usable[index] for index in sampled_indices]
    study = _study(config, picked, seed, rng)
    # By the rules that every later command reads it with, before anybody is invited.
    study.check(STUDY)
    write_result(config.output_dir / STUDY, study, private=True)
    outcome_shares = _comparison(strata, [strata[index] for index in sampled_indices])
    phase.finish(
        questions=len(picked),
        of_questions=len(candidates.usable),
        left_out={
            "identical replies": candidates.identical,
            "empty replies": candidates.empty,
            "not judged": candidates.not_judged,
        },
        outcomes=outcome_shares,
        **_balance(study),
    )
    for line in _in_words(config, candidates, outcome_shares):
        logger.info("study sample: %s", line)


def _refuse_too_few(config: StudySampleConfig, candidates: Candidates) -> None:
    usable = len(candidates.usable)
    if usable >= config.questions:
        return
    first, second = config.models
    if not usable and candidates.identical:
        raise UserError(
            f"{first} and {second} gave the same replies to all questions that could be shown: there"
            " is nothing to compare"
        )
    raise UserError(
        f"--questions {config.questions}: only {usable} questions of {config.evaluation} can be"
        f" shown ({candidates.identical} have identical replies, {candidates.empty} an empty one,"
        f" {candidates.not_judged} no outcome on {', '.join(config.stratify_by)})"
    )


def _stratum(candidate: Candidate, criteria: Sequence[str]) -> tuple[str, ...]:
    """Return what the judge said of a question by each of some criteria, one pair of replies after
    the other.
    """
    outcomes: list[str] = []
    for pair in candidate.pairs:
        outcomes += [pair.outcomes[criterion] for criterion in criteria]
    return tuple(outcomes)


# --------------------------------------------------------------------------- items


def _study(
    config: StudySampleConfig, picked: Sequence[Candidate], seed: int, rng: np.random.Generator
) -> StudyFile:
    criteria = load_criteria(config.criteria, config.only)
    names = [criterion.name for criterion in criteria]
    title, texts = load_texts(config.texts, is_rehearsal=config.rehearsal)
    items = _items(config, picked, load_checks(config.checks, names), names, rng)
    return StudyFile(
        title=title,
        models=config.models,
        criteria=tuple(_shown(criterion) for criterion in criteria),
        items=tuple(items),
        assignments=tuple(_assignments(config, items, rng)),
        recruitment=config.recruitment,
        texts=texts,
        seed=seed,
        evaluation_sha256=fingerprint(config.evaluation / OUTCOMES),
        attention_failures_allowed=config.attention_failures_allowed,
    )


def _shown(criterion: Criterion) -> StudyCriterion:
    """Return a criterion as raters read it."""
    return StudyCriterion(
        name=criterion.name,
        title=criterion.title or criterion.name.replace("_", " ").capitalize(),
        description=criterion.description,
        better_when=criterion.better_when,
        worse_when=criterion.worse_when,
    )


def _items(
    config: StudySampleConfig,
    picked: Sequence[Candidate],
    checks: ChecksFile,
    criteria: Sequence[str],
    rng: np.random.Generator,
) -> list[StudyItem]:
    """Return practice items, questions and attention checks under opaque ids, in this order."""
    # Of several replies to a question each pair is an item of its own.
    questions = [(candidate, pair) for candidate in picked for pair in candidate.pairs]
    count = len(checks.training) + len(questions) + len(checks.attention)
    # Numbers would say which items are checks, and in which order questions stand in the data.
    ids = _item_ids(count, rng)
    items: list[StudyItem] = []
    for practice in checks.training:
        items.append(
            StudyItem(
                item_id=next(ids),
                kind="training",
                post=practice.post,
                reply_a=practice.reply_a,
                reply_b=practice.reply_b,
                # A practice item may know more criteria than this study asks about.
                expected=asked(practice.expected, criteria),
                explanation=practice.explanation,
            )
        )
    for candidate, pair in questions:
        items.append(
            StudyItem(
                item_id=next(ids),
                kind="question",
                post=candidate.post,
                reply_a=pair.reply_a,
                reply_b=pair.reply_b,
                question_id=candidate.question_id,
                reply=pair.number,
            )
        )
    for check in checks.attention:
        items.append(
            StudyItem(
                item_id=next(ids),
                kind="attention",
                post=check.post,
                reply_a=check.reply_a,
                reply_b=check.reply_b,
                expected=dict.fromkeys(criteria, check.choose),
            )
        )
    return items


def _item_ids(count: int, rng: np.random.Generator) -> Any:
    """Return an iterator of different random tokens, which tell nothing of what they name."""
    tokens: dict[str, None] = {}
    while len(tokens) < count:
        tokens[rng.bytes(8).hex()] = None
    return iter(tokens)


# --------------------------------------------------------------------------- places


def _assignments(
    config: StudySampleConfig, items: Sequence[StudyItem], rng: np.random.Generator
) -> list[Assignment]:
    """Return what each rater sees: practice first, then questions with checks among them."""
    training = _numbers(items, "training")
    questions = _numbers(items, "question")
    attention = _numbers(items, "attention")
    ratings = config.ratings_per_question or config.raters
    everybody = list(range(config.raters))
    raters = raters_of_items(len(questions), config.raters, ratings, rng)
    a_is_left: dict[tuple[int, int], bool] = {}
    # Each kind is balanced by itself: a check on the left does not make up for a question.
    for numbers, raters_of_number in (
        (training, [everybody] * len(training)),
        (questions, raters),
        (attention, [everybody] * len(attention)),
    ):
        for (item_row, rater), is_left in balanced_sides(raters_of_number, rng).items():
            a_is_left[numbers[item_row], rater] = is_left
    assignments: list[Assignment] = []
    for rater in everybody:
        rated_numbers = [number for number in questions if (number, rater) in a_is_left]
        # Each rater has an order of their own: what tiredness does falls on other questions.
        sequence = [*training, *spread(rated_numbers, attention, rng)]
        places: list[Place] = []
        for number in sequence:
            is_left = a_is_left[number, rater]
            places.append(Place(item_id=items[number].item_id, a_is_left=is_left))
        assignments.append(Assignment(number=rater + 1, places=tuple(places)))
    return assignments


def _numbers(items: Sequence[StudyItem], kind: str) -> list[int]:
    return [number for number, item in enumerate(items) if item.kind == kind]


# --------------------------------------------------------------------------- summary


def _balance(study: StudyFile) -> dict[str, Any]:
    """Return how many questions the raters have, and how often a model stands on the left."""
    question_ids = {item.item_id for item in study.items if item.kind == "question"}
    questions_of_rater: list[int] = []
    lefts_of_rater: list[int] = []
    for assignment in study.assignments:
        # Practice and checks do not count: nothing is concluded from their sides.
        sides = [place.a_is_left for place in assignment.places if place.item_id in question_ids]
        questions_of_rater.append(len(sides))
        lefts_of_rater.append(sum(sides))
    return {
        "raters": len(study.assignments),
        "ratings": sum(questions_of_rater),
        "questions_of_a_rater": [min(questions_of_rater), max(questions_of_rater)],
        "first_model_left": round(sum(lefts_of_rater) / sum(questions_of_rater), 4),
        "attention_checks": sum(item.kind == "attention" for item in study.items),
        "practice_items": sum(item.kind == "training" for item in study.items),
    }


def _comparison(
    full: Sequence[tuple[str, ...]], sample: Sequence[tuple[str, ...]]
) -> dict[str, dict[str, float]]:
    """Return each stratum's counts and shares, in the full set and in the sample."""
    counts = Counter(full)
    sampled = Counter(sample)
    comparison: dict[str, dict[str, float]] = {}
    # The largest stratum first, equal ones by name.
    largest_first = sorted(counts, key=lambda stratum: (-counts[stratum], stratum))
    for stratum in largest_first:
        count = counts[stratum]
        comparison[", ".join(stratum) or "all"] = {
            "full": count,
            "full_share": round(count / len(full), 4),
            "sample": sampled[stratum],
            "sample_share": round(sampled[stratum] / len(sample), 4),
        }
    return comparison


def _in_words(
    config: StudySampleConfig,
    candidates: Candidates,
    outcome_shares: Mapping[str, Mapping[str, float]],
) -> list[str]:
    """Return how the sample matches the full set, a line for each stratum."""
    first, second = config.models
    lines = [
        f"{config.questions} of {len(candidates.usable)} questions; outcomes by"
        f" {' and '.join(config.stratify_by) or 'nothing'}, where a is {first} and b is {second}:"
    ]
    for stratum, numbers in outcome_shares.items():
        lines.append(
            f"{stratum}: {100 * numbers['full_share']:.1f}% of the full set,"
            f" {100 * numbers['sample_share']:.1f}% of the sample ({numbers['sample']:.0f})"
        )
    return lines
