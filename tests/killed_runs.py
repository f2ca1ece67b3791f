"""Commands that tests kill: begun in a process of their own, quickly and many times."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from faulty_server import FaultyServer

from jaxmodpo.journals import Journal

Key = TypeVar("Key")
"""what one call of a run asks for"""

# To import everything takes two seconds, which a process that was forked off one that has done so
# does not need. Python's garbage collector leaves what is frozen alone, and so the forks share it.
FORKS = """
import gc, json, os, sys
import httpcore2, tyro
import jaxmodpo.endpoints.bounded, jaxmodpo.flags.parse
from jaxmodpo import cli
gc.freeze()
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        os.dup2(2, 1)
        ending = 1
        try:
            cli.main(json.loads(line))
            ending = 0
        except SystemExit as error:
            ending = int(error.code or 0)
        finally:
            os._exit(ending)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


def stop_third_append(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let journals keep two groups of rows, and interrupt the run that appends a third; return the
    sizes of the groups, which grows as they are appended.
    """
    append = Journal.append
    appended: list[int] = []

    def append_or_stop(journal: Journal, *rows: Any) -> None:
        if len(appended) == 2:
            raise KeyboardInterrupt
        append(journal, *rows)
        appended.append(len(rows))

    monkeypatch.setattr(Journal, "append", append_or_stop)
    return appended


class Runs:
    """Starts a command, each time in a process of its own, and kills it.

    Args:
        said: gets all that the commands print.
        preloaded: the imports of the process that the commands are forked off.
    """

    def __init__(self, said: Path, preloaded: str) -> None:
        self.environment = os.environ | {"JAX_PLATFORMS": "cpu"}
        self.said = said.open("ab")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.said}
        self.forks = subprocess.Popen(
            [sys.executable, "-c", preloaded + FORKS], env=self.environment, text=True, **pipes
        )

    def fork(self, arguments: list[str]) -> int:
        assert self.forks.stdin is not None
        self.forks.stdin.write(json.dumps(arguments) + "\n")
        self.forks.stdin.flush()
        return self._number()

    def kill_fork(self, pid: int) -> int:
        """Return with what it ended."""
        os.kill(pid, signal.SIGKILL)
        return self._number()

    def kill_after_calls(
        self, arguments: list[str], server: FaultyServer, calls: int, pause: float
    ) -> None:
        """Start a command, and kill it once it has called a server so many times.

        Args:
            arguments: the command.
            server: which it calls.
            calls: further ones than there were; after a minute it is killed in any case.
            pause: seconds between the last of them and the kill.
        """
        until = len(server.calls) + calls
        end = time.monotonic() + 60
        pid = self.fork(arguments)
        while len(server.calls) < until and time.monotonic() < end:
            time.sleep(0.001)
        time.sleep(pause)
        # It must have been under way, and not have ended by itself.
        assert self.kill_fork(pid) == -signal.SIGKILL, self.newest_output()

    def finish(self, arguments: list[str], seconds: float = 300) -> int:
        """Let a command end by itself, and return with what it ended; after so many seconds it is
        killed.
        """
        late = threading.Timer(seconds, os.kill, (self.fork(arguments), signal.SIGKILL))
        late.start()
        try:
            return self._number()
        finally:
            late.cancel()

    def newest_output(self) -> str:
        """Return the end of what the commands have printed."""
        return Path(self.said.name).read_text()[-2000:]

    def _number(self) -> int:
        assert self.forks.stdout is not None
        return int(self.forks.stdout.readline())

    def start(self, arguments: list[str]) -> subprocess.Popen[bytes]:
        whole = [sys.executable, "-m", "jaxmodpo.cli", *arguments]
        return subprocess.Popen(whole, env=self.environment, stdout=self.said, stderr=self.said)

    def close(self) -> None:
        self.forks.kill()
        self.forks.communicate()
        self.said.close()


def check_kill(
    server: FaultyServer,
    kill: Callable[[set[Key]], None],
    stored: Callable[[], set[Key]],
    key_of: Callable[[str], Key],
    concurrency: int,
) -> None:
    """Kill a run, and check that it asked for nothing that was stored, lost nothing, and left
    unstored no more answers than it had calls under way.

    Args:
        server: which it calls.
        kill: starts and kills it, given what is stored.
        stored: reads what is stored, as any other process would.
        key_of: what a prompt asks for.
        concurrency: the most calls under way.
    """
    stored_before = stored()
    calls_before = len(server.calls)
    answered_before = server.answered.total()
    kill(stored_before)
    server.wait_until_idle()
    asked_keys = {key_of(call.prompt) for call in server.calls[calls_before:]}
    assert not asked_keys & stored_before, "what was stored was asked for again"
    stored_after = stored()
    assert stored_before <= stored_after, "something that was stored was lost"
    newly_answered = server.answered.total() - answered_before
    newly_stored = len(stored_after) - len(stored_before)
    assert newly_answered <= newly_stored + concurrency
