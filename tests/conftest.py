"""A sandbox whose models have hardly been trained, for tests of whole commands; and the real data's place."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

# Where libtpu is installed JAX would look for a TPU first; the tests want CPUs, unless told otherwise.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

SHARED = Path(__file__).parents[1].parent / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slow tests first, so that no worker is left alone with one at the end.

    Two workers begin with a half of the list each and take from the other's end what it has not come to.
    """

    def seconds(item: pytest.Item) -> float:
        marker = item.get_closest_marker("slow")
        return 0 if marker is None else marker.kwargs.get("seconds", 10)

    ranked = sorted(items, key=seconds, reverse=True)
    items[:] = ranked[::2] + ranked[1::2]


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``posts.csv``, ``survey.csv``, ``mistral/`` and ``roberta/``."""
    from jaxmodpo.sandbox.world import WorldConfig, world

    folder = tmp_path_factory.mktemp("sandbox") / "world"
    world(WorldConfig(output_dir=folder, posts=40, mistral_steps=3, roberta_steps=2))
    return folder


@pytest.fixture
def real_data() -> Callable[[str], Path]:
    """Find a file of real inputs, or skip the test where it is not at hand."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"{path} is not here")
        return path

    return find
