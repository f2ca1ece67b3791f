"""Result files and manifests: dataclasses that are written as JSON with a version, and read back.

Several commands read what another one wrote, perhaps months later and on another machine. Each kind
of file is therefore a frozen dataclass (:class:`Result`), and all kinds are written and read here
and nowhere else::

    write_result(folder / "kl.json", Divergence(kl=3.1, standard_error=0.2, replies=64))
    read_result(folder / "kl.json", Divergence).kl

On disk a file holds its dataclass's fields under their names (or under the key that a field names,
where that is no Python name), and ``version`` before them. A file
of another version is refused before its fields are looked at: a key that changed its meaning would
otherwise be read as what it used to mean. Within a version every key is known, so one that is
missing, unknown or of another type is refused with its name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from jaxmodpo.errors import UserError
from jaxmodpo.files import read_json, write_json
from jaxmodpo.parsing import JsonObject
from jaxmodpo.schema import key_of, read_as, shown

VERSION_KEY = "version"


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one kind of file holds."""

    VERSION: ClassVar[int] = 1
    """raised whenever a key changes its name, its type or its meaning"""

    def check(self, source: str) -> None:
        """Refuse fields that do not belong together, such as a test of a model without figures.

        Args:
            source: the file, for errors.

        Raises:
            UserError: naming the file and the fields.
        """


Kind = TypeVar("Kind", bound=Result)


def write_result(path: Path, result: Result, *, private: bool = False) -> None:
    """Write a result atomically; one that holds people's words for its owner's eyes alone."""
    write_json(path, {VERSION_KEY: result.VERSION, **plain(result)}, private=private)


def read_result(path: Path, kind: type[Kind]) -> Kind:
    """Read a result file of a kind.

    Raises:
        UserError: it cannot be read, is of another version, lacks a field, has an unknown one, or
            holds values that do not belong together.
    """
    fields = dict(read_json(path, JsonObject))
    _refuse_other_version(path, fields.pop(VERSION_KEY, None), kind.VERSION)
    result: Kind = read_as(fields, kind, str(path))
    result.check(str(path))
    return result


def _refuse_other_version(path: Path, version: Any, expected: int) -> None:
    # Compared with its type, since Python's True equals 1.
    if type(version) is int and version == expected:
        return
    if version is None:
        writer = "has no version: another tool or an early jaxmodpo wrote it"
    else:
        writer = f"has version {shown(version)}, and this jaxmodpo reads version {expected}"
    raise UserError(
        f"{path} {writer}; remove it and run the command that writes it again, or use the jaxmodpo"
        " that wrote it"
    )


def refuse_missing(names: Iterable[str], mapping: Collection[str], place: str) -> None:
    """Refuse a mapping that lacks one of several names.

    Args:
        names: what is needed.
        mapping: where it is looked for.
        place: the file and the mapping's place in it, for the error.
    """
    for name in names:
        if name not in mapping:
            raise UserError(
                f"{place} lacks '{name}'; write the file with the command that its folder's"
                " manifest names"
            )


def plain(value: Any) -> Any:
    """Return dataclasses and what they hold as JSON values.

    A field that holds its default is left out, as a reader takes its default for one that is
    absent.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field for field in dataclasses.fields(value) if not _is_default(value, field)]
        return {key_of(field): plain(getattr(value, field.name)) for field in fields}
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _is_default(owner: Any, field: dataclasses.Field[Any]) -> bool:
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    return default is not dataclasses.MISSING and getattr(owner, field.name) == default
