"""A file's fingerprint knows every byte, and a remembered one is never of an older content."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from jaxmodpo import fingerprints
from jaxmodpo.errors import UserError
from jaxmodpo.files import (
    write_text,
)
from jaxmodpo.fingerprints import fingerprint


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("JAXMODPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fingerprints, "REMEMBERED_FROM", 100)
    monkeypatch.setattr(fingerprints, "_SETTLED_NS", 0)
    return tmp_path / "cache" / "fingerprints"


def test_a_byte_anywhere_in_a_large_file_changes_its_fingerprint(tmp_path, memory):
    path = tmp_path / "model.safetensors"
    content = bytearray(os.urandom(3 * 2**20))
    path.write_bytes(content)
    first = fingerprint(path)
    assert first == hashlib.sha256(content).hexdigest() and len(list(memory.iterdir())) == 1
    before = path.stat()
    content[1_234_567] ^= 1
    path.write_bytes(content)
    # Copying tools set the time of modification back; nobody can set the time of change.
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert fingerprint(path) == hashlib.sha256(content).hexdigest() != first


def test_a_remembered_hash_spares_the_reading(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"x" * 200)
    first = fingerprint(path)
    monkeypatch.setattr(fingerprints.hashlib, "file_digest", None)
    assert fingerprint(path) == first


def test_a_file_that_was_just_written_is_not_remembered(tmp_path, memory, monkeypatch):
    monkeypatch.setattr(fingerprints, "_SETTLED_NS", 3 * 10**9)
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"x" * 200)
    assert time.time_ns() - path.stat().st_mtime_ns < 3 * 10**9
    fingerprint(path)
    assert not memory.exists()


def test_a_fingerprint_follows_content_and_names_but_no_manifest(tmp_path):
    write_text(tmp_path / "d" / "a", "1")
    first = fingerprint(tmp_path / "d")
    write_text(tmp_path / "d" / "manifest.json", "{}")
    assert fingerprint(tmp_path / "d") == first
    write_text(tmp_path / "d" / "a", "2")
    second = fingerprint(tmp_path / "d")
    (tmp_path / "d" / "a").rename(tmp_path / "d" / "b")
    assert len({first, second, fingerprint(tmp_path / "d")}) == 3
    with pytest.raises(UserError, match="nowhere"):
        fingerprint(tmp_path / "nowhere")
