"""Settings as values: files that hold them, and how manifests record them.

:mod:`jaxmodpo.flags.parse` makes a command's dataclass of them::

    load_yaml(builtin("criteria", "therapeutic"))  # a mapping, from configs/criteria
    as_mapping(config)  # plain JSON values, without passwords
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxmodpo.errors import UserError, nearest, read_errors_of
from jaxmodpo.parsing import JsonObject, parse_yaml
from jaxmodpo.schema import shown


def builtin(kind: str, name: str | Path) -> Path:
    """Resolve ``name`` to a file: a path as it is, or a name of ours below ``configs/``.

    ``builtin("criteria", "therapeutic")`` finds ``configs/criteria/therapeutic.yaml``, both in a
    checkout and in an installed package.

    Raises:
        UserError: neither a file nor one of ours.
    """
    path = Path(name)
    if path.is_file():
        return path
    package = Path(__file__).parent
    # An installed package holds the folder; in a checkout it stands beside the package.
    folders = [package / "configs", package.parent / "configs"]
    present = [folder for folder in folders if folder.is_dir()]
    if not present:
        raise UserError(f"no file {path}, and this installation has no configs folder")
    ours = {file.stem: file for file in (present[0] / kind).glob("*.yaml")}
    if str(name) in ours:
        return ours[str(name)]
    raise UserError(f"no {kind} file '{name}' here{nearest(str(name), ours)}")


def load_yaml(path: Path) -> JsonObject:
    """Read a YAML file that holds a mapping; :func:`jaxmodpo.parsing.parse_yaml` says what it
    takes.

    The mapping is the caller's own, to change as it likes.
    """
    try:
        with read_errors_of(path):
            text = path.read_text(encoding="utf-8-sig")
        value = copy.deepcopy(_parsed(text))
    except ValueError as error:
        raise UserError(f"{path} is not YAML that can be read: {error}") from error
    if value is None:
        raise UserError(f"{path} is empty, and must hold settings, as in 'seed: 1'")
    if not isinstance(value, dict):
        raise UserError(
            f"{path} must hold a mapping of settings, as in 'seed: 1', but is {shown(value)}"
        )
    return value


@functools.lru_cache(maxsize=64)
def _parsed(text: str) -> Any:
    """Parse a text once, however often its file is read: a check of an experiment asks for the
    table of judges' models at every phase, and a table takes tenths of a second.
    """
    return parse_yaml(text)


# Greedy about the user's part and the password, since either may hold an @ of its own: the last one
# before the host ends them.
_PASSWORD = re.compile(r"(?<=://)([^/?#@\s]*?):[^/?#\s]*@(?=[^@]*$)")
_SECRET_QUERY = re.compile(r"([?&][^=&]*(?:pass|pwd|secret|token|key)[^=&]*=)[^&]*", re.IGNORECASE)


def without_password(text: str) -> str:
    """Return a setting without the passwords of the URL that it may be, before the host or in the
    query.
    """
    if "://" not in text:
        return text
    return _SECRET_QUERY.sub(r"\1***", _PASSWORD.sub(r"\1:***@", text))


def as_mapping(config: Any) -> JsonObject:
    """Return a settings dataclass as plain JSON values, for manifests."""

    names = [field.name for field in dataclasses.fields(config)]
    return {name: _as_json(getattr(config, name)) for name in names}


def _as_json(value: Any) -> Any:
    """Return a setting's value as JSON has it, and without passwords."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, str):
        return without_password(value)
    if isinstance(value, Mapping):
        return {str(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    return value


def named_values(values: Sequence[str], setting: str) -> dict[str, str]:
    """Split ``NAME=VALUE`` settings, as in ``--margin safety=FOLDER``, keeping their order.

    Raises:
        UserError: no ``=``, or one name twice.
    """
    named: dict[str, str] = {}
    for item in values:
        name, separator, value = item.partition("=")
        if not (separator and name and value):
            raise UserError(f"{setting}: '{item}' must be NAME=VALUE, as in safety=path/to/it")
        if name in named:
            raise UserError(f"{setting}: the name '{name}' is given twice")
        named[name] = value
    return named
