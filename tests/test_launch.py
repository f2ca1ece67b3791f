"""The launchers, with a stand-in for the cloud's client."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("command", "hosts"),
    [
        ("run phase1", "0"),
        ("responses --model m", "0"),
        ("responses --share HOST HOSTS --model m", "all"),
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
    filled_in = command.replace("HOSTS", "$host_count").replace("HOST", "$host")
    assert "python3.11" in calls and f".venv/bin/jaxmodpo {filled_in}" in " ".join(calls.split())


def stand_in(path: Path, *lines: str) -> None:
    """Write a program that takes another one's place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/usr/bin/env bash", *lines, ""]))
    path.chmod(0o755)


SHARED = ["responses", "--questions", "my questions.csv", "--share", "HOST", "HOSTS", "--seed", "3"]
"""arguments of which one holds a space"""


def test_each_host_of_a_slice_samples_its_own_share(tmp_path):
    if not (ROOT / ".git").exists():
        pytest.skip("the launcher sends what is committed, and this is no checkout")
    programs, home = tmp_path / "bin", tmp_path / "home"
    # The last argument of gcloud … ssh is what the host runs: the third of four, says its server.
    stand_in(
        programs / "gcloud",
        f'if [[ "$*" = *" ssh "* ]]; then cd {home} && exec bash -c "${{@: -1}}"; fi',
    )
    stand_in(programs / "tar")
    stand_in(
        programs / "curl",
        'case "${@: -1}" in',
        "*/agent-worker-number) printf 2 ;;",
        "*/worker-network-endpoints) printf a:1:10.0.0.1,b:2:10.0.0.2,c:3:10.0.0.3,d:4:10.0.0.4 ;;",
        "esac",
    )
    for name in ("python", "pip"):
        stand_in(home / "jaxmodpo" / ".venv" / "bin" / name)
    stand_in(
        home / "jaxmodpo" / ".venv" / "bin" / "jaxmodpo",
        f'printf "%s\\n" "$TPU_PROCESS_BOUNDS" "$@" > {tmp_path}/started',
    )
    environment = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    script = ROOT / "launch" / "tpu_vm.sh"
    subprocess.run(["bash", str(script), "tpu", "zone", *SHARED], env=environment, check=True)
    expected = [{"HOST": "2", "HOSTS": "4"}.get(word, word) for word in SHARED]
    assert (tmp_path / "started").read_text().splitlines() == ["1,1,1", *expected]


def test_each_task_of_slurm_samples_its_own_share(tmp_path):
    programs = tmp_path / "bin"
    stand_in(
        programs / "srun",
        "shift",
        "export SLURM_STEP_NUM_TASKS=2",
        'for SLURM_PROCID in 0 1; do export SLURM_PROCID; "$@"; done',
    )
    stand_in(tmp_path / ".venv" / "bin" / "jaxmodpo", 'printf "%s|" "$@"; echo')
    environment = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    for arguments in (SHARED, ["align", "dpo", "--tags", "HOST", "HOSTS"]):
        done = subprocess.run(
            ["bash", str(ROOT / "launch" / "slurm.sh"), *arguments],
            cwd=tmp_path,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
        expected = ["|".join([*arguments, ""])] * 2
        if arguments is SHARED:
            expected = [expected[0].replace("HOST|HOSTS", f"{n}|2") for n in range(2)]
        assert done.stdout.splitlines() == expected


def test_each_pod_can_tell_its_number():
    text = (ROOT / "launch" / "gke.yaml").read_text(encoding="utf-8")
    job = yaml.safe_load(text)["spec"]["replicatedJobs"][0]["template"]["spec"]
    variables = job["template"]["spec"]["containers"][0]["env"]
    field = variables[0]["valueFrom"]["fieldRef"]["fieldPath"]
    assert variables[0]["name"] == "HOST" and "$(HOST)" in text
    assert field == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
