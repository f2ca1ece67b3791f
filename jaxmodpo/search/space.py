"""Search spaces: which settings a search varies, read from a file, and what a trial takes from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna

from jaxmodpo.config import builtin, load_yaml
from jaxmodpo.errors import UserError, nearest

Value = float | int | str


@dataclass(frozen=True)
class Dimension:
    """One setting's values: a choice, or a range with both ends, of whole numbers where both ends are whole."""

    choices: tuple[Value, ...] = ()
    low: float | int = 0
    high: float | int = 0
    log: bool = False

    def suggest(self, trial: optuna.Trial, name: str) -> Value:
        if self.choices:
            # A queued 128.0 stands for the choice 128, and comes back from the storage as that.
            return self.choices[self.choices.index(trial.suggest_categorical(name, self.choices))]  # type: ignore[arg-type]
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def holds(self, value: Any) -> bool:
        if self.choices:
            return value in self.choices
        return isinstance(value, int | float) and self.low <= value <= self.high


Space = Mapping[str, Dimension]


def load_space(source: str, part: str, settings: type) -> dict[str, Dimension]:
    """Read one method's space.

    Args:
        source: a YAML file, or the name of one of ours (paper).
        part: sft, preference or reward.
        settings: the method's settings, whose fields alone can be varied.

    Raises:
        UserError: the file lacks the part, names an unknown setting, or holds what is no choice and no range.
    """
    path = builtin("tune", source)
    content = load_yaml(path)
    rows = content.get(part)
    if not isinstance(rows, Mapping) or not rows:
        raise UserError(f"{path} has no space for '{part}'{nearest(part, content)}")
    known = [f.name for f in dataclasses.fields(settings)]
    space = {}
    for name, row in rows.items():
        if name not in known:
            raise UserError(f"{path}, {part}: unknown setting '{name}'{nearest(str(name), known)}")
        space[name] = _dimension(row, f"{path}, {part}, {name}")
    return space


def _dimension(row: Any, where: str) -> Dimension:
    if isinstance(row, list) and row and all(isinstance(value, int | float | str) for value in row):
        return Dimension(choices=tuple(row))
    if not isinstance(row, Mapping) or not {"low", "high"} <= set(row) <= {"low", "high", "log"}:
        raise UserError(f"{where}: give a list of choices, or low, high and if wanted log")
    low, high, log = row["low"], row["high"], row.get("log", False)
    numbers = all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high))
    if not numbers or not isinstance(log, bool) or low > high or (log and low <= 0):
        raise UserError(f"{where}: low and high must be numbers, low the smaller one, above 0 where log is true")
    return Dimension((), low, high, log)
