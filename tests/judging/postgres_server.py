"""A Postgres server of the tests' own, on this machine and gone when they end."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

PASSWORD = "a-very-secret-password"


class Missing(Exception):
    """Why there can be no server here."""


def _program(name: str) -> str:
    program = shutil.which(name) or next(
        (
            str(path)
            for path in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
        ),
        None,
    )
    if program is None:
        raise Missing(f"there is no program {name}")
    return program


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Postgres:
    """A running server. :meth:`restart` takes it away for a moment.

    Raises:
        Missing: a program or the driver is not installed, or there is no user who may run it.
    """

    def __init__(self) -> None:
        try:
            import psycopg  # noqa: F401
        except ImportError:
            raise Missing("psycopg is not installed") from None
        self.server, initdb = _program("postgres"), _program("initdb")
        # It refuses to run as root.
        self.as_user: dict[str, Any] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="jaxmodpo-pg-"))
        if os.geteuid() == 0:
            try:
                nobody = pwd.getpwnam("nobody")
            except KeyError:
                raise Missing(
                    "Postgres does not run as root, and there is no user nobody"
                ) from None
            self.as_user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        initialized = subprocess.run(
            [
                initdb,
                "-D",
                str(self.folder / "data"),
                "-U",
                "tester",
                "-A",
                "scram-sha-256",
                "--pwfile",
                str(secret),
            ]
            + ["--no-sync", "--encoding=UTF8", "--locale=C"],
            capture_output=True,
            text=True,
            cwd=self.folder,
            **self.as_user,
        )
        if initialized.returncode:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise Missing(f"initdb failed: {initialized.stderr.strip().splitlines()[-1:]}")
        self.port = _free_port()
        self.schemas = 0
        self._start()

    def _start(self) -> None:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "fsync": "off",
            "max_connections": 60,
        }
        settings |= {"unix_socket_directories": self.folder, "shared_buffers": "16MB"}
        flags = [flag for name, value in settings.items() for flag in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.server, "-D", str(self.folder / "data"), *flags],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                **self.as_user,
            )
        end = time.monotonic() + 30
        while True:
            try:
                self.execute("select 1")
                return
            except Exception:
                if self.process.poll() is not None or time.monotonic() > end:
                    raise Missing(
                        f"the server does not start: {(self.folder / 'log').read_text()[-500:]}"
                    ) from None
                time.sleep(0.05)

    def execute(self, statement: str) -> None:
        import psycopg

        location = (
            f"host=127.0.0.1 port={self.port} user=tester password={PASSWORD} dbname=postgres"
            " connect_timeout=5"
        )
        with psycopg.connect(location, autocommit=True) as connection:
            connection.execute(statement.encode())

    def new_place(self) -> str:
        """Return the URL of a schema that holds nothing, which is made faster than a database; with
        the password.
        """
        self.schemas += 1
        self.execute(f"create schema ledger_{self.schemas}")
        location = f"127.0.0.1:{self.port}/postgres?options=-csearch_path%3Dledger_{self.schemas}"
        return f"postgresql://tester:{PASSWORD}@{location}"

    def stop(self) -> None:
        """End it at once, as a machine that loses its power does."""
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(30)

    def restart(self, down: float) -> None:
        """Take it away for so many seconds."""
        self.stop()
        time.sleep(down)
        self._start()

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
