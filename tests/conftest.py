"""A sandbox whose models have hardly been trained, for tests of whole commands; and the real data's
place.
"""

from __future__ import annotations

import os
import signal
import socketserver
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# Where libtpu is installed JAX would look for a TPU first; the tests want CPUs, unless told
# otherwise.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# A shell starts what it runs in the background with Ctrl-C ignored, and so would be all that the
# tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

REAL_DATA = Path(
    os.environ.get("JAXMODPO_TEST_DATA", Path(__file__).parents[1].parent / "shared" / "data")
)
"""where real inputs lie, which are no part of the project; CONTRIBUTING.md says which"""


def _ignore_hung_up(self: socketserver.BaseServer, request: Any, client_address: Any) -> None:
    """Say nothing where a client has hung up, which many tests are about; its traceback would stand
    in another's.
    """
    if not isinstance(
        sys.exc_info()[1], OSError | ValueError
    ):  # ValueError: the file of a closed connection
        _handle_error(self, request, client_address)


_handle_error = socketserver.BaseServer.handle_error
socketserver.BaseServer.handle_error = _ignore_hung_up


def pytest_configure(config: pytest.Config) -> None:
    """Share what is compiled, and set up each process that runs tests."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        # Most of the time goes into compiling, and workers and runs that are started again compile
        # the same.
        compiled = tempfile.TemporaryDirectory(prefix="jaxmodpo-compiled-")
        config.add_cleanup(compiled.cleanup)
        os.environ |= {
            "JAX_COMPILATION_CACHE_DIR": compiled.name,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",
        }
    if getattr(config.option, "numprocesses", None):
        return  # it runs no test itself
    here = str(Path(__file__).parent / "without_torch")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    # Two workers with two threads each on two cores are slower than with one each.
    if worker is not None and hasattr(os, "sched_setaffinity"):
        cores, workers = (
            sorted(os.sched_getaffinity(0)),
            int(os.environ["PYTEST_XDIST_WORKER_COUNT"]),
        )
        os.sched_setaffinity(0, cores[int(worker.removeprefix("gw")) % len(cores) :: workers])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slow tests first, so that no worker is left alone with one at the end.

    Two workers begin with a half of the list each and take from the other's end what it has not
    come to.
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
        path = REAL_DATA / name
        if not path.exists():
            pytest.skip(f"{path} is not here; JAXMODPO_TEST_DATA names the folder of real inputs")
        return path

    return find
