"""The ``verify`` command: finished folders against the digests in their manifests, file by file.

A command that finds its folder finished compares sizes alone, which costs nothing. Here every byte
is read again, and no remembered hash is believed: a disk that lost a bit changes neither size nor
times.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxmodpo.costs import Cost, Estimates
from jaxmodpo.errors import UserError
from jaxmodpo.fingerprints import fingerprint
from jaxmodpo.outputs import is_kept_apart
from jaxmodpo.ranges import CommandSettings
from jaxmodpo.results.manifest import MANIFEST, Manifest, Output, read_manifest
from jaxmodpo.terminal import printable

Verdict = Literal["OK", "changed", "missing"]

_MOST_HINTS = 8
"""folders that an error names at most"""


@dataclass(frozen=True, kw_only=True)
class VerifyConfig(CommandSettings, help_group="data"):
    """Compare finished folders with their manifests, byte for byte; exit code 1 where a file
    differs or is missing.
    """

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Output folders of finished commands, each with its manifest.json."""
    inputs: bool = True
    """Compare what the commands read as well, where it lay at the time."""

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


@dataclass
class Verification:
    """What came of comparing folders with their manifests.

    Attributes:
        verdicts: how many files and inputs have each.
        unlisted: files in the folders that their manifests do not name.
    """

    verdicts: Counter[Verdict] = field(default_factory=Counter)
    unlisted: int = 0

    @property
    def exit_code(self) -> int:
        return int(self.verdicts.total() > self.verdicts["OK"])

    @property
    def ending(self) -> str:
        """Say it in a sentence."""
        verdicts: tuple[Verdict, ...] = ("OK", "changed", "missing")
        counts = ", ".join(f"{self.verdicts[verdict]} {verdict}" for verdict in verdicts)
        sentence = f"{self.verdicts.total()} files and inputs: {counts}"
        if self.unlisted:
            sentence += f"; {self.unlisted} further files, of which no manifest speaks"
        return sentence

    def add(self, verdict: Verdict, path: Path, detail: str) -> None:
        """Count a verdict and print it."""
        self.verdicts[verdict] += 1
        _print_line(verdict, path, detail)

    def add_unlisted(self, path: Path) -> None:
        """Count a file that no manifest names, and print it."""
        self.unlisted += 1
        _print_line("unknown", path, "not in the manifest")


def verify(config: VerifyConfig) -> Verification:
    """Run ``verify``.

    Raises:
        UserError: a folder has no manifest of a finished command.
    """
    config.check()
    # All manifests are read first: a wrong folder is refused before hours go into the others.
    manifests = {folder: _finished_manifest(folder) for folder in config.folders}
    verification = Verification()
    for folder, manifest in manifests.items():
        for name, output in manifest.outputs.items():
            verdict, detail = _compare_output(folder / name, output)
            verification.add(verdict, folder / name, detail)
        for path in _unlisted_files(folder, manifest.outputs):
            verification.add_unlisted(path)
        if config.inputs:
            for name, path, recorded in manifest.inputs():
                verification.add(_compare_input(path, recorded), path, f"input: {name}")
    return verification


def _finished_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    if not path.is_file():
        # Whoever names the folder of a whole experiment is told of the phases in it.
        below = sorted(str(inner.parent) for inner in folder.glob(f"*/{MANIFEST}"))
        hint = f"; those with one are {', '.join(below[:_MOST_HINTS])}" if below else ""
        raise UserError(
            f"{folder} has no {MANIFEST}: give the output folder of a finished command{hint}"
        )
    manifest = read_manifest(path)
    if not manifest.is_finished:
        raise UserError(
            f"{folder} is not finished, so that there is nothing to compare; run the same command"
            " again"
        )
    return manifest


def _compare_output(path: Path, output: Output) -> tuple[Verdict, str]:
    """Compare one file with what the manifest says of it; return the verdict and what differs."""
    try:
        size = path.stat().st_size
    except OSError:
        return "missing", ""
    if size != output.bytes:
        return "changed", f"{size} bytes, not {output.bytes}"
    # A remembered hash is one of the bytes as they were: it would call a damaged file whole.
    if fingerprint(path, remembered=False) != output.sha256:
        return "changed", "other bytes"
    return "OK", ""


def _compare_input(path: Path, recorded: str) -> Verdict:
    """Compare a file or folder with its fingerprint of when a command read it."""
    if not path.exists():
        return "missing"
    return "OK" if fingerprint(path, remembered=False) == recorded else "changed"


def _unlisted_files(folder: Path, outputs: Mapping[str, Output]) -> Iterator[Path]:
    """Yield files that the manifest does not name, and that are no database, journal or
    checkpoint.
    """
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and str(name) not in outputs and not is_kept_apart(name):
            yield path


def _print_line(verdict: str, path: Path, detail: str) -> None:
    suffix = f" ({detail})" if detail else ""
    print(printable(f"{verdict:<8} {path}{suffix}"))
