"""Paths that no setting may have: empty ones, and addresses of remote stores."""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxmodpo.errors import UserError
from jaxmodpo.flags.names import setting_of

_ADDRESS = re.compile(r"(?:^|=)([A-Za-z][A-Za-z0-9+.-]+):/")

_STORE_SCHEMES = frozenset(
    [
        *("gs", "gcs", "s3", "s3a", "r2", "oss", "cos", "obs"),
        *("az", "abfs", "abfss", "adl", "wasb", "wasbs"),
        *("hdfs", "dbfs", "hf", "file", "ftp", "sftp", "ssh"),
    ]
)
"""schemes that no setting takes; others may be a database's or an endpoint's, in a setting that is
no path"""


def refuse_empty_paths(arguments: Sequence[str], hints: Mapping[str, Any], source: str) -> None:
    """Refuse an empty path, as ``"$OUT"`` is in a shell that knows no OUT: Python takes it for the
    current folder.

    Args:
        arguments: of the command line.
        hints: the type of each setting.
        source: what to call the command line in an error.
    """
    hint: Any = Path  # before the first flag stand only files' and folders' names
    flag = "a path"
    for argument in arguments:
        value = argument
        if argument.startswith("--"):
            flag, attached, value = argument.partition("=")
            hint = hints.get(setting_of(flag))
            if not attached:
                continue
        if not value and _holds_path(hint):
            raise UserError(f"{source}: {flag} is empty; give a path, or . for the current folder")


def _holds_path(hint: Any) -> bool:
    """Return whether a setting's type is a path, an optional one, or several."""
    return hint is Path or any(_holds_path(argument) for argument in typing.get_args(hint))


def refuse_remote(value: Any, flag: str, source: str, words: Sequence[str] = ()) -> None:
    """Refuse ``gs://…`` and the like where a path belongs: they would become folders of that name
    here.

    Args:
        value: a setting's.
        flag: the setting's.
        source: what to call the command line in an error.
        words: of the command line, in which the value stands as its user wrote it.
    """
    items = value if isinstance(value, list | tuple) else (value,)
    for item in items:
        if isinstance(item, str | Path):
            _refuse_remote_item(item, flag, source, words)


def _refuse_remote_item(item: str | Path, flag: str, source: str, words: Sequence[str]) -> None:
    if "\0" in str(item):
        raise UserError(f"{source}: {flag} holds a zero byte, which no path and no name can")
    address = _ADDRESS.search(str(item))
    if address is None:
        return
    scheme = address[1]
    # A text may be the URL of a database or an endpoint; a path cannot be any URL.
    if isinstance(item, Path) or scheme.lower() in _STORE_SCHEMES:
        raise UserError(
            f"{source}: {flag} is {_as_written(item, words)}, and {scheme}:// is not supported;"
            " copy it here or mount it, and give a local path"
        )


def _as_written(item: str | Path, words: Sequence[str]) -> str:
    """Return a value as it stands among the words of a command line: a path has lost the second of
    two slashes.
    """
    for word in words:
        attached = word.partition("=")[2]
        for text in (word, attached):
            if isinstance(item, Path) and text and Path(text) == item:
                return text
    return str(item)
