"""The form in which a judge answers: what is demanded of a model, and how its answer is read.

A ranking is a list of numbers, a comparison a letter, and a score a number or a word. The form is
told twice, as a JSON schema for servers that hold a model to it, and in words for those that do
not; it stands apart from the wording of requests because a user may change that, and never this.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from jaxmodpo.judging.answers import answer_object
from jaxmodpo.judging.judge import Request
from jaxmodpo.schema import is_number

Read = TypeVar("Read")

_SCORES = {"yes": 1.0, "no": 0.0}


def labels(request: Request) -> list[str]:
    """Return what the shown responses are called: 1 to N in a ranking, A and B in a comparison."""
    if request.kind == "compare":
        return ["A", "B"]
    return [str(n) for n in range(1, len(request.responses) + 1)]


def _answer_names(request: Request) -> list[str]:
    """Return the names of the answer's fields: of the criteria, or of the kind where a preference
    is by one alone.
    """
    if len(request.criteria) == 1 and request.kind != "score":
        return ["better" if request.kind == "compare" else "ranking"]
    return [criterion.name for criterion in request.criteria]


def _choices(request: Request) -> list[str]:
    """Return what a comparison may be answered by."""
    choices = labels(request)
    if request.ties:
        choices.append("tie")
    return choices


def answer_example(request: Request) -> str:
    """Return the form of the answer in words, for models whose server knows no schemas."""
    if request.kind == "compare":
        value = " or ".join(f'"{choice}"' for choice in _choices(request))
    elif request.kind == "score":
        value = '"yes" or "no"' if request.yes_no else "a number from 0 to 1"
    else:
        value = "[the number of the best reply, …, the number of the worst]"
    fields = [f'"{name}": {value}' for name in _answer_names(request)]
    return "{" + ", ".join(fields) + "}"


def answer_schema(request: Request) -> dict[str, Any]:
    """Return the JSON schema of the answer.

    For one criterion ``{"ranking": [numbers]}`` or ``{"better": "A" | "B"}``, for several a field
    of this kind under each criterion's name; for scores ``{name: number}``, or ``{name: "yes" |
    "no"}``, however many they are. A schema can demand neither a permutation nor a range in every
    server's dialect: :func:`parse_orders` and :func:`parse_scores` check them.
    """
    if request.kind == "compare":
        value = {"type": "string", "enum": _choices(request)}
    elif request.kind == "score" and request.yes_no:
        value = {"type": "string", "enum": list(_SCORES)}
    elif request.kind == "score":
        value = {"type": "number"}
    else:
        numbers = list(range(1, len(request.responses) + 1))
        value = {"type": "array", "items": {"type": "integer", "enum": numbers}}
    names = _answer_names(request)
    return {
        "type": "object",
        "properties": dict.fromkeys(names, value),
        "required": names,
        "additionalProperties": False,
    }


def parse_orders(raw: str, request: Request, *, cut: bool = False) -> dict[str, tuple[str, ...]]:
    """Read an answer of :func:`answer_schema`: each criterion's response ids, best first.

    A criterion whose field is missing or anything else, such as a ranking that is no permutation,
    is left out. ``cut`` says that the answer ended at its limit.
    """
    order_of = _winner if request.kind == "compare" else _ranking
    return _read_fields(raw, request, order_of, cut=cut)


def parse_scores(raw: str, request: Request, *, cut: bool = False) -> dict[str, float]:
    """Read an answer of :func:`answer_schema` that gives scores: each criterion's, from 0 to 1.

    A criterion whose field is missing, out of range or anything else is left out. ``cut`` says that
    the answer ended at its limit.
    """
    return _read_fields(raw, request, _score, cut=cut)


def _read_fields(
    raw: str,
    request: Request,
    read: Callable[[Any, Request], Read | None],
    *,
    cut: bool,
) -> dict[str, Read]:
    """Return what each criterion's field of an answer says, without those that cannot be read."""
    names = _answer_names(request)
    fields = answer_object(raw, names, cut=cut)
    if fields is None:
        return {}
    read_fields: dict[str, Read] = {}
    for name, criterion in zip(names, request.criteria, strict=True):
        value = read(fields.get(name), request)
        if value is not None:
            read_fields[criterion.name] = value
    return read_fields


def _score(value: Any, request: Request) -> float | None:
    """Return a score; None where it is no word, or no number, of the form."""
    if request.yes_no:
        if not isinstance(value, str):
            return None
        # Models write Yes and YES whatever they are told; nothing else can be meant.
        word = value.strip().lower()
        return _SCORES.get(word)
    if not is_number(value):
        return None
    return float(value) if 0.0 <= value <= 1.0 else None


def _winner(value: Any, request: Request) -> tuple[str, ...] | None:
    """Return the better response's id alone, nothing for a tie, and None for anything else."""
    if value == "tie" and request.ties:
        return ()
    if not isinstance(value, str):
        return None
    for label, response in zip(labels(request), request.responses, strict=True):
        if value == label:
            return (response.response_id,)
    return None


def _ranking(value: Any, request: Request) -> tuple[str, ...] | None:
    """Return the ranked responses' ids, best first; None where it is no ranking of all of them."""
    if not isinstance(value, list):
        return None
    # Only true integers: JSON's true is 1 for Python, and 1.0 says that a model did not understand.
    if not all(type(number) is int for number in value):
        return None
    every_number = list(range(1, len(request.responses) + 1))
    if sorted(value) != every_number:
        return None
    ranked = [request.responses[number - 1] for number in value]
    return tuple(response.response_id for response in ranked)
