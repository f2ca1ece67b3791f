"""The ``verify`` command: finished folders against the digests in their manifests, file by file.

A command that finds its folder finished compares sizes alone, which costs nothing. Here every byte
is read again, and no remembered hash is believed: a disk that lost a bit changes neither size nor
times.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import tyro

from jaxmodpo.costs import Cost, Estimates
from jaxmodpo.errors import UserError
from jaxmodpo.files import read_json
from jaxmodpo.fingerprints import fingerprint
from jaxmodpo.phase import MANIFEST, is_kept_apart
from jaxmodpo.ranges import Settings, Tally
from jaxmodpo.schema import read_as
from jaxmodpo.terminal import printable

Verdict = Literal["OK", "changed", "missing"]


@dataclass(frozen=True, kw_only=True)
class VerifyConfig(Settings):
    """Compare finished folders with their manifests, byte for byte; exit code 1 where a file
    differs or is missing.
    """

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """output folders of finished commands, each with its manifest.json"""
    inputs: bool = True
    """compare what the commands read as well, where it lay then"""

    def check(self) -> None:
        """Refuse to compare nothing.

        Raises:
            UserError: no folder is named.
        """
        super().check()
        if not self.folders:
            raise UserError("name at least one folder to verify")

    def cost(self, estimator: Estimates) -> Cost:
        return Cost()  # reads, and leaves nothing behind


class _Output(TypedDict):
    bytes: Tally
    sha256: NotRequired[str]


class _Identity(TypedDict):
    inputs: NotRequired[dict[str, str]]


class _Manifest(TypedDict):
    status: str
    # Manifests of early versions list names alone, or sizes without digests.
    outputs: NotRequired[dict[str, _Output | Any]]
    identity: NotRequired[_Identity]
    input_paths: NotRequired[dict[str, str]]


@dataclass
class Verification:
    """What was found.

    Attributes:
        verdicts: how many files have each.
        by_size: files of which the manifest holds no digest.
        unknown: files in the folders of which the manifests say nothing.
    """

    verdicts: Counter[Verdict] = field(default_factory=Counter)
    by_size: int = 0
    unknown: int = 0

    @property
    def exit_code(self) -> int:
        return int(self.verdicts.total() > self.verdicts["OK"])

    @property
    def ending(self) -> str:
        """Say it in a sentence."""
        said = ", ".join(
            f"{self.verdicts[verdict]} {verdict}" for verdict in ("OK", "changed", "missing")
        )
        if self.by_size:
            said += (
                f"; {self.by_size} of them by size alone, since their manifest holds no digest of"
                " them"
            )
        if self.unknown:
            said += f"; {self.unknown} further files, of which no manifest speaks"
        return f"{self.verdicts.total()} files and inputs: {said}"


def verify(config: VerifyConfig) -> Verification:
    """Run ``verify``; every manifest is read before anything is compared.

    Raises:
        UserError: a folder has no manifest of a finished command.
    """
    config.check()
    found = Verification()
    for folder, manifest in [(folder, _manifest(folder)) for folder in config.folders]:
        for name, output in manifest.get("outputs", {}).items():
            verdict, detail = _output(folder, name, output)
            found.verdicts[verdict] += 1
            found.by_size += detail == _SIZE_ALONE and verdict == "OK"
            _tell(verdict, folder / name, detail)
        for path in _unknown(folder, manifest.get("outputs", {})):
            found.unknown += 1
            _tell("unknown", path, "not in the manifest")
        if not config.inputs:
            continue
        for name, path, recorded in _inputs(manifest):
            verdict = (
                "missing" if not path.exists() else "OK" if _now(path) == recorded else "changed"
            )
            found.verdicts[verdict] += 1
            _tell(verdict, path, f"input: {name}")
    return found


_SIZE_ALONE = "by size alone"


def _manifest(folder: Path) -> _Manifest:
    path = folder / MANIFEST
    if not path.is_file():
        below = (
            sorted(str(inner.parent) for inner in folder.glob(f"*/{MANIFEST}"))
            if folder.is_dir()
            else []
        )
        hint = f"; those with one are {', '.join(below[:8])}" if below else ""
        raise UserError(
            f"{folder} has no {MANIFEST}: give the output folder of a finished command{hint}"
        )
    manifest = read_as(read_json(path), _Manifest, str(path))
    if manifest["status"] != "finished":
        raise UserError(
            f"{folder} is not finished, so that there is nothing to compare; run the same command"
            " again"
        )
    return manifest


def _output(folder: Path, name: str, output: Any) -> tuple[Verdict, str]:
    """Compare one file with what the manifest says of it."""
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise UserError(f"{folder / MANIFEST}: outputs, {name} lies outside the folder")
    try:
        size = path.stat().st_size
    except OSError:
        return "missing", ""
    if not isinstance(output, dict):
        return "OK", _SIZE_ALONE
    if size != output["bytes"]:
        return "changed", f"{size} bytes, not {output['bytes']}"
    if "sha256" not in output:
        return "OK", _SIZE_ALONE
    return ("OK", "") if _now(path) == output["sha256"] else ("changed", "other bytes")


def _unknown(folder: Path, outputs: dict[str, Any]) -> Iterator[Path]:
    """Yield files of which the manifest says nothing, and which are no database, journal or
    checkpoint.
    """
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        if path.is_file() and str(inner) not in outputs and not is_kept_apart(inner):
            yield path


def _inputs(manifest: _Manifest) -> Iterator[tuple[str, Path, str]]:
    """Yield what a command read: its name, where it lay, and its fingerprint then."""
    paths = manifest.get("input_paths", {})
    for name, recorded in manifest.get("identity", _Identity()).get("inputs", {}).items():
        if name in paths:
            yield name, Path(paths[name]), recorded


def _now(path: Path) -> str:
    return fingerprint(path, remembered=False)


def _tell(verdict: str, path: Path, detail: str) -> None:
    print(printable(f"{verdict:<8} {path}{f' ({detail})' if detail else ''}"))
