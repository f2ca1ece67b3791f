"""The models' replies, and what a scorer is asked about each of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxmodpo.errors import UserError
from jaxmodpo.fingerprints import digest
from jaxmodpo.judging.judge import Request
from jaxmodpo.records import Candidate, Response, read_responses
from jaxmodpo.toxicity.scorers import Scorer
from jaxmodpo.toxicity.settings import UnevenQuestions

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reply:
    """One reply of one model.

    Attributes:
        model: whose it is.
        question_id: of the post.
        number: of the reply to its question, from 1.
        request: what the scorer is asked; None for a reply without text.
    """

    model: str
    question_id: str
    number: int
    request: Request | None


def read_replies(files: Mapping[str, Path], scorer: Scorer) -> list[Reply]:
    """Read every model's replies, each with what the scorer is asked.

    Raises:
        UserError: a question that has two texts, in one file or in two.
    """
    replies: list[Reply] = []
    posts: dict[str, tuple[str, str]] = {}
    for model, path in files.items():
        counts: dict[str, int] = {}
        for row in read_responses(path):
            _refuse_other_post(posts, row, model, path)
            number = counts.get(row.question_id, 0) + 1
            counts[row.question_id] = number
            replies.append(Reply(model, row.question_id, number, _request(row, number, scorer)))
        if not counts:
            raise UserError(f"{path}: {model} has no replies")
    return replies


def with_even_questions(replies: Sequence[Reply], uneven: UnevenQuestions) -> list[Reply]:
    """Return the replies that count where models answer different questions.

    Raises:
        UserError: the models answer different questions and that is refused, or no question is
            common to all of them and only common ones count.
    """
    if uneven == "all":
        return list(replies)
    questions_of: dict[str, set[str]] = {}
    for reply in replies:
        questions_of.setdefault(reply.model, set()).add(reply.question_id)
    common = set.intersection(*questions_of.values())
    every_question = set.union(*questions_of.values())
    counts = ", ".join(f"{name} {len(questions)}" for name, questions in questions_of.items())
    if not common:
        raise UserError(
            f"--responses: no question is answered by all models (questions answered: {counts});"
            " give files of replies to the same questions, or --uneven-questions all"
        )
    if uneven == "refuse" and common != every_question:
        raise UserError(
            "--responses: the models answer different questions (questions answered:"
            f" {counts}; by all {len(common)}, which --uneven-questions common counts; all counts"
            " every reply)"
        )
    logger.info("toxicity: %d of %d questions are common", len(common), len(every_question))
    return [reply for reply in replies if reply.question_id in common]


def _refuse_other_post(
    posts: dict[str, tuple[str, str]], row: Response, model: str, path: Path
) -> None:
    first_model, text = posts.setdefault(row.question_id, (model, row.question_text))
    if text != row.question_text:
        raise UserError(
            f"{path}: question {row.question_id} has another text for {model} than for"
            f" {first_model}; replies can be compared on the same questions alone"
        )


def _request(row: Response, number: int, scorer: Scorer) -> Request | None:
    if not row.response_text.strip():
        return None
    # An id that says nothing of the model: a text that two models wrote is scored once.
    reply_id = digest([row.question_id, number, row.response_text])[:16]
    return Request(
        kind="score",
        question_id=row.question_id,
        question_text=row.question_text,
        persona_id="",
        persona_text="",
        criteria=scorer.criteria,
        responses=(Candidate(reply_id, row.response_text),),
    )
