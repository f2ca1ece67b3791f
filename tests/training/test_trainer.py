"""The loop around the step: schedule, evaluation, what is not finite, notices to end, figures and
checkpoints.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxmodpo.data.batches import Batches
from jaxmodpo.data.examples import Examples
from jaxmodpo.data.text import Cut
from jaxmodpo.errors import Preempted, UserError
from jaxmodpo.policy.mesh import make_mesh
from jaxmodpo.training import trainer
from jaxmodpo.training.cache import cached_examples
from jaxmodpo.training.checkpoints import Checkpoints
from jaxmodpo.training.evaluation import Evaluations, score
from jaxmodpo.training.problem import Problem
from jaxmodpo.training.profiling import Profile
from jaxmodpo.training.settings import TrainingConfig
from jaxmodpo.training.step import LossTerms, OptimizerSettings, initial_state
from jaxmodpo.training.tracking import Tracking
from jaxmodpo.training.trainer import train


@jax.tree_util.register_static
class Pull:
    """Mean of (w − y)²: training pulls w to its examples' targets, held-out ones may lie
    elsewhere.
    """

    def __call__(self, trainable, frozen, batch, dropout_key) -> LossTerms:
        weights = batch["row_weights"]
        total = jnp.sum(weights)
        return LossTerms(jnp.sum((trainable["w"][0] - batch["y"]) ** 2 * weights), total, {}, total)


def data(targets: list[float]) -> Examples:
    count = len(targets)
    ones = np.ones((count, 1), np.int32)
    return Examples(
        np.ones((count, 1, 8), np.int32), 0 * ones, 8 * ones, {"y": np.array(targets, np.float32)}
    )


def settings(folder: Path, **changes) -> TrainingConfig:
    defaults: dict = {
        "batch_size": 2,
        "gradient_accumulation": 1,
        "epochs": 10,
        "learning_rate": 0.1,
        "weight_decay": 0.0,
        "log_every": 1,
        "eval_every": 1,
        "save_every": 1,
        "keep_checkpoints": True,
    }
    return TrainingConfig(output_dir=folder, **(defaults | changes))


def run(
    config: TrainingConfig, targets: list[float], held: list[float] | None = None, loss=None
) -> trainer.Trained:
    batches = Batches(
        data(targets),
        batch_size=config.batch_size,
        accumulation=config.gradient_accumulation,
        epochs=config.epochs,
    )
    validation = Batches(data(held), batch_size=config.batch_size) if held else None
    problem = Problem(loss or Pull(), {"w": jnp.zeros(1)}, {}, make_mesh())
    return train(problem, batches, config, validation)


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_rate_rises_then_falls_as_a_cosine(tmp_path):
    run(settings(tmp_path, epochs=5, warmup_ratio=0.2), [1.0] * 4)
    rates = [row["learning_rate"] for row in rows(tmp_path)]
    expected = [0.05, 0.1] + [0.05 * (1 + np.cos(np.pi * n / 8)) for n in range(1, 9)]
    np.testing.assert_allclose(rates, expected, atol=1e-7)


@pytest.mark.slow(seconds=3)
def test_the_best_evaluated_parameters_are_kept_and_training_stops_after_patience(tmp_path):
    trained = run(settings(tmp_path, patience=3), [1.0] * 8, [0.25, 0.25])
    evaluations = {row["step"]: row["eval_loss"] for row in rows(tmp_path) if "eval_loss" in row}
    best = min(evaluations, key=lambda step: evaluations[step])
    assert 1 < best < 40 and trained.report["best_update"] == best
    assert (
        max(evaluations) == best + 3 == trained.report["updates"]
        and trained.report["stopped_early"]
    )
    assert (float(trained.parameters["w"][0]) - 0.25) ** 2 == pytest.approx(
        evaluations[best], abs=1e-6
    )
    assert trained.report["held_out_loss"] == pytest.approx(evaluations[best])
    never = run(settings(tmp_path / "patient", patience=0), [1.0] * 8, [0.25, 0.25])
    assert never.report["updates"] == 40 and not never.report["stopped_early"]


def test_accuracy_cannot_choose_where_nothing_is_compared(tmp_path):
    with pytest.raises(UserError, match="--best-metric accuracy needs a method that compares"):
        run(settings(tmp_path, best_metric="accuracy"), [1.0] * 4, [1.0, 1.0])


def test_an_update_that_is_not_finite_is_left_out_and_counted(tmp_path):
    held_out_scores = [1.0, 1.0]
    trained = run(
        settings(tmp_path, epochs=2, batch_size=1, max_skipped=3),
        [1.0, np.nan, 1.0, 1.0],
        held_out_scores,
    )
    logged = [row for row in rows(tmp_path) if "eval_loss" not in row]
    assert trained.report["skipped_updates"] == 2 and logged[-1]["skipped"] == 2
    skipped = [row["step"] for row in logged if row["skipped_in_row"]]
    assert all("loss" not in logged[step - 1] for step in skipped) and len(skipped) == 2
    evaluations = {row["step"]: row["eval_loss"] for row in rows(tmp_path) if "eval_loss" in row}
    for step in skipped:
        assert step == 1 or evaluations[step] == evaluations[step - 1]
    assert np.isfinite(trained.parameters["w"]).all()


def test_after_a_breakdown_the_last_good_state_is_in_a_checkpoint(tmp_path):
    targets = [1.0] * 4
    good = run(settings(tmp_path / "good", epochs=1, batch_size=1), targets)
    config = settings(tmp_path / "bad", epochs=2, batch_size=1, max_skipped=2)

    @jax.tree_util.register_static
    class Worsening(Pull):
        def __call__(self, trainable, frozen, batch, dropout_key):
            terms = super().__call__(trainable, frozen, batch, dropout_key)
            broken = jnp.where(trainable["w"][0] > 0.15, jnp.nan, 1.0)
            return terms._replace(total=terms.total * broken)

    with pytest.raises(UserError, match="broke down: the last 2 updates"):
        run(config, targets, loss=Worsening())
    assert float(good.parameters["w"][0]) > 0.15
    everywhere = NamedSharding(make_mesh(), PartitionSpec())
    like = initial_state(
        OptimizerSettings(0.0, 1.0), {"w": jax.device_put(jnp.zeros(1), everywhere)}
    )
    checkpoint = Checkpoints(config.output_dir / "checkpoints").last(like)
    assert (
        checkpoint is not None
        and 0.15 < float(checkpoint[0].trainable["w"][0]) < 1
        and int(checkpoint[0].skipped_in_row) == 2
    )


@pytest.mark.parametrize("validation", [None, [0.25, 0.25]])
def test_sigterm_ends_with_a_checkpoint_from_which_the_run_goes_on(
    tmp_path, monkeypatch, validation
):
    whole = run(
        settings(tmp_path / "whole", save_every=100, eval_every=4), [1.0, 0.5, 2.0, 1.5], validation
    )
    step, calls = trainer.train_step, []

    def terminated(*arguments, **named):
        calls.append(1)
        if len(calls) == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*arguments, **named)

    monkeypatch.setattr(trainer, "train_step", terminated)
    config = settings(tmp_path / "ended", save_every=100, eval_every=4)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted, match="everything up to update 7 of 20 is in a checkpoint"):
        run(config, [1.0, 0.5, 2.0, 1.5], validation)
    assert signal.getsignal(signal.SIGTERM) is before
    outcome = run(config, [1.0, 0.5, 2.0, 1.5], validation)
    assert len(calls) == whole.report["updates"]
    for report in (outcome.report, whole.report):
        del report["startup_seconds"]
    assert outcome.report == whole.report
    np.testing.assert_array_equal(outcome.parameters["w"], whole.parameters["w"])


@pytest.mark.parametrize("damage", ["doubled", "removed", "reordered"])
def test_rows_of_an_interrupted_training_are_known_by_their_step_and_not_by_their_line(
    tmp_path, damage
):
    """Six of eight updates are in a checkpoint; the rows of the last two are of a part that is done
    again.
    """
    how = {"epochs": 2, "save_every": 2, "eval_every": 2}
    run(settings(tmp_path / "whole", **how), [1.0] * 8, [1.0, 1.0])
    shutil.copytree(tmp_path / "whole", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "8")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines(keepends=True)
    later = [n for n, line in enumerate(lines) if json.loads(line)["step"] > 6]
    assert len(lines) == 12 and len(later) == 3
    if damage == "doubled":
        lines.insert(1, lines[0])
    elif damage == "removed":
        del lines[0]
    else:
        lines[0], lines[later[0]] = lines[later[0]], lines[0]
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(lines))
    run(settings(tmp_path / "run", **how), [1.0] * 8, [1.0, 1.0])
    whole, checkpoint = (
        [
            {name: value for name, value in row.items() if not name.endswith("per_second")}
            for row in rows(folder)
        ]
        for folder in (tmp_path / "whole", tmp_path / "run")
    )
    assert checkpoint == (whole[1:] if damage == "removed" else whole)


def test_a_row_without_a_step_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n{"loss": 1.0}\n')
    with pytest.raises(
        UserError, match=r"metrics\.jsonl, line 2 does not say of which step it is; remove the line"
    ):
        run(settings(tmp_path), [1.0] * 4)


def test_a_trace_has_the_updates_after_the_first_and_ends_with_the_run_at_the_latest(
    tmp_path, monkeypatch
):
    events: list[str] = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: events.append(str(folder)))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: events.append("end"))
    metrics = {"loss": jnp.zeros(())}
    profile = Profile(tmp_path, updates=2)
    for _ in range(5):
        events.append("update")
        profile.after_update(metrics)
    profile.close()
    assert events == ["update", str(tmp_path), "update", "update", "end", "update", "update"]
    # A run of fewer updates ends its trace when it ends.
    events.clear()
    run(settings(tmp_path / "run", epochs=1, profile=100), [1.0] * 4)
    assert events == [str(tmp_path / "run" / "profile"), "end"]
    events.clear()
    run(settings(tmp_path / "other", epochs=1), [1.0] * 4)
    assert not events


def test_figures_go_to_trackers_too_and_missing_ones_are_named(tmp_path, monkeypatch):
    scalars: list[tuple] = []
    board = SimpleNamespace(add_scalar=lambda *values: scalars.append(values), close=lambda: None)
    monkeypatch.setitem(
        sys.modules, "tensorboardX", SimpleNamespace(SummaryWriter=lambda folder, purge_step: board)
    )
    logged: list[dict] = []
    started: list[dict] = []
    wandb = SimpleNamespace(
        util=SimpleNamespace(generate_id=lambda: "abc"),
        init=lambda **settings: (
            started.append(settings)
            or SimpleNamespace(
                log=lambda values, step: logged.append(values | {"step": step}), finish=lambda: None
            )
        ),
    )
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    run(settings(tmp_path / "run", epochs=1, track=("tensorboard", "wandb")), [1.0] * 4, [1.0, 1.0])
    assert ("learning_rate", pytest.approx(0.1), 1) in scalars and any(
        name == "eval_loss" for name, *_ in scalars
    )
    assert [row["step"] for row in logged if "loss" in row] == [1, 2]
    assert started[0]["id"] == "abc" and started[0]["resume"] == "allow"
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(
        UserError, match=r"--track wandb needs wandb: pip install 'jaxmodpo\[tracking\]'"
    ):
        run(settings(tmp_path / "other", track=("wandb",)), [1.0] * 4)


@pytest.mark.parametrize(("done_before", "purged"), [(0, None), (3, 4)])
def test_points_of_updates_that_are_done_again_are_purged(
    tmp_path, monkeypatch, done_before, purged
):
    sizes: list[int | None] = []
    board = SimpleNamespace(close=lambda: None)
    writer = SimpleNamespace(
        SummaryWriter=lambda folder, purge_step: sizes.append(purge_step) or board
    )
    monkeypatch.setitem(sys.modules, "tensorboardX", writer)
    Tracking(tmp_path, ("tensorboard",), {}, done_before, True).close()
    assert sizes == [purged]


def test_a_run_that_is_stopped_from_outside_closes_its_trackers(tmp_path, monkeypatch):
    closed: list[bool] = []
    board = SimpleNamespace(add_scalar=lambda *_: None, close=lambda: closed.append(True))
    monkeypatch.setitem(
        sys.modules, "tensorboardX", SimpleNamespace(SummaryWriter=lambda folder, purge_step: board)
    )
    config = settings(tmp_path, epochs=1, track=("tensorboard",))

    def hopeless(epoch, values):
        raise RuntimeError("pruned")

    def batches(count: int) -> Batches:
        return Batches(data([1.0] * count), batch_size=2)

    with pytest.raises(RuntimeError, match="pruned"):
        problem = Problem(Pull(), {"w": jnp.zeros(1)}, {}, make_mesh())
        train(problem, batches(4), config, batches(2), hopeless)
    assert closed == [True]


# ---------------------------------------------------------------------- checkpoints


def interrupted(folder: Path, updates: int, monkeypatch) -> TrainingConfig:
    """Train up to some update and stop there as if the power had failed."""
    config = settings(folder)
    step, calls = trainer.train_step, []

    def dying(*arguments, **named):
        if len(calls) == updates:
            raise RuntimeError("power")
        calls.append(1)
        return step(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(trainer, "train_step", dying)
        with pytest.raises(RuntimeError, match="power"):
            run(config, [1.0, 0.5])
    until = time.monotonic() + 30
    last = {
        str(updates),
        str(updates - 1),
    }  # they are written beside the training, and older ones removed
    while {
        path.name for path in (folder / "checkpoints").iterdir()
    } != last and time.monotonic() < until:
        time.sleep(0.05)
    return config


def damage_all(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def remove_state(folder: Path) -> None:
    shutil.rmtree(folder / "state")


@pytest.mark.parametrize("damage", [damage_all, remove_state])
def test_a_half_written_checkpoint_is_passed_over(tmp_path, monkeypatch, caplog, damage):
    whole = run(settings(tmp_path / "whole"), [1.0, 0.5])
    config = interrupted(tmp_path / "run", 6, monkeypatch)
    damage(tmp_path / "run" / "checkpoints" / "6")
    resumed = run(config, [1.0, 0.5])
    assert "the checkpoint of update 6 cannot be read and is removed" in caplog.text
    np.testing.assert_array_equal(resumed.parameters["w"], whole.parameters["w"])
    assert [row["step"] for row in rows(tmp_path / "run")] == list(range(1, 11))


@pytest.mark.slow(seconds=2)
def test_without_a_readable_checkpoint_training_starts_anew(tmp_path, monkeypatch, caplog):
    whole = run(settings(tmp_path / "whole"), [1.0, 0.5])
    config = interrupted(tmp_path / "run", 6, monkeypatch)
    damage_all(tmp_path / "run" / "checkpoints")
    resumed = run(config, [1.0, 0.5])
    assert caplog.text.count("cannot be read and is removed") == 2
    np.testing.assert_array_equal(resumed.parameters["w"], whole.parameters["w"])


@contextmanager
def files_of_at_most(size: int):
    """As full a disk as a process can make for itself."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.slow(seconds=2)
def test_a_disk_that_fills_up_ends_with_a_sentence_and_nothing_is_lost(tmp_path, monkeypatch):
    whole = run(settings(tmp_path / "whole"), [1.0, 0.5])
    config = interrupted(tmp_path / "run", 6, monkeypatch)
    with files_of_at_most(0), pytest.raises((UserError, OSError)) as raised:
        run(config, [1.0, 0.5])
    assert (
        isinstance(raised.value, UserError) or raised.value.errno == 27
    )  # metrics.jsonl; the command says so
    np.testing.assert_array_equal(run(config, [1.0, 0.5]).parameters["w"], whole.parameters["w"])


def test_a_checkpoint_that_cannot_be_written_names_the_last_whole_one(tmp_path):
    everywhere = NamedSharding(make_mesh(), PartitionSpec())
    state = initial_state(
        OptimizerSettings(0.0, 1.0), {"w": jax.device_put(jnp.zeros(4096), everywhere)}
    )
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(3, state, {"batches": {}})
    checkpoints.wait()
    sentence = r"could not be written to .*make room and run .* goes on from update 3"
    with files_of_at_most(16), pytest.raises(UserError, match=sentence):
        checkpoints.save(4, state, {"batches": {}})
        checkpoints.wait()
    checkpoint = Checkpoints(tmp_path / "checkpoints").last(state)
    assert checkpoint is not None and checkpoint[2] == 3


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(UserError, match="cannot write checkpoints to"):
        Checkpoints(tmp_path / "checkpoints")


def test_the_best_checkpoint_outlives_later_ones_and_a_restart(tmp_path):
    everywhere = NamedSharding(make_mesh(), PartitionSpec())
    state = initial_state(
        OptimizerSettings(0.0, 1.0), {"w": jax.device_put(jnp.zeros(4), everywhere)}
    )
    first = Checkpoints(tmp_path)
    first.save(1, state, {}, score=-1.0)
    first.save(2, state, {})
    first.close()
    second = Checkpoints(tmp_path)
    for update in (3, 4, 5):
        second.save(update, state, {})
    second.wait()
    assert {int(path.name) for path in tmp_path.iterdir()} == {1, 4, 5}
    second.at(1, state)


def test_texts_are_tokenized_once(tmp_path):
    cut = Cut()

    def tokenize() -> Examples:
        cut.add(2, 3, 40, 5, 6)
        return data([1.0])

    first = cached_examples("tokens", {"pairs": 1}, cut, tokenize, tmp_path)
    second = cached_examples(
        "tokens", {"pairs": 1}, cut, lambda: pytest.fail("tokenised again"), tmp_path
    )
    np.testing.assert_array_equal(first.tokens, second.tokens)
    assert cut.counts == (4, 6, 80, 10, 12)
    with pytest.raises(pytest.fail.Exception, match="again"):
        cached_examples(
            "tokens", {"pairs": 2}, cut, lambda: pytest.fail("tokenised again"), tmp_path
        )


def test_an_evaluation_that_is_not_finite_is_never_the_best():
    evaluations = Evaluations()
    undefined = {"loss": float("nan"), "rewards/accuracies": float("nan")}
    finite = {"loss": 1.0, "rewards/accuracies": 0.1}
    evaluations.add(score(undefined, "accuracy"), 1, undefined)
    assert evaluations.add(score(finite, "accuracy"), 2, finite)
    assert not evaluations.add(
        score(undefined | {"rewards/accuracies": 0.9}, "accuracy"), 3, undefined
    )
    assert evaluations.best_update == 2
