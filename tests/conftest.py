"""A sandbox whose models have hardly been trained, for tests of whole commands; and the real data's
place.
"""

from __future__ import annotations

import functools
import gc
import itertools
import os
import signal
import socketserver
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from chat_server import KEY, Server
from forked_programs import ForkedPrograms
from quick_compilation import compile_quickly, keep_what_is_compiled
from shared_folders import shared_folder

# Where libtpu is installed JAX would look for a TPU first; the tests want CPUs, unless told
# otherwise.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# A shell starts what it runs in the background with Ctrl-C ignored, and so would be all that the
# tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Nothing is asserted about time: a busy machine makes any example late.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")

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
    if worker is None:
        compile_quickly()
        keep_what_is_compiled(config.add_cleanup)
        _keep_bytecode()
    if getattr(config.option, "numprocesses", None):
        _compute_in_one_thread()
        return  # it runs no test itself
    _collect_garbage_seldom()
    _wait_for_no_disk()
    here = str(Path(__file__).parent / "without_torch")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))


def _compute_in_one_thread() -> None:
    """Tell the libraries, in all processes of this run, to use one thread each: workers that share
    the cores are slower with two.
    """
    # XLA reads NPROC when it makes its threads.
    for variable in ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, "1")


def _collect_garbage_seldom() -> None:
    """Look for garbage every 50,000 new objects instead of every 700.

    Imports, pytest's own tests and what JAX traces are objects that stay: Python would look through
    them again and again, a tenth of all the time. What a file's tests leave behind goes at its end.
    """
    gc.set_threshold(50_000)


def _wait_for_no_disk() -> None:
    """Leave it to the system when this process's files reach the disk.

    No test cuts the power, and a run writes tens of small files that would be waited for. Processes
    that tests start wait for theirs, as users' do.
    """

    def exists(fd: Any) -> None:
        os.fstat(fd)  # which fails, as fsync does, where there is no such file

    os.fsync = exists


def _keep_bytecode() -> None:
    """Keep what Python compiled of the libraries, in all processes of this run, where the
    environment would have it forgotten.

    Many machines set PYTHONDONTWRITEBYTECODE, so that no ``__pycache__`` lies beside the sources.
    Then every process that a test starts compiles jax, scipy and transformers again, which takes
    longer than most of these processes work. Beside the environment's libraries the files are in
    nobody's way.
    """
    if sys.dont_write_bytecode:
        sys.dont_write_bytecode = False
        del os.environ["PYTHONDONTWRITEBYTECODE"]
        sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = str(Path(sys.prefix) / "pycache")


@pytest.hookimpl(trylast=True)  # after the fixtures have let go of what they held
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Leave what a file's tests have brought into memory out of later garbage collections.

    Libraries and compiled programs make millions of objects that live as long as the process. To
    look through them all takes a second, and a test that makes many objects would do so every few
    examples.
    """
    if nextitem is None or nextitem.path != item.path:
        gc.collect()
        gc.freeze()


SECONDS_OF_TRAINING = 5
"""what a test that needs trained models takes at least, where it does not say so itself"""


@pytest.hookimpl(tryfirst=True)  # before pytest selects by mark
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs trained models as slow, and put the tests in an order that the workers finish
    together.

    Workers begin with an equal part of the list each and take from the other parts' ends what
    nobody has come to. So each part begins with its slowest tests, and no worker is left alone with
    one at the end. The tests of a file stay together: they share fixtures and what JAX has traced.
    """
    for item in items:
        if "tiny_world" in getattr(item, "fixturenames", ()) and _seconds(item) == 0:
            item.add_marker(pytest.mark.slow(seconds=SECONDS_OF_TRAINING))
    files: dict[tuple[str, bool], list[pytest.Item]] = {}
    for item in items:
        files.setdefault((str(item.path), _seconds(item) > 0), []).append(item)
    slow = [tests for (_, is_slow), tests in files.items() if is_slow]
    quick = [tests for (_, is_slow), tests in files.items() if not is_slow]
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    parts: list[list[pytest.Item]] = [[] for _ in range(workers)]
    for tests in sorted(slow, key=_seconds_of_all, reverse=True):
        min(parts, key=_seconds_of_all).extend(sorted(tests, key=_seconds, reverse=True))
    for tests in quick:
        min(parts, key=len).extend(tests)
    items[:] = itertools.chain.from_iterable(parts)


def _seconds(item: pytest.Item) -> float:
    marker = item.get_closest_marker("slow")
    return 0 if marker is None else marker.kwargs.get("seconds", 10)


def _seconds_of_all(items: list[pytest.Item]) -> float:
    return sum(_seconds(item) for item in items)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Leave what was imported out of all garbage collections: it stays."""
    gc.freeze()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A chat endpoint on this machine, whose key is in the environment."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with Server() as server:
        yield server


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``posts.csv``, ``survey.csv``, ``mistral/`` and ``roberta/``.

    The decoder is narrower and lower than the demo's: a fraction of the work in every training of a
    test, and one layer to compile. Models of several layers are what ``tests/models``, the demo and
    the library's page train and sample.
    """
    from jaxmodpo.sandbox import world as worlds

    def make(folder: Path) -> None:
        small = functools.partial(worlds.make_mistral, width=64, layers=1)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(worlds, "make_mistral", small)
            worlds.world(
                worlds.WorldConfig(output_dir=folder, posts=40, mistral_steps=3, roberta_steps=2)
            )

    return shared_folder(tmp_path_factory, "tiny_world", make)


@pytest.fixture(scope="session")
def forked_programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedPrograms]:
    """Starts programs in processes of their own, without the seconds that imports take."""
    with ForkedPrograms(tmp_path_factory.mktemp("processes")) as programs:
        yield programs


@pytest.fixture
def real_data() -> Callable[[str], Path]:
    """Find a file of real inputs, or skip the test where it is not at hand."""

    def find(name: str) -> Path:
        path = REAL_DATA / name
        if not path.exists():
            pytest.skip(f"{path} is not here; JAXMODPO_TEST_DATA names the folder of real inputs")
        return path

    return find
