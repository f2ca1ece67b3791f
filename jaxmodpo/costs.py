"""What a phase costs: judge calls, dollars, chip-hours and disk, where None is what nobody knows.

Every command's settings say theirs by :meth:`jaxmodpo.ranges.Settings.cost`, which is given
:class:`Estimates` to ask for counts and prices::

    def cost(self, estimator: Estimates) -> Cost:
        return Cost(disk=300.0 * estimator.rows(self.questions))
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

REPLIES_PER_RANKING = 5
"""where the file of rankings is not there yet, as in the paper"""

REPLY_TOKENS = 320
"""of a usual reply"""

CHARACTERS_PER_TOKEN = 4.0
"""Of English text, roughly: where no tokenizer is given and no call has been counted yet."""


@dataclass
class Cost:
    """Of one phase; None where it depends on what is not known.

    Attributes:
        judge_calls: to the judge; of an endpoint judge each is paid for.
        endpoint_replies: replies asked of an endpoint.
        dollars: for both.
        chip_hours: of one chip.
        disk: bytes left behind.
        while_running: bytes besides, until the phase ends (checkpoints).
        unknown: why something is None, in words.
        notes: what else is to be said, in words.
    """

    judge_calls: int | None = 0
    endpoint_replies: int | None = 0
    dollars: float | None = 0.0
    chip_hours: float | None = 0.0
    disk: float | None = 0.0
    while_running: float = 0.0
    unknown: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def not_estimated(cls, command: str) -> Cost:
        """Return the cost of a command that computes and that nobody estimates: unknown, not
        nothing.
        """
        return cls(chip_hours=None, disk=None, unknown=[f"{command} is not estimated"])

    def add(self, more: Cost) -> None:
        """Add another phase's cost; what is unknown of either is unknown of both."""
        for name in ("judge_calls", "endpoint_replies", "dollars", "chip_hours", "disk"):
            amount = getattr(self, name)
            further = getattr(more, name)
            # One phase that nobody can price makes the sum unknown: a sum of the others would be
            # read as the price of all.
            total = None if amount is None or further is None else amount + further
            setattr(self, name, total)
        # Phases run one after the other, and each takes its checkpoints away at its end.
        self.while_running = max(self.while_running, more.while_running)
        self.unknown += more.unknown


class Unknown(Exception):
    """What depends on a file or folder that is not there, or on what nobody estimates.

    Attributes:
        path: what is missing.
    """

    def __init__(self, path: Path, why: str = "is not there"):
        super().__init__(f"{path} {why}")
        self.path = path


WeightFormat = Literal["bfloat16", "float32", "int8", "nf4"]
"""number formats of a base's weights"""


class SamplerSettings(Protocol):
    """What the cost of sampling is counted by; ``model`` is None for an endpoint, whose replies are
    priced and not counted.
    """

    @property
    def model(self) -> Path | None: ...
    @property
    def base_dtype(self) -> WeightFormat: ...
    @property
    def max_prompt_length(self) -> int: ...
    @property
    def max_new_tokens(self) -> int: ...
    @property
    def samples(self) -> int: ...
    @property
    def mesh(self) -> tuple[int, int, int] | None: ...


class BatchedSamplerSettings(SamplerSettings, Protocol):
    """What a sampler's speed and memory are counted by."""

    @property
    def batch_size(self) -> int: ...


class AdapterTrainingSettings(Protocol):
    """What the cost of training an adapter is counted by."""

    @property
    def model(self) -> Path: ...
    @property
    def base_dtype(self) -> WeightFormat: ...
    @property
    def max_length(self) -> int: ...
    @property
    def epochs(self) -> int: ...
    @property
    def output_dir(self) -> Path: ...

    # Its class is the models', which the foundation does not import.
    @property
    def lora(self) -> Any: ...


class RewardTrainingSettings(Protocol):
    """What the cost of training reward models is counted by."""

    @property
    def model(self) -> Path: ...
    @property
    def refit(self) -> bool: ...
    @property
    def max_length(self) -> int: ...
    @property
    def epochs(self) -> int: ...


class PaidJudgeSettings(Protocol):
    """What the price of a judge's calls is counted by."""

    @property
    def judge(self) -> str | None: ...
    @property
    def judge_model(self) -> str: ...
    @property
    def model_table(self) -> str: ...
    @property
    def prompts(self) -> str: ...
    @property
    def criteria(self) -> str: ...
    @property
    def only(self) -> tuple[str, ...]: ...


class Estimates(Protocol):
    """What settings ask for to say a command's cost; :class:`jaxmodpo.estimate.Estimator` computes
    it.

    What depends on a file that is not there and that no earlier phase writes raises
    :class:`Unknown`.

    Attributes:
        counts: rows by file that the phases so far will have written; a command adds its own.
        per_question: of these, replies to a question, or of a ranking.
        adapters: bytes by folder.
    """

    counts: dict[Path, int]
    per_question: dict[Path, int]
    adapters: dict[Path, float]

    def rows(self, path: Path) -> int: ...
    def posts_to_come(self, files: Sequence[Path], absent: Sequence[Path]) -> int: ...
    def replies_per_question(self, responses: Path) -> int: ...
    def pairs(self, path: Path, per_question: Any = "best-worst") -> int: ...
    def replies(self, paths: Sequence[Path], per_question: Any = "best-worst") -> int: ...
    def adapter_bytes(self, folder: Path) -> float: ...
    def model_bytes(self, model: Path) -> float: ...
    def sampling(
        self, config: SamplerSettings, replies: int, rows: int, adapters: float = 0.0
    ) -> float: ...
    def sampler_notes(self, config: BatchedSamplerSettings, adapters: float = 0.0) -> list[str]: ...
    def sampled_adapters(self, folders: Iterable[Path | None], base_dtype: str) -> float: ...
    def scoring(self, model: Path, sequences: int, models: int = 1) -> float: ...
    def rewarding(self, model: Path, sequences: int, longest: int) -> float: ...
    def training(
        self,
        config: AdapterTrainingSettings,
        replies: int,
        runs: int = 1,
        *,
        has_reference: bool = True,
    ) -> Cost: ...
    def reward_training(self, config: RewardTrainingSettings, sequences: Sequence[int]) -> Cost: ...
