"""The Hub's folders, and ids that are no folders."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import pytest

from jaxmodpo.data.text import load_tokenizer
from jaxmodpo.errors import UserError
from jaxmodpo.fingerprints import fingerprint
from jaxmodpo.hub import download_hint, local_folder, model_name
from jaxmodpo.models.adapter_config import read_adapter_settings
from jaxmodpo.models.decoder import load_decoder
from jaxmodpo.models.model_folder import copy_tokenizer, read_end_tokens, read_model_config
from jaxmodpo.models.roberta import load_roberta


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
    (tmp_path / "base").symlink_to(cache)
    assert local_folder(tmp_path / "base") == tmp_path / "base" / "snapshots" / "def"


@pytest.mark.slow(seconds=10)
def test_base_models_reward_models_and_tokenizers_load_from_the_hubs_cache_folder(
    tiny_world, tmp_path
):
    """Laid out as the Hub's client does: files of the snapshot are links into ``blobs``, and
    another one is older.
    """
    caches = {}
    for name in ("mistral", "roberta"):
        cache = tmp_path / f"models--org--{name}"
        for folder in ("blobs", "refs", "snapshots/abc", "snapshots/older"):
            (cache / folder).mkdir(parents=True)
        (cache / "refs" / "main").write_text("abc")
        for number, file in enumerate(
            path for path in (tiny_world / name).iterdir() if path.is_file()
        ):
            shutil.copyfile(file, cache / "blobs" / str(number))
            (cache / "snapshots" / "abc" / file.name).symlink_to(
                Path("..", "..", "blobs", str(number))
            )
        caches[name] = cache
    loaders = {
        "mistral": load_decoder,
        "roberta": functools.partial(load_roberta, fresh_head_seed=0),
    }
    for name, load in loaders.items():
        plain, cached = load(tiny_world / name), load(caches[name])
        assert cached.config == plain.config
        assert (
            load_tokenizer(caches[name])("I feel low").input_ids
            == load_tokenizer(tiny_world / name)("I feel low").input_ids
        )
        copies = [tmp_path / f"{name}-{kind}" for kind in ("plain", "cached")]
        for source, copy in zip((tiny_world / name, caches[name]), copies, strict=True):
            copy.mkdir()
            copy_tokenizer(source, copy)
        plain_files, cached_files = (
            sorted(file.name for file in copy.iterdir()) for copy in copies
        )
        assert plain_files == cached_files and "tokenizer.json" in cached_files
        # Downloading another snapshot leaves what a run was made of as it was.
        before = fingerprint(caches[name])
        assert before == fingerprint(caches[name] / "snapshots" / "abc")
        (caches[name] / "snapshots" / "older" / "config.json").write_text("{}")
        assert fingerprint(caches[name]) == before
    assert read_end_tokens(caches["mistral"], 2) == read_end_tokens(tiny_world / "mistral", 2)


def test_a_model_has_one_name_as_an_id_a_cache_and_a_folder():
    names = ("org/Name-7B", "/models/Name-7B", "/cache/models--org--Name-7B/snapshots/abc")
    assert {model_name(name) for name in names} == {"Name-7B"}


def test_a_hub_id_is_answered_with_how_to_download_it():
    assert "hf download mistralai/Mistral-7B-v0.1" in download_hint(
        Path("mistralai/Mistral-7B-v0.1")
    )
    assert not download_hint(Path("missing/pairs.json")) and not download_hint(Path("a/b/c"))


@pytest.mark.parametrize("read", [load_tokenizer, read_model_config, read_adapter_settings])
def test_a_folder_that_is_not_there_is_refused_by_that_and_not_by_what_it_lacks(
    tmp_path, monkeypatch, read
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"^no such file or folder: {tmp_path}/none$"):
        read(tmp_path / "none")
    with pytest.raises(
        UserError, match=r"^no such file or folder: org/name; if that is a model on the"
    ):
        read(Path("org/name"))
    with pytest.raises(UserError, match=f"^{tmp_path} (has no|is not a) "):
        read(tmp_path)
