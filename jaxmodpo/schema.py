"""What a file must hold, as Python types, and the sentence that says where it holds something else.

A settings or state file may have valid syntax and another shape than its reader expects: a number
where a list belongs, a key that is missing. :func:`read_as` compares what was parsed with a shape,
a Python type, so that readers can rely on it; :class:`Fields` hands out one field of a mapping at a
time and refuses fields that no reader knows. Every refusal is one sentence with the file and the
key.

Shapes are ``str``, ``int``, ``float`` (finite, and whole numbers too), ``bool``, ``None``, ``Any``,
``Literal``, unions, ``list``, ``tuple``, ``dict`` with texts as keys, ``Annotated`` with a
:class:`Range`, and two kinds of mapping:

- A ``TypedDict`` is for files that programs write: further keys are left alone, since a later
  version may add some.
- A dataclass is for files that people write: an unknown key is refused with the nearest known one,
  fields with defaults may be absent, and what comes back is the dataclass.

A list of settings, and one that is wrong::

    read_as([{"name": "a", "rank": 8}], list[Adapter], "adapters.yaml")     # [Adapter("a", 8)]
    read_as([{"name": "a", "rnak": 8}], list[Adapter], "adapters.yaml")
    # adapters.yaml: item 1: unknown key 'rnak'; did you mean 'rank'?
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from jaxmodpo.errors import UserError, nearest

KEY = "key"
"""names, in the metadata of a dataclass's field, the key under which files hold it where that is no
Python name: ``difference`` may be written as "a - b" """

LARGEST = 2**31 - 1
"""the largest whole number that a shape may have: array indices are 32-bit"""

_LONGEST_SHOWN = 80


@dataclass(frozen=True)
class Range:
    """Bounds of a number, as ``Annotated[int, Range(least=1)]``; ``above`` and ``below`` leave the
    bound itself out.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def holds(self, value: float) -> bool:
        """Return whether a number lies within the bounds."""
        return not (
            (self.least is not None and value < self.least)
            or (self.most is not None and value > self.most)
            or (self.above is not None and value <= self.above)
            or (self.below is not None and value >= self.below)
        )

    def in_words(self) -> str:
        """Return the bounds as they follow "a number"."""
        bounds = (
            (" above", self.above),
            (" from", self.least),
            (" to", self.most),
            (" to below", self.below),
        )
        stated = [f"{word} {bound}" for word, bound in bounds if bound is not None]
        return "".join(stated)


Tally = Annotated[int, Range(least=0, most=2**63 - 1)]
"""what was counted, as files record it"""


def read_as(value: Any, shape: Any, source: str, *path: str) -> Any:
    """Return a parsed value that has a shape.

    Args:
        value: what a file holds.
        shape: what it must be; see the module's first paragraph.
        source: the file, for errors.
        path: where in the file the value stands: keys, and "item 3" of a list.

    Raises:
        UserError: it is of another shape; the message names the file and the key.
    """
    kind = typing.get_origin(shape)
    arguments = typing.get_args(shape)
    if kind is Annotated:
        return _ranged(value, shape, source, path)
    if kind in (typing.Union, types.UnionType):
        return _one_of(value, arguments, source, path)
    # The outermost kind first: what is inside of a list that is no list cannot be looked at.
    if shape is not Any and not _is_of_kind(value, shape):
        raise _wrong(value, _in_words(shape), source, path)
    if kind in (list, tuple, Sequence):
        return _items(value, kind, arguments, source, path)
    if kind in (dict, Mapping):
        item_shape = arguments[1]
        values: dict[Any, Any] = {}
        for key, item in value.items():
            values[key] = read_as(item, item_shape, source, *path, key)
        return values
    if typing.is_typeddict(shape):
        return _typed_mapping(value, shape, source, path)
    if dataclasses.is_dataclass(shape):
        return _dataclass(value, shape, source, path)
    return value


def place(source: str, *path: str) -> str:
    """Return how a part of a file is named in errors: ``results.json: tests, empathy, item 1``."""
    return f"{source}: {', '.join(path)}" if path else source


def is_integer(value: Any) -> bool:
    """Return whether a JSON value is a whole number; Python counts ``true`` as one, JSON does
    not.
    """
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Return whether a JSON value is a number that a float can hold: neither NaN nor infinite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # JSON has whole numbers of any length, and a float ends at about 1.8e308.
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _is_same(value: Any, literal: Any) -> bool:
    """Return whether two values are equal and of one type, since Python's ``True`` equals 1."""
    return type(value) is type(literal) and value == literal


def _is_of_kind(value: Any, shape: Any) -> bool:
    """Return whether a value is of a shape's outermost kind: a mapping, a list, a text, a
    number.
    """
    kind = typing.get_origin(shape) or shape
    if kind is Annotated:
        return _is_of_kind(value, typing.get_args(shape)[0])
    if kind is Any:
        return True
    if kind in (None, types.NoneType):
        return value is None
    if kind is Literal:
        return any(_is_same(value, literal) for literal in typing.get_args(shape))
    # Neither JSON nor YAML has tuples: a list stands for one.
    if kind in (list, tuple, Sequence):
        return isinstance(value, list)
    if kind in (dict, Mapping) or typing.is_typeddict(kind) or dataclasses.is_dataclass(kind):
        return isinstance(value, dict) and all(isinstance(key, str) for key in value)
    if kind is int:
        return is_integer(value)
    if kind is float:
        return is_number(value)
    return isinstance(value, kind)


def _ranged(value: Any, shape: Any, source: str, path: Sequence[str]) -> Any:
    kind, *extras = typing.get_args(shape)
    bounds = [extra for extra in extras if isinstance(extra, Range)]
    if not _is_of_kind(value, kind) or not all(bound.holds(value) for bound in bounds):
        raise _wrong(value, _in_words(shape), source, path)
    return value


def _one_of(value: Any, shapes: Sequence[Any], source: str, path: Sequence[str]) -> Any:
    of_its_kind = [shape for shape in shapes if _is_of_kind(value, shape)]
    if not of_its_kind:
        raise _wrong(value, " or ".join(map(_in_words, shapes)), source, path)
    # Of several kinds of mapping the one that the value names: {"kind": "rank"}.
    named = [shape for shape in of_its_kind if not _has_fields(shape) or _is_named(value, shape)]
    *earlier, last = named or of_its_kind
    # Several shapes may be of one kind, as two sorts of list: the first that the value fits wins.
    for shape in earlier:
        try:
            return read_as(value, shape, source, *path)
        except UserError:
            continue
    # The last one's own refusal says more than that the value is none of them.
    return read_as(value, last, source, *path)


def _has_fields(shape: Any) -> bool:
    return typing.is_typeddict(shape) or dataclasses.is_dataclass(shape)


def _is_named(value: Mapping[str, Any], shape: Any) -> bool:
    """Return whether a mapping's fields that can hold certain words alone hold a shape's."""
    for name, hint in _hints(shape).items():
        if typing.get_origin(hint) is not Literal:
            continue
        if name in value:
            if not _is_of_kind(value[name], hint):
                return False
        elif not _may_be_left_out(shape, name):
            return False
    return True


def _may_be_left_out(shape: Any, name: str) -> bool:
    # A dataclass keeps a field's default as an attribute of the class.
    return dataclasses.is_dataclass(shape) and hasattr(shape, name)


def _items(
    value: Any, kind: Any, arguments: Sequence[Any], source: str, path: Sequence[str]
) -> Any:
    if kind is tuple and arguments[-1] is not Ellipsis:
        if len(value) != len(arguments):
            raise _wrong(value, f"a list of {len(arguments)}", source, path)
        shapes = arguments
    else:
        shapes = [arguments[0]] * len(value)
    items: list[Any] = []
    for number, (item, shape) in enumerate(zip(value, shapes, strict=True), 1):
        items.append(read_as(item, shape, source, *path, f"item {number}"))
    return tuple(items) if kind is tuple else items


def _typed_mapping(value: Mapping[str, Any], shape: Any, source: str, path: Sequence[str]) -> Any:
    hints = _hints(shape)
    for name in hints:
        if name not in value and name in _required(shape):
            raise UserError(f"{place(source, *path)} lacks the field '{name}'")
    # A later version of the program that wrote the file may have added keys, which are left alone.
    result = dict(value)
    for name in value:
        if name in hints:
            result[name] = read_as(value[name], hints[name], source, *path, name)
    return result


def _dataclass(value: Mapping[str, Any], shape: Any, source: str, path: Sequence[str]) -> Any:
    declared = {key_of(field): field for field in dataclasses.fields(shape) if field.init}
    # Unknown keys before missing ones: a misspelled key is both, and the nearest name is the help.
    for key in value:
        if key not in declared:
            raise UserError(f"{place(source, *path)}: unknown key '{key}'{nearest(key, declared)}")
    for key, field in declared.items():
        if key not in value and not _has_default(field):
            raise UserError(f"{place(source, *path)} lacks the field '{key}'")
    hints = _hints(shape)
    arguments: dict[str, Any] = {}
    for key, item in value.items():
        name = declared[key].name
        arguments[name] = read_as(item, hints[name], source, *path, key)
    return shape(**arguments)


def key_of(field: dataclasses.Field[Any]) -> str:
    """Return the key under which files hold a dataclass's field: its name, or what it names."""
    return field.metadata.get(KEY, field.name)


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return (
        field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
    )


# Files of thousands of rows ask for the same shapes again and again; resolving annotations is slow.
@functools.cache
def _required(shape: Any) -> frozenset[str]:
    """Return a TypedDict's required keys; its own list misses NotRequired where annotations are
    texts.
    """
    hints = typing.get_type_hints(shape, include_extras=True)
    optional = {
        name for name, hint in hints.items() if typing.get_origin(hint) is typing.NotRequired
    }
    return frozenset(shape.__required_keys__ - optional)


@functools.cache
def _hints(shape: Any) -> dict[str, Any]:
    """Return the types of a dataclass's or TypedDict's fields, without what says whether they are
    needed.
    """
    hints = typing.get_type_hints(shape, include_extras=True)
    for name, hint in hints.items():
        if typing.get_origin(hint) in (typing.Required, typing.NotRequired):
            hints[name] = typing.get_args(hint)[0]
    return hints


def _in_words(shape: Any) -> str:
    kind = typing.get_origin(shape) or shape
    arguments = typing.get_args(shape)
    if kind is Annotated:
        bounds = [extra.in_words() for extra in arguments[1:] if isinstance(extra, Range)]
        return _in_words(arguments[0]) + "".join(bounds)
    if kind is Literal:
        return " or ".join(map(str, arguments))
    if kind in (typing.Union, types.UnionType):
        return " or ".join(map(_in_words, arguments))
    if kind in (list, tuple, Sequence):
        return "a list"
    words = {
        int: "a whole number",
        float: "a number",
        str: "a text",
        bool: "true or false",
        types.NoneType: "null",
    }
    return words.get(kind, "a mapping with texts as keys")


def _wrong(value: Any, needed: str, source: str, path: Sequence[str]) -> UserError:
    # A file holds a value, and a value inside of it is one.
    verb = "be" if path else "hold"
    return UserError(f"{place(source, *path)} must {verb} {needed}, not {shown(value)}")


def shown(value: Any) -> str:
    """Return a parsed value as an error shows it: as JSON, cut where it is long."""
    text = json.dumps(value, default=str, skipkeys=True)
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"


class Fields:
    """The fields of one mapping, each read once.

    Args:
        settings: what the file holds.
        source: the file, for errors.
    """

    def __init__(self, settings: Mapping[str, Any], source: str):
        self.source = source
        self._left = dict(settings)

    def take(self, name: str, default: Any = None) -> Any:
        """Return a field of any type; ``default`` where it is absent or null."""
        # Taken out, so that what is left at the end is what nobody knew.
        value = self._left.pop(name, None)
        return default if value is None else value

    def read(self, name: str, shape: Any, default: Any = None) -> Any:
        """Return a field of a shape; ``default`` where it is absent or null, and without one the
        field is needed.
        """
        value = self.take(name)
        if value is None and default is None:
            raise UserError(f"{self.source}: the field '{name}' is missing")
        if value is None:
            return default
        return read_as(value, shape, self.source, name)

    def integer(
        self, name: str, default: int | None = None, *, least: int = 1, most: int = LARGEST
    ) -> int:
        """Return a whole number from ``least`` to ``most``; without a default the field is
        needed.
        """
        return self.read(name, Annotated[int, Range(least=least, most=most)], default)

    def number(
        self, name: str, default: float | None = None, *, above: float | None = None
    ) -> float:
        """Return a finite number, greater than ``above`` where that is given."""
        return float(self.read(name, Annotated[float, Range(above=above)], default))

    def rate(self, name: str, default: float) -> float:
        """Return a rate of dropout, in [0, 1)."""
        return float(self.read(name, Annotated[float, Range(least=0, below=1)], default))

    def boolean(self, name: str, default: bool) -> bool:
        """Return true or false."""
        return self.read(name, bool, default)

    def only(self, name: str, *supported: Any) -> None:
        """Refuse a field that is there and holds none of ``supported``; null is as good as
        absent.
        """
        value = self.take(name, supported[0])
        if not any(_is_same(value, literal) for literal in supported):
            raise UserError(f"{self.source}: {name} {shown(value)} is not supported")

    def refuse_rest(self, harmless: Collection[str]) -> None:
        """Refuse the first field that was not read, is not harmless, and holds more than
        nothing.
        """
        for name in sorted(self._left):
            if name not in harmless and not _is_nothing(self._left[name]):
                raise UserError(
                    f"{self.source}: the field '{name}' is not supported (it holds"
                    f" {shown(self._left[name])})"
                )

    def has(self, name: str) -> bool:
        """Return whether a field is there and not yet read, be it null."""
        return name in self._left


def _is_nothing(value: Any) -> bool:
    """Return whether a value says as much as an absent field; 0 says more, though it equals
    ``False`` in Python.
    """
    if value is None or value is False:
        return True
    return isinstance(value, str | list | dict) and not value
