"""JSON Schemas of the settings files, so that editors complete their keys and mark what is wrong
while one types.

The schemas are derived from what reads the files: the commands' settings, and the shapes of
criteria files, tables of models and so on. ``jaxmodpo schemas`` writes them::

    # experiment.schema.json, config/align_dpo.schema.json, …
    schemas(SchemasConfig(output_dir=Path("schemas")))

A schema says less than the reader, which also compares settings with one another; what it refuses
the reader refuses too. It is a little stricter in one way: names have underscores, where the reader
takes dashes as well.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jaxmodpo.bench.injection_trials import InjectionFile
from jaxmodpo.commands import COMMANDS, load
from jaxmodpo.config import builtin
from jaxmodpo.costs import Cost, Estimates
from jaxmodpo.criteria import Criterion
from jaxmodpo.endpoints.families import FamiliesFile
from jaxmodpo.experiment import ExperimentFile, read_experiment
from jaxmodpo.files import write_json
from jaxmodpo.flags.field_texts import field_texts, first_paragraph
from jaxmodpo.judging.prompts import PARTS, SCORE_PARTS
from jaxmodpo.personas import mapping, mapping_fields
from jaxmodpo.personas.participant import COLUMNS, TEXTS
from jaxmodpo.probes.probe_set import ProbeFile
from jaxmodpo.probes.rubric import ProbeRubricFile
from jaxmodpo.ranges import CommandSettings, Incidental
from jaxmodpo.rubric import RubricFile
from jaxmodpo.sandbox.tuning import DEMO
from jaxmodpo.shape_schemas import (
    SCALAR,
    Schema,
    default_of,
    described,
    object_schema,
    setting_schema,
    shape_schema,
)
from jaxmodpo.study.app.resources import CrisisResourcesFile
from jaxmodpo.study.authored import ChecksFile, TextsFile
from jaxmodpo.toxicity.question import YesNoFile
from jaxmodpo.training.hardware import ChipsFile

logger = logging.getLogger(__name__)

# Draft 7 is the newest that the YAML support of common editors knows in whole.
DIALECT = "http://json-schema.org/draft-07/schema#"

SEARCHED: Mapping[str, Sequence[str]] = {
    "sft": ["align sft"],
    "preference": ["align dpo", "align modpo", "align joint"],
    "reward": ["reward"],
}
"""which commands' settings each part of a search space may vary"""


_TEXTS_OF_KEYS: Mapping[str, str] = {
    "fields": "For each field of a persona, the survey's column or more about it.",
    "files": "By pattern of a file's name, what holds for every row of such a file.",
    "scales": "What the answers of a scale mean, by the name under which fields refer to it.",
    "missing": "Answers that count as none.",
    "separator": "What stands between the entries of a list; ';' by default.",
    "skip_rows": "Rows below the header that are no answers.",
    "keep": "By column, every answer that a participant's row may have there.",
    "drop": "By column, the answers that no participant's row has there.",
}
"""descriptions of a persona mapping's keys"""

_TEXTS_OF_FIELD_KEYS: Mapping[str, str] = {
    "column": "The survey's column.",
    "constant": "The same answer for everybody.",
    "number": "Whether rows are counted, since the survey has no ids.",
    "values": "What answers mean; null counts as no answer. They stand above the scale's.",
    "scale": "The name of a scale under 'scales'.",
    "ticks": "A column for each entry of the list, and the entry that a tick in it stands for.",
    "separator": "What stands between the list's entries.",
    "bands": "Of an age in years, the lowest age of each band.",
    "groups": "The group of an answer that contains a word; the first that fits counts.",
}
"""descriptions of the keys of one of its fields"""


@dataclass(frozen=True, kw_only=True)
class SchemasConfig(CommandSettings, help_group="output"):
    """Write a JSON Schema of every kind of settings file."""

    output_dir: Incidental[Path]
    """Folder that the schemas are written to; files of the same names in it are replaced."""

    def cost(self, estimator: Estimates) -> Cost:
        return Cost()  # takes seconds, and leaves little behind


@dataclass(frozen=True)
class CriteriaFile:
    """A file of criteria.

    Attributes:
        criteria: what replies are judged by, in the order in which it is asked.
    """

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
        "judging_scores": scores_schema,
        "judging_yes_no": lambda: shape_schema(YesNoFile),
        "judging_rubric": lambda: shape_schema(RubricFile),
        "judging_probe_rubric": lambda: shape_schema(ProbeRubricFile),
        "probes": lambda: shape_schema(ProbeFile),
        "hardware_chips": lambda: shape_schema(ChipsFile),
        "persona_mapping": mapping_schema,
        "study_texts": lambda: shape_schema(TextsFile),
        "study_checks": lambda: shape_schema(ChecksFile),
        "study_crisis_resources": lambda: shape_schema(CrisisResourcesFile),
        "search_space": space_schema,
        "bench_injections": lambda: shape_schema(InjectionFile),
        "sandbox_trials": trials_schema,
    }
    for command in COMMANDS:
        makers[f"config/{file_name(command)}"] = functools.partial(command_schema, command)
    return {name: {"$schema": DIALECT} | make() for name, make in makers.items()}


def file_name(command: str) -> str:
    """Return a command's name with an underscore for the space, as in ``align_dpo``."""
    return command.replace(" ", "_")


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
        properties[field.name] = described(
            setting_schema(hint, variables=variables), texts.get(field.name, "")
        )
        properties[field.name] |= default_of(field)
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
    # Editors understand an if for each command. Alternatives would do as well, but a setting that
    # is wrong would be reported as a phase that is none of forty.
    choices: list[Schema] = []
    definitions: dict[str, Schema] = {}
    for name in commands:
        definition = f"settings_{file_name(name)}"
        definitions[definition] = command_schema(name, variables=True)
        choices.append(
            {
                "if": {"properties": {"command": {"const": name}}, "required": ["command"]},
                "then": {"properties": {"settings": _reference(definition)}},
            }
        )
    phase["allOf"] = choices
    schema["definitions"] = definitions
    return schema | {"title": "An experiment of jaxmodpo"}


def prompts_schema() -> Schema:
    """Return the schema of a file of templates for judges who rank and compare."""
    return _templates_schema(PARTS, "Templates of what a judge is asked")


def scores_schema() -> Schema:
    """Return the schema of a file of templates for judges who give scores."""
    return _templates_schema(SCORE_PARTS, "Templates of what a judge is asked who gives scores")


def _templates_schema(parts: Mapping[str, set[str]], title: str) -> Schema:
    properties: dict[str, Schema] = {}
    for template, placeholders in parts.items():
        names = ", ".join(f"${name}" for name in sorted(placeholders))
        properties[template] = {
            "type": "string",
            "description": f"may hold {names}" if names else "a text as it is",
        }
    return object_schema(properties, required=list(parts)) | {"title": title}


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
        allowed: dict[str, Schema] = {}
        for key in mapping_fields.keys_of(name):
            allowed[key] = described(of_keys[key], _TEXTS_OF_FIELD_KEYS[key])
        alternatives = {"anyOf": [SCALAR, {"type": "null"}, object_schema(allowed)]}
        question = name.replace("_", " ")
        fields[name] = described(
            alternatives,
            f"Where {question} comes from: the name of a column, more about it, or null where the"
            " survey does not ask.",
        )
    constants: dict[str, Schema] = {}
    for name in TEXTS:
        constants[name] = described(SCALAR, f"The {name.replace('_', ' ')} of every row.")
    constants[mapping.ID_PREFIX] = described(SCALAR, "What every participant's id begins with.")
    properties: dict[str, Schema] = {
        "fields": object_schema(fields),
        "files": {"type": "object", "additionalProperties": object_schema(constants)},
        "scales": {"type": "object", "additionalProperties": meanings},
        "missing": {"type": "array", "items": SCALAR},
        "separator": {"type": "string", "minLength": 1},
        "skip_rows": {"type": "integer", "minimum": 0},
        "keep": answers,
        "drop": answers,
    }
    # A key that the reader knows and this function does not fails here, and so the tests.
    ordered = {key: described(properties[key], _TEXTS_OF_KEYS[key]) for key in mapping.KEYS}
    return object_schema(ordered, required=["fields"]) | {
        "title": "A mapping of a survey's columns and answers"
    }


def space_schema() -> Schema:
    """Return the schema of a search space: for each kind of training the settings to vary, and
    their values.
    """
    sections: dict[str, Schema] = {}
    for section, commands in SEARCHED.items():
        searches = " and ".join(f"tune {command.split()[-1]}" for command in commands)
        text = f"The settings that {searches} varies, each a list of choices or a range."
        sections[section] = described(object_schema(_dimensions(commands)), text)
    return object_schema(sections) | {
        "title": "Search spaces: a list of choices, or low, high and log"
    }


def trials_schema() -> Schema:
    """Return the schema of the trials of ``sandbox tune``: for each phase of the demo a list of
    changes to its settings.
    """
    properties: dict[str, Schema] = {}
    for phase in read_experiment(builtin(".", DEMO)).phases:
        changes = command_schema(phase.command, variables=True)
        text = f"Changes to the demo's settings of {phase.name}, one trial each."
        properties[phase.name] = described({"type": "array", "items": changes}, text)
    return object_schema(properties) | {"title": "Trials of jaxmodpo sandbox tune"}


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
                properties[field.name] = described(_dimension(kinds), text)
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
    ends = {
        "low": described(number, "The lowest value."),
        "high": described(number, "The highest value, which is tried too."),
        "log": described({"type": "boolean"}, "Whether proportions are even, and not distances."),
    }
    return {"anyOf": [choices, object_schema(ends, required=["low", "high"])]}


def _scalar_kinds(hint: Any) -> list[Any]:
    """Return which numbers, words and switches a setting's type allows; none where it is a path or
    a list.
    """
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        alternatives = [item for item in typing.get_args(hint) if item is not types.NoneType]
        kinds_of_alternatives = [_scalar_kinds(alternative) for alternative in alternatives]
        # A setting that may also be a path cannot vary at all, as in the search itself.
        if not all(kinds_of_alternatives):
            return []
        return list(itertools.chain.from_iterable(kinds_of_alternatives))
    is_scalar = hint in (int, float, str, bool) or typing.get_origin(hint) is Literal
    return [hint] if is_scalar else []


def _reference(name: str) -> Schema:
    return {"$ref": f"#/definitions/{name}"}
