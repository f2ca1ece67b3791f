"""The ``pairs`` command: preference pairs from answers with scores, such as a forum's upvotes.

Two answers to one question make a pair where their scores differ; the higher one is chosen. Answers
with equal scores are never paired, whatever their order.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path

from jaxmodpo.costs import Cost, Estimates
from jaxmodpo.errors import UserError
from jaxmodpo.files import read_table
from jaxmodpo.fingerprints import digest
from jaxmodpo.phase import Phase, in_phase
from jaxmodpo.ranges import CommandSettings, CountOrZero, Incidental, Positive
from jaxmodpo.rankings import Comparison, two_by_two
from jaxmodpo.records import Candidate, Pair, write_pairs

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PairsConfig(CommandSettings, help_group="data"):
    """Make preference pairs of scored answers to questions, such as CounselChat's with their
    upvotes.
    """

    input: Path
    """CSV file with a row for each answer."""
    output_dir: Incidental[Path]
    """Folder that NAME_pairs.json is written to."""
    name: str = "upvotes"
    """First part of the name of the pairs' file, NAME_pairs.json."""
    question: str = "questionText"
    """Name of the column with the question's text."""
    response: str = "answerText"
    """Name of the column with the answer's text."""
    score: str = "upvotes"
    """Name of the column with the score, a number; higher is better."""
    least_gap: Positive = 1.0
    """Least difference between the scores of two answers that make a pair."""
    most_per_question: CountOrZero = 5
    """Most pairs of one question; those with the widest gaps are taken. 0 takes all."""
    max_words: CountOrZero = 0
    """Most words of an answer. Longer ones are left out; 0 keeps all."""

    def check(self) -> None:
        super().check()
        if Path(self.name).name != self.name or self.name.startswith("."):
            raise UserError(f"--name is {self.name!r}; it must be a file's name without a folder")

    def cost(self, estimator: Estimates) -> Cost:
        return Cost()  # takes seconds, and leaves little behind


@in_phase("pairs")
def pairs(config: PairsConfig, phase: Phase) -> None:
    """Run ``pairs``.

    Raises:
        UserError: an unreadable file, a missing column, a score that is no number, or no pair at
            all.
    """
    answers = read_scored(config)
    preference_pairs: list[Pair] = []
    for question, scored in answers.items():
        preference_pairs += _pairs_of(question, scored, config)
    if not preference_pairs:
        raise UserError(
            f"{config.input}: no question has two answers whose scores differ by"
            f" {config.least_gap:g}"
        )
    write_pairs(config.output_dir / f"{config.name}_pairs.json", preference_pairs)
    questions = len({pair.question_id for pair in preference_pairs})
    logger.info(
        "%d pairs of %d questions; %d questions have none",
        len(preference_pairs),
        questions,
        len(answers) - questions,
    )
    phase.finish(
        pairs=len(preference_pairs),
        questions=questions,
        questions_without_pair=len(answers) - questions,
    )


def read_scored(config: PairsConfig) -> dict[str, list[tuple[float, str]]]:
    """Return every question's answers with their scores; empty texts and doubles of an answer are
    left out.
    """
    answers: dict[str, dict[str, float]] = {}
    columns = [config.question, config.response, config.score]
    for number, row in enumerate(read_table(config.input, columns), 2):
        question = " ".join(row[config.question].split())
        response = " ".join(row[config.response].split())
        try:
            score = float(row[config.score])
        except ValueError:
            score = math.nan
        if not math.isfinite(score):
            raise UserError(
                f"{config.input}, record {number}: {config.score} is no number:"
                f" '{row[config.score]}'"
            )
        too_long = config.max_words and len(response.split()) > config.max_words
        if not question or not response or too_long:
            continue
        # An export may hold an answer several times, as under each topic; votes only grow, so that
        # the highest score is the latest.
        scores = answers.setdefault(question, {})
        scores[response] = max(score, scores.get(response, -math.inf))
    scored: dict[str, list[tuple[float, str]]] = {}
    for question, scores in answers.items():
        scored[question] = [(score, text) for text, score in scores.items()]
    return scored


def _pairs_of(question: str, scored: list[tuple[float, str]], config: PairsConfig) -> list[Pair]:
    """Return a question's pairs, the widest gaps first; among equal gaps digests of the texts
    decide.
    """
    question_id = digest(question)[:16]
    answers: list[tuple[float, Candidate]] = []
    for score, text in scored:
        response_id = f"{question_id}_{digest(text)[:12]}"
        answers.append((score, Candidate(response_id, text)))
    answers.sort(key=lambda answer: (-answer[0], answer[1].response_id))
    scores = [score for score, _ in answers]
    candidates = [candidate for _, candidate in answers]

    # Ids are digests of the texts, so that the order of the file decides nothing.
    def widest_first(comparison: Comparison) -> tuple[float, str, str]:
        better = candidates[comparison.better]
        worse = candidates[comparison.worse]
        return -comparison.gap, better.response_id, worse.response_id

    comparisons = [pair for pair in two_by_two(scores) if pair.gap >= config.least_gap]
    comparisons.sort(key=widest_first)
    # 0 means all of them.
    selected = comparisons[: config.most_per_question or None]
    return [
        Pair(question_id, question, candidates[pair.better], candidates[pair.worse])
        for pair in selected
    ]
