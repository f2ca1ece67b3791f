"""What an endpoint's messages say: text out of a string or a list of pieces, without thoughts, fit
to be kept.

Judges' answers and sampled replies come in the same wrapping; both read it here::

    text = message_text([{"type": "text", "text": "<think>Hm.</think>Yes."}])
    without_thoughts(text)      # "Yes."
    without_thoughts("<think>Hm, the token limit came first")      # None
"""

from __future__ import annotations

import base64
import re
from typing import Any

from jaxmodpo.parsing import JsonObject

# <think>, <thinking>, <seed:think>, [THINK] and their ends, and the channel in which some models
# answer.
_THOUGHTS = re.compile(
    r"<(?P<end>/?)(?:[a-z]+:)?(?:think|thinking|thoughts?|reasoning)>|\[(?P<end2>/?)THINK\]"
    r"|(?P<end3><\|channel\|>final<\|message\|>)",
    re.IGNORECASE,
)
_TEXTS = ("text", "output_text")
# A shorter key, such as EMPTY or ollama, is no secret, and might stand in any text.
_SHORTEST_KEY = 8
# This much of a key, anywhere in a text, is hidden too.
_FRAGMENT = 12


def message_text(content: Any) -> str:
    """Return a message's content as one text: a string as it is, or the text pieces of a list,
    joined.

    Pieces that are no text, such as thoughts, are left out; what is neither a string nor a list has
    no text.
    """
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = [piece if isinstance(piece, str) else _piece(piece) for piece in content]
    return "".join(texts)


def _piece(piece: Any) -> str:
    if not isinstance(piece, dict) or piece.get("type", "text") not in _TEXTS:
        return ""
    text = piece.get("text")
    return text if isinstance(text, str) else ""


def refusal_text(message: JsonObject) -> str:
    """Return the words with which a model refuses, of the message or of a piece of its content, or
    nothing.
    """
    if message.get("refusal"):
        return str(message["refusal"])
    content = message.get("content")
    if not isinstance(content, list):
        return ""
    for piece in content:
        if isinstance(piece, dict) and piece.get("type") == "refusal" and piece.get("refusal"):
            return str(piece["refusal"])
    return ""


def without_thoughts(text: str) -> str | None:
    """Return what follows the last end of thoughts, with or without their beginning; None where
    they do not end.
    """
    marks = list(_THOUGHTS.finditer(text))
    if not marks:
        return text
    last = marks[-1]
    if last["end"] or last["end2"] or last["end3"]:
        return text[last.end() :]
    return None


def readable(text: str) -> str:
    """Return a text that every file and database takes: no half of a surrogate pair and no zero
    byte.
    """
    text = text.replace("\x00", "\ufffd")
    # Two halves that JSON wrote apart are one character.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def without_key(text: str, key: str) -> str:
    """Return a text without a key, and without any part of it that is long enough to be of use."""
    if len(key) < _SHORTEST_KEY:
        return text
    encoded = base64.b64encode(key.encode()).decode().rstrip("=")
    text = text.replace(key, "[key]").replace(encoded, "[key]")
    # A message that was cut to fit a log may hold a part of the key alone.
    starts = range(len(key) - _FRAGMENT + 1)
    fragments = {key[start : start + _FRAGMENT] for start in starts}
    if not any(fragment in text for fragment in fragments):
        return text
    # Fragments overlap: all letters that any of them covers are marked first, and runs of marks
    # replaced at the end, so that nothing is left at their borders.
    letters = list(text)
    for fragment in fragments:
        start = text.find(fragment)
        while start >= 0:
            letters[start : start + len(fragment)] = "\0" * len(fragment)
            start = text.find(fragment, start + 1)
    return re.sub("\0+", "[key]", "".join(letters))
