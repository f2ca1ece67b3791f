"""Where compiled programs are kept, and where not."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from jaxmodpo.policy.compiled_programs import keep_compiled_programs, remove_broken_programs


def folder_of_programs() -> str | None:
    return jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]


@pytest.fixture
def no_folder_yet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process whose user has chosen no folder."""
    own = folder_of_programs()
    least_time = jax.config.jax_persistent_cache_min_compile_time_secs  # type: ignore[attr-defined]
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", own)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", least_time)


def test_accelerators_keep_programs_in_the_commands_cache(no_folder_yet, monkeypatch, tmp_path):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    monkeypatch.setenv("JAXMODPO_CACHE", str(tmp_path / "default"))
    keep_compiled_programs(tmp_path / "cache")
    assert folder_of_programs() == str(tmp_path / "cache" / "compiled")
    # A model that is loaded later within the same command does not choose again.
    keep_compiled_programs()
    assert folder_of_programs() == str(tmp_path / "cache" / "compiled")


def test_without_a_cache_of_its_own_a_command_takes_the_default_one(
    no_folder_yet, monkeypatch, tmp_path
):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setenv("JAXMODPO_CACHE", str(tmp_path))
    keep_compiled_programs()
    assert folder_of_programs() == str(tmp_path / "compiled")


def test_on_a_cpu_nothing_is_kept(no_folder_yet):
    assert jax.default_backend() == "cpu"
    keep_compiled_programs(Path("cache"))
    assert folder_of_programs() is None


def test_the_users_folder_stays(monkeypatch, tmp_path):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    own = folder_of_programs()
    try:
        jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
        keep_compiled_programs(tmp_path / "cache")
        assert folder_of_programs() == str(tmp_path / "own")
    finally:
        jax.config.update("jax_compilation_cache_dir", own)


@pytest.fixture
def programs(no_folder_yet, tmp_path) -> Iterator[Path]:
    """A folder in which JAX keeps what it compiles during a test."""
    folder = tmp_path / "programs"
    compilation_cache.reset_cache()
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    yield folder
    compilation_cache.reset_cache()


def compile_anew(number: int) -> None:
    """Compile a program that JAX has kept at most on disk."""
    jax.jit(lambda x: x * 3 + number).lower(1.0).compile()


def test_a_program_that_was_written_in_part_is_removed_and_then_kept_whole(programs):
    compile_anew(1)
    compile_anew(2)
    one, other = sorted(programs.glob("*-cache"))
    whole = one.read_bytes()
    one.write_bytes(whole[: len(whole) // 2])
    assert remove_broken_programs(programs) == 1
    assert not one.exists() and other.exists()
    compile_anew(1)
    compile_anew(2)
    assert len(one.read_bytes()) > len(whole) // 2
    assert remove_broken_programs(programs) == 0


def test_a_start_reads_only_what_was_written_since_the_one_before(tmp_path):
    (tmp_path / "old-cache").write_bytes(b"not compressed")
    (tmp_path / "new-cache").write_bytes(zlib.compress(b"a program"))
    (tmp_path / "checked").touch()
    an_hour_ago = (tmp_path / "checked").stat().st_mtime - 3600
    os.utime(tmp_path / "old-cache", (an_hour_ago, an_hour_ago))
    assert remove_broken_programs(tmp_path) == 0
    (tmp_path / "newer-cache").write_bytes(zlib.compress(b"a program")[:-1])
    (tmp_path / "empty-cache").touch()
    assert remove_broken_programs(tmp_path) == 2
    assert {path.name for path in tmp_path.glob("*-cache")} == {"old-cache", "new-cache"}


def test_programs_compressed_by_zstandard_are_checked_too(tmp_path):
    zstandard = pytest.importorskip("zstandard", reason="JAX would compress with zlib")
    whole = zstandard.compress(b"a program" * 100)
    (tmp_path / "whole-cache").write_bytes(whole)
    (tmp_path / "part-cache").write_bytes(whole[:-2])
    assert remove_broken_programs(tmp_path) == 1 and (tmp_path / "whole-cache").exists()


def test_a_run_goes_on_where_its_programs_cannot_be_looked_through(
    no_folder_yet, monkeypatch, tmp_path, caplog
):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    (tmp_path / "cache").write_text("a file where a folder should be")
    keep_compiled_programs(tmp_path / "cache")
    assert "cannot be looked through" in caplog.text
    assert folder_of_programs() == str(tmp_path / "cache" / "compiled")
