"""What an evaluation compares: every model's replies, read and checked, and the pairs of replies
that are judged.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxmodpo.criteria import Criterion
from jaxmodpo.errors import UserError
from jaxmodpo.fingerprints import digest
from jaxmodpo.records import Candidate, Question, read_responses

logger = logging.getLogger(__name__)


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


def refuse_empty_models(
    files: Mapping[str, Path], replies: Mapping[str, Sequence[Sequence[Candidate]]]
) -> None:
    """Refuse a model without a word in any reply, before a vote is paid for.

    Two such models would tie on every question and score 0.5, which reads like a result.
    """
    for name, answered in replies.items():
        if not any(candidate.response_text.strip() for texts in answered for candidate in texts):
            raise UserError(
                f"{files[name]}: every reply of {name} is empty, so there is nothing to compare; "
                "write its replies again with 'jaxmodpo responses', or leave the model out"
            )


def read_replies(
    files: Mapping[str, Path],
) -> tuple[list[Question], dict[str, list[list[Candidate]]]]:
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
                    f"{files[name]}: {name} has no reply to question {question.question_id}, which"
                    f" {first} has; all models must answer the same questions"
                )
            other, texts = answered[question.question_id]
            if other.question_text != question.question_text:
                raise UserError(
                    f"{files[name]}: {name} and {first} have different texts for question"
                    f" {question.question_id}; all models must answer the same questions"
                )
            if len(texts) != number:
                raise UserError(
                    f"{files[name]}: {name} has {len(texts)} replies to question"
                    f" {question.question_id}, not {number} as {first} to its first; all models"
                    " need equally many replies to every question"
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
        question, texts = answered.setdefault(
            row.question_id, (Question(row.question_id, row.question_text), [])
        )
        if question.question_text != row.question_text:
            raise UserError(
                f"{path}: question {row.question_id} stands there with two different texts"
            )
        texts.append(row.response_text)
    return answered


def blind(question: Question, reply: int, text: str) -> Candidate:
    """Give a reply an id that says nothing of its model, and is the same whatever the model is
    called.
    """
    return Candidate(digest([question.question_id, reply, text])[:16], text)


def plan(contest: Contest) -> Iterator[Unit]:
    """Yield every unit of every pair of models, one pair after the other, in a fixed order."""
    for (a, replies_a), (b, replies_b) in itertools.combinations(
        enumerate(contest.replies.values()), 2
    ):
        for question, both in enumerate(zip(replies_a, replies_b, strict=True)):
            for reply, (candidate_a, candidate_b) in enumerate(zip(*both, strict=True)):
                yield Unit(a, b, question, reply, candidate_a, candidate_b)


def empty_replies(contest: Contest) -> dict[str, int]:
    """Count each model's replies without any text."""
    return {
        name: sum(
            not candidate.response_text.strip() for replies in answered for candidate in replies
        )
        for name, answered in contest.replies.items()
    }


def warn_of_empty_replies(contest: Contest) -> None:
    """Say which models have empty replies: they are compared as they are, and two empty ones are a
    tie.
    """
    total = len(contest.questions) * contest.replies_per_question
    for name, count in empty_replies(contest).items():
        if count:
            logger.warning(
                "evaluate: %d of %s's %d replies are empty; two empty replies to a question count"
                " as a tie",
                count,
                name,
                total,
            )
