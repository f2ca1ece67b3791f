"""Several devices and several processes train as one does, end together and go on as another number
of them.
"""

from __future__ import annotations

import json
import signal
import socket
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optuna
import pytest
from forked_programs import ForkedPrograms, Program
from safetensors.numpy import load_file
from tiny_models import WORDS, tiny_mistral
from training_processes import start_training

from jaxmodpo.errors import RESTART, UserError
from jaxmodpo.files import read_json
from jaxmodpo.methods.modpo import MODPOConfig, modpo
from jaxmodpo.models.model_folder import read_model_config
from jaxmodpo.models.roberta import load_roberta, save_roberta
from jaxmodpo.policy.distributed import DeviceConfig, detected, on_host
from jaxmodpo.records import Candidate, Pair, write_pairs
from jaxmodpo.search.tune import TuneMODPOConfig

STEPS = 20


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_world) -> dict[str, Path]:
    """A decoder with 8 heads, a reward model that nobody trained, and pairs."""
    folder = tmp_path_factory.mktemp("distributed")
    sizes = {
        "num_hidden_layers": 1,
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "head_dim": 4,
    }
    tiny_mistral(folder / "model", **sizes)
    roberta = tiny_world / "roberta"
    save_roberta(
        folder / "reward",
        load_roberta(roberta, fresh_head_seed=1),
        read_model_config(roberta),
        roberta,
    )
    generator = np.random.default_rng(0)

    def text(length: int) -> str:
        return " ".join(generator.choice(WORDS, length))

    pairs = [
        Pair(
            f"q{n}",
            text(3),
            Candidate(f"c{n}", text(2 + n % 5) + " a"),
            Candidate(f"r{n}", text(3) + " b"),
        )
        for n in range(40)
    ]
    write_pairs(folder / "pairs.json", pairs)
    return {"model": folder / "model", "reward": folder / "reward", "pairs": folder / "pairs.json"}


@pytest.fixture(scope="module")
def settings(world, tmp_path_factory) -> MODPOConfig:
    return MODPOConfig(
        model=world["model"],
        pairs=world["pairs"],
        margin=(f"safety={world['reward']}",),
        weights=(0.5, 0.5),
        margin_scale="std",
        output_dir=tmp_path_factory.mktemp("one") / "run",
        base_dtype="float32",
        lora_rank=4,
        lora_alpha=8.0,
        learning_rate=1e-4,
        remat="auto",
        batch_size=8,
        gradient_accumulation=1,
        epochs=4,
        log_every=1,
        eval_every=10,
        save_every=50,
        patience=0,
        cache_dir=tmp_path_factory.mktemp("cache"),
    )


@pytest.fixture(scope="module")
def alone(settings) -> Path:
    """The run of one process with one device."""
    modpo(settings)
    return settings.output_dir


def losses(folder: Path, name: str = "loss") -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row[name] for row in rows if name in row]


def flags(config: MODPOConfig, **changes) -> list[str]:
    config = replace(config, **changes)
    listed = ["tune" if isinstance(config, TuneMODPOConfig) else "align", "modpo"]
    for name, value in vars(config).items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            listed.append(flag if value else "--no-" + flag[2:])
        elif isinstance(value, tuple):
            listed += [flag, *map(str, value)] if value else []
        elif value is not None:
            listed += [flag, str(value)]
    return listed


def several(
    programs: ForkedPrograms,
    config: MODPOConfig,
    count: int,
    devices: int,
    after: int = 0,
    kind: str = "SIGTERM",
    watched: str = "updates",
    **changes,
) -> list[Program]:
    """Start processes that know each other; the last one gets a signal after some updates, or
    batches scored.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    trainings = []
    for number in range(count):
        arguments = flags(
            config,
            distributed="explicit",
            coordinator=f"localhost:{port}",
            processes=count,
            process_id=number,
            **changes,
        )
        is_last = number == count - 1
        own_after = after if is_last else 0
        trainings.append(start_training(programs, [arguments], devices, own_after, kind, watched))
    return trainings


@pytest.mark.slow(seconds=60)
def test_eight_devices_train_as_one_does_on_every_kind_of_mesh(
    settings, alone, forked_programs, tmp_path
):
    meshes = [(8, 1, 1), (1, 8, 1), (1, 1, 8), (2, 2, 2)]
    runs = [
        flags(settings, output_dir=tmp_path / f"run{n}", mesh=mesh) for n, mesh in enumerate(meshes)
    ]
    ((code, output),) = forked_programs.endings([start_training(forked_programs, runs, 8)])
    assert code == 0, output[-3000:]
    expected, held_out = losses(alone), losses(alone, "eval_loss")
    assert len(expected) >= STEPS and np.mean(expected[-5:]) < 0.99 * np.mean(expected[:5])
    for number in range(len(meshes)):
        np.testing.assert_allclose(losses(tmp_path / f"run{number}"), expected, rtol=1e-5)
        np.testing.assert_allclose(
            losses(tmp_path / f"run{number}", "eval_loss"), held_out, rtol=1e-5
        )


@pytest.mark.slow(seconds=100)
def test_two_processes_then_one_then_four_end_where_one_does(
    settings, alone, forked_programs, tmp_path
):
    run = tmp_path / "run"
    # Four devices in each life: of several processes, of several devices of one, and of both.
    for count, devices, after, mesh in (
        (2, 2, 5, (1, 4, 1)),
        (1, 4, 5, (2, 2, 1)),
        (4, 1, 0, (4, 1, 1)),
    ):
        results = forked_programs.endings(
            several(forked_programs, settings, count, devices, after, output_dir=run, mesh=mesh)
        )
        assert {code for code, _ in results} == {RESTART if after else 0}, "\n\n".join(
            s[-2000:] for _, s in results
        )
        assert after == 0 or (run / "checkpoints").is_dir()
    np.testing.assert_allclose(losses(run), losses(alone), rtol=1e-5)
    np.testing.assert_allclose(losses(run, "eval_loss"), losses(alone, "eval_loss"), rtol=1e-5)
    ours, theirs = (
        load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (run, alone)
    )
    for name, array in theirs.items():
        np.testing.assert_allclose(ours[name], array, atol=2e-5, err_msg=name)
    rows = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows == sorted(rows), "only process 0 writes reports"
    assert read_json(run / "manifest.json")["status"] == "finished"


@pytest.mark.slow(seconds=40)
@pytest.mark.parametrize("scored", ["log-probabilities", "rewards"])
def test_two_processes_end_together_while_references_or_margins_are_computed(
    settings, forked_programs, tmp_path, scored
):
    """SIGTERM comes to one of them long before the first update."""
    changes = {"output_dir": tmp_path / "run", "cache_dir": tmp_path / "cache", "batch_size": 2}
    results = forked_programs.endings(
        several(forked_programs, settings, 2, 1, after=2, watched=scored, **changes)
    )
    assert [code for code, _ in results] == [RESTART, RESTART], "\n\n".join(
        output[-2000:] for _, output in results
    )
    for _, output in results:
        assert f"asked to end while {scored} were computed" in output, output[-2000:]
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.slow(seconds=40)
def test_when_a_process_dies_the_other_ends_with_an_error(settings, forked_programs, tmp_path):
    results = forked_programs.endings(
        several(
            forked_programs, settings, 2, 1, after=3, kind="SIGKILL", output_dir=tmp_path / "run"
        ),
        150,
    )
    (survivor, output), (dead, _) = results
    assert dead == -signal.SIGKILL and survivor not in (0, None), output[-2000:]
    assert read_json(tmp_path / "run" / "manifest.json")["status"] == "running"


@pytest.mark.slow(seconds=50)
def test_of_two_processes_one_asks_the_study_and_both_run_its_trials(
    settings, forked_programs, tmp_path
):
    (tmp_path / "space.yaml").write_text(
        "preference: {learning_rate: [1.0e-4, 1.0e-3], lora_alpha: [8.0, 4.0]}\n"
    )
    trained = {field.name: getattr(settings, field.name) for field in fields(MODPOConfig)}
    searched: dict[str, Any] = trained | {
        "output_dir": tmp_path / "search",
        "epochs": 1,
        "evaluations_per_epoch": 2,
        "best_metric": "accuracy",
    }
    search = TuneMODPOConfig(
        **searched,
        trials=2,
        space=str(tmp_path / "space.yaml"),
    )
    results = forked_programs.endings(several(forked_programs, search, 2, 1, mesh=(1, 2, 1)))
    assert {code for code, _ in results} == {0}, "\n\n".join(s[-2000:] for _, s in results)
    outcome = read_json(tmp_path / "search" / "manifest.json")["results"]
    assert (outcome["complete"], outcome["failed"]) == (2, 0) and len(
        list((tmp_path / "search" / "trials").iterdir())
    ) == 2
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path}/search/study.db")
    assert len({trial.user_attrs["process"] for trial in study.trials}) == 1, (
        "one process alone asks"
    )
    assert all(trial.user_attrs["updates"] > 0 for trial in study.trials)
    assert (tmp_path / "search" / "best.yaml").is_file()


def test_settings_of_processes_that_contradict_each_other_are_refused():
    with pytest.raises(UserError, match="explicit needs --coordinator"):
        DeviceConfig(distributed="explicit", processes=2).check()
    with pytest.raises(UserError, match="need --distributed explicit"):
        DeviceConfig(process_id=0).check()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"SLURM_JOB_ID": "3", "SLURM_NTASKS": "4"}, False),  # a shell inside an allocation
        ({"SLURM_STEP_NUM_TASKS": "4"}, True),
        ({"SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}, True),
        ({"MEGASCALE_COORDINATOR_ADDRESS": "a"}, True),
    ],
)
def test_other_processes_are_detected(environment, expected):
    assert detected({"JAX_PLATFORMS": "cpu"} | environment) == expected


def test_arrays_come_to_the_host():
    np.testing.assert_array_equal(on_host({"a": jax.numpy.arange(3)})["a"], [0, 1, 2])
