"""Whether another process still runs."""

from __future__ import annotations

import os
import subprocess
import time

from jaxmodpo.processes import is_gone


def test_a_killed_process_is_gone_before_its_parent_has_asked_how_it_ended():
    child = subprocess.Popen(["sleep", "60"])
    assert not is_gone(child.pid) and not is_gone(os.getpid())
    child.kill()
    until = time.monotonic() + 5
    while not is_gone(child.pid) and time.monotonic() < until:
        time.sleep(0.01)
    assert child.returncode is None and is_gone(child.pid)
    child.wait()
    assert is_gone(child.pid)
