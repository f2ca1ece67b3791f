"""Where a run's figures go: ``metrics.jsonl`` always, TensorBoard and Weights & Biases when asked
for::

    with closing(Tracking(folder, ("tensorboard",), settings, from_update=0, writes=leads())) as t:
        t.write({"step": 10, "loss": 0.69})
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from jaxmodpo.errors import UserError
from jaxmodpo.files import Row
from jaxmodpo.journals import Journal
from jaxmodpo.schema import is_integer

Tracker = Literal["tensorboard", "wandb"]

_MODULES: Mapping[Tracker, str] = {"tensorboard": "tensorboardX", "wandb": "wandb"}


def check_trackers(trackers: Sequence[Tracker]) -> None:
    """Refuse trackers that are not installed.

    Raises:
        UserError: naming what is missing.
    """
    for tracker in trackers:
        try:
            importlib.import_module(_MODULES[tracker])
        except ImportError as error:
            raise UserError(
                f"--track {tracker} needs {_MODULES[tracker]}: pip install 'jaxmodpo[tracking]'"
            ) from error


class _Sink(Protocol):
    def write(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class Tracking:
    """A run's figures, written by the leading process alone.

    Args:
        folder: the run's; ``metrics.jsonl`` and the trackers' files lie there.
        trackers: besides the file.
        settings: what the trackers are told about the run.
        from_update: rows of later updates are from a part of the run that is done again, and are
            dropped.
        writes: False makes all of this do nothing, for processes that do not lead.

    Raises:
        UserError: a tracker is not installed, or a row of the file does not say of which update it
            is.
    """

    def __init__(
        self,
        folder: Path,
        trackers: Sequence[Tracker],
        settings: Mapping[str, Any],
        from_update: int,
        writes: bool,
    ):
        self._sinks: list[_Sink] = []
        self._journal: Journal | None = None
        if not writes:
            return
        self._journal = Journal(folder / "metrics.jsonl")
        # A run that goes on from a checkpoint does the updates after it again, and logs them again.
        self._journal.replace(_until(from_update, self._journal))
        check_trackers(trackers)
        makers: dict[Tracker, Callable[[], _Sink]] = {
            "tensorboard": lambda: _TensorBoard(folder, from_update),
            "wandb": lambda: _WandB(folder, settings),
        }
        self._sinks = [makers[name]() for name in dict.fromkeys(trackers)]

    def write(self, row: Mapping[str, Any]) -> None:
        """Add a row; it has ``step``. What is not finite is left out, since JSON has no word for
        it.
        """
        finite: Row = {}
        # Trackers draw curves, and a word is no point of one.
        numbers: dict[str, float] = {}
        for name, value in row.items():
            if isinstance(value, float) and not math.isfinite(value):
                continue
            finite[name] = value
            if name != "step" and isinstance(value, int | float):
                numbers[name] = value
        if self._journal is not None:
            self._journal.extend([finite])
        for sink in self._sinks:
            sink.write(row["step"], numbers)

    def sync(self) -> None:
        """Bring the rows so far to disk."""
        if self._journal is not None:
            self._journal.sync()

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()
        for sink in self._sinks:
            sink.close()


def _until(update: int, journal: Journal) -> list[Row]:
    """Return the rows up to an update, known by what they say of themselves: each once, in the
    order of updates.
    """
    rows: dict[tuple[int, bool], Row] = {}
    for line, row in enumerate(journal.rows, 1):
        if not is_integer(row.get("step")):
            raise UserError(
                f"{journal.path}, line {line} does not say of which step it is; remove the line"
            )
        step = int(row["step"])
        if step <= update:
            # Of one update there may be a row of training and one of its evaluation.
            is_evaluation = any(name.startswith("eval_") for name in row)
            rows.setdefault((step, is_evaluation), row)
    return [rows[key] for key in sorted(rows)]


class _TensorBoard:
    """TensorBoard's event files; points of updates that are done again are hidden by the new
    ones.
    """

    def __init__(self, folder: Path, from_update: int):
        module = importlib.import_module(_MODULES["tensorboard"])
        first_repeated = from_update + 1 if from_update else None
        self._writer = module.SummaryWriter(str(folder / "tensorboard"), purge_step=first_repeated)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _WandB:
    """Weights & Biases; ``WANDB_MODE=offline`` keeps everything on this machine.

    It takes no row of a step that it has, so that of updates that are done again the first rows
    stay there.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]):
        wandb = importlib.import_module(_MODULES["wandb"])
        # The same id after an interruption: one run there for one run here.
        marker = folder / "wandb" / "run_id"
        marker.parent.mkdir(parents=True, exist_ok=True)
        name = marker.read_text().strip() if marker.exists() else wandb.util.generate_id()
        marker.write_text(name)
        self._run = wandb.init(
            project="jaxmodpo",
            name=folder.name,
            id=name,
            resume="allow",
            dir=str(folder),
            config=dict(settings),
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()
