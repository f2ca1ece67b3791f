"""Where a ledger may be: a file, or a database of a Postgres server that is started for the
tests; and the local Batch API that batch judges ask.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from batch_server import Server
from postgres_server import Missing, Postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    try:
        server = Postgres()
    except Missing as reason:
        pytest.skip(str(reason))
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str | Path:
    """A ledger's place that holds nothing yet."""
    if request.param == "sqlite":
        return tmp_path / "votes.sqlite"
    return request.getfixturevalue("postgres").new_place()


@pytest.fixture
def batch_server() -> Iterator[Server]:
    """A Batch API of this machine, for the modules that make it their ``server``; the others' is
    the chat endpoint that all tests share.
    """
    with Server() as server:
        yield server
