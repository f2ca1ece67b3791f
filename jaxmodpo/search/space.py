"""Search spaces: which settings a search varies, read from a file, and what a trial takes from
them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna

from jaxmodpo.config import builtin, load_yaml
from jaxmodpo.errors import UserError, nearest
from jaxmodpo.schema import is_number

Value = float | int | str


@dataclass(frozen=True)
class Dimension:
    """One setting's values: a choice, or a range with both ends, of whole numbers where both ends
    are whole.
    """

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


def as_rows(space: Space) -> dict[str, Any]:
    """Return a space as its file has it, for manifests: a list of choices, or low, high and log."""
    return {
        name: list(d.choices) if d.choices else {"low": d.low, "high": d.high, "log": d.log}
        for name, d in space.items()
    }


def load_space(source: str, part: str, settings: type) -> dict[str, Dimension]:
    """Read one method's space.

    Args:
        source: a YAML file, or the name of one of ours (paper).
        part: sft, preference or reward.
        settings: the method's settings, whose fields alone can be varied.

    Raises:
        UserError: the file lacks the part, names an unknown setting or one that is a path or a
            list, or holds what is no choice and no range of such a setting's values.
    """
    path = builtin("tune", source)
    content = load_yaml(path)
    rows = content.get(part)
    if not isinstance(rows, Mapping) or not rows:
        raise UserError(f"{path} has no space for '{part}'{nearest(part, content)}")
    known = [f.name for f in dataclasses.fields(settings)]
    hints = typing.get_type_hints(settings)
    space = {}
    for name, row in rows.items():
        if name not in known:
            raise UserError(f"{path}, {part}: unknown setting '{name}'{nearest(str(name), known)}")
        where = f"{path}, {part}, {name}"
        space[name] = _dimension(row, where, _scalars(hints[name], where))
    return space


def _scalars(hint: Any, where: str) -> tuple[Any, ...]:
    """Return which of int, float, str, bool and literals a setting's type allows.

    Raises:
        UserError: it is a path, several values, or a thing of its own.
    """
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(kind for part in typing.get_args(hint) for kind in _scalars(part, where))
    if hint is types.NoneType:
        return ()
    if hint in (int, float, str, bool) or typing.get_origin(hint) is typing.Literal:
        return (hint,)
    raise UserError(
        f"{where}: this setting cannot vary in a search, only numbers, words and switches can"
    )


def _value(value: Any, where: str, kinds: tuple[Any, ...]) -> Value:
    """Return one value as the setting takes it; YAML 1.1 reads 1e-6, without a point, as a text.

    Raises:
        UserError: the setting does not take it.
    """

    def fits(value: Any, kind: Any) -> bool:
        if typing.get_origin(kind) is typing.Literal:
            return value in typing.get_args(kind)
        if kind in (int, float):
            return isinstance(value, (int, kind)) and is_number(value)
        return isinstance(value, kind)

    found = value
    if isinstance(value, str) and not any(fits(value, kind) for kind in kinds):
        with contextlib.suppress(ValueError):
            found = int(value) if value.isdecimal() else float(value)
    if isinstance(found, float) and float not in kinds and found.is_integer():
        found = int(found)
    if not any(fits(found, kind) for kind in kinds):
        raise UserError(f"{where}: this setting does not take {value!r}")
    return found


def _dimension(row: Any, where: str, kinds: tuple[Any, ...]) -> Dimension:
    if isinstance(row, list) and row and all(isinstance(value, int | float | str) for value in row):
        return Dimension(choices=tuple(_value(value, where, kinds) for value in row))
    if not isinstance(row, Mapping) or not {"low", "high"} <= set(row) <= {"low", "high", "log"}:
        raise UserError(f"{where}: give a list of choices, or low, high and if wanted log")
    log, numeric = row.get("log", False), tuple(kind for kind in kinds if kind in (int, float))
    if not numeric:
        raise UserError(f"{where}: this setting is no number; give a list of choices")
    low, high = (_value(row[end], where, numeric) for end in ("low", "high"))
    assert not isinstance(low, str) and not isinstance(high, str)
    if not isinstance(log, bool) or low > high or (log and low <= 0):
        raise UserError(
            f"{where}: low and high must be numbers, low the smaller one, above 0 where log is true"
        )
    return Dimension((), low, high, log)
