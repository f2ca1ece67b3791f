"""What a model said, out of the message in which a server wraps it: its words, without its
thoughts, and their JSON.

Models fence their answers, think aloud before them, put them into a tool's call or into a list of
pieces. All of that is read where only one reading is possible, and nothing where there are two: a
vote that is lost is counted, a wrong one is not seen by anybody.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from jaxmodpo.endpoints.messages import message_text, without_thoughts

JsonObject = dict[str, object]
"""an object of JSON, whose values may be anything"""

# Beyond so many objects nobody answers; a text of braces alone is not searched for long.
_MOST_OBJECTS = 64
_OBJECT = re.compile(r'\{\s*["}]')


def answer_text(message: Mapping[str, object]) -> str:
    """Return a message's words; where there are none, what it gives the one tool that it calls."""
    text = message_text(message.get("content"))
    if text.strip():
        return text
    function = _called_function(message)
    arguments = function.get("arguments") if isinstance(function, dict) else None
    # OpenAI sends the arguments as a text of JSON, Ollama as an object.
    if isinstance(arguments, dict):
        return json.dumps(arguments, ensure_ascii=False)
    return arguments if isinstance(arguments, str) else text


def _called_function(message: Mapping[str, object]) -> object:
    """Return the one function that a message calls; None where it calls none, or several."""
    calls = message.get("tool_calls")
    if not calls:
        # What it was called before there were several.
        return message.get("function_call")
    if not isinstance(calls, list) or len(calls) != 1:
        return None
    (call,) = calls
    return call.get("function") if isinstance(call, dict) else None


def answer_object(text: str, names: Sequence[str], *, cut: bool = False) -> JsonObject | None:
    """Return the JSON object of an answer that has one of these fields; None where it is not clear
    which that is.

    The whole text, or else the objects in it that follow the thoughts, out of a fence and among
    other words. Several count where they agree on all of the names. An object that does not end
    makes all of them unclear, since it may hold the others; a text that was ``cut`` at its limit
    does, since more may have followed.
    """
    whole = _loaded(text)
    if whole is not None:
        return whole if isinstance(whole, dict) else None
    if cut:
        return None
    spoken = without_thoughts(text)
    objects = _objects(spoken) if spoken is not None else None
    if objects is None:
        return None
    answers = [value for value in objects if not value.keys().isdisjoint(names)]
    return _unanimous(answers, names)


def _unanimous(answers: Sequence[JsonObject], names: Sequence[str]) -> JsonObject | None:
    """Return the last of several answers; None where there is none, or another says otherwise."""
    if not answers:
        return None
    *earlier_answers, last = answers
    # A model may write a first answer, think again, and write another: which of the two it means
    # is its secret. Where both say the same it does not matter.
    last_values = [last.get(name) for name in names]
    for answer in earlier_answers:
        values = [answer.get(name) for name in names]
        if values != last_values:
            return None
    return last


def _objects(text: str) -> list[JsonObject] | None:
    """Return the objects that stand in a text one after the other; None where one does not end, or
    is none.
    """
    try:
        return list(_each_object(text))
    except (ValueError, RecursionError):
        return None


def _each_object(text: str) -> Iterator[JsonObject]:
    """Yield the objects that stand in a text one after the other.

    Raises:
        ValueError: one does not end or is none, or there are too many.
    """
    decoder = json.JSONDecoder(object_pairs_hook=_once)
    start = 0
    for _ in range(_MOST_OBJECTS):
        opening = _OBJECT.search(text, start)
        if opening is None:
            return
        value, start = decoder.raw_decode(text, opening.start())
        yield value
    raise ValueError("too many objects")


def _loaded(text: str) -> object:
    """Return what a text of JSON holds; None where it is no JSON as a whole."""
    try:
        return json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return None


def _once(pairs: list[tuple[str, object]]) -> JsonObject:
    """Return an object, whose fields must not stand in it twice: nobody knows which of the two is
    meant.
    """
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a field stands there twice")
    return value
