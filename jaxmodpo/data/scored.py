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
from jaxmodpo.ranges import CountOrZero, Incidental, Positive, Settings
from jaxmodpo.rankings import two_by_two
from jaxmodpo.records import Candidate, Pair, write_pairs

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PairsConfig(Settings, help_group="data"):
    """Make preference pairs of scored answers to questions, such as CounselChat's with their
    upvotes.
    """

    input: Path
    """a CSV file with a row per answer"""
    output_dir: Incidental[Path]
    """NAME_pairs.json is written here"""
    name: str = "upvotes"
    """how the pairs' file begins: NAME_pairs.json"""
    question: str = "questionText"
    """the column with the question's text"""
    response: str = "answerText"
    """the column with the answer's text"""
    score: str = "upvotes"
    """the column with a number, higher is better"""
    least_gap: Positive = 1.0
    """between two scores that make a pair"""
    most_per_question: CountOrZero = 5
    """pairs of a question, the widest gaps first; 0 means all"""
    max_words: CountOrZero = 0
    """leave out longer answers; 0 keeps all"""

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
    made = [
        pair for question, scored in answers.items() for pair in _pairs_of(question, scored, config)
    ]
    if not made:
        raise UserError(
            f"{config.input}: no question has two answers whose scores differ by"
            f" {config.least_gap:g}"
        )
    write_pairs(config.output_dir / f"{config.name}_pairs.json", made)
    questions = len({pair.question_id for pair in made})
    logger.info(
        "%d pairs of %d questions; %d questions have none",
        len(made),
        questions,
        len(answers) - questions,
    )
    phase.finish(
        pairs=len(made), questions=questions, questions_without_pair=len(answers) - questions
    )


def read_scored(config: PairsConfig) -> dict[str, list[tuple[float, str]]]:
    """Return every question's answers with their scores; empty texts and doubles of an answer are
    left out.
    """
    answers: dict[str, dict[str, float]] = {}
    for number, row in enumerate(
        read_table(config.input, [config.question, config.response, config.score]), 2
    ):
        question, response = (
            " ".join(row[config.question].split()),
            " ".join(row[config.response].split()),
        )
        try:
            score = float(row[config.score])
        except ValueError:
            score = math.nan
        if not math.isfinite(score):
            raise UserError(
                f"{config.input}, record {number}: {config.score} is no number:"
                f" '{row[config.score]}'"
            )
        if (
            not question
            or not response
            or (config.max_words and len(response.split()) > config.max_words)
        ):
            continue
        known = answers.setdefault(question, {})
        known[response] = max(score, known.get(response, -math.inf))
    return {q: [(score, text) for text, score in scored.items()] for q, scored in answers.items()}


def _pairs_of(question: str, scored: list[tuple[float, str]], config: PairsConfig) -> list[Pair]:
    """Return a question's pairs, the widest gaps first; among equal gaps digests of the texts
    decide.
    """
    question_id = digest(question)[:16]
    answers = [
        (score, Candidate(f"{question_id}_{digest(text)[:12]}", text)) for score, text in scored
    ]
    answers.sort(key=lambda answer: (-answer[0], answer[1].response_id))
    candidates = [candidate for _, candidate in answers]
    comparisons = [
        pair for pair in two_by_two([score for score, _ in answers]) if pair.gap >= config.least_gap
    ]
    comparisons.sort(
        key=lambda pair: (
            -pair.gap,
            candidates[pair.better].response_id,
            candidates[pair.worse].response_id,
        )
    )
    return [
        Pair(question_id, question, candidates[pair.better], candidates[pair.worse])
        for pair in comparisons[: config.most_per_question or None]
    ]
