"""Where compiled programs are kept, and where not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from jaxmodpo.policy.compiled_programs import keep_compiled_programs


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
