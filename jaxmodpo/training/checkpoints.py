"""A run's checkpoints: the last ones and the best, whole or absent, readable on any mesh.

A checkpoint holds everything that training changes: parameters, Adam's moments, counts, the run's
random key, where the batches stand, and how the evaluations went. Orbax writes it beside the
training::

    checkpoints = Checkpoints(folder)
    checkpoints.save(update, state, {"batches": batches.state}, score=None)
    checkpoints.wait()
    state, values, update = checkpoints.last(like=state)
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from jaxmodpo.errors import UserError
from jaxmodpo.parsing import JsonObject
from jaxmodpo.training.step import TrainState

logger = logging.getLogger(__name__)


def _is_worth_saying(record: logging.LogRecord) -> bool:
    """Return whether a warning of Orbax is news: not that a checkpoint has no score, which most
    have not, nor that :func:`_write_small_arrays_whole` does what it is to do.
    """
    message = record.getMessage()
    return "tracked_metric" not in message and "Type handler registry" not in message


logging.getLogger("absl").addFilter(_is_worth_saying)


PART_BYTES = 64 << 20
"""how large an array is at least that several devices hold and write a part of each"""


def _write_small_arrays_whole() -> None:
    """Let one device write an array of which all have a copy, unless it is large.

    By default Orbax lets each write its part, and compiles a program to cut out each: some hundred
    of them before the first checkpoint of an adapter on eight devices, which is written in less
    time than they take.
    """
    handler = ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=PART_BYTES)
    ocp.type_handlers.register_type_handler(jax.Array, handler, override=True)


_write_small_arrays_whole()


def _score(metrics: dict[str, float]) -> float:
    return metrics["score"]


class Checkpoints:
    """The checkpoints in a folder; one process or several may use it together.

    Args:
        folder: where they lie; all processes must see it.

    Raises:
        UserError: the folder cannot be made.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        # The last one, to go on from; the one before it, should the last be damaged; and the one of
        # the best evaluation, which is the result.
        keep = checkpoint_managers.AnyPreservationPolicy(
            [
                checkpoint_managers.LatestN(2),
                checkpoint_managers.BestN(
                    get_metric_fn=_score, n=1, keep_checkpoints_without_metrics=False
                ),
            ]
        )
        # Without best_fn Orbax keeps scores in memory alone, and a resumed run would drop the best
        # checkpoint.
        options = ocp.CheckpointManagerOptions(
            preservation_policy=keep, best_fn=_score, best_mode="max", cleanup_tmp_directories=True
        )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(
                folder.absolute(), options=options, item_names=("state", "progress")
            )
        except OSError as error:
            raise UserError(
                f"cannot write checkpoints to {folder}: {error.strerror or error}"
            ) from error

    def save(
        self, update: int, state: TrainState, progress: JsonObject, score: float | None = None
    ) -> None:
        """Begin to write a checkpoint; training may go on meanwhile.

        Args:
            update: updates done.
            state: arrays.
            progress: JSON values.
            score: of an evaluation that is the best so far; the best checkpoint is kept.

        Raises:
            UserError: this or an earlier checkpoint could not be written.
        """
        try:
            self._manager.save(
                update,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state._asdict()),
                    progress=ocp.args.JsonSave(progress),
                ),
                metrics=None if score is None else {"score": score},
            )
        except Exception as error:
            raise self._unwritten(error) from error

    def wait(self) -> None:
        """Wait until everything is on disk."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._unwritten(error) from error

    def check(self) -> None:
        """Complain if a checkpoint that is being written has failed."""
        try:
            self._manager.check_for_errors()
        except Exception as error:
            raise self._unwritten(error) from error

    def last(self, like: TrainState) -> tuple[TrainState, JsonObject, int] | None:
        """Return the last checkpoint that can be read, or None; later ones are removed.

        A process that is killed while Orbax writes, or a disk that loses what it had promised to
        keep, leaves a checkpoint that is not whole. It must not stay: the run comes by that update
        again, and Orbax would not write over it.

        Args:
            like: arrays, or shapes with shardings: what is read is placed as these are, whatever
                mesh wrote it.

        Returns:
            Arrays, progress and updates done.
        """
        for update in sorted(self._manager.all_steps(), reverse=True):
            try:
                return (*self._read(update, like), update)
            except Exception as error:
                # Orbax and what lies below it raise dozens of types for damage, and whatever it
                # is, the checkpoint before is better than none.
                logger.warning(
                    "the checkpoint of update %d cannot be read and is removed (%s); using the one"
                    " before it",
                    update,
                    _first_line(error),
                )
                self._remove(update)
        return None

    def at(self, update: int, like: TrainState) -> TrainState:
        """Return the arrays of one checkpoint."""
        return self._read(update, like)[0]

    def close(self) -> None:
        """Let go of the folder; what is being written is finished first. Says nothing of what
        failed: see ``wait``.
        """
        try:
            self._manager.close()
        except Exception as error:
            logger.debug("closing the checkpoints: %s", error)

    def _read(self, update: int, like: TrainState) -> tuple[TrainState, JsonObject]:
        # Shapes with shardings: each process reads the shards of its own devices, also where the
        # checkpoint was written on another mesh, and nobody ever holds an array whole.
        shapes = jax.tree.map(
            lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=array.sharding),
            like._asdict(),
        )
        restored = self._manager.restore(
            update,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(shapes), progress=ocp.args.JsonRestore()
            ),
        )
        return TrainState(**restored["state"]), restored["progress"]

    def _remove(self, update: int) -> None:
        try:
            self._manager.delete(update)
        except Exception:
            # Orbax may fail to delete what is damaged, for the reason for which it cannot read it.
            if jax.process_index() == 0:
                shutil.rmtree(self.folder / str(update), ignore_errors=True)
            self._manager.reload()

    def _unwritten(self, error: Exception) -> UserError:
        """Return the sentence for a checkpoint that could not be written."""
        whole = list(self._manager.all_steps(read=True))
        last = f"update {max(whole)}" if whole else "the start"
        return UserError(
            f"a checkpoint could not be written to {self.folder} ({_first_line(error)}); make room and run the"
            f" same command again, which goes on from {last}"
        )


def _first_line(error: Exception) -> str:
    """Return what an error says at first; its kind where it says nothing."""
    # What Orbax raises may carry pages of what lies below it.
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]
