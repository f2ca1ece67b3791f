"""The launchers, with a stand-in for the cloud's client."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("command", "hosts"),
    [
        ("run phase1", "0"),
        ("responses --model m", "0"),
        ("align dpo --config x.yaml", "all"),
        ("reward --all", "all"),
    ],
)
def test_trainings_run_on_every_host_and_other_commands_on_one(tmp_path, command, hosts):
    if not (ROOT / ".git").exists():
        pytest.skip("the launcher sends what is committed, and this is no checkout")
    client = tmp_path / "gcloud"
    client.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> {tmp_path}/calls\n')
    client.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    script = ROOT / "launch" / "tpu_vm.sh"
    subprocess.run(
        ["bash", str(script), "my-tpu", "zone", *command.split()], env=environment, check=True
    )
    calls = (tmp_path / "calls").read_text()
    assert calls.count(f"--worker={hosts} ") + calls.count(f"--worker={hosts}\n") == 2
    assert "python3.11" in calls and ".venv/bin/jaxmodpo " + command in calls
