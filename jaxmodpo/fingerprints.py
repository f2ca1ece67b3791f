"""Hashes of what phases read and make: of JSON values, of files and of folders."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from jaxmodpo.errors import UserError

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
