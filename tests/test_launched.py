"""Which of several processes this is, by the launcher's variables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from jaxmodpo import cli
from jaxmodpo.commands import COMMANDS
from jaxmodpo.errors import UserError
from jaxmodpo.launched import (
    Place,
    number_on_tpu_vms,
    place_among_processes,
    refuse_further_processes,
)
from jaxmodpo.phase import Phase, in_phase
from jaxmodpo.ranges import Incidental, Unestimated
from jaxmodpo.report.command import ReportConfig
from jaxmodpo.report.command import report as write_report

SLURM = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2"}


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, Place(0, 1)),
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, Place(0, 1)),
        (SLURM, Place(2, 4)),
        ({"TPU_WORKER_HOSTNAMES": "a,b,c", "TPU_WORKER_ID": "1"}, Place(1, 3)),
        ({"TPU_WORKER_ID": "WARNING: could not determine TPU worker number"}, Place(0, 1)),
        ({"SLURM_STEP_NUM_TASKS": "", "PMI_SIZE": ""}, Place(0, 1)),
        ({"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}, Place(0, 1)),
        ({"TPU_PROCESS_ADDRESSES": "a:1,b:1", "TPU_WORKER_ID": "1"}, Place(1, 2)),
        (
            {
                "TPU_WORKER_HOSTNAMES": "a,b",
                "TPU_WORKER_ID": "1",
                "MEGASCALE_NUM_SLICES": "3",
                "MEGASCALE_SLICE_ID": "2",
            },
            Place(5, 6),
        ),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3"}, Place(3, 4)),
        ({"PMI_SIZE": "4", "PMI_RANK": "3"}, Place(3, 4)),
        ({"PMI_SIZE": "1", "PMI_RANK": "0"}, Place(0, 1)),
        # Two nodes, a daemon of mpirun's on each, and this is the second daemon's first process.
        (
            {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}
            | {"OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_RANK": "4"},
            Place(4, 8),
        ),
    ],
)
def test_launchers_say_which_process_this_is(environment, place):
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


@pytest.mark.parametrize(
    ("environment", "host", "number"),
    [
        ({}, "t1v-n-0339f27d-w-3", 3),
        ({}, "t1v-n-0339f27d-w-12.us-central2-b.c.project.internal", 12),
        ({}, "t1v-n-0339f27d-w-0", 0),
        ({"TPU_WORKER_ID": "0"}, "t1v-n-0339f27d-w-3", 0),
        ({}, "my-t1v-n-0339f27d-w-3", 0),
        ({}, "node7", 0),
    ],
)
def test_a_tpu_vms_name_says_which_host_it_is(environment, host, number):
    assert number_on_tpu_vms(environment, host) == number


def test_a_tpu_vm_behind_the_first_is_refused_by_its_name():
    refuse_further_processes("report", {}, "t1v-n-0339f27d-w-0")
    with pytest.raises(UserError) as refusal:
        refuse_further_processes("report", {}, "t1v-n-0339f27d-w-3")
    assert str(refusal.value) == (
        "report is the work of one process, and t1v-n-0339f27d-w-3 is host 3 of its TPU slice (from"
        " 0): start report on host 0 alone"
    )


def test_a_report_is_written_by_the_first_process_alone(tmp_path, monkeypatch):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"^report is the work of one process"):
        write_report(ReportConfig(inputs=(tmp_path,), output_dir=tmp_path / "report"))
    assert not (tmp_path / "report").exists()


TOGETHER = {
    *("align sft", "align dpo", "align modpo", "align joint", "reward", "responses"),
    *("tune reward", "tune sft", "tune dpo", "tune modpo", "tune joint"),
}
"""commands that several processes may run"""

TRAIN_INSIDE = {
    *("run", "demo", "sweep", "bench real", "bench resume", "sandbox fronts", "sandbox tune"),
}
"""commands whose trainings would join processes that are not there"""

STUDY = {*("study serve", "study links", "study status", "study export")}
"""commands on a running study's database, which a launcher has no reason to start"""


@dataclass(frozen=True)
class _NoSettings:
    """A command's settings."""


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_says_what_it_does_in_several_processes(monkeypatch, capsys, command):
    begun: list[str] = []
    monkeypatch.setattr(cli, "load", lambda name: (_NoSettings, lambda config: begun.append(name)))
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    for number in (0, 1):
        monkeypatch.setenv("SLURM_PROCID", str(number))
        may_run = command in TOGETHER or (number == 0 and command not in TRAIN_INSIDE | STUDY)
        begun.clear()
        if may_run:
            cli.main(command.split())
            assert begun == [command]
            continue
        with pytest.raises(SystemExit) as end:
            cli.main(command.split())
        assert (end.value.code, begun) == (2, [])
        assert f"jaxmodpo: {command} is the work of one process" in capsys.readouterr().err
