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

OVERALL = "overall"
"""The criterion that asks for a preference all in all; it has no better_when and no worse_when."""


@dataclass(frozen=True)
class Criterion:
    """One dimension of quality.

    Attributes:
        name: lower case, digits and underscores; it names files.
        description: what it means, a sentence or two.
        better_when: what a better reply does; empty where personas are to decide for themselves.
        worse_when: what a worse reply does; empty likewise.
    """

    name: str
    description: str
    better_when: str
    worse_when: str


def load_criteria(source: str | Path, only: Sequence[str] = ()) -> list[Criterion]:
    """Read a criteria file: ``criteria:``, a list of name, description, better_when, worse_when.

    Args:
        source: a YAML file, or the name of one of ours (therapeutic, gricean).
        only: names to keep, in the file's order; all if empty.

    Raises:
        UserError: an unknown, missing, ill-typed or wrongly empty field, a name twice, or a name in
            ``only`` that the file does not have.
    """
    path = builtin("criteria", source)
    content = load_yaml(path)
    for key in content:
        if key != "criteria":
            raise UserError(f"{path}: unknown key '{key}'{nearest(str(key), ['criteria'])}")
    rows = content.get("criteria")
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


def _criterion(row: Any, location: str) -> Criterion:
    names = [f.name for f in fields(Criterion)]
    if not isinstance(row, dict):
        raise UserError(f"{location} must be a mapping of {', '.join(names)}")
    for key in row:
        if key not in names:
            raise UserError(f"{location}: unknown field '{key}'{nearest(str(key), names)}")
    for name in names:
        if name not in row:
            raise UserError(
                f"{location} lacks the field {name}; it may be empty only for better_when and"
                " worse_when"
            )
        if not isinstance(row[name], str):
            raise UserError(f"{location}: the field {name} must be text, not {row[name]!r}")
    # YAML keeps the line ends of a text that goes over several lines, and prompts want none.
    texts = {name: " ".join(row[name].split()) for name in names}
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
