"""Where a run's figures go: ``metrics.jsonl`` always, TensorBoard and Weights & Biases when asked for."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from jaxmodpo.artifacts import Journal
from jaxmodpo.errors import UserError

Tracker = Literal["tensorboard", "wandb"]


class _Sink(Protocol):
    def write(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class Tracking:
    """A run's figures, written by the leading process alone.

    Args:
        folder: the run's; ``metrics.jsonl`` and the trackers' files lie there.
        trackers: besides the file.
        settings: what the trackers are told about the run.
        from_update: rows after it are from a part of the run that is done again, and are dropped.
        writes: False makes all of this do nothing, for processes that do not lead.

    Raises:
        UserError: a tracker is not installed.
    """

    def __init__(
        self, folder: Path, trackers: Sequence[Tracker], settings: Mapping[str, Any], from_update: int, writes: bool
    ):
        self._sinks: list[_Sink] = []
        self._journal: Journal | None = None
        if not writes:
            return
        self._journal = Journal(folder / "metrics.jsonl")
        self._journal.truncate(sum(row["step"] <= from_update for row in self._journal.rows))
        makers = {"tensorboard": _TensorBoard, "wandb": _WandB}
        self._sinks = [makers[name](folder, settings) for name in dict.fromkeys(trackers)]

    def write(self, row: Mapping[str, Any]) -> None:
        """Add a row; it has ``step``. What is not finite is left out, since JSON has no word for it."""
        row = {name: value for name, value in row.items() if not isinstance(value, float) or math.isfinite(value)}
        if self._journal is not None:
            self._journal.extend([row])
        for sink in self._sinks:
            sink.write(row["step"], {n: v for n, v in row.items() if n != "step" and isinstance(v, int | float)})

    def sync(self) -> None:
        """Bring the rows so far to disk."""
        if self._journal is not None:
            self._journal.sync()

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()
        for sink in self._sinks:
            sink.close()


class _TensorBoard:
    def __init__(self, folder: Path, settings: Mapping[str, Any]):
        self._writer = _import("tensorboardX", "tensorboard").SummaryWriter(str(folder / "tensorboard"))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _WandB:
    """Weights & Biases; ``WANDB_MODE=offline`` keeps everything on this machine."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]):
        wandb = _import("wandb", "wandb")
        # The same id after an interruption: one run there for one run here.
        marker = folder / "wandb" / "run_id"
        marker.parent.mkdir(parents=True, exist_ok=True)
        name = marker.read_text().strip() if marker.exists() else wandb.util.generate_id()
        marker.write_text(name)
        self._run = wandb.init(
            project="jaxmodpo", name=folder.name, id=name, resume="allow", dir=str(folder), config=dict(settings)
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


def _import(module: str, tracker: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"--track {tracker} needs {module}: pip install 'jaxmodpo[tracking]'") from error
