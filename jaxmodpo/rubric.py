"""The rubric: counts phrases and formal faults of a text, and has no clinical meaning.

It stands in for people where there is neither a key nor a network, and its numbers can be traced:
every phrase, weight and deduction stands in ``configs/judging/rubric.yaml``. The built-in judge
(:mod:`jaxmodpo.judging.rubric`) votes by it, and a sweep over weights may score replies with it::

    load_rubric().score("I am so sorry.", "empathy")  # 0.25: one of the four phrases that count
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Annotated

from jaxmodpo.config import builtin, load_yaml
from jaxmodpo.criteria import OVERALL
from jaxmodpo.errors import UserError, nearest
from jaxmodpo.fingerprints import digest
from jaxmodpo.schema import Range, read_as

# Whole words before endings, or "can't" would become "ca not". A noun's "'s" is a possessive and
# stays.
_CONTRACTIONS = (
    (re.compile(r"\bcan't\b"), "cannot"),
    (re.compile(r"\bwon't\b"), "will not"),
    (re.compile(r"\blet's\b"), "let us"),
    (re.compile(r"\b(it|that|this|there|here|what|who|how|he|she)'s\b"), r"\1 is"),
    (re.compile(r"\bi'm\b"), "i am"),
    (re.compile(r"n't\b"), " not"),
    (re.compile(r"'re\b"), " are"),
    (re.compile(r"'ve\b"), " have"),
    (re.compile(r"'ll\b"), " will"),
    (re.compile(r"'d\b"), " would"),
)
# "that that" and "had had" are English.
_DOUBLED = re.compile(r"\b(?!(?:that|had)\b)(\w+)\s+\1\b")
FAULTS = ("repeated_sentence", "doubled_word", "unfinished", "empty")
"""a text's formal faults"""


@dataclass(frozen=True)
class Phrases:
    """One criterion's part of the rubric; ``rated_as`` is its line in a persona's profile, if it
    has one.
    """

    positive: tuple[re.Pattern[str], ...]
    negative: tuple[re.Pattern[str], ...]
    rated_as: str | None


@dataclass(frozen=True)
class Rubric:
    """The rubric file; ``version`` is a digest of its content."""

    phrases: dict[str, Phrases]
    deductions: dict[str, float]
    saturation: int
    version: str

    def score(self, text: str, criterion: str) -> float:
        """Return the score of a text on a criterion, in [-2, 1].

        With p positive and n negative phrases in it and saturation s, it is
        ``min(p, s) / s - min(n, s) / s - deductions``.

        Raises:
            UserError: the rubric has no phrases for the criterion.
        """
        phrases = self.phrases.get(criterion)
        if phrases is None:
            raise UserError(
                "the rubric judge has no phrases for the criterion"
                f" '{criterion}'{nearest(criterion, [*self.phrases, OVERALL])} (an endpoint"
                " judge takes any criterion)"
            )
        plain = written_out(text)
        full = self.saturation
        # A phrase counts once, however often it stands there: a text that says one kind thing ten
        # times is no kinder for it. Above the saturation further phrases add nothing.
        positive = sum(p.search(plain) is not None for p in phrases.positive)
        negative = sum(p.search(plain) is not None for p in phrases.negative)
        deducted = sum(self.deductions[fault] for fault in faults(text))
        return (min(positive, full) - min(negative, full)) / full - deducted


@dataclass(frozen=True)
class PhrasesPart:
    """A criterion's phrases as the file has them.

    Attributes:
        positive: regular expressions of what a better reply says.
        negative: of what a worse one says.
        rated_as: the criterion's line in a persona's profile, if it has one.
    """

    positive: list[str]
    negative: list[str]
    rated_as: str | None = None


@dataclass(frozen=True)
class RubricFile:
    """The phrases of the built-in judge.

    Attributes:
        saturation: so many phrases count at most.
        deductions: what each formal fault of a reply costs.
        criteria: the phrases of each criterion, by its name.
    """

    saturation: Annotated[int, Range(least=1)]
    deductions: dict[str, float]
    criteria: dict[str, PhrasesPart]


@functools.cache
def load_rubric() -> Rubric:
    """Read and compile ``configs/judging/rubric.yaml``."""
    path = builtin("judging", "rubric")
    content = load_yaml(path)
    rubric = read_as(content, RubricFile, str(path))
    for fault in FAULTS:
        if fault not in rubric.deductions:
            raise UserError(f"{path}: deductions lacks the fault '{fault}'")

    def compiled(phrases: list[str], name: str) -> tuple[re.Pattern[str], ...]:
        try:
            return tuple(re.compile(rf"(?<!\w)(?:{p})(?!\w)", re.IGNORECASE) for p in phrases)
        except re.error as error:
            raise UserError(f"{path}: criteria, {name}: no regular expression ({error})") from None

    phrases: dict[str, Phrases] = {}
    for name, rule in rubric.criteria.items():
        positive = compiled(rule.positive, name)
        negative = compiled(rule.negative, name)
        phrases[name] = Phrases(positive, negative, rule.rated_as)
    return Rubric(phrases, rubric.deductions, rubric.saturation, digest(content)[:12])


def written_out(text: str) -> str:
    """Return a text in lower case, single-spaced, with its contractions written out."""
    text = " ".join(text.lower().replace("\u2019", "'").split())
    for pattern, full in _CONTRACTIONS:
        text = pattern.sub(full, text)
    return text


def faults(text: str) -> list[str]:
    """Name a text's formal faults, each once: repeated_sentence, doubled_word, unfinished, empty.

    A text without a letter or digit is empty and has no other fault.
    """
    plain = " ".join(text.lower().split())
    if not re.search(r"\w", plain):
        return ["empty"]
    pieces = [piece.strip() for piece in re.split(r"[.?!]+", plain)]
    sentences = [piece for piece in pieces if piece]
    names: list[str] = []
    if len(set(sentences)) < len(sentences):
        names.append("repeated_sentence")
    if _DOUBLED.search(plain):
        names.append("doubled_word")
    # A closing quote or bracket may stand behind the mark that ends a sentence.
    if not plain.rstrip("\"'\u201d\u2019)]*").endswith((".", "?", "!")):
        names.append("unfinished")
    return names
