"""Files that are whole or absent: atomic writes, JSON, JSON Lines, CSV tables, and what kills leave
behind.

Every phase reads and writes its files through this module; what the rows mean is said in
:mod:`jaxmodpo.records`. Files that grow while a phase runs are journals (:mod:`jaxmodpo.journals`).

A file is written under a temporary name beside it, synced to disk, and renamed. A rename is one
step for every file system: whoever reads at any moment, and whoever comes after a kill or a power
cut, sees the old file or the new one, and never half of either::

    with atomic_path(folder / "pairs.json") as temporary:
        temporary.write_text("[]")          # .pairs.json.1a2b3c4d-4711.tmp, until here
    # now pairs.json; an error inside the block would have left it as it was
"""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxmodpo.errors import UserError, read_errors_of
from jaxmodpo.parsing import parse_json
from jaxmodpo.processes import is_gone, machine
from jaxmodpo.schema import read_as

Row = dict[str, Any]
"""a row of a file of rows: values by the names of its columns"""

PRIVATE = 0o600
"""the mode of files that hold people's words: on a shared machine nobody else reads them"""

DATABASE_FILES = ("-wal", "-shm", "-journal")
"""endings of the files that SQLite keeps beside a database"""


def private_database(path: Path) -> None:
    """Make a database file of SQLite's for its owner's eyes alone, before SQLite opens or makes it.

    What SQLite keeps beside it takes over its mode. A file that everybody may read is closed to
    them; one that its owner shares with a group stays as it is, and so does another owner's.

    Raises:
        UserError: one of the files is a link.
    """
    beside = [path.with_name(f"{path.name}{ending}") for ending in DATABASE_FILES]
    existing = [file for file in beside if file.is_symlink() or file.exists()]
    for file in [path, *existing]:
        try:
            descriptor = os.open(
                file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE
            )
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise UserError(link_sentence(file)) from None
        # Of the open file and not of its name, behind which another file may stand by now.
        stat = os.fstat(descriptor)
        if stat.st_mode & 0o007 and stat.st_uid == os.geteuid():
            os.fchmod(descriptor, PRIVATE)
        os.close(descriptor)


def refuse_links(folder: Path, names: Iterable[str]) -> None:
    """Refuse a folder in which somebody planted links under names that are about to be written to.

    Raises:
        UserError: naming the first.
    """
    for name in names:
        if (folder / name).is_symlink():
            raise UserError(link_sentence(folder / name))


def link_sentence(path: Path) -> str:
    """Return why a link that somebody may have planted is not written through."""
    return f"{path} is a link, and nothing is written through one; remove it"


@contextlib.contextmanager
def atomic_path(path: Path, *, private: bool = False) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; sync and rename it to ``path`` when the block ends.

    Args:
        path: the file.
        private: it holds people's words, and is for its owner's eyes alone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        if private:
            # Private from the first byte on: what is closed only later may have been read before.
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            os.close(os.open(temporary, flags, PRIVATE))
        yield temporary
        # In this order: a name that points to content which is not on disk yet would be an empty
        # file after a power cut. The folder holds the name, and is synced after it has changed.
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Refuse a file that could not be written at the end, before the work whose outcome it is to
    hold.

    Raises:
        UserError: it is a folder, or its folder takes no files.
    """
    if path.is_dir():
        raise UserError(f"cannot write to {path}: it is a folder; name a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(path)
        temporary.touch()
        temporary.unlink()
    except OSError as error:
        raise UserError(f"cannot write to {path}: {error.strerror}") from error


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; it becomes ``path``, replacing it, when the block
    ends.
    """
    temporary = _temporary(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _sync(file)
        if path.is_symlink():
            path.unlink()
        if path.exists():
            # No rename replaces a folder that holds something. A kill between the two renames
            # leaves the old folder under its temporary name, and the command makes the new one
            # again.
            old = _temporary(path, "old")
            path.rename(old)
            temporary.rename(path)
            shutil.rmtree(old)
        else:
            temporary.rename(path)
        _sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _temporary(path: Path, kind: str = "tmp") -> Path:
    """Return a hidden name beside ``path`` that says which process uses it."""
    temporary = path.with_name(f".{path.name}.{_here()}-{os.getpid()}.{kind}")
    # A file of this name can only be the rest of a dead process that had this number, or planted.
    if temporary.is_symlink() or temporary.is_file():
        temporary.unlink()
    return temporary


def _here() -> str:
    """Name this machine within a file's name."""
    return hashlib.sha256(machine().encode()).hexdigest()[:8]


_LEFTOVER = re.compile(r"\..+\.([0-9a-f]{8})-(\d+)\.(tmp|old)")


def remove_leftovers(folder: Path, elsewhere_after: float | None = None) -> None:
    """Remove what killed processes left under temporary names, in a folder and below it.

    Args:
        folder: where.
        elsewhere_after: seconds after which those of other machines' processes, which cannot be
            looked for, are taken for dead; by default never.
    """
    for parent, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            match = _LEFTOVER.fullmatch(name)
            if match is not None and _is_abandoned(Path(parent, name), match, elsewhere_after):
                _remove(Path(parent, name))
        # The walk goes on into what this list holds: not into folders that somebody still writes.
        folders[:] = [name for name in folders if not _LEFTOVER.fullmatch(name)]


def _is_abandoned(path: Path, match: re.Match[str], elsewhere_after: float | None) -> bool:
    """Return whether the process that a temporary name speaks of has ended, as far as one can
    tell.
    """
    if match[1] == _here():
        return is_gone(int(match[2]))
    return elsewhere_after is not None and _age(path) > elsewhere_after


def _remove(path: Path) -> None:
    """Remove a file, a link (and not what it points to) or a folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _age(path: Path) -> float:
    """Return the seconds since a file was last written to; 0 where that cannot be told."""
    try:
        return time.time() - path.lstat().st_mtime
    except OSError:
        return 0.0


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str, *, private: bool = False) -> None:
    """Write UTF-8 text atomically; see :func:`atomic_path`."""
    with atomic_path(path, private=private) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any, *, private: bool = False) -> None:
    """Write indented JSON atomically; NaN and infinities are refused."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n", private=private)


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, atomically."""
    lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows]
    write_text(path, "".join(lines), private=True)


def read_json(path: Path, shape: Any = Any) -> Any:
    """Read JSON of a shape; a missing or broken file is the user's error, and so is a key twice in
    one object.

    Args:
        path: the file.
        shape: what it must hold; see :mod:`jaxmodpo.schema`.
    """
    try:
        with read_errors_of(path):
            value = parse_json(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error
    return read_as(value, shape, str(path))


def whole_lines(file: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of a file up to a last one without its end, which is still being written, or
    was when its process died.
    """
    for line in file:
        if not line.endswith(b"\n"):
            return
        yield line


def read_json_lines(path: Path, shape: Any = Any) -> Iterator[Any]:
    """Yield the rows of a file of one JSON value a line, of a shape.

    A torn last line is left out; see :func:`whole_lines`.

    Raises:
        UserError: the file cannot be read, or a line is no JSON or of another shape.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(whole_lines(file), 1):
                try:
                    value = parse_json(line)
                except ValueError as error:
                    raise UserError(f"{path}, line {number}: not JSON ({error})") from error
                yield read_as(value, shape, f"{path}, line {number}")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def read_table(
    path: Path, required: Sequence[str], *, rows_expected: bool = True
) -> list[dict[str, str]]:
    """Read a CSV file as text rows.

    Args:
        path: the file.
        required: the columns that it must have.
        rows_expected: refuse a file that has a header alone. A list of exceptions may have none.

    Raises:
        UserError: unreadable, not UTF-8, empty, lacking a required column, or with one name over
            two columns, of which only one could be read; the message names the file and the column.
            Names count as equal where they differ in case and spaces alone, since mappings find
            columns that way.
    """
    # Python refuses fields of more than 131,072 characters, and a long conversation has more.
    csv.field_size_limit(10**9)
    try:
        # Spreadsheets write a byte-order mark, which would be part of the first column's name.
        with read_errors_of(path), path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = reader.fieldnames or []
            _refuse_doubled_columns(path, columns)
            missing = [name for name in required if name not in columns]
            if missing:
                raise UserError(
                    f"{path} lacks the column {', '.join(missing)}; {_columns_in_words(columns)}"
                )
            rows = []
            for row in reader:
                if None in row or None in row.values():
                    raise UserError(
                        f"{path}, line {reader.line_num}: not {len(columns)} fields as in the"
                        " header"
                    )
                rows.append(row)
    except csv.Error as error:
        raise UserError(f"{path} is not a well-formed CSV file: {error}") from error
    if not columns:
        raise UserError(f"{path} is empty")
    if rows_expected and not rows:
        raise UserError(f"{path} has a header but no rows")
    return rows


def _refuse_doubled_columns(path: Path, columns: Sequence[str]) -> None:
    """Refuse a header that names a column twice; columns without any name belong to nobody and may
    be many.
    """
    first_numbers: dict[str, int] = {}
    for number, column in enumerate(columns, 1):
        name = " ".join(column.replace("\u2019", "'").split()).casefold()
        if not name:
            continue
        first = first_numbers.setdefault(name, number)
        if first != number:
            raise UserError(
                f"{path}: the column '{_shortened(columns[first - 1])}' stands there twice, as the"
                f" columns {first} and {number}; remove or rename one"
            )


def _columns_in_words(columns: Sequence[str]) -> str:
    if not columns:
        return "it is empty"
    listed = f"its columns are {', '.join(map(_shortened, columns))}"
    # A file with another separator has one column, whose name is the whole header.
    if len(columns) == 1:
        for separator in (";", "\t"):
            if separator in columns[0]:
                return f"{listed}; save it with commas between the fields, not {separator!r}"
    return listed


def _shortened(column: str) -> str:
    """Cut a column's name that is a whole question."""
    return column if len(column) <= 60 else f"{column[:59]}…"


def write_table(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write a CSV file atomically, every field in quotes.

    Before 3.11.9 and 3.12.3 Python leaves a bare carriage return without quotes, and then cannot
    read the file again. Half of a surrogate pair, which no UTF-8 file can hold, becomes U+FFFD.
    """
    with (
        atomic_path(path, private=True) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(
            file,
            columns,
            extrasaction="ignore",
            lineterminator="\n",
            quoting=csv.QUOTE_ALL,
            strict=True,
        )
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _whole_characters(row[name]) for name in columns if name in row})


_HALF = re.compile("[\ud800-\udfff]")


def _whole_characters(value: Any) -> Any:
    return _HALF.sub("\ufffd", value) if isinstance(value, str) else value
