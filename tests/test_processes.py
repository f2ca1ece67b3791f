"""Whether another process still runs."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from jaxmodpo.processes import host_of, is_gone, is_known_gone, machine, this_process


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


def test_a_process_number_of_another_container_or_boot_says_nothing():
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert is_known_gone(f"{machine()} {gone.pid}")
    assert not is_known_gone(this_process()) and this_process() == f"{machine()} {os.getpid()}"
    here, *others = machine().split("/")
    for other in (here, f"{here}/elsewhere", "/".join(["elsewhere", *others])):
        assert other == machine() or not is_known_gone(f"{other} {gone.pid}")
    if Path("/proc/self/ns/pid").exists():
        assert others[-1] == str(Path("/proc/self/ns/pid").stat().st_ino) and len(others) == 2
    assert host_of(this_process()) == host_of(f"{here}/another-boot/1 7") == here
    for no_process in ("", "batch", f"{machine()} ", f"{machine()} x"):
        assert not is_known_gone(no_process)
