"""JSON Schemas of Python types: of what :func:`jaxmodpo.schema.read_as` reads, and of a command's
settings.

    shape_schema(list[int])  # {"type": "array", "items": {"type": "integer"}}
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from jaxmodpo.flags.field_texts import field_texts, first_paragraph
from jaxmodpo.schema import Range

Schema = dict[str, Any]


_LEAVES: Mapping[Any, str] = {
    int: "integer",
    float: "number",
    str: "string",
    bool: "boolean",
    types.NoneType: "null",
}

SCALAR: Schema = {"type": ["string", "number"]}
"""what a reader turns into a text: YAML reads a bare 18 as a number"""

VARIABLE: Schema = {"type": "string", "pattern": r"\$"}
"""a value of an experiment file that stands for another: $out, $seed or a variable of the file's"""


def shape_schema(shape: Any) -> Schema:
    """Return the schema of a shape that :func:`jaxmodpo.schema.read_as` reads.

    Args:
        shape: built of scalars, ``Literal``, unions, ``list``, ``tuple``, ``dict``, ``Annotated``
            and dataclasses.
    """
    kind = typing.get_origin(shape) or shape
    arguments = typing.get_args(shape)
    if kind is Any:
        return {}
    if kind in _LEAVES:
        return {"type": _LEAVES[kind]}
    if kind is Annotated:
        return _with_bounds(shape_schema(arguments[0]), arguments[1:])
    if kind is Literal:
        return {"enum": list(arguments)}
    if kind in (typing.Union, types.UnionType):
        return {"anyOf": [shape_schema(alternative) for alternative in arguments]}
    if kind in (list, tuple, Sequence):
        return _array(arguments, shape_schema)
    if kind in (dict, Mapping):
        return {"type": "object", "additionalProperties": shape_schema(arguments[1])}
    assert dataclasses.is_dataclass(shape), f"no schema for {shape}"
    return _object(typing.cast(type, shape))


def setting_schema(hint: Any, *, variables: bool = False) -> Schema:
    """Return the schema of one setting of a command, whose values are read as its flag's words are.

    A setting that takes several values takes a single one too, and ``NAME=VALUE`` words may be a
    mapping.

    Args:
        hint: the setting's type.
        variables: whether ``$NAME`` may stand for a value, as it may in an experiment file.
    """
    kind = typing.get_origin(hint) or hint
    arguments = typing.get_args(hint)
    inner = functools.partial(setting_schema, variables=variables)
    if kind is Annotated:
        return _with_bounds(inner(arguments[0]), arguments[1:])
    if kind in (typing.Union, types.UnionType):
        return {"anyOf": [inner(alternative) for alternative in arguments]}
    if kind is tuple:
        list_schema = _array(arguments, inner)
        if arguments[-1] is not Ellipsis:
            return list_schema
        # A file may say track: wandb for a list of one.
        alternatives = [list_schema, inner(arguments[0])]
        if _takes_text(arguments[0]):
            alternatives.append({"type": "object", "additionalProperties": SCALAR})
        return {"anyOf": alternatives}
    # A copy, since a description is put into it.
    if kind in (str, Path):
        return dict(SCALAR)
    schema = shape_schema(hint)
    return {"anyOf": [schema, VARIABLE]} if variables and hint is not types.NoneType else schema


def _takes_text(hint: Any) -> bool:
    """Return whether a type is a text, or has it among its alternatives."""
    return hint is str or str in typing.get_args(hint)


def _array(arguments: Sequence[Any], schema_of: Callable[[Any], Schema]) -> Schema:
    """Return the schema of a list, of any length or of the one that a tuple has."""
    items = schema_of(arguments[0])
    if len(arguments) == 1 or arguments[-1] is Ellipsis:
        return {"type": "array", "items": items}
    return {"type": "array", "items": items, "minItems": len(arguments), "maxItems": len(arguments)}


def _object(shape: type) -> Schema:
    """Return the schema of a dataclass: no other keys, and those without a default are required."""
    hints = typing.get_type_hints(shape, include_extras=True)
    texts = field_texts(shape)
    properties: dict[str, Schema] = {}
    required: list[str] = []
    for field in dataclasses.fields(shape):
        properties[field.name] = described(
            shape_schema(hints[field.name]), texts.get(field.name, "")
        )
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            required.append(field.name)
    return object_schema(properties, required) | {"description": first_paragraph(shape)}


def object_schema(properties: Mapping[str, Schema], required: Sequence[str] = ()) -> Schema:
    """Return the schema of a mapping with these keys and no others."""
    schema: Schema = {
        "type": "object",
        "properties": dict(properties),
        "additionalProperties": False,
    }
    return schema | {"required": list(required)} if required else schema


def _with_bounds(schema: Schema, marks: Sequence[Any]) -> Schema:
    """Return a schema whose numbers lie within the ranges among a type's marks."""
    bounds: Schema = {}
    for mark in marks:
        if isinstance(mark, Range):
            named = {
                "minimum": mark.least,
                "maximum": mark.most,
                "exclusiveMinimum": mark.above,
                "exclusiveMaximum": mark.below,
            }
            bounds |= {name: bound for name, bound in named.items() if bound is not None}
    # Bounds say nothing of values that are no numbers, so that they may stand beside alternatives.
    return schema | bounds


def described(schema: Schema, text: str) -> Schema:
    """Return a schema with what an editor shows when the pointer rests on the key."""
    return schema | {"description": text} if text else schema


def default_of(field: dataclasses.Field[Any]) -> Schema:
    """Return a setting's default for its schema; nothing where it has none."""
    if field.default is dataclasses.MISSING:
        return {}
    default = field.default
    if isinstance(default, Path):
        return {"default": str(default)}
    return {"default": list(default) if isinstance(default, tuple) else default}
