"""What people write for a study besides posts and replies: its texts, checks and practice items.

Ours are ``configs/study/texts.yaml``, a template to be copied and filled in, and
``configs/study/checks.yaml``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxmodpo.config import builtin, load_yaml
from jaxmodpo.errors import UserError
from jaxmodpo.schema import read_as
from jaxmodpo.study.study_file import StudyTexts

# What a template leaves to whoever copies it.
_PLACEHOLDER = re.compile(r"\[\[.*?\]\]", re.DOTALL)


@dataclass(frozen=True)
class TextsFile:
    """The texts of a study; a text may have paragraphs, between which stands an empty line.

    Attributes:
        title: of the study, as raters see it; it names no model.
        information: who asks, what for, how long it takes, what is stored, whom to turn to.
        consent: statements, each of which a rater has to agree to.
        consent_version: to be raised whenever information or consent changes.
        instructions: what raters are to do.
        content_warning: what raters may find hard to read.
    """

    title: str
    information: str
    consent: list[str]
    instructions: str
    content_warning: str
    consent_version: str = "1"


@dataclass(frozen=True)
class AttentionCheck:
    """A post that says what to choose.

    Attributes:
        post: says what to choose.
        reply_a: one reply.
        reply_b: the other one.
        choose: what is right by every criterion.
    """

    post: str
    reply_a: str
    reply_b: str
    choose: Literal["a", "b", "equal"]


@dataclass(frozen=True)
class PracticeItem:
    """A post and two replies on which raters practice.

    Attributes:
        post: the post.
        reply_a: one reply.
        reply_b: the other one.
        expected: the right answers by criterion, of those that the explanation is about.
        explanation: what a rater reads after answering.
    """

    post: str
    reply_a: str
    reply_b: str
    expected: dict[str, Literal["a", "b", "equal"]]
    explanation: str


@dataclass(frozen=True)
class ChecksFile:
    """Attention checks and practice items of a study.

    Attributes:
        attention: checks whose post says what to choose.
        training: practice items, in the order in which raters see them.
    """

    attention: list[AttentionCheck]
    training: list[PracticeItem]


def load_texts(source: str | Path, *, is_rehearsal: bool) -> tuple[str, StudyTexts]:
    """Read a study's title and texts.

    Args:
        source: a YAML file, or the name of ours.
        is_rehearsal: whether placeholders may be left, since nobody takes part.

    Raises:
        UserError: a key is missing or unknown, a text is empty, or a placeholder is left.
    """
    path = builtin("study", source)
    texts: TextsFile = read_as(load_yaml(path), TextsFile, str(path))
    if not texts.consent:
        raise UserError(f"{path}: consent holds no statement; give raters one to agree to")
    for key, text in _every_text(texts):
        if not text.strip():
            raise UserError(f"{path}: {key} is empty")
        placeholder = _PLACEHOLDER.search(text)
        if placeholder and not is_rehearsal:
            raise UserError(
                f"{path}: {key} still holds {placeholder[0]:.60}; copy the file, fill it in and give"
                " it to --texts, or rehearse with --rehearsal"
            )
    study_texts = StudyTexts(
        information=texts.information,
        consent=tuple(texts.consent),
        instructions=texts.instructions,
        content_warning=texts.content_warning,
        consent_version=texts.consent_version,
    )
    return texts.title, study_texts


def _every_text(texts: TextsFile) -> Iterator[tuple[str, str]]:
    """Yield each key with a text of its."""
    yield "title", texts.title
    yield "information", texts.information
    for statement in texts.consent:
        yield "consent", statement
    yield "consent_version", texts.consent_version
    yield "instructions", texts.instructions
    yield "content_warning", texts.content_warning


def load_checks(source: str | Path, criteria: Sequence[str]) -> ChecksFile:
    """Read attention checks and practice items, with the answers that a study asks for.

    Args:
        source: a YAML file, or the name of ours.
        criteria: the study's; a practice item without an answer by any of them is left out, as its
            explanation would be about nothing.

    Raises:
        UserError: a key is missing or unknown, or a text is empty.
    """
    path = builtin("study", source)
    checks: ChecksFile = read_as(load_yaml(path), ChecksFile, str(path))
    for kind, items in (("attention", checks.attention), ("training", checks.training)):
        for number, item in enumerate(items, 1):
            for key in ("post", "reply_a", "reply_b", "explanation"):
                if not getattr(item, key, "there").strip():
                    raise UserError(f"{path}: {kind}, item {number}: {key} is empty")
    training = [item for item in checks.training if asked(item.expected, criteria)]
    return ChecksFile(checks.attention, training)


def asked(
    expected: Mapping[str, Literal["a", "b", "equal"]], criteria: Sequence[str]
) -> dict[str, Literal["a", "b", "equal"]]:
    """Return the right answers to those criteria that a study has."""
    return {criterion: answer for criterion, answer in expected.items() if criterion in criteria}
