"""Records and the files they lie in: atomic writes, JSON, CSV, journals.

Every phase reads and writes its files through this module, so that a file is either whole or absent. The
record formats are those of the paper's authors.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import errno
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxmodpo.errors import UserError
from jaxmodpo.processes import is_gone, machine

PRIVATE = 0o600
"""the mode of files that hold people's words: on a shared machine nobody else reads them"""

# --------------------------------------------------------------------------- atomic writes


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
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, PRIVATE))
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; it becomes ``path``, replacing it, when the block ends."""
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
        elsewhere_after: seconds after which those of other machines' processes, which cannot be looked for, are
            taken for dead; by default never.
    """
    for parent, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            match = _LEFTOVER.fullmatch(name)
            if match is None:
                continue
            path = Path(parent, name)
            if match[1] == _here():
                dead = is_gone(int(match[2]))
            else:
                dead = elsewhere_after is not None and _age(path) > elsewhere_after
            if not dead:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        folders[:] = [name for name in folders if not _LEFTOVER.fullmatch(name)]


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
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", private=private)


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, atomically."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows), private=True)


_HALF_ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(text: str) -> Any:
    """Parse JSON.

    Raises:
        ValueError: no JSON, or a text with half of a surrogate pair, which can be neither hashed nor written.
    """
    value = json.loads(text)
    if _HALF_ESCAPED.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"it holds half of a surrogate pair ({error.object[error.start]!a})") from None
    return value


def read_json(path: Path) -> Any:
    """Read JSON; a missing or broken file is the user's error."""
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error


class Journal:
    """An append-only JSONL file that survives a kill at any moment.

    Each :meth:`append` is on disk when it returns. A torn last line, which only a kill can leave,
    is cut off on opening. Used for work in progress: sampled responses, votes, training metrics.
    """

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.rows: list[dict[str, Any]] = []
        good = 0
        self._open()
        if path.exists():
            with path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if not line.endswith(b"\n"):
                        break
                    try:
                        self.rows.append(json.loads(line))
                    except ValueError as error:
                        raise UserError(f"{path}, line {number}: not JSON; move the file away") from error
                    good += len(line)
        self._file.truncate(good)

    def _open(self) -> None:
        """Open the file to append to, for its owner's eyes alone, and never through a link that somebody planted."""
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.fdopen(os.open(self.path, flags, PRIVATE), "ab")
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise UserError(f"{self.path} is a link, and nothing is written through one; remove it") from None

    def append(self, *rows: Mapping[str, Any]) -> None:
        """Add rows and sync them to disk in one go."""
        self.extend(rows)
        self.sync()

    def extend(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows without syncing: for work that costs nothing to do again."""
        for row in rows:
            self._file.write(json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n")
            self.rows.append(dict(row))

    def sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def truncate(self, rows: int) -> None:
        """Keep the first ``rows`` rows, atomically."""
        if rows < len(self.rows):
            self._file.close()
            self.rows = self.rows[:rows]
            write_jsonl(self.path, self.rows)
            self._open()

    def close(self) -> None:
        self.sync()
        self._file.close()


# --------------------------------------------------------------------------- records


@dataclass(frozen=True)
class Question:
    """A help-seeking post."""

    question_id: str
    question_text: str


@dataclass(frozen=True)
class Response:
    """A reply to a question; ``model_name`` is empty while only one model is at work."""

    question_id: str
    question_text: str
    response_id: str
    response_text: str
    model_name: str = ""


@dataclass(frozen=True)
class Candidate:
    """A reply inside a pair or a ranking."""

    response_id: str
    response_text: str


@dataclass(frozen=True)
class Pair:
    """A preference: ``chosen`` is better than ``rejected`` on one criterion."""

    question_id: str
    question_text: str
    chosen: Candidate
    rejected: Candidate


@dataclass(frozen=True)
class Ranking:
    """All replies to one question, best first, on one criterion.

    Attributes:
        question_id: the question.
        question_text: its text.
        candidates: the replies.
        ranks: of each, from 1; tied replies share one, and what follows them takes its place in the list, as in
            1, 1, 3. By default no two replies are tied.
    """

    question_id: str
    question_text: str
    candidates: tuple[Candidate, ...]
    ranks: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        ranks = self.ranks or tuple(range(1, len(self.candidates) + 1))
        assert len(ranks) == len(self.candidates), self.question_id
        assert all(r in (n, before) for n, (before, r) in enumerate(zip((0, *ranks), ranks, strict=False), 1)), ranks
        object.__setattr__(self, "ranks", ranks)

    @property
    def all_tied(self) -> bool:
        """Whether it prefers no reply to another."""
        return len(set(self.ranks)) < 2


def read_table(path: Path, required: Sequence[str]) -> list[dict[str, str]]:
    """Read a CSV file as text rows.

    Raises:
        UserError: unreadable, not UTF-8, empty, or lacking a required column; the message names
            the file and the column.
    """
    csv.field_size_limit(10**9)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = reader.fieldnames or []
            missing = [name for name in required if name not in columns]
            if missing:
                found = f"its columns are {', '.join(columns)}" if columns else "it is empty"
                raise UserError(f"{path} lacks the column {', '.join(missing)}; {found}")
            rows = []
            for row in reader:
                if None in row or None in row.values():
                    raise UserError(f"{path}, line {reader.line_num}: not {len(columns)} fields as in the header")
                rows.append(row)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except csv.Error as error:
        raise UserError(f"{path} is not a well-formed CSV file: {error}") from error
    if not rows:
        raise UserError(f"{path} has a header but no rows")
    return rows


def write_table(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write a CSV file atomically."""
    with atomic_path(path, private=True) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_questions(path: Path) -> list[Question]:
    """Read ``question_id, question_text``; ids must be unique."""
    rows = read_table(path, ["question_id", "question_text"])
    _refuse_doubles(path, "question_id", (row["question_id"] for row in rows))
    return [Question(row["question_id"], row["question_text"]) for row in rows]


def write_questions(path: Path, questions: Sequence[Question]) -> None:
    write_table(path, [dataclasses.asdict(q) for q in questions], ["question_id", "question_text"])


def read_responses(path: Path) -> list[Response]:
    """Read ``question_id, question_text, response_id, response_text`` and, if there, ``model_name``."""
    columns = ["question_id", "question_text", "response_id", "response_text"]
    rows = read_table(path, columns)
    _refuse_doubles(path, "response_id", (f"{row['question_id']}/{row['response_id']}" for row in rows))
    return [Response(*(row[c] for c in columns), model_name=row.get("model_name", "")) for row in rows]


def write_responses(path: Path, responses: Sequence[Response]) -> None:
    columns = ["question_id", "question_text", "response_id", "response_text"]
    if any(r.model_name for r in responses):
        columns.append("model_name")
    write_table(path, [dataclasses.asdict(r) for r in responses], columns)


def _refuse_doubles(path: Path, field: str, values: Iterable[str]) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise UserError(f"{path}: the {field} {value} stands there twice")
        seen.add(value)


def read_personas(path: Path) -> dict[str, str]:
    """Read ``{persona_id: persona_text}``."""
    personas = read_json(path)
    if not isinstance(personas, dict) or not personas:
        raise UserError(f'{path} must hold {{"persona_id": "persona text", …}}, at least one')
    wrong = [key for key, text in personas.items() if not (isinstance(text, str) and text.strip())]
    if wrong:
        raise UserError(f"{path}: the persona {wrong[0]} has no text")
    return personas


def pair_from_mapping(row: Any, where: str) -> Pair:
    """Read one pair in the authors' layout; ``where`` names it in errors ("f.json, item 3")."""
    try:
        return Pair(
            str(row["question_id"]),
            row["question_text"],
            Candidate(str(row["chosen"]["response_id"]), row["chosen"]["response_text"]),
            Candidate(str(row["rejected"]["response_id"]), row["rejected"]["response_text"]),
        )
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{where}: a pair needs question_id, question_text, chosen and rejected, each with response_id "
            f"and response_text ({type(error).__name__}: {error})"
        ) from error


def write_pairs(path: Path, pairs: Sequence[Pair]) -> None:
    write_json(path, [dataclasses.asdict(pair) for pair in pairs], private=True)


def read_rankings(path: Path) -> list[Ranking]:
    """Read ``{criterion}_rankings.json``, each best first; equal ranks are ties, in the file's order."""
    rows = read_json(path)
    try:
        return [_ranking(row) for row in rows]
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path}: a ranking needs question_id, question_text and ranking, a list of rank, response_id, "
            f"response_text ({type(error).__name__}: {error})"
        ) from error


def _ranking(row: Any) -> Ranking:
    """Read one ranking; whatever numbers its ranks are, they become 1, 1, 3."""
    listed = sorted(row["ranking"], key=lambda c: c["rank"])
    given = [c["rank"] for c in listed]
    if not all(isinstance(rank, int | float) for rank in given):
        raise TypeError(f"the ranks of question {row['question_id']} are not all numbers")
    return Ranking(
        str(row["question_id"]),
        row["question_text"],
        tuple(Candidate(str(c["response_id"]), c["response_text"]) for c in listed),
        tuple(given.index(rank) + 1 for rank in given),
    )


def write_rankings(path: Path, rankings: Sequence[Ranking]) -> None:
    """Write ``{criterion}_rankings.json``; tied replies have the same ``rank``."""
    write_json(
        path,
        [
            {
                "question_id": r.question_id,
                "question_text": r.question_text,
                "ranking": [
                    {"rank": rank, **dataclasses.asdict(c)} for rank, c in zip(r.ranks, r.candidates, strict=True)
                ],
            }
            for r in rankings
        ],
        private=True,
    )
