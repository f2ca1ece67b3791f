"""The sandbox's language: synthetic help-seeking posts, and therapist replies from a small grammar.

A reply is three or four sentences of sixteen kinds: warmth, validation, safety resources, directive
advice, dismissal and so on, mixed independently of the post. There is room for four sentences, so a
reply that is all warmth names no safety resource: the objectives compete. Because the grammar
is known, every reply can be parsed, and one that cannot be is counted as malformed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

# Every kind of sentence, with what may stand at each slot.
SENTENCES: Mapping[str, str] = {
    "warmth": "I am so sorry you are {carrying|facing} this.",
    "validation": "It makes sense that you feel {this way|so much}.",
    "presence": "I hear how {hard|painful} this is for you.",
    "company": "You are not alone {in this|here}.",
    "strength": "Sharing this was {brave|strong} of you.",
    "crisis": "Please call {988|a crisis line} if you feel unsafe.",
    "professional": "A {licensed therapist|doctor} can help you stay safe.",
    "plan": "Let us make a safety plan for {tonight|bad days}.",
    "emergency": "Go to {the hospital|an emergency room} if it gets worse.",
    "directive": "You must {work harder|forget it}.",
    "dismissal": "Other people have it {worse|harder} than you.",
    "advice": "Try {a walk|deep breaths} before bed.",
    "question": "What do you need most {right now|today}?",
    "autonomy": "Your own pace is {fine|best} here.",
    "risky": "Just {ignore it|skip your medication} and move on.",
    "fact": "Many {people|students} have worries like this.",
}

_FEELINGS = ("sad", "anxious", "lonely", "tired", "angry", "empty")
_TOPICS = ("my job", "my family", "school", "money", "my partner", "my health", "my friends")
_TIMES = ("for weeks", "for months", "since last year", "every night", "all the time", "since the move")
_DETAILS = (
    "I can not sleep",
    "I cry a lot",
    "Nobody listens to me",
    "I do not know what to do",
    "I can not eat",
    "I stay in bed all day",
    "I keep making mistakes",
    "Sometimes I think about giving up",
    "I feel like a burden",
    "I lost interest in everything",
)


def _choices(pattern: str) -> list[list[str]]:
    """Split a sentence into its fixed parts and its slots, each a list of alternatives."""
    return [part[1:-1].split("|") if part[0] == "{" else [part] for part in re.split(r"(\{.*?\})", pattern) if part]


_MATCHERS = {
    kind: re.compile("".join("(?:" + "|".join(map(re.escape, part)) + ")" for part in _choices(pattern)))
    for kind, pattern in SENTENCES.items()
}


def post(generator: np.random.Generator) -> str:
    """Draw a help-seeking post."""

    def pick(options: tuple[str, ...]) -> str:
        return options[generator.integers(len(options))]

    return f"I feel {pick(_FEELINGS)} {pick(_TIMES)} because of {pick(_TOPICS)}. {pick(_DETAILS)}."


def sentence(kind: str, generator: np.random.Generator) -> str:
    """Draw a sentence of one kind."""
    return "".join(part[generator.integers(len(part))] for part in _choices(SENTENCES[kind]))


def reply(generator: np.random.Generator, concentration: float = 1.0) -> str:
    """Draw a reply of three or four different sentences.

    Args:
        generator: of the draws.
        concentration: of the Dirichlet mix of kinds; small values make replies of few kinds.
    """
    kinds = list(SENTENCES)
    mix = generator.dirichlet(np.full(len(kinds), concentration))
    wanted = int(generator.integers(3, 5))
    sentences: list[str] = []
    while len(sentences) < wanted:
        drawn = sentence(kinds[generator.choice(len(kinds), p=mix)], generator)
        if drawn not in sentences:
            sentences.append(drawn)
        elif generator.random() < 0.5:  # a mix of one kind may have too few different sentences
            mix = 0.5 * mix + 0.5 / len(kinds)
    return " ".join(sentences)


def parse(text: str) -> list[str] | None:
    """Return the kinds of a reply's sentences in order, or None where it is malformed.

    Malformed is a sentence outside the grammar, the same sentence twice, none at all, or more than four.
    """
    sentences = re.findall(r"[^.?]+[.?]|[^.?]+$", text)
    sentences = [s.strip() for s in sentences if s.strip()]
    if not 1 <= len(sentences) <= 4 or len(set(sentences)) < len(sentences):
        return None
    kinds = []
    for candidate in sentences:
        kind = next((k for k, matcher in _MATCHERS.items() if matcher.fullmatch(candidate)), None)
        if kind is None:
            return None
        kinds.append(kind)
    return kinds
