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
from typing import Any, TypeGuard

import optuna

from jaxmodpo.config import builtin, load_yaml
from jaxmodpo.errors import UserError, nearest
from jaxmodpo.parsing import JsonObject
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
        """Return the value that the study proposes for a trial."""
        if self.choices:
            choice: Any = trial.suggest_categorical(name, self.choices)
            # A queued 128.0 stands for the choice 128, and comes back from the storage as that.
            return self.choices[self.choices.index(choice)]
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def holds(self, value: Any) -> bool:
        """Return whether a value is a choice, or lies in the range with both ends."""
        if self.choices:
            return value in self.choices
        return isinstance(value, int | float) and self.low <= value <= self.high


Space = Mapping[str, Dimension]


def as_rows(space: Space) -> JsonObject:
    """Return a space as its file has it, for manifests: a list of choices, or low, high and log."""
    rows: JsonObject = {}
    for name, dimension in space.items():
        if dimension.choices:
            rows[name] = list(dimension.choices)
        else:
            rows[name] = {"low": dimension.low, "high": dimension.high, "log": dimension.log}
    return rows


def load_space(source: str, section: str, settings: type) -> dict[str, Dimension]:
    """Read one method's space.

    Args:
        source: a YAML file, or the name of one of ours (paper).
        section: sft, preference or reward.
        settings: the method's settings, whose fields alone can be varied.

    Raises:
        UserError: the file lacks the section, names an unknown setting or one that is a path or a
            list, or holds what is no choice and no range of such a setting's values.
    """
    # Everything is checked here, before the first trial: one that fails after hours, for a setting
    # that is drawn rarely, would take a search with it.
    path = builtin("tune", source)
    content = load_yaml(path)
    rows = content.get(section)
    if not isinstance(rows, Mapping) or not rows:
        raise UserError(f"{path} has no space for '{section}'{nearest(section, content)}")
    field_names = [field.name for field in dataclasses.fields(settings)]
    hints = typing.get_type_hints(settings)
    space: dict[str, Dimension] = {}
    for name, row in rows.items():
        if name not in field_names:
            raise UserError(
                f"{path}, {section}: unknown setting '{name}'{nearest(str(name), field_names)}"
            )
        location = f"{path}, {section}, {name}"
        space[name] = _dimension(row, location, _scalars(hints[name], location))
    return space


def _scalars(hint: Any, location: str) -> tuple[Any, ...]:
    """Return which of int, float, str, bool and literals a setting's type allows.

    Raises:
        UserError: it is a path, several values, or a thing of its own.
    """
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        alternatives: list[Any] = []
        for alternative in typing.get_args(hint):
            alternatives += _scalars(alternative, location)
        return tuple(alternatives)
    # A setting that may be None is varied over its other values.
    if hint is types.NoneType:
        return ()
    if hint in (int, float, str, bool) or typing.get_origin(hint) is typing.Literal:
        return (hint,)
    raise UserError(
        f"{location}: this setting cannot vary in a search, only numbers, words and switches can"
    )


def _value(value: Any, location: str, kinds: tuple[Any, ...]) -> Value:
    """Return one value as the setting takes it; YAML 1.1 reads 1e-6, without a point, as a text.

    Raises:
        UserError: the setting does not take it.
    """
    converted = value
    if isinstance(value, str) and not _fits_any(value, kinds):
        with contextlib.suppress(ValueError):
            converted = int(value) if value.isdecimal() else float(value)
    # 1e1 is a float even where the setting counts something.
    if isinstance(converted, float) and float not in kinds and converted.is_integer():
        converted = int(converted)
    if not _fits_any(converted, kinds):
        raise UserError(f"{location}: this setting does not take {value!r}")
    return converted


def _fits_any(value: Any, kinds: tuple[Any, ...]) -> bool:
    return any(_fits(value, kind) for kind in kinds)


def _fits(value: Any, kind: Any) -> bool:
    """Return whether a value is one of a literal's, or of a type; a whole number is a float too."""
    if typing.get_origin(kind) is typing.Literal:
        return value in typing.get_args(kind)
    if kind in (int, float):
        # True is an int to Python, and no number to a setting.
        return isinstance(value, (int, kind)) and is_number(value)
    return isinstance(value, kind)


def _dimension(row: Any, location: str, kinds: tuple[Any, ...]) -> Dimension:
    """Read one setting's row: a list of choices, or a mapping of low, high and log."""
    if _is_list_of_choices(row):
        return Dimension(choices=tuple(_value(value, location, kinds) for value in row))
    if not _is_range(row):
        raise UserError(f"{location}: give a list of choices, or low, high and if wanted log")
    numeric_kinds = tuple(kind for kind in kinds if kind in (int, float))
    if not numeric_kinds:
        raise UserError(f"{location}: this setting is no number; give a list of choices")
    low = _value(row["low"], location, numeric_kinds)
    high = _value(row["high"], location, numeric_kinds)
    log = row.get("log", False)
    assert not isinstance(low, str) and not isinstance(high, str)
    if not isinstance(log, bool) or low > high or (log and low <= 0):
        raise UserError(
            f"{location}: low and high must be numbers, low the smaller one, above 0 where log is"
            " true"
        )
    return Dimension(low=low, high=high, log=log)


def _is_range(row: Any) -> TypeGuard[Mapping[str, Any]]:
    """Return whether a row is a mapping of low and high, and perhaps log, and nothing else."""
    if not isinstance(row, Mapping):
        return False
    names = set(row)
    return names in ({"low", "high"}, {"low", "high", "log"})


def _is_list_of_choices(row: Any) -> bool:
    if not isinstance(row, list) or not row:
        return False
    return all(isinstance(value, int | float | str) for value in row)
