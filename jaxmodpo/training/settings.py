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
from jaxmodpo.data.text import PromptStyle, check_day, check_lengths
from jaxmodpo.errors import UserError
from jaxmodpo.flags.help_groups import HelpGroup
from jaxmodpo.models.attention import Backend
from jaxmodpo.models.lora import PROJECTIONS, LoraConfig
from jaxmodpo.models.quantized import BaseDtype
from jaxmodpo.models.remat import RematSetting
from jaxmodpo.policy.distributed import DeviceConfig
from jaxmodpo.ranges import (
    Count,
    CountOrZero,
    FractionBelowOne,
    Incidental,
    NotNegative,
    Positive,
    Seed,
    Settings,
)
from jaxmodpo.schema import Range
from jaxmodpo.training.tracking import Tracker, check_trackers


@dataclass(frozen=True, kw_only=True)
class OptimizerOptions(Settings, help_group="optimizer"):
    """How parameters are updated."""

    learning_rate: Positive = 5e-6
    """Highest learning rate. It is reached after the warm-up and decays to 0 as a cosine."""
    warmup_ratio: FractionBelowOne = 0.1
    """Share of the updates in which the learning rate rises from 0."""
    weight_decay: NotNegative = 0.01
    """Weight decay, decoupled from the gradient as in AdamW."""
    max_grad_norm: Positive = 1.0
    """Largest global norm of the gradient. A longer gradient is shortened to it."""
    max_skipped: Count = 5
    """Training ends with an error after this many updates in a row whose loss or gradient was not
    finite. Such updates are left out."""


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(Settings, help_group="validation"):
    """When held-out examples are evaluated, and what follows from it."""

    eval_every: Count = 50
    """Updates between two evaluations. There is one more at the end."""
    evaluations_per_epoch: Count | None = None
    """Evaluations in a pass over the data. It takes the place of eval_every."""
    best_metric: Literal["loss", "accuracy"] = "loss"
    """Held-out metric that selects the parameters to keep. With several objectives the accuracy is
    weighted as they are."""
    patience: CountOrZero = 3
    """Training ends early after this many evaluations in a row without a better one. 0 never ends
    early."""


@dataclass(frozen=True, kw_only=True)
class RunFolderOptions(Settings, help_group="output"):
    """Where a run is written, and how often."""

    output_dir: Incidental[Path]
    """Folder of the run, for its model, metrics and checkpoints."""
    log_every: Incidental[Count] = 10
    """Updates between two lines of metrics.jsonl."""
    save_every: Incidental[Count] = 50
    """Updates between two checkpoints."""
    track: Incidental[tuple[Tracker, ...]] = ()
    """Trackers, tensorboard or wandb, that get the metrics besides metrics.jsonl."""
    profile: Incidental[CountOrZero] = 0
    """Number of updates that are traced into profile/, for TensorBoard's profiler or XProf, from
    the second of this start on. 0 traces none."""


@dataclass(frozen=True, kw_only=True)
class LoopSettings(RunFolderOptions, EvaluationOptions, OptimizerOptions, help_group="batch"):
    """What the training loop is told: all that :func:`jaxmodpo.training.trainer.train` reads, and
    nothing else.
    """

    seed: Seed = 0
    """Seed of the order of the data, the dropout and fresh parameters."""

    def check(self) -> None:
        super().check()
        check_trackers(self.track)


@dataclass(frozen=True, kw_only=True)
class BatchOptions(Settings, help_group="batch"):
    """How many questions an update sees, and how often each is seen."""

    batch_size: Count = 4
    """Questions in memory at a time, over all devices. A question comes with all its pairs, and
    each of its replies is computed once."""
    gradient_accumulation: Count = 4
    """Batches whose gradients are added up for one update."""
    epochs: Count = 3
    """Passes over the data."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(DeviceConfig, LoopSettings, BatchOptions):
    """What every training command can be told: the loop's settings, the batches and the devices."""

    validation_fraction: Annotated[FractionBelowOne, HelpGroup("validation")] = 0.1
    """Share of the questions that are held out for evaluation. With 0 nothing is evaluated, and the
    last parameters are kept."""
    keep_checkpoints: Annotated[Incidental[bool], HelpGroup("output")] = False
    """Keep the Orbax checkpoints of a finished run."""

    def held_out(self, questions: Sequence[str]) -> np.ndarray:
        """Return which examples of these questions are evaluated and not trained on, ``[examples]``
        bool.
        """
        return held_out(questions, self.validation_fraction, self.seed)

    def work_folders(self) -> list[Path]:
        """Return what a finished run needs no more: its checkpoints, unless they are to be kept."""
        return [] if self.keep_checkpoints else [self.output_dir / "checkpoints"]


@dataclass(frozen=True, kw_only=True)
class BaseModelOptions(Settings, help_group="model"):
    """Which model is aligned, and in which precision it is held."""

    model: Path
    """Hugging Face folder of the base model."""
    base_dtype: BaseDtype = "bfloat16"
    """Number format of the frozen base weights. int8 and nf4 quantize the projections block by
    block."""


@dataclass(frozen=True, kw_only=True)
class AdapterOptions(Settings, help_group="adapter"):
    """The shape of the adapter, which is all that is trained."""

    lora_rank: Count = 64
    """Inner dimension r of the adapter's matrices."""
    lora_alpha: Positive = 128.0
    """Numerator of the adapter's scale, alpha / r."""
    lora_dropout: FractionBelowOne = 0.05
    """Dropout on the adapter's input."""
    lora_targets: tuple[str, ...] = PROJECTIONS
    """Projections that get an adapter."""
    lora_rslora: bool = False
    """Rank-stabilized LoRA: the adapter's scale is alpha / √r."""


@dataclass(frozen=True, kw_only=True)
class TextOptions(Settings, help_group="text"):
    """How a question is put to the model, and how long texts may be."""

    prompt_style: PromptStyle = "instruct"
    """How a question is put to the model. instruct: the paper's prompt; chat: the tokenizer's
    template on the bare question."""
    prompt_date: str | None = None
    """Day, as YYYY-MM-DD, that a chat template takes for today. By default it is the day on which
    the run began."""
    max_prompt_length: Annotated[int, Range(least=2)] = 512
    """Most tokens of a prompt. In a longer one the question loses its start."""
    max_length: Count = 1024
    """Most tokens of prompt and response together. A longer response loses its end."""
    cut_replies: Literal["keep", "leave-out"] = "keep"
    """What happens to pairs with a reply that its sampler cut at its most tokens. keep: they are
    trained on, and no end token stands behind the cut reply; leave-out: they are not."""


@dataclass(frozen=True, kw_only=True)
class ComputationOptions(Settings, help_group="computation"):
    """How a step is computed, at which cost in memory and time."""

    attention: Backend = "auto"
    """Implementation of attention. auto takes splash on TPUs and cuDNN on GPUs where they can do
    it, and XLA otherwise. tokamax, by name alone, is for packed rows on Hopper GPUs and later ones
    (pip install 'jaxmodpo[tokamax]')."""
    remat: Incidental[RematSetting] = "auto"
    """What the backward pass computes again to save memory. auto: as little as fits the devices;
    none: nothing; dots: all but matrix products; attention: all but attention; full: whole layers;
    offload: whole layers, whose inputs lie in the host's memory."""
    batching: Batching = "packed"
    """How sequences lie in a batch. packed: end to end in rows, told apart by segment numbers;
    padded: each in a row of its own."""
    reference: Literal["precomputed", "in_step"] = "precomputed"
    """When the reference's log-probabilities are computed. precomputed: once, before training, and
    kept on disk; in_step: in every step."""
    cache_dir: Incidental[Path | None] = None
    """Folder that keeps tokens, reference log-probabilities, margins and, on TPUs and GPUs,
    compiled programs and which --remat fits. By default it is $JAXMODPO_CACHE or
    ~/.cache/jaxmodpo."""


@dataclass(frozen=True, kw_only=True)
class PolicyTrainingConfig(
    TrainingConfig, ComputationOptions, TextOptions, AdapterOptions, BaseModelOptions
):
    """What every ``align`` command can be told."""

    def check(self) -> None:
        super().check()
        check_day(self.prompt_date)
        check_lengths(self.max_prompt_length, self.max_length)
        unknown = sorted(set(self.lora_targets) - set(PROJECTIONS))
        if unknown or not self.lora_targets:
            raise UserError(
                f"--lora-targets must be some of {', '.join(PROJECTIONS)}; got"
                f" {', '.join(unknown) or 'none'}"
            )

    @property
    def lora(self) -> LoraConfig:
        """The adapter's settings as the models take them."""
        # YAML may say 16 where flags say 16.0. A whole number would be another type in the compiled
        # step's arguments, and so another compilation.
        return LoraConfig(
            rank=self.lora_rank,
            alpha=float(self.lora_alpha),
            dropout=float(self.lora_dropout),
            targets=self.lora_targets,
            rslora=self.lora_rslora,
        )


@dataclass(frozen=True, kw_only=True)
class PreferenceTrainingConfig(PolicyTrainingConfig, help_group="objective"):
    """What every method that learns from preferences can be told besides."""

    beta: Positive = 0.1
    """Strength of the pull towards the reference. A smaller beta lets the policy move further."""
    sft_weight: NotNegative = 0.0
    """Weight of the chosen responses' negative log-likelihood per token, which is added to the
    loss."""
