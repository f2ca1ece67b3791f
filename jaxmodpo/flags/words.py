"""Settings of a file as the words of a command line, so that both are checked and converted alike.

``{"batch_size": 4, "track": ["wandb"]}`` becomes ``--batch-size 4 --track wandb``. A setting that a
command line gives by its place, as ``verify FOLDER…`` does, stands before all flags.
"""

from __future__ import annotations

import dataclasses
import itertools
import types
import typing
from collections.abc import Mapping
from typing import Any

from jaxmodpo.errors import UserError
from jaxmodpo.flags.names import flag_of, suggested_setting
from jaxmodpo.schema import read_as, shown

_SCALAR: Any = str | int | float


def settings_by_name(cls: type, settings: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return a file's settings under the names of a dataclass's fields.

    Raises:
        UserError: a key that is no setting, or one setting under two spellings.
    """
    names = [field.name for field in dataclasses.fields(cls)]
    values: dict[str, Any] = {}
    for key, value in settings.items():
        name = str(key).replace("-", "_")
        if name not in names:
            raise UserError(f"{source}: unknown setting '{key}'{suggested_setting(name, names)}")
        if name in values:
            raise UserError(
                f"{source}: the setting '{name}' stands there twice, with a dash and with an"
                " underscore"
            )
        values[name] = value
    return values


def flag_words(cls: type, values: Mapping[str, Any], source: str) -> list[str]:
    """Return the words of a command line that give these settings.

    Args:
        cls: the settings' dataclass.
        values: settings by the names of its fields.
        source: what to call them in an error ("demo.yaml, phase dpo").

    Raises:
        UserError: a value that no flag could give.
    """
    hints = typing.get_type_hints(cls)
    by_place = given_by_place(cls)
    words_by_place: list[str] = []
    words: list[str] = []
    for name, value in values.items():
        setting_words = _setting_words(name, value, hints[name], source)
        if name in by_place:
            words_by_place += setting_words[1:]
        else:
            words += setting_words
    return words_by_place + words


def given_by_place(cls: type) -> set[str]:
    """Return the settings that a command line gives by their place, and not by a flag."""
    import tyro

    hints = typing.get_type_hints(cls, include_extras=True)
    names: set[str] = set()
    for field in dataclasses.fields(cls):
        if tyro.conf.Positional in typing.get_args(hints[field.name]):
            names.add(field.name)
    return names


def _setting_words(name: str, value: object, hint: Any, source: str) -> list[str]:
    """Return one setting's flag with what follows it."""
    flag = flag_of(name)
    if value is None:
        # A key without a value is null in YAML. Where a setting may be None it means that, and
        # elsewhere somebody forgot to write on.
        if not _allows(hint, types.NoneType):
            raise UserError(f"{source}: {name} is empty; give a value, or leave it out")
        return [flag, "None"]
    # Before numbers: to Python true and false are two of them.
    if isinstance(value, bool):
        if not _allows(hint, bool):
            raise UserError(f"{source}: {name} is no switch, and takes no {shown(value)}")
        flag_that_is_off = "--no-" + flag.removeprefix("--")
        return [flag if value else flag_that_is_off]
    return [flag, *_value_words(value, hint, source, name)]


def _value_words(value: object, hint: Any, source: str, name: str) -> list[str]:
    """Return a setting's value as the words that follow its flag."""
    if isinstance(value, Mapping):
        words = _mapping_words(value, hint, source, name)
    elif isinstance(value, list | tuple):
        words = _list_words(value, hint, source, name)
    else:
        words = [str(value)]
    for word in words:
        # It would be read as a flag of its own.
        if word.startswith("--"):
            raise UserError(
                f"{source}: {name} is {shown(word)}, and no value may begin with two dashes"
            )
    return words


def _mapping_words(value: Mapping[Any, Any], hint: Any, source: str, name: str) -> list[str]:
    """Return a mapping as ``NAME=VALUE`` words."""
    takes_text = any(_allows(item_type, str) for item_type in _item_types(hint))
    if not takes_text:
        raise UserError(f"{source}: {name} takes no mapping, but is {shown(value)}")
    words: list[str] = []
    for key, item in value.items():
        # A mapping within the mapping would be written as Python shows it.
        read_as(item, _SCALAR, source, name, str(key))
        words.append(f"{key}={item}")
    return words


def _list_words(value: list[Any] | tuple[Any, ...], hint: Any, source: str, name: str) -> list[str]:
    """Return a word for each item of a list."""
    if not _item_types(hint):
        raise UserError(f"{source}: {name} takes one value, but is {shown(value)}")
    words: list[str] = []
    for number, item in enumerate(value, 1):
        read_as(item, _SCALAR, source, name, f"item {number}")
        words.append(str(item))
    return words


def _item_types(hint: Any) -> tuple[Any, ...]:
    """Return the types of what a setting takes several of; none where it takes one value."""
    arguments = typing.get_args(hint)
    if _is_union(hint):
        types_of_alternatives = map(_item_types, arguments)
        return tuple(itertools.chain.from_iterable(types_of_alternatives))
    if typing.get_origin(hint) is not tuple:
        return ()
    return tuple(item for item in arguments if item is not Ellipsis)


def _allows(hint: Any, kind: type) -> bool:
    """Return whether a setting's type is a kind, or has it among its alternatives."""
    if _is_union(hint):
        return any(_allows(alternative, kind) for alternative in typing.get_args(hint))
    return hint is kind


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)
