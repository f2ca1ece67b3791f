"""What a JSON Schema of draft 7 refuses: as much of the specification as our schemas use, read from
it alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}

ANNOTATIONS = {"$schema", "title", "description", "default", "definitions"}
"""keywords that refuse nothing"""


def errors(
    schema: Mapping[str, Any], value: Any, root: Mapping[str, Any] | None = None, at: str = ""
) -> list[str]:
    """Return where a value breaks a schema, and by which keyword: ``phases/0/command enum``."""
    whole = schema if root is None else root
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/definitions/")
        return errors(whole["definitions"][name], value, whole, at)
    return list(_errors(schema, value, whole, at))


def _errors(
    schema: Mapping[str, Any], value: Any, root: Mapping[str, Any], at: str
) -> Iterator[str]:
    for keyword, expected in schema.items():
        if keyword in ANNOTATIONS or keyword == "then":
            continue
        if keyword in ("properties", "additionalProperties", "required"):
            if isinstance(value, dict):
                yield from _object_errors(schema, keyword, value, root, at)
        elif keyword in ("items", "minItems", "maxItems"):
            if isinstance(value, list):
                yield from _array_errors(keyword, expected, value, root, at)
        elif keyword == "anyOf":
            if all(errors(subschema, value, root, at) for subschema in expected):
                yield f"{at} anyOf"
        elif keyword == "allOf":
            for subschema in expected:
                yield from errors(subschema, value, root, at)
        elif keyword == "if":
            if not errors(expected, value, root, at):
                yield from errors(schema["then"], value, root, at)
        elif not _holds(keyword, expected, value):
            yield f"{at} {keyword}"


def _object_errors(
    schema: Mapping[str, Any], keyword: str, value: dict[str, Any], root: Mapping[str, Any], at: str
) -> Iterator[str]:
    properties = schema.get("properties", {})
    if keyword == "required":
        yield from (f"{at} required {name}" for name in schema["required"] if name not in value)
        return
    for name, member in value.items():
        if keyword == "properties" and name in properties:
            yield from errors(properties[name], member, root, f"{at}/{name}")
        elif keyword == "additionalProperties" and name not in properties:
            if schema["additionalProperties"] is False:
                yield f"{at}/{name} additionalProperties"
            else:
                yield from errors(schema["additionalProperties"], member, root, f"{at}/{name}")


def _array_errors(
    keyword: str, expected: Any, value: list[Any], root: Mapping[str, Any], at: str
) -> Iterator[str]:
    if keyword == "items":
        for number, item in enumerate(value):
            yield from errors(expected, item, root, f"{at}/{number}")
    elif (len(value) < expected) if keyword == "minItems" else (len(value) > expected):
        yield f"{at} {keyword}"


def _holds(keyword: str, expected: Any, value: Any) -> bool:
    """Return whether a value that is no container's matter fits one keyword."""
    if keyword == "type":
        return any(
            _is_of_type(value, name)
            for name in ([expected] if isinstance(expected, str) else expected)
        )
    if keyword == "enum":
        return any(type(value) is type(candidate) and value == candidate for candidate in expected)
    if keyword == "const":
        return type(value) is type(expected) and value == expected
    if keyword == "pattern":
        return not isinstance(value, str) or re.search(expected, value) is not None
    if keyword == "minLength":
        return not isinstance(value, str) or len(value) >= expected
    if not _is_of_type(value, "number"):
        return True
    comparisons = {
        "minimum": value >= expected,
        "maximum": value <= expected,
        "exclusiveMinimum": value > expected,
        "exclusiveMaximum": value < expected,
    }
    return comparisons[keyword]


def _is_of_type(value: Any, name: str) -> bool:
    if isinstance(value, bool) and name != "boolean":
        return False
    is_whole = isinstance(value, float) and value.is_integer()
    return isinstance(value, TYPES[name]) or (name == "integer" and is_whole)
