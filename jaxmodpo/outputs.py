"""The files that a command leaves in its folder: which of them count, what is recorded of them, and
whether they are still there.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxmodpo.errors import UserError
from jaxmodpo.fingerprints import fingerprint
from jaxmodpo.results.manifest import MANIFEST, Output


def is_kept_apart(path: Path) -> bool:
    """Return whether a file, by its place in the folder, is a manifest, a database, a temporary
    file or work.
    """
    # Locks and temporary files are hidden; they come and go.
    hidden = any(component.startswith(".") for component in path.parts)
    # Databases grow after a command has ended, since others may share them, and their bytes are no
    # function of what they hold.
    return (
        hidden
        or path.name == MANIFEST
        or "checkpoints" in path.parts
        or any(ending in path.name for ending in (".sqlite", ".db"))
    )


def describe_outputs(directory: Path, work: Sequence[Path]) -> dict[str, Output]:
    """Return sizes and digests of all files of a folder that count as output.

    Args:
        directory: the folder.
        work: journals, checkpoints and the like, which are about to be removed.
    """
    outputs: dict[str, Output] = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory)
        is_work = any(path.is_relative_to(folder) for folder in work)
        if path.is_file() and not is_work and not is_kept_apart(name):
            outputs[str(name)] = Output(bytes=path.stat().st_size, sha256=fingerprint(path))
    return outputs


def check_outputs(directory: Path, outputs: Mapping[str, Output]) -> None:
    """Refuse to call a phase finished whose files are missing or of another size.

    Sizes alone are compared, since this happens at every start of a finished command; ``verify``
    reads every byte.

    Raises:
        UserError: naming the first of them.
    """
    advice = "bring it back, or remove the folder and run the same command again"
    for name, output in outputs.items():
        try:
            size = (directory / name).stat().st_size
        except OSError:
            raise UserError(
                f"{directory} was finished, but its file {name} is missing; {advice}"
            ) from None
        if size != output.bytes:
            raise UserError(
                f"{directory} was finished, but its file {name} has {size} bytes and not"
                f" {output.bytes}; {advice}"
            )


def remove_work(directory: Path, names: Sequence[str]) -> None:
    """Remove a finished phase's journals, checkpoints and the like."""
    for name in names:
        path = directory / name
        # Of a link only the link: what it points to is not ours to remove.
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
