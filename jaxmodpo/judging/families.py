"""What a judge's model takes and costs, by the family that its name belongs to.

A table, ``configs/judging/models.yaml`` or the user's own, because models come and go faster than
releases: which take a temperature, what their limit of tokens is called, and what a million tokens cost.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from jaxmodpo.config import builtin, load_yaml
from jaxmodpo.errors import UserError, nearest
from jaxmodpo.judging.judge import Usage


@dataclass(frozen=True)
class Family:
    """One row of the table.

    Attributes:
        match: a pattern that names fit, ``*`` for anything.
        temperature: whether the models take one.
        limit: the name of the setting that limits an answer's tokens.
        prompt: dollars for a million tokens of prompts; None where no price is known.
        cached: of prompts' tokens that the endpoint had cached.
        answer: of answers' tokens.
        withdrawn: when the models ceased to be, in words; empty while they are.
    """

    match: str
    temperature: bool = True
    limit: str = "max_tokens"
    prompt: float | None = None
    cached: float | None = None
    answer: float | None = None
    withdrawn: str = ""

    def cost(self, usage: Usage) -> float | None:
        """Return dollars for one call's tokens; None where a price is missing."""
        if self.prompt is None or self.answer is None:
            return None
        cached = self.prompt if self.cached is None else self.cached
        fresh = usage.prompt - usage.cached
        return (fresh * self.prompt + usage.cached * cached + usage.completion * self.answer) / 1e6


@dataclass(frozen=True)
class Families:
    """The table; ``batch_discount`` is the share of the price that the Batch API takes off."""

    rows: tuple[Family, ...]
    batch_discount: float
    as_of: str

    @classmethod
    def load(cls, source: str | Path = "models") -> Families:
        """Read a table.

        Raises:
            UserError: an unknown or ill-typed field.
        """
        path = builtin("judging", source)
        table = load_yaml(path)
        for key in table:
            if key not in ("as_of", "batch_discount", "families"):
                raise UserError(
                    f"{path}: unknown key '{key}'{nearest(str(key), ['as_of', 'batch_discount', 'families'])}"
                )
        rows = table.get("families")
        if not isinstance(rows, list):
            raise UserError(f"{path} must hold 'families:', a list")
        discount = table.get("batch_discount", 0.0)
        if not isinstance(discount, int | float) or not 0 <= discount < 1:
            raise UserError(f"{path}: batch_discount must be a share from 0 to 1, not {discount!r}")
        families = [_family(row, f"{path}, family {number}") for number, row in enumerate(rows, 1)]
        return cls(tuple(families), float(discount), str(table.get("as_of", "")))

    def of(self, model: str) -> Family:
        """Return the family of a model; one without a known price where none fits."""
        return next((row for row in self.rows if fnmatch.fnmatchcase(model, row.match)), Family(model))


def _family(row: Any, where: str) -> Family:
    known = {f.name: f for f in fields(Family)}
    if not isinstance(row, dict) or not isinstance(row.get("match"), str):
        raise UserError(f"{where} must be a mapping with 'match', a pattern of names")
    for key, value in row.items():
        if key not in known:
            raise UserError(f"{where}: unknown field '{key}'{nearest(str(key), known)}")
        priced = key in ("prompt", "cached", "answer")
        if priced and not (type(value) in (int, float) and value >= 0):
            raise UserError(f"{where}: {key} must be dollars for a million tokens, not {value!r}")
        if key == "temperature" and not isinstance(value, bool):
            raise UserError(f"{where}: temperature must be true or false, not {value!r}")
        if key == "limit" and value not in ("max_tokens", "max_completion_tokens"):
            raise UserError(f"{where}: limit must be max_tokens or max_completion_tokens, not {value!r}")
    return Family(**row)
