"""Which of several processes this is, by the launcher's variables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from jaxmodpo.errors import UserError
from jaxmodpo.launched import Place, place_among_processes
from jaxmodpo.phase import Phase, in_phase
from jaxmodpo.ranges import Incidental, Unestimated

SLURM = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2"}


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, Place(0, 1)),
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, Place(0, 1)),
        (SLURM, Place(2, 4)),
        ({"TPU_WORKER_HOSTNAMES": "a,b,c", "TPU_WORKER_ID": "1"}, Place(1, 3)),
        ({"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}, Place(0, 1)),
    ],
)
def test_slurm_and_gke_say_which_process_this_is(environment, place):
    assert place_among_processes(environment) == place


@dataclass(frozen=True, kw_only=True)
class _Config(Unestimated):
    """Settings."""

    output_dir: Incidental[Path]
    """Folder."""


def test_a_command_for_one_process_runs_in_the_first_alone(tmp_path, monkeypatch):
    @in_phase("report")
    def report(config: _Config, phase: Phase) -> None:
        phase.finish()

    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        UserError, match=r"^report is the work of one process, and this is number 2"
    ):
        report(_Config(output_dir=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert report(_Config(output_dir=tmp_path / "out")).finished
