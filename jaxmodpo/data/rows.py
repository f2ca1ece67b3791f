"""The rows of a table of pairs, from every kind of file that people keep them in.

The kind follows from the name: ``.json`` (a list, or lines of JSON), ``.jsonl`` or ``.jsonl.gz``,
``.parquet``, ``.csv``, or a folder written by ``datasets``. What a row means is up to
:mod:`jaxmodpo.data.layouts`::

    for row in read_rows(Path("train_prefs.parquet")):
        row["chosen"]
"""

from __future__ import annotations

import collections
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxmodpo.errors import UserError
from jaxmodpo.files import read_json, read_table
from jaxmodpo.parsing import parse_json

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_rows(path: Path) -> Iterator[Any]:
    """Yield a table's rows, whatever kind of file it lies in.

    Raises:
        UserError: no such file, a kind that is not known, or a file that cannot be read.
    """
    name = path.name
    if path.is_dir():
        yield from _datasets_folder(path)
    elif not path.is_file():
        raise UserError(f"no such file or folder: {path}")
    elif name.endswith(".json"):
        yield from json_list(path)
    elif name.endswith((".jsonl", ".jsonl.gz")):
        yield from _json_lines(path)
    elif name.endswith(".csv"):
        yield from read_table(path, [])
    elif name.endswith(".parquet"):
        yield from _parquet(path)
    else:
        raise UserError(
            f"{path}: pairs are read from .json, .jsonl, .jsonl.gz, .parquet, .csv or a datasets"
            " folder"
        )


def _datasets_folder(path: Path) -> Iterator[Any]:
    """Yield the rows of a folder that datasets wrote."""
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except (FileNotFoundError, ValueError) as error:
        raise UserError(f"{path} is not a folder that datasets' save_to_disk wrote") from error
    except Exception as error:  # whatever the library comes to in a file of another shape
        raise _damaged(path, error) from error
    if isinstance(loaded, datasets.DatasetDict):
        raise UserError(
            f"{path} holds the splits {', '.join(map(str, loaded))}; give the folder of one, as in"
            f" {path}/train"
        )
    try:
        yield from loaded
    except Exception as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UserError:
    """Return the sentence about a folder in which the library fails, with the first of its own
    words.
    """
    words = " ".join(str(error).split())[:200]
    return UserError(
        f"{path} is damaged and cannot be read ({type(error).__name__}: {words}); write it again"
    )


def json_list(path: Path) -> Iterator[Any]:
    """Yield the rows of a .json file: of its list, or of its lines where each is a row of its
    own.
    """
    with path.open("rb") as file:
        first = file.readline().removeprefix(_BYTE_ORDER_MARK).strip()
        filled_lines = (line.strip() for line in file if line.strip())
        second = next(filled_lines, b"")
    # Many call JSON Lines .json. An object per line is no JSON as a whole, so that nothing that was
    # meant otherwise is taken for it.
    if first.startswith(b"{") and first.endswith(b"}") and second.startswith(b"{"):
        yield from _json_lines(path)
        return
    rows = read_json(path)
    if not isinstance(rows, list):
        raise UserError(f"{path} must hold a list of pairs")
    yield from rows


def _json_lines(path: Path) -> Iterator[Any]:
    """Yield the rows of a file of JSON lines, which may begin with a byte-order mark and hold blank
    lines.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        # Lines end at line feeds alone: a text may hold what Python takes for other line ends.
        with opener(path, "rb") as file:
            for number, line in enumerate(file, 1):
                text = line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line
                if not text.strip():
                    continue
                try:
                    yield parse_json(line)
                except ValueError as error:
                    raise UserError(f"{path}, row {number}: not JSON: {error}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {path}: {error}") from error


def _parquet(path: Path) -> Iterator[Any]:
    """Yield the rows of a Parquet file; without pandas, which makes 12 of a column with gaps
    12.0.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        counts = collections.Counter(parquet.read_schema(path).names)
        twice = [name for name, count in counts.items() if count > 1]
        if twice:
            raise UserError(
                f"{path}: the column '{twice[0]}' stands there twice; remove or rename one"
            )
        table = parquet.read_table(path)
    except (OSError, pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    for batch in table.to_batches():
        try:
            rows = batch.to_pylist()
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is damaged: a text in it is not UTF-8 ({error})") from None
        except (ValueError, OverflowError) as error:
            # Two fields of one name inside a column, or a date beyond Python's.
            words = " ".join(str(error).split())
            raise UserError(
                f"{path} holds what Python cannot: {words}; mend or remove that column"
            ) from None
        yield from rows
