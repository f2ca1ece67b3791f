"""The server of a made-up study in a process of its own, for benchmarks and tests of the web
application::

    with served(folder / "study.json") as server:
        httpx2.get(server.url)
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from jaxmodpo.errors import UserError
from jaxmodpo.study.serve import ADMIN_SECRET

_PROGRAM = "import sys; from jaxmodpo.cli import main; main(['study', 'serve', *sys.argv[1:]])"

# Seconds in which a server has to begin to answer, and to end.
_LONGEST_START = 120.0
_LONGEST_END = 30.0


@dataclass(frozen=True)
class StudyServer:
    """A running ``jaxmodpo study serve``.

    Attributes:
        url: what raters' addresses begin with.
        process: the server's.
    """

    url: str
    process: subprocess.Popen[bytes]

    def cpu_seconds(self) -> float | None:
        """Return the CPU time of the server's process until now; None on a system without
        ``/proc``.
        """
        try:
            text = Path(f"/proc/{self.process.pid}/stat").read_text()
        except OSError:
            return None
        # The program's name, in parentheses, may hold anything; times are the 12th and 13th after.
        user, system = text.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """End the server by SIGKILL, at whatever it is doing."""
        self.process.kill()
        self.process.wait(_LONGEST_END)


@contextmanager
def served(study: Path, port: int | None = None) -> Iterator[StudyServer]:
    """Serve a study on this machine until the block ends.

    Args:
        study: the study file; answers go to the database beside it.
        port: that it listens on; by default a free one.

    Raises:
        UserError: it did not start.
    """
    port = free_port() if port is None else port
    # Administrators' port stays closed, so that one port has to be free.
    environment = {**os.environ, ADMIN_SECRET: ""}
    # A file, since a pipe that nobody reads would stop a server that has much to say.
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(study), "--port", str(port)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
        try:
            _wait_for(process, port, log)
            yield StudyServer(f"http://127.0.0.1:{port}", process)
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process, in good order if it can."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(_LONGEST_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_for(process: subprocess.Popen[bytes], port: int, log: IO[bytes]) -> None:
    """Return once the server answers: then it also ends in good order when it is asked to.

    Raises:
        UserError: the server ended, or does not begin.
    """
    give_up_at = time.monotonic() + _LONGEST_START
    while time.monotonic() < give_up_at:
        if process.poll() is not None:
            log.seek(0)
            lines = log.read().decode(errors="replace").strip().splitlines()
            last = lines[-1] if lines else f"it ended with code {process.returncode}"
            raise UserError(f"the study's server did not start: {last}")
        if is_answering(port):
            return
        time.sleep(0.05)
    raise UserError(f"the study's server did not start within {_LONGEST_START:.0f} seconds")


def is_answering(port: int, seconds: float = 1.0) -> bool:
    """Return whether a server on this machine answers a request within some seconds.

    To be connected is not enough: the kernel connects from when the server has its port, which is
    before it has begun to serve.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.request("GET", "/")
        connection.getresponse().read()
        return True
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def free_port() -> int:
    """Return a port of this machine on which nobody listens now."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]
