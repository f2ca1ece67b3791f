"""The training loop that every method shares: schedule, metrics, checkpoints, exact resume.

A step's batch and dropout depend on the seed and the step's number alone, so that a run which
was killed goes on from its last checkpoint to the very parameters of an undisturbed run.
"""

from __future__ import annotations

import logging
import math
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tqdm import tqdm

from jaxmodpo.artifacts import Journal
from jaxmodpo.data import examples as examples_module
from jaxmodpo.data.examples import Examples
from jaxmodpo.errors import UserError
from jaxmodpo.training.mesh import batch_sharding
from jaxmodpo.training.step import Loss, OptimizerSettings, Parameters, TrainState, moment_shardings, train_step

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What every training command can be told."""

    output_dir: Path
    """the run's folder"""
    seed: int = 0
    """of the data order, the dropout and fresh parameters"""
    learning_rate: float = 5e-6
    """peak, reached after the warm-up; cosine decay to 0 from there"""
    batch_size: int = 4
    """examples in memory at a time (pairs, for preference losses)"""
    gradient_accumulation: int = 4
    """batches per update"""
    epochs: int = 3
    """passes over the data"""
    warmup_ratio: float = 0.1
    """share of the updates in which the learning rate rises from 0"""
    weight_decay: float = 0.01
    """decoupled, as in AdamW"""
    max_grad_norm: float = 1.0
    """clip the gradient's global norm to this"""
    log_every: int = 10
    """updates between two lines of metrics.jsonl"""
    save_every: int = 50
    """updates between two checkpoints"""
    keep_checkpoints: bool = False
    """keep the Orbax checkpoints of a finished run"""
    mesh: tuple[int, int, int] | None = None
    """devices along data, fsdp and tensor; by default all on fsdp"""

    def check(self) -> None:
        """Refuse settings that cannot train anything.

        Raises:
            UserError: naming the setting.
        """
        for name in (
            "learning_rate",
            "batch_size",
            "gradient_accumulation",
            "epochs",
            "max_grad_norm",
            "log_every",
            "save_every",
        ):
            if not getattr(self, name) > 0:
                raise UserError(f"--{name.replace('_', '-')} must be positive, not {getattr(self, name)}")
        if not 0 <= self.warmup_ratio < 1 or self.weight_decay < 0:
            raise UserError(
                f"--warmup-ratio must lie in [0, 1) and --weight-decay be at least 0; got {self.warmup_ratio}, "
                f"{self.weight_decay}"
            )

    @property
    def rows_per_step(self) -> int:
        return self.batch_size * self.gradient_accumulation


def train(
    loss: Loss,
    trainable: Parameters,
    frozen: Parameters,
    examples: Examples,
    config: TrainingConfig,
    mesh: Mesh,
) -> Parameters:
    """Minimise a loss over a data set, from the last checkpoint in ``config.output_dir`` if there is one.

    Writes ``metrics.jsonl`` (means over each logged update, TRL's names) and ``checkpoints/``.

    Args:
        loss: what to minimise.
        trainable: initial parameters; those without a place on ``mesh`` go to all its devices.
        frozen: parameters without gradients, placed on ``mesh``.
        examples: the data.
        config: schedule, batch and so on.
        mesh: the devices.

    Returns:
        The trained parameters.

    Raises:
        UserError: the batch does not fit the mesh; the loss is no longer finite.
    """
    rows = config.rows_per_step
    steps = config.epochs * examples_module.steps_per_epoch(len(examples), rows)
    sharding = batch_sharding(mesh, config.batch_size)
    optimizer = OptimizerSettings(config.weight_decay, config.max_grad_norm)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, max(1, math.ceil(config.warmup_ratio * steps)), max(2, steps)
    )
    trainable = _on_mesh(trainable, mesh)
    # XLA would put arrays of zeros wherever it likes, which is on every device.
    place = moment_shardings(optimizer, trainable)
    state = TrainState(trainable, jax.jit(optimizer.transformation().init, out_shardings=place)(trainable))
    manager = _checkpoint_manager(config.output_dir / "checkpoints", config.save_every)
    state, start = _restore(manager, state)
    journal = Journal(config.output_dir / "metrics.jsonl")
    journal.truncate(sum(row["step"] <= start for row in journal.rows))
    logger.info("training: %d examples, %d updates of %d, from update %d", len(examples), steps, rows, start)
    root = jax.random.key(config.seed)
    for step in tqdm(range(start, steps), desc="training", disable=not sys.stderr.isatty(), leave=False):
        batch = examples_module.batch(examples, step, rows, config.seed)
        batch = {name: jax.device_put(array, sharding) for name, array in batch.items()}
        # The schedule starts counting at the first update, which must not have a rate of 0.
        rate = float(np.asarray(schedule(step + 1)))
        state, metrics = train_step(
            state,
            frozen,
            batch,
            jax.random.fold_in(root, step),
            jnp.float32(rate),
            loss=loss,
            optimizer=optimizer,
            microbatches=config.gradient_accumulation,
        )
        done = step + 1
        if done % config.log_every == 0 or done == steps:
            journal.extend([_row(metrics, done, rows, len(examples), rate)])
        if done % config.save_every == 0 or done == steps:
            journal.sync()
            manager.save(done, args=ocp.args.StandardSave(state._asdict()))
    manager.wait_until_finished()
    manager.close()
    journal.close()
    return state.trainable


def discard_checkpoints(config: TrainingConfig) -> None:
    """Remove a finished run's checkpoints, unless they are to be kept."""
    if not config.keep_checkpoints:
        shutil.rmtree(config.output_dir / "checkpoints", ignore_errors=True)


def _row(metrics: dict[str, jax.Array], step: int, rows: int, examples: int, rate: float) -> dict[str, float]:
    values = {name: round(float(value), 7) for name, value in sorted(jax.device_get(metrics).items())}
    if not all(np.isfinite(list(values.values()))):
        raise UserError(
            f"training broke down at update {step}: {values}; a lower --learning-rate or --max-grad-norm helps"
        )
    epoch = step / examples_module.steps_per_epoch(examples, rows)
    return {"step": step, "epoch": round(epoch, 4), **values, "learning_rate": rate}


def _on_mesh(parameters: Parameters, mesh: Mesh) -> Parameters:
    everywhere = NamedSharding(mesh, PartitionSpec())
    return {
        name: array if isinstance(array.sharding, NamedSharding) else jax.device_put(array, everywhere)
        for name, array in parameters.items()
    }


def _checkpoint_manager(folder: Path, save_every: int) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=True)
    return ocp.CheckpointManager(folder.absolute(), options=options)


def _restore(manager: ocp.CheckpointManager, state: TrainState) -> tuple[TrainState, int]:
    """Return the last checkpoint and its step, or ``state`` and 0."""
    step = manager.latest_step()
    if step is None:
        return state, 0
    abstract = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), state._asdict())
    restored = manager.restore(step, args=ocp.args.StandardRestore(abstract))
    return TrainState(**restored), step
