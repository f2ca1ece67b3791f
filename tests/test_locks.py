"""An output folder has one owner at a time, whose lock dies with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from jaxmodpo.errors import UserError
from jaxmodpo.locks import LOCK, Held, lock
from jaxmodpo.phase import Phase

HOLD = """
import sys
from pathlib import Path
from jaxmodpo.locks import lock
held = lock(Path(sys.argv[1]), "responses")
print("held", flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class Settings:
    output_dir: Path
    seed: int = 0


def holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_told_who_holds_the_folder(tmp_path):
    process = holder(tmp_path)
    try:
        with pytest.raises(Held, match=rf"process {process.pid} on .* \(responses, since 20"):
            lock(tmp_path, "responses")
        with pytest.raises(
            UserError, match=rf"is in use by process {process.pid} .*choose another output folder"
        ):
            Phase.open("responses", Settings(tmp_path), tmp_path, {})
    finally:
        process.kill()
        process.wait()


def test_a_killed_owner_leaves_no_lock_behind(tmp_path):
    process = holder(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    lock(tmp_path, "responses").release()
    assert not (tmp_path / LOCK).exists()


def test_one_process_may_open_a_folder_twice(tmp_path):
    first = lock(tmp_path, "run")
    assert lock(tmp_path, "run") is first
    first.release()


def test_a_finished_phase_lets_go_and_removes_its_work_last(tmp_path):
    settings = Settings(tmp_path / "out")
    phase = Phase.open("x", settings, settings.output_dir, {})
    journal = settings.output_dir / "sampled.jsonl"
    journal.write_text("{}\n")
    (settings.output_dir / "responses.csv").write_text("a\n")
    phase.finish(work=[journal])
    assert not journal.exists() and not (settings.output_dir / LOCK).exists()
    assert list(phase.manifest.outputs) == ["responses.csv"]
    # A kill between the manifest and the removal leaves the work, which the next start removes.
    journal.write_text("{}\n")
    assert Phase.open("x", settings, settings.output_dir, {}).finished
    assert not journal.exists()


@pytest.mark.parametrize("damage", ["removed", "cut"])
def test_a_finished_folder_whose_files_changed_is_not_nothing_to_do(tmp_path, damage):
    settings = Settings(tmp_path / "out")
    phase = Phase.open("x", settings, settings.output_dir, {})
    output = settings.output_dir / "adapter.safetensors"
    output.write_bytes(b"12345678")
    phase.finish()
    if damage == "removed":
        output.unlink()
    else:
        output.write_bytes(b"1234")
    message = "is missing" if damage == "removed" else "has 4 bytes and not 8"
    with pytest.raises(UserError, match=rf"adapter\.safetensors {message}"):
        Phase.open("x", settings, settings.output_dir, {})


def test_every_life_of_a_run_is_recorded(tmp_path):
    settings = Settings(tmp_path / "out")
    killed = Phase.open("x", settings, settings.output_dir, {})
    (settings.output_dir / "half").write_text("")
    assert killed._lock is not None
    killed._lock.release()
    second = Phase.open("x", settings, settings.output_dir, {})
    second.finish()
    first_life, second_life = second.manifest.lives
    assert first_life.ended is None and first_life.environment.versions["jaxmodpo"]
    assert second_life.ended is not None


@pytest.mark.parametrize(
    "name",
    [
        "manifest.json",
        "metrics.jsonl",
        "sampled.jsonl",
        "votes.sqlite",
        "study.db-wal",
        "checkpoints",
        "batches",
    ],
)
def test_a_link_where_a_phase_writes_is_refused_and_not_followed(tmp_path, name):
    settings = Settings(tmp_path / "out")
    settings.output_dir.mkdir()
    elsewhere = tmp_path / "elsewhere"
    (settings.output_dir / name).symlink_to(elsewhere)
    with pytest.raises(
        UserError, match=rf"out/{name} is a link, and nothing is written through one; remove it"
    ):
        Phase.open("x", settings, settings.output_dir, {})
    assert not elsewhere.exists() and [path.name for path in settings.output_dir.iterdir()] == [
        name
    ]
