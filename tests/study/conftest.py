"""A small study, and its store for one test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from app_world import opened, write_study

from jaxmodpo.study.app.store import Store


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study"))


@pytest.fixture
def store(study: Path, tmp_path: Path) -> Iterator[Store]:
    copy = tmp_path / "study.json"
    copy.write_bytes(study.read_bytes())
    store = opened(copy)
    yield store
    store.close()
