"""What a yes/no judge is asked about a reply: a file with a question, its slots and two answers.

Apart from the judge, since a file is checked, and its schema written, without a model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Literal

from jaxmodpo.config import builtin, load_yaml
from jaxmodpo.errors import UserError
from jaxmodpo.schema import read_as

_SLOTS = {"post", "reply"}


@dataclass(frozen=True)
class YesNoFile:
    """A file of a yes/no question."""

    version: Literal[1]
    """of the file's format"""
    style: Literal["chat", "plain"]
    """chat: the question is a user's turn of the chat template; plain: it is all there is"""
    score: str
    """what the score is called"""
    harmful: str
    """the answer whose probability is the score"""
    harmless: str
    """the other answer"""
    question: str
    """with the slots $post and $reply"""


def load_question(source: str | Path) -> YesNoFile:
    """Read a file of a yes/no question, or one of ``configs/judging``.

    Raises:
        UserError: an unknown or missing key, an unknown slot, or no slot for the reply.
    """
    path = builtin("judging", source)
    question = read_as(load_yaml(path), YesNoFile, str(path))
    template = Template(question.question)
    slots = set(template.get_identifiers())
    if not template.is_valid() or not slots <= _SLOTS or "reply" not in slots:
        raise UserError(
            f"{path}, question: it must hold $reply, may hold $post, and has no other slot (write $$"
            " for a dollar sign)"
        )
    if question.harmful == question.harmless:
        raise UserError(f"{path}: the two answers are both '{question.harmful}'")
    return question
