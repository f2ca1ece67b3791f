"""What replies are judged by: a criterion's name, its definition, and what makes a reply better or
worse.

Criteria are data. A file of them, ours or the user's, is read here; prompts, pairs, reward models
and win rates all carry a criterion's name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from jaxmodpo.config import builtin, load_yaml
from jaxmodpo.errors import UserError, nearest
from jaxmodpo.files import read_json
from jaxmodpo.parsing import JsonObject

OVERALL = "overall"
"""The criterion that asks for a preference all in all; it has no better_when and no worse_when."""

_AUTHORS_KEYS = (
    *("config_name", "description", "default_criteria", "evaluation_instructions"),
    *("num_responses_to_rank", "voting_weights"),
)
"""what the authors' configuration files hold besides criteria; none of it is a criterion's"""


@dataclass(frozen=True)
class Criterion:
    """One dimension of quality.

    Attributes:
        name: lower case, digits and underscores; it names files.
        description: what it means, a sentence or two.
        better_when: what a better reply does; empty where personas are to decide for themselves.
        worse_when: what a worse reply does; empty likewise.
        title: what people who compare replies read for the name; empty where the name will do.
            Judges never read it.
    """

    name: str
    description: str
    better_when: str
    worse_when: str
    title: str = ""


def load_criteria(source: str | Path, only: Sequence[str] = ()) -> list[Criterion]:
    """Read a criteria file: ``criteria:``, a list of name, description, better_when, worse_when
    and, where people read it, title.

    The configuration files of the paper's authors are read as they are: JSON in which ``criteria``
    is a mapping from each criterion's name to its texts, or to its description alone.

    Args:
        source: a YAML or JSON file, or the name of one of ours (therapeutic, gricean,
            clinicians).
        only: names to keep, in the file's order; all if empty.

    Raises:
        UserError: an unknown, missing, ill-typed or wrongly empty field, a name twice, or a name in
            ``only`` that the file does not have.
    """
    path = builtin("criteria", source)
    content = read_json(path, JsonObject) if path.suffix == ".json" else load_yaml(path)
    rows = content.get("criteria")
    known_keys = ["criteria"]
    if isinstance(rows, dict):
        known_keys += _AUTHORS_KEYS
        rows = [_row_of_mapping(name, texts) for name, texts in rows.items()]
    for key in content:
        if key not in known_keys:
            raise UserError(f"{path}: unknown key '{key}'{nearest(str(key), known_keys)}")
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{path} must hold 'criteria:', a list of at least one criterion")
    criteria: dict[str, Criterion] = {}
    for number, row in enumerate(rows, 1):
        criterion = _criterion(row, f"{path}, criterion {number}")
        if criterion.name in criteria:
            raise UserError(f"{path}: the criterion {criterion.name} stands there twice")
        criteria[criterion.name] = criterion
    for name in only:
        if name not in criteria:
            raise UserError(f"{path} has no criterion '{name}'{nearest(name, criteria)}")
    return [c for c in criteria.values() if not only or c.name in only]


def _row_of_mapping(name: str, texts: Any) -> Any:
    """Return an entry of the authors' mapping as a row of our list: its key is the name that files
    and votes carry, and what it calls its name is a title for people.
    """
    if isinstance(texts, str):
        return {"name": name, "description": texts, "better_when": "", "worse_when": ""}
    if not isinstance(texts, dict):
        return texts
    row = {key: text for key, text in texts.items() if key not in ("name", "short_name")}
    return {"name": name, "title": texts.get("name", ""), **row}


def _criterion(row: Any, location: str) -> Criterion:
    names = [f.name for f in fields(Criterion)]
    required = [name for name in names if name != "title"]
    if not isinstance(row, dict):
        raise UserError(f"{location} must be a mapping of {', '.join(names)}")
    for key in row:
        if key not in names:
            raise UserError(f"{location}: unknown field '{key}'{nearest(str(key), names)}")
    for name in required:
        if name not in row:
            raise UserError(
                f"{location} lacks the field {name}; it may be empty only for better_when and"
                " worse_when"
            )
    for name, text in row.items():
        if not isinstance(text, str):
            raise UserError(f"{location}: the field {name} must be text, not {text!r}")
    # YAML keeps the line ends of a text that goes over several lines, and prompts want none.
    texts = {name: " ".join(text.split()) for name, text in row.items()}
    # Files are named after criteria, on any system.
    if not re.fullmatch(r"[a-z][a-z0-9_]*", texts["name"]):
        raise UserError(
            f"{location}: the name '{texts['name']}' must be lower-case letters, digits and"
            " underscores"
        )
    if not texts["description"]:
        raise UserError(
            f"{location}: the field description is empty; say what {texts['name']} means"
        )
    # With one side alone a judge would know what to punish and not what to prefer, or the reverse.
    if bool(texts["better_when"]) != bool(texts["worse_when"]):
        raise UserError(
            f"{location}: better_when and worse_when must both say something, or both be empty"
        )
    return Criterion(**texts)
