"""What an evaluation compares: every model's replies, read and checked, and the pairs of replies
that are judged.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxmodpo.criteria import Criterion
from jaxmodpo.errors import UserError
from jaxmodpo.fingerprints import digest
from jaxmodpo.records import Candidate, Question, read_responses

logger = logging.getLogger(__name__)


_Answered = dict[str, tuple[Question, list[str]]]
"""a model's questions, each with the texts of its replies, by id"""


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
        """The models' names; their order gives every model its number."""
        return list(self.replies)

    @property
    def replies_per_question(self) -> int:
        """How many replies every model has to every question."""
        first_model = next(iter(self.replies.values()))
        return len(first_model[0])


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
        """Whether both texts are the same, which is a tie that nobody needs to be asked about."""
        return self.a.response_text == self.b.response_text


def refuse_empty_models(
    files: Mapping[str, Path], replies: Mapping[str, Sequence[Sequence[Candidate]]]
) -> None:
    """Refuse a model without a word in any reply, before a vote is paid for.

    Two such models would tie on every question and score 0.5, which reads like a result.
    """
    for name, answered in replies.items():
        if _count_empty(answered) == sum(map(len, answered)):
            raise UserError(
                f"{files[name]}: every reply of {name} is empty, so there is nothing to compare; "
                "write its replies again with 'jaxmodpo responses', or leave the model out"
            )


UnevenQuestions = Literal["refuse", "common"]
"""what is done where models answer different questions"""


def read_replies(
    files: Mapping[str, Path], uneven: UnevenQuestions = "refuse"
) -> tuple[list[Question], dict[str, list[list[Candidate]]]]:
    """Read each model's replies, blinded, in the order of the first model's questions.

    Args:
        files: by model.
        uneven: whether different sets of questions are refused, or cut to those of all models.

    Raises:
        UserError: a model lacks a question, has one more, another text for it, or another number of
            replies; the message names model and question.
    """
    by_model = {name: _by_question(path) for name, path in files.items()}
    ids_by_model = [set(answered) for answered in by_model.values()]
    common = set.intersection(*ids_by_model)
    if uneven == "common":
        by_model = _cut_to_common(by_model, common)
    first_model = next(iter(files))
    questions = [question for question, _ in by_model[first_model].values()]
    # The first model's first question says how many replies every question has.
    _, first_texts = next(iter(by_model[first_model].values()))
    replies: dict[str, list[list[Candidate]]] = {}
    for name, answered in by_model.items():
        # Both ways: a question that only one model answers would drop out of a comparison unseen.
        for question in questions:
            if question.question_id not in answered:
                raise UserError(
                    f"{files[name]}: {name} has no reply to question {question.question_id}, which"
                    f" {first_model} has; all models must answer the same questions"
                    f"{_counted(by_model, common)}"
                )
            _check_answer(files[name], name, first_model, question, len(first_texts), answered)
        extra = [key for key in answered if key not in by_model[first_model]]
        if extra:
            raise UserError(
                f"{files[name]}: {name} has a reply to question {extra[0]}, which {first_model}"
                " has not; all models must answer the same questions"
                f"{_counted(by_model, common)}"
            )
        # In the first model's order, whatever the order of this model's file.
        replies[name] = []
        for question in questions:
            _, texts = answered[question.question_id]
            replies[name].append(_blinded(question, texts))
    return questions, replies


def _cut_to_common(by_model: Mapping[str, _Answered], common: Set[str]) -> dict[str, _Answered]:
    """Leave out the questions that some model has not answered, and say how many of each model's
    are left.

    Raises:
        UserError: no question is common to all models.
    """
    if not common:
        raise UserError(
            "--responses: no question is answered by all models"
            f"{_counted(by_model, common)}; give files of replies to the same questions"
        )
    cut: dict[str, _Answered] = {}
    for name, answered in by_model.items():
        cut[name] = {key: value for key, value in answered.items() if key in common}
        if len(cut[name]) < len(answered):
            logger.warning(
                "evaluate: %s answers %d questions, of which %d are compared: those that all"
                " models answer",
                name,
                len(answered),
                len(common),
            )
    return cut


def _counted(by_model: Mapping[str, _Answered], common: Set[str]) -> str:
    """Return how many questions each model answers and how many all do, as the end of an error."""
    counts = [f"{name} {len(answered)}" for name, answered in by_model.items()]
    if not common:
        return f" (questions answered: {', '.join(counts)}; by all 0)"
    return (
        f" (questions answered: {', '.join(counts)}; by all {len(common)}, which --uneven-questions"
        " common compares)"
    )


def _check_answer(
    path: Path,
    name: str,
    first_model: str,
    question: Question,
    count: int,
    answered: Mapping[str, tuple[Question, list[str]]],
) -> None:
    """Refuse a model whose replies to a question cannot be compared with the first model's.

    An id is not enough: two files may give one id to two texts, and the judge would compare replies
    to different questions without a word.
    """
    answered_question, texts = answered[question.question_id]
    if answered_question.question_text != question.question_text:
        raise UserError(
            f"{path}: {name} and {first_model} have different texts for question"
            f" {question.question_id}; all models must answer the same questions"
        )
    if len(texts) != count:
        raise UserError(
            f"{path}: {name} has {len(texts)} replies to question"
            f" {question.question_id}, not {count} as {first_model} to its first; all models"
            " need equally many replies to every question"
        )


def _by_question(path: Path) -> _Answered:
    """Return a file's questions, each with the texts of its replies, by id."""
    answered: _Answered = {}
    for row in read_responses(path):
        new_entry: tuple[Question, list[str]] = (Question(row.question_id, row.question_text), [])
        question, texts = answered.setdefault(row.question_id, new_entry)
        if question.question_text != row.question_text:
            raise UserError(
                f"{path}: question {row.question_id} stands there with two different texts"
            )
        texts.append(row.response_text)
    return answered


def _blinded(question: Question, texts: Sequence[str]) -> list[Candidate]:
    return [blind(question, reply, text) for reply, text in enumerate(texts)]


def blind(question: Question, reply: int, text: str) -> Candidate:
    """Give a reply an id that says nothing of its model, and is the same whatever the model is
    called.
    """
    # The text is part of it: two models' first replies to a question must differ in their ids, and
    # equal texts may have one.
    own_digest = digest([question.question_id, reply, text])
    return Candidate(own_digest[:16], text)


def plan(contest: Contest) -> Iterator[Unit]:
    """Yield every unit of every pair of models, one pair after the other, in a fixed order."""
    replies = list(contest.replies.values())
    for a, b in itertools.combinations(range(len(replies)), 2):
        for question in range(len(contest.questions)):
            # Replies of one number meet: the first reply of one model with the first of the other.
            for reply in range(contest.replies_per_question):
                candidate_a = replies[a][question][reply]
                candidate_b = replies[b][question][reply]
                yield Unit(a, b, question, reply, candidate_a, candidate_b)


def empty_replies(contest: Contest) -> dict[str, int]:
    """Count each model's replies without any text."""
    counts: dict[str, int] = {}
    for name, answered in contest.replies.items():
        counts[name] = _count_empty(answered)
    return counts


def _count_empty(answered: Sequence[Sequence[Candidate]]) -> int:
    """Count a model's replies without any text, of ``[questions][replies]``."""
    every_reply = itertools.chain.from_iterable(answered)
    return sum(not candidate.response_text.strip() for candidate in every_reply)


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
