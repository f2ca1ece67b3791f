"""The settings that every training command takes: of any run, of a policy's run, of a run on
preferences.

A method's own settings inherit the closest of the three, as in::

    @dataclass(frozen=True, kw_only=True)
    class DPOConfig(PreferenceTrainingConfig):
        pairs: Path
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from jaxmodpo.data.batches import Batching
from jaxmodpo.data.held_out import held_out
from jaxmodpo.data.text import PromptStyle, check_day
from jaxmodpo.errors import UserError
from jaxmodpo.models.attention import Backend
from jaxmodpo.models.lora import PROJECTIONS, LoraConfig
from jaxmodpo.models.quantized import BaseDtype
from jaxmodpo.models.remat import Remat
from jaxmodpo.policy.distributed import DeviceConfig
from jaxmodpo.ranges import (
    Count,
    CountOrZero,
    Incidental,
    NotNegative,
    Positive,
    Seed,
    Settings,
    ShareBelowOne,
)
from jaxmodpo.schema import Range
from jaxmodpo.training.tracking import Tracker, check_trackers


@dataclass(frozen=True, kw_only=True)
class OptimizerOptions(Settings, help_group="optimizer"):
    """How parameters are updated."""

    learning_rate: Positive = 5e-6
    """peak, reached after the warm-up; cosine decay to 0 from there"""
    warmup_ratio: ShareBelowOne = 0.1
    """share of the updates in which the learning rate rises from 0"""
    weight_decay: NotNegative = 0.01
    """decoupled, as in AdamW"""
    max_grad_norm: Positive = 1.0
    """clip the gradient's global norm to this"""
    max_skipped: Count = 5
    """stop after this many updates in a row whose loss or gradient was not finite; such updates are
    left out"""


@dataclass(frozen=True, kw_only=True)
class BatchOptions(Settings, help_group="batch"):
    """How many examples an update sees, and how often each is seen."""

    batch_size: Count = 4
    """examples in memory at a time (pairs, for preference losses), over all devices"""
    gradient_accumulation: Count = 4
    """batches that are added up for one update"""
    epochs: Count = 3
    """passes over the data"""
    seed: Seed = 0
    """of the data order, the dropout and fresh parameters"""


@dataclass(frozen=True, kw_only=True)
class ValidationOptions(Settings, help_group="validation"):
    """What is held out, when it is evaluated, and what follows from it."""

    validation_fraction: ShareBelowOne = 0.1
    """share of the questions held out for evaluation; with 0 nothing is evaluated and the last
    parameters are kept"""
    eval_every: Count = 50
    """updates between two evaluations; there is one more at the end"""
    evaluations_per_epoch: Count | None = None
    """evaluations in a pass over the data, in place of eval_every"""
    best_metric: Literal["loss", "accuracy"] = "loss"
    """of the evaluations, which one says whose parameters are kept; accuracy is weighted where
    objectives are"""
    patience: CountOrZero = 3
    """stop after this many evaluations in a row without a better one; 0 never stops early"""


@dataclass(frozen=True, kw_only=True)
class RunFolderOptions(Settings, help_group="output"):
    """Where a run is written, and how often."""

    output_dir: Incidental[Path]
    """the run's folder, for its model, metrics and checkpoints"""
    log_every: Incidental[Count] = 10
    """updates between two lines of metrics.jsonl"""
    save_every: Incidental[Count] = 50
    """updates between two checkpoints"""
    keep_checkpoints: Incidental[bool] = False
    """keep the Orbax checkpoints of a finished run"""
    track: Incidental[tuple[Tracker, ...]] = ()
    """write to tensorboard or wandb besides metrics.jsonl"""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(
    DeviceConfig, RunFolderOptions, ValidationOptions, BatchOptions, OptimizerOptions
):
    """What every training command can be told."""

    def check(self) -> None:
        super().check()
        check_trackers(self.track)

    def held_out(self, questions: Sequence[str]) -> np.ndarray:
        """Return which examples of these questions are evaluated and not trained on, ``[examples]``
        bool.
        """
        return held_out(questions, self.validation_fraction, self.seed)


@dataclass(frozen=True, kw_only=True)
class BaseModelOptions(Settings, help_group="model"):
    """Which model is aligned, and in which precision it is held."""

    model: Path
    """the base model's Hugging Face folder"""
    base_dtype: BaseDtype = "bfloat16"
    """of the frozen base weights; int8 and nf4 quantize the projections block by block"""


@dataclass(frozen=True, kw_only=True)
class AdapterOptions(Settings, help_group="adapter"):
    """The shape of the adapter, which is all that is trained."""

    lora_rank: Count = 64
    """r, the inner dimension of the adapter's matrices"""
    lora_alpha: Positive = 128.0
    """the adapter's scale is alpha / r"""
    lora_dropout: ShareBelowOne = 0.05
    """on the adapter's input"""
    lora_targets: tuple[str, ...] = PROJECTIONS
    """projections that get an adapter"""
    lora_rslora: bool = False
    """rank-stabilised: the scale is alpha / √r"""


@dataclass(frozen=True, kw_only=True)
class TextOptions(Settings, help_group="text"):
    """How a question is put to the model, and how long texts may be."""

    prompt_style: PromptStyle = "instruct"
    """instruct: the paper's prompt; chat: the tokenizer's template on the bare question"""
    prompt_date: str | None = None
    """YYYY-MM-DD, which a chat template takes for today; by default the day on which the run
    began"""
    max_prompt_length: Annotated[int, Range(least=2)] = 512
    """tokens; in a longer prompt the question loses its start"""
    max_length: Count = 1024
    """tokens of prompt and response; a longer response loses its end"""


@dataclass(frozen=True, kw_only=True)
class ComputationOptions(Settings, help_group="computation"):
    """How a step is computed, at which cost in memory and time."""

    attention: Backend = "auto"
    """auto: splash on TPUs and cuDNN on GPUs where they can, XLA otherwise"""
    remat: Remat = "full"
    """what the backward pass computes again: whole layers, all but matrix products (dots are kept),
    or nothing"""
    batching: Batching = "packed"
    """packed: sequences end to end in rows, told apart by segments; padded: one a row"""
    reference: Literal["precomputed", "in_step"] = "precomputed"
    """the reference's log-probabilities once and kept on disk, or anew in every step"""
    cache_dir: Incidental[Path | None] = None
    """where reference log-probabilities and margins are kept; default $JAXMODPO_CACHE or
    ~/.cache/jaxmodpo"""


@dataclass(frozen=True, kw_only=True)
class PolicyTrainingConfig(
    TrainingConfig, ComputationOptions, TextOptions, AdapterOptions, BaseModelOptions
):
    """What every ``align`` command can be told."""

    def check(self) -> None:
        super().check()
        check_day(self.prompt_date)
        if self.max_prompt_length >= self.max_length:
            raise UserError(
                f"--max-prompt-length must be below --max-length, not {self.max_prompt_length} of"
                f" {self.max_length}"
            )
        unknown = sorted(set(self.lora_targets) - set(PROJECTIONS))
        if unknown or not self.lora_targets:
            raise UserError(
                f"--lora-targets must be some of {', '.join(PROJECTIONS)}; got"
                f" {', '.join(unknown) or 'none'}"
            )

    @property
    def lora(self) -> LoraConfig:
        # A whole number would be another type, and another compilation.
        alpha, dropout = float(self.lora_alpha), float(self.lora_dropout)
        return LoraConfig(self.lora_rank, alpha, dropout, self.lora_targets, self.lora_rslora)


@dataclass(frozen=True, kw_only=True)
class PreferenceTrainingConfig(PolicyTrainingConfig, help_group="objective"):
    """What every method that learns from preferences can be told besides."""

    beta: Positive = 0.1
    """strength of the pull towards the reference"""
    sft_weight: NotNegative = 0.0
    """adds this times the chosen responses' negative log-likelihood per token"""
