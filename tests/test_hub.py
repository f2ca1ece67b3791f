"""The Hub's folders, and ids that are no folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from jaxmodpo.errors import UserError
from jaxmodpo.hub import download_hint, local_folder, model_name


def test_a_repositorys_cache_is_its_snapshot(tmp_path):
    cache = tmp_path / "models--org--name"
    (cache / "snapshots" / "abc").mkdir(parents=True)
    assert local_folder(cache) == cache / "snapshots" / "abc"
    (cache / "snapshots" / "def").mkdir()
    with pytest.raises(UserError, match="not one snapshot but abc, def"):
        local_folder(cache)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("def")
    assert local_folder(cache) == cache / "snapshots" / "def"
    assert local_folder(tmp_path) == tmp_path


def test_a_model_has_one_name_as_an_id_a_cache_and_a_folder():
    names = ("org/Name-7B", "/models/Name-7B", "/cache/models--org--Name-7B/snapshots/abc")
    assert {model_name(name) for name in names} == {"Name-7B"}


def test_a_hub_id_is_answered_with_how_to_download_it():
    assert "hf download mistralai/Mistral-7B-v0.1" in download_hint(Path("mistralai/Mistral-7B-v0.1"))
    assert not download_hint(Path("missing/pairs.json")) and not download_hint(Path("a/b/c"))
