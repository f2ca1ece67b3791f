"""A kept array is found again exactly when everything it depends on is the same."""

from __future__ import annotations

import errno

import jax
import numpy as np
import pytest
from safetensors import SafetensorError

from jaxmodpo.data.examples import completions
from jaxmodpo.fingerprints import cache_folder
from jaxmodpo.models import tensors
from jaxmodpo.training.cache import cached, examples_digest


def test_an_array_is_computed_once_and_comes_back_to_the_bit(tmp_path):
    values = np.random.default_rng(0).normal(size=(7, 2)).astype(np.float32)
    calls = []

    def compute() -> np.ndarray:
        calls.append(1)
        return values

    for _ in range(2):
        np.testing.assert_array_equal(
            cached("reference", {"model": "a"}, compute, tmp_path), values
        )
    assert len(calls) == 1
    cached("reference", {"model": "b"}, compute, tmp_path)
    cached("rewards", {"model": "a"}, compute, tmp_path)
    assert len(calls) == 3 and len(list(tmp_path.iterdir())) == 3


def test_another_library_version_computes_anew(tmp_path, monkeypatch):
    cached("reference", {}, lambda: np.zeros(1), tmp_path)
    monkeypatch.setattr(jax, "__version__", "0.0.1")
    np.testing.assert_array_equal(cached("reference", {}, lambda: np.ones(1), tmp_path), np.ones(1))


def test_nothing_is_kept_of_a_computation_that_failed(tmp_path):
    def fail() -> np.ndarray:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached("reference", {}, fail, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_as_the_system_tells_it(tmp_path, monkeypatch):
    def full(*_, **__):
        raise SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        )

    monkeypatch.setattr(tensors, "save_file", full)
    with pytest.raises(OSError, match="No space left on device") as raised:
        cached("reference", {}, lambda: np.zeros(1), tmp_path)
    assert raised.value.errno == errno.ENOSPC and list(tmp_path.iterdir()) == []


def test_the_folder_can_be_set(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXMODPO_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("JAXMODPO_CACHE")
    assert cache_folder().parts[-2:] == (".cache", "jaxmodpo")


def test_examples_differ_in_their_digest_by_any_token_and_by_where_the_completion_begins():
    one = completions([[1, 2], [3]], [[4], [5, 6]])
    others = [
        completions([[1, 2], [3]], [[4], [5, 7]]),
        completions([[1], [3]], [[2, 4], [5, 6]]),
        completions([[1, 2], [3]], [[4], [5]]),
    ]
    assert examples_digest(one) == examples_digest(completions([[1, 2], [3]], [[4], [5, 6]]))
    assert examples_digest(one) not in {examples_digest(other) for other in others}


@pytest.mark.parametrize("damage", ["a value", "the end", "everything"])
def test_a_damaged_entry_is_computed_anew_with_a_warning(tmp_path, caplog, damage):
    values = np.arange(6, dtype=np.float32)
    cached("reference", {}, lambda: values, tmp_path)
    (path,) = tmp_path.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600, "tokens are people's words"
    content = bytearray(path.read_bytes())
    if damage == "a value":
        content[-2] ^= 1
    path.write_bytes(
        {"a value": bytes(content), "the end": bytes(content[:-4]), "everything": b""}[damage]
    )
    np.testing.assert_array_equal(cached("reference", {}, lambda: values, tmp_path), values)
    assert "is damaged" in caplog.text
    np.testing.assert_array_equal(cached("reference", {}, lambda: values * 0, tmp_path), values)
