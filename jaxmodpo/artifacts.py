"""Everything that lies on disk between two phases: records, atomic writes, manifests.

Every phase reads and writes its files through this module, so that a file is either whole or
absent, and every output folder says in ``manifest.json`` what made it: command, settings, hashes
of the inputs, versions, device. The record formats are those of the paper's authors.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jaxmodpo
from jaxmodpo.config import as_mapping
from jaxmodpo.errors import UserError

# --------------------------------------------------------------------------- atomic writes


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; sync and rename it to ``path`` when the block ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; it becomes ``path``, replacing it, when the block ends."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _sync(file)
        if path.exists():
            old = path.with_name(f".{path.name}.{os.getpid()}.old")
            path.rename(old)
            temporary.rename(path)
            shutil.rmtree(old)
        else:
            temporary.rename(path)
        _sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically; NaN and infinities are refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, atomically."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


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
        self._file = path.open("ab")
        self._file.truncate(good)

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
            self._file = self.path.open("ab")

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
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
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
    write_json(path, [dataclasses.asdict(pair) for pair in pairs])


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
    )


# --------------------------------------------------------------------------- fingerprints

_WHOLE = 64 * 2**20


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value in canonical form."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint(path: Path) -> str:
    """Return a hash of a file's or folder's content.

    Files up to 64 MiB are hashed whole; larger ones by their size and 64 evenly spaced blocks of
    1 MiB, since a 14 GB checkpoint would otherwise be read twice. Hidden files and manifests, which
    hold times, do not count.
    """
    if path.is_dir():
        files = sorted(
            p
            for p in path.rglob("*")
            if p.is_file() and p.name != "manifest.json" and not any(s[0] == "." for s in p.relative_to(path).parts)
        )
        return digest([[str(p.relative_to(path)), fingerprint(p)] for p in files])
    hasher = hashlib.sha256()
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            if size <= _WHOLE:
                hasher.update(file.read())
            else:
                hasher.update(str(size).encode())
                for block in range(64):
                    file.seek((size - 2**20) * block // 63)
                    hasher.update(file.read(2**20))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    return hasher.hexdigest()


# --------------------------------------------------------------------------- phases


@dataclass
class Phase:
    """One phase's output folder: absent, running or finished.

    ``manifest.json`` is written when the phase starts and again when it ends. Starting the same
    command on a finished folder does nothing; on an unfinished one it resumes; with other settings
    or inputs it is refused, so that no folder mixes two runs. Of several processes that train
    together, one writes.
    """

    directory: Path
    manifest: dict[str, Any]
    finished: bool
    writes: bool = True
    _started: float = dataclasses.field(default_factory=time.monotonic)
    _did_something: bool = False

    @classmethod
    def open(cls, command: str, config: Any, directory: Path, inputs: Mapping[str, Path]) -> Phase:
        """Start, resume or recognise a phase.

        Args:
            command: the command's name.
            config: its settings dataclass.
            directory: its output folder.
            inputs: what it reads, by name: files or folders.

        Raises:
            UserError: an input is missing, or the folder holds a run with other settings.
        """
        for name, path in inputs.items():
            if not path.exists():
                raise UserError(f"{name}: no such file or folder: {path}")
        identity = {
            "command": command,
            "settings": {k: v for k, v in as_mapping(config).items() if k not in NOT_IDENTITY},
            "inputs": {name: fingerprint(path) for name, path in inputs.items()},
        }
        path = directory / "manifest.json"
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to {directory}: {error.strerror}") from error
        if path.exists():
            manifest = read_json(path)
            difference = _difference(manifest.get("identity", {}), identity)
            # A start that was refused before it made anything claims no folder.
            claimed = manifest.get("status") == "finished" or any(p != path for p in directory.iterdir())
            if difference and claimed:
                raise UserError(
                    f"{directory} holds a run with other settings ({difference}); choose another output "
                    "folder or remove that one"
                )
            if not difference:
                return cls(directory, manifest, manifest.get("status") == "finished")
        manifest = {
            "status": "running",
            "identity": identity,
            "input_paths": {name: str(p) for name, p in inputs.items()},
            "started": _now(),
            "environment": environment(),
        }
        write_json(path, manifest)
        return cls(directory, manifest, False)

    def finish(self, **results: Any) -> None:
        """Record what the phase produced (counts, figures) and mark it finished, unless another process does."""
        self.finished = self._did_something = True
        if not self.writes:
            return
        self.manifest |= {
            "status": "finished",
            "results": results,
            "outputs": {
                str(p.relative_to(self.directory)): fingerprint(p)
                for p in sorted(self.directory.rglob("*"))
                if p.is_file() and not _is_kept_apart(p)
            },
            "finished": _now(),
            "seconds": round(time.monotonic() - self._started, 3),
        }
        write_json(self.directory / "manifest.json", self.manifest)

    @property
    def ending(self) -> str:
        """Say in a few words what became of it; empty where another process says so."""
        if not (self.finished and self.writes):
            return ""
        if self._did_something:
            return f"finished: {self.directory}"
        return f"{self.directory} was finished before; there is nothing to do"

    @property
    def results(self) -> dict[str, Any]:
        return self.manifest.get("results", {})


def _is_kept_apart(path: Path) -> bool:
    """Return whether a file holds times or work in progress, so that its hash says nothing of the outcome."""
    return path.name == "manifest.json" or "checkpoints" in path.parts or ".sqlite" in path.name


# Settings that say where or how fast, never what: they may differ when a run is resumed.
NOT_IDENTITY = frozenset(
    {
        *("output_dir", "output", "cache_dir", "keep_checkpoints", "track", "log_every", "save_every"),
        *("mesh", "distributed", "coordinator", "processes", "process_id"),
        *("max_concurrency", "api_key_env", "send_personas", "send_questions"),
        *("timeout", "budget", "budget_calls", "retry_errors", "ledger", "poll_seconds", "dry_run"),
        *("tokenizer", "model_table"),
        *("trials", "study", "keep_trials"),
    }
)


def _difference(old: Any, new: Any, name: str = "") -> str:
    """Name the first value in which two manifests' identities differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            said = _difference(old.get(key), new.get(key), f"{name}.{key}" if name else str(key))
            if said:
                return said
        return ""
    if old == new:
        return ""
    if name.startswith("inputs."):
        return f"the input {name.removeprefix('inputs.')} has changed"
    return f"{name.removeprefix('settings.')} was {old}, is {new}"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def environment() -> dict[str, Any]:
    """Return versions and, once JAX is in use, the devices."""
    versions = {"jaxmodpo": jaxmodpo.__version__, "python": platform.python_version()}
    for name in ("jax", "flax", "optax", "orbax-checkpoint", "transformers", "openai"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    found: dict[str, Any] = {"versions": versions, "platform": platform.platform()}
    jax = sys.modules.get("jax")
    if jax is not None:
        found["devices"] = [d.device_kind for d in jax.devices()]
    return found
