"""JSON Schemas of the settings files, so that editors complete their keys and mark what is wrong
while one types.

The schemas are derived from what reads the files: the commands' settings, and the shapes of
criteria files, tables of models and so on. ``jaxmodpo schemas`` writes them::

    schemas(SchemasConfig(output_dir=Path("schemas")))  # experiment.schema.json,
    config/align_dpo.schema.json, …

A schema says less than the reader, which also compares settings with one another; what it refuses
the reader refuses too. It is a little stricter in one way: names have underscores, where the reader
takes dashes as well.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jaxmodpo.commands import COMMANDS, load
from jaxmodpo.costs import Cost, Estimates
from jaxmodpo.criteria import Criterion
from jaxmodpo.experiment import ExperimentFile
from jaxmodpo.field_texts import field_texts, first_paragraph
from jaxmodpo.files import write_json
from jaxmodpo.judging.families import FamiliesFile
from jaxmodpo.judging.prompts import PARTS
from jaxmodpo.personas import mapping, mapping_fields
from jaxmodpo.personas.participant import COLUMNS, TEXTS
from jaxmodpo.ranges import Incidental, Settings
from jaxmodpo.schema import Range

logger = logging.getLogger(__name__)

Schema = dict[str, Any]

# Draft 7 is the newest that the YAML support of common editors knows in whole.
DIALECT = "http://json-schema.org/draft-07/schema#"

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

SEARCHED: Mapping[str, Sequence[str]] = {
    "sft": ["align sft"],
    "preference": ["align dpo", "align modpo", "align joint"],
    "reward": ["reward"],
}
"""which commands' settings each part of a search space may vary"""


@dataclass(frozen=True, kw_only=True)
class SchemasConfig(Settings, help_group="output"):
    """Write a JSON Schema of every kind of settings file."""

    output_dir: Incidental[Path]
    """folder for the schemas; files of the same names in it are replaced"""

    def cost(self, estimator: Estimates) -> Cost:
        return Cost()  # takes seconds, and leaves little behind


@dataclass(frozen=True)
class CriteriaFile:
    """A file of criteria."""

    criteria: list[Criterion]


def schemas(config: SchemasConfig) -> None:
    """Run ``schemas``."""
    config.check()
    files = all_schemas()
    for name, schema in files.items():
        write_json(config.output_dir / f"{name}.schema.json", schema)
    logger.info("%d schemas written to %s", len(files), config.output_dir)


def all_schemas() -> dict[str, Schema]:
    """Return every schema by its file's name without the ending."""
    makers: dict[str, Callable[[], Schema]] = {
        "experiment": experiment_schema,
        "criteria": lambda: shape_schema(CriteriaFile),
        "judging_models": lambda: shape_schema(FamiliesFile),
        "judging_prompts": prompts_schema,
        "persona_mapping": mapping_schema,
        "search_space": space_schema,
    }
    for command in COMMANDS:
        makers[f"config/{file_name(command)}"] = functools.partial(command_schema, command)
    return {name: {"$schema": DIALECT} | make() for name, make in makers.items()}


def file_name(command: str) -> str:
    """Return a command's name with an underscore for the space, as in ``align_dpo``."""
    return command.replace(" ", "_")


def shape_schema(shape: Any) -> Schema:
    """Return the schema of a shape that :func:`jaxmodpo.schema.read_as` reads.

    Args:
        shape: built of scalars, ``Literal``, unions, ``list``, ``tuple``, ``dict``, ``Annotated``
            and dataclasses.
    """
    kind, arguments = typing.get_origin(shape) or shape, typing.get_args(shape)
    if kind is Any:
        return {}
    if kind in _LEAVES:
        return {"type": _LEAVES[kind]}
    if kind is Annotated:
        return _with_bounds(shape_schema(arguments[0]), arguments[1:])
    if kind is Literal:
        return {"enum": list(arguments)}
    if kind in (typing.Union, types.UnionType):
        return {"anyOf": [shape_schema(part) for part in arguments]}
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
    kind, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    inner = functools.partial(setting_schema, variables=variables)
    if kind is Annotated:
        return _with_bounds(inner(arguments[0]), arguments[1:])
    if kind in (typing.Union, types.UnionType):
        return {"anyOf": [inner(part) for part in arguments]}
    if kind is tuple:
        several = _array(arguments, inner)
        if arguments[-1] is not Ellipsis:
            return several
        mappings = (
            [{"type": "object", "additionalProperties": SCALAR}]
            if _takes_text(arguments[0])
            else []
        )
        return {"anyOf": [several, inner(arguments[0]), *mappings]}
    if kind in (str, Path):
        return dict(SCALAR)
    schema = shape_schema(hint)
    return {"anyOf": [schema, VARIABLE]} if variables and hint is not types.NoneType else schema


def command_schema(command: str, *, variables: bool = False) -> Schema:
    """Return the schema of a command's ``--config`` file, or of its settings in an experiment file.

    Nothing is required, since flags or another file may give what this one leaves out.
    """
    settings, _ = load(command)
    hints = typing.get_type_hints(settings, include_extras=True)
    texts = field_texts(settings)
    properties: dict[str, Schema] = {}
    for field in dataclasses.fields(settings):
        hint = hints[field.name]
        if tyro.conf.Positional in typing.get_args(hint):
            continue  # it has no flag, so no file can give it
        properties[field.name] = _described(
            setting_schema(hint, variables=variables), texts.get(field.name, "")
        )
        properties[field.name] |= _default(field)
    return {
        "title": f"Settings of jaxmodpo {command}",
        "description": first_paragraph(settings),
        # A phase may say settings: and nothing below it.
        "type": ["object", "null"] if variables else "object",
        "properties": properties,
        "additionalProperties": False,
    }


def experiment_schema() -> Schema:
    """Return the schema of an experiment file, in which a phase's command decides what its settings
    are.
    """
    schema = shape_schema(ExperimentFile)
    phase = schema["properties"]["phases"]["items"]
    commands = [name for name in COMMANDS if name != "run"]
    phase["properties"]["command"] = {"enum": commands, "description": "what the phase runs"}
    phase["allOf"] = [
        {
            "if": {"properties": {"command": {"const": name}}, "required": ["command"]},
            "then": {"properties": {"settings": _reference(f"settings_{file_name(name)}")}},
        }
        for name in commands
    ]
    schema["definitions"] = {
        f"settings_{file_name(name)}": command_schema(name, variables=True) for name in commands
    }
    return schema | {"title": "An experiment of jaxmodpo"}


def prompts_schema() -> Schema:
    """Return the schema of a file of templates for judges."""
    properties: dict[str, Schema] = {}
    for part, placeholders in PARTS.items():
        names = ", ".join(f"${name}" for name in sorted(placeholders))
        properties[part] = {
            "type": "string",
            "description": f"may hold {names}" if names else "a text as it is",
        }
    return _mapping(properties, required=list(PARTS)) | {
        "title": "Templates of what a judge is asked"
    }


def mapping_schema() -> Schema:
    """Return the schema of a persona mapping: how another survey's columns and answers become
    ours.
    """
    texts = {"type": "object", "additionalProperties": SCALAR}
    meanings = {"type": "object", "additionalProperties": {"type": ["string", "number", "null"]}}
    answer = {"type": ["string", "number", "boolean", "null"]}
    answers = {
        "type": "object",
        "additionalProperties": {"anyOf": [answer, {"type": "array", "items": answer}]},
    }
    of_keys: dict[str, Schema] = {
        "column": SCALAR,
        "constant": SCALAR,
        "number": {"type": "boolean"},
        "values": meanings,
        "scale": SCALAR,
        "ticks": texts,
        "separator": {"type": "string", "minLength": 1},
        "bands": {"type": "array", "items": {"type": "integer"}},
        "groups": texts,
    }
    fields: dict[str, Schema] = {}
    for name in COLUMNS:
        allowed = {key: of_keys[key] for key in mapping_fields.keys_of(name)}
        fields[name] = {"anyOf": [SCALAR, {"type": "null"}, _mapping(allowed)]}
    constants = _mapping(dict.fromkeys((*TEXTS, mapping.ID_PREFIX), SCALAR))
    properties: dict[str, Schema] = {
        "fields": _mapping(fields),
        "files": {"type": "object", "additionalProperties": constants},
        "scales": {"type": "object", "additionalProperties": meanings},
        "missing": {"type": "array", "items": SCALAR},
        "separator": {"type": "string", "minLength": 1},
        "skip_rows": {"type": "integer", "minimum": 0},
        "keep": answers,
        "drop": answers,
    }
    ordered = {key: properties[key] for key in mapping.KEYS}
    return _mapping(ordered, required=["fields"]) | {
        "title": "A mapping of a survey's columns and answers"
    }


def space_schema() -> Schema:
    """Return the schema of a search space: for each kind of training the settings to vary, and
    their values.
    """
    parts = {part: _mapping(_dimensions(commands)) for part, commands in SEARCHED.items()}
    return _mapping(parts) | {"title": "Search spaces: a list of choices, or low, high and log"}


def _dimensions(commands: Sequence[str]) -> dict[str, Schema]:
    """Return what a search space may say of each setting that is a number, a word or a switch."""
    properties: dict[str, Schema] = {}
    for command in commands:
        settings, _ = load(command)
        hints = typing.get_type_hints(settings)
        for field in dataclasses.fields(settings):
            kinds = _scalar_kinds(hints[field.name])
            if kinds:
                text = field_texts(settings).get(field.name, "")
                properties[field.name] = _described(_dimension(kinds), text)
    return properties


def _dimension(kinds: Sequence[Any]) -> Schema:
    """Return the schema of one setting's values in a search: choices, and for a number a range."""
    choices = {
        "type": "array",
        "minItems": 1,
        "items": {"anyOf": [shape_schema(kind) for kind in kinds]},
    }
    numeric = [shape_schema(kind) for kind in kinds if kind in (int, float)]
    if not numeric:
        return choices
    number: Schema = {"anyOf": numeric}
    ends = {"low": number, "high": number, "log": {"type": "boolean"}}
    return {"anyOf": [choices, _mapping(ends, required=["low", "high"])]}


def _scalar_kinds(hint: Any) -> list[Any]:
    """Return which numbers, words and switches a setting's type allows; none where it is a path or
    a list.
    """
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        parts = [part for part in typing.get_args(hint) if part is not types.NoneType]
        kinds = [_scalar_kinds(part) for part in parts]
        return [kind for part in kinds for kind in part] if all(kinds) else []
    is_scalar = hint in (int, float, str, bool) or typing.get_origin(hint) is Literal
    return [hint] if is_scalar else []


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
        properties[field.name] = _described(
            shape_schema(hints[field.name]), texts.get(field.name, "")
        )
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            required.append(field.name)
    return _mapping(properties, required) | {"description": first_paragraph(shape)}


def _mapping(properties: Mapping[str, Schema], required: Sequence[str] = ()) -> Schema:
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


def _described(schema: Schema, text: str) -> Schema:
    """Return a schema with what an editor shows when the pointer rests on the key."""
    return schema | {"description": text} if text else schema


def _default(field: dataclasses.Field[Any]) -> Schema:
    """Return a setting's default for its schema; nothing where it has none."""
    if field.default is dataclasses.MISSING:
        return {}
    default = field.default
    if isinstance(default, Path):
        return {"default": str(default)}
    return {"default": list(default) if isinstance(default, tuple) else default}


def _reference(name: str) -> Schema:
    return {"$ref": f"#/definitions/{name}"}
