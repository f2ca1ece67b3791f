"""Folders as the Hugging Face Hub's client lays them out, and what to say where a Hub id stands for
a folder.

``hf download`` keeps a repository as ``models--ORG--NAME/snapshots/COMMIT/``, whose files are links
into ``blobs``. Either folder may be given. Nothing is ever downloaded here::

    local_folder(Path("models--mistralai--Mistral-7B-v0.1"))    # its snapshots/COMMIT
    model_name("mistralai/Mistral-7B-v0.1")                     # "Mistral-7B-v0.1"
"""

from __future__ import annotations

import re
from pathlib import Path

from jaxmodpo.errors import UserError

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FILES = re.compile(
    r"\.(json|jsonl|csv|tsv|txt|yaml|yml|parquet|safetensors|bin|pt|gz)$", re.IGNORECASE
)


def local_folder(path: Path) -> Path:
    """Return the snapshot of a Hub repository's cache folder, and any other path as it is.

    The snapshot is the one that ``refs/main`` names, or the only one.

    Raises:
        UserError: several snapshots, none of which is named.
    """
    snapshots = path / "snapshots"
    # A link to it may have another name.
    is_cache = path.resolve().name.startswith("models--") or (path / "refs").is_dir()
    if not (is_cache and snapshots.is_dir()):
        return path
    named = path / "refs" / "main"
    if named.is_file():
        # Only what can be a commit: the name becomes part of a path.
        commit = named.read_text(encoding="utf-8", errors="replace").strip()
        if re.fullmatch(r"\w+", commit) and (snapshots / commit).is_dir():
            return snapshots / commit
    folders = sorted(folder for folder in snapshots.iterdir() if folder.is_dir())
    if len(folders) != 1:
        listed = ", ".join(folder.name for folder in folders) or "none"
        raise UserError(
            f"{path} holds not one snapshot but {listed}; name the snapshot's folder itself"
        )
    return folders[0]


def model_name(name: str) -> str:
    """Return the last part of a model's name, by which a Hub id, its cache and a folder of that
    name are the same.
    """
    path = Path(name)
    for folder in (path, *path.parents):
        if folder.name.startswith("models--"):
            return folder.name.split("--")[-1]
    return path.name


def refuse_missing(path: Path) -> None:
    """Refuse a folder that is not there by that alone, before it is said what the folder lacks.

    Raises:
        UserError: nothing is there; of what looks like a Hub id with how to download it.
    """
    if not path.exists():
        raise UserError(f"no such file or folder: {path}{download_hint(path)}")


def download_hint(path: Path) -> str:
    """Return how to download what looks like a Hub id, to be added to "no such folder"; else an
    empty text.
    """
    # A Hub id looks like a path of two parts. One whose first part is a folder here, or that ends
    # like a file, was meant as a path.
    name = str(path)
    if not _ID.fullmatch(name) or _FILES.search(name) or path.parent.exists():
        return ""
    folder = path.name
    return (
        f"; if that is a model on the Hugging Face Hub, download it first (hf download {name}"
        f" --local-dir {folder}) and give its folder, {folder}"
    )
