"""A sandbox whose models have hardly been trained, for tests of whole commands; and the real data's place."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Where libtpu is installed JAX would look for a TPU first; the tests want CPUs, unless told otherwise.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# A shell starts what it runs in the background with Ctrl-C ignored, and so would be all that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).parents[1].parent / "shared" / "data"


def pytest_configure(config: pytest.Config) -> None:
    """Set up the process that runs tests: not the one that only hands them to workers."""
    if getattr(config.option, "numprocesses", None):
        return
    here = str(Path(__file__).parent / "without_torch")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    # Two workers with two threads each on two cores are slower than with one each.
    worker, workers = os.environ.get("PYTEST_XDIST_WORKER"), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    if worker is not None and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        mine = cores[int(worker.removeprefix("gw")) % len(cores) :: workers]
        os.sched_setaffinity(0, mine)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slow tests first, so that no worker is left alone with one at the end.

    Two workers begin with a half of the list each and take from the other's end what it has not come to.
    """

    def seconds(item: pytest.Item) -> float:
        marker = item.get_closest_marker("slow")
        return 0 if marker is None else marker.kwargs.get("seconds", 10)

    ranked = sorted(items, key=seconds, reverse=True)
    items[:] = ranked[::2] + ranked[1::2]


@pytest.fixture(scope="module")
def compiled_quickly() -> Iterator[None]:
    """Have XLA leave out its costly passes, here and in processes started from here.

    For tests of what commands do with their files, most of whose time is compilation; not for tests of numbers.
    """
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    yield
    del os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"]
    jax.config.update("jax_disable_most_optimizations", False)


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
