"""The settings of ``jaxmodpo tune``: a method's own, and what a search needs besides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxmodpo.errors import UserError
from jaxmodpo.methods.dpo import DPOConfig
from jaxmodpo.methods.joint import JointConfig
from jaxmodpo.methods.modpo import MODPOConfig
from jaxmodpo.methods.reward import RewardConfig
from jaxmodpo.methods.sft import SFTConfig
from jaxmodpo.search.space import load_space
from jaxmodpo.training.trainer import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class TuneSettings:
    """What every search can be told besides."""

    trials: int = 20
    """in all, over all processes and earlier runs of this study; pruned and failed ones count"""
    space: str = "paper"
    """a YAML file with the settings to vary, or the name of one of ours (paper)"""
    study: str | None = None
    """the study's storage, as a URL that SQLAlchemy takes; by default study.db in output_dir"""
    prune: bool = True
    """stop trials whose evaluations lie below the median of the earlier ones' at the same point"""
    keep_trials: bool = False
    """keep every trial's adapter or model, not the best one's alone"""

    def check_search(self, part: str, settings: type[TrainingConfig]) -> None:
        """Refuse a search that has nothing to try or to compare by, and a space that is none.

        Args:
            part: which part of a space file is the method's.
            settings: the method's dataclass.
        """
        validation_fraction = getattr(self, "validation_fraction", 0.0)
        if self.trials < 1 or not validation_fraction > 0:
            raise UserError(
                "a search needs --trials of at least 1 and a --validation-fraction above 0 to compare them by"
            )
        load_space(self.space, part, settings)


@dataclass(frozen=True, kw_only=True)
class TuneSFTConfig(SFTConfig, TuneSettings):
    """Search settings for 'align sft'."""

    evaluations_per_epoch: int = 2
    best_metric: Literal["loss"] = "loss"
    """what trials are compared by, and so within them too"""

    def check(self) -> None:
        super().check()
        self.check_search("sft", SFTConfig)


@dataclass(frozen=True, kw_only=True)
class TuneDPOConfig(DPOConfig, TuneSettings):
    """Search settings for 'align dpo'."""

    evaluations_per_epoch: int = 2
    best_metric: Literal["accuracy"] = "accuracy"
    """what trials are compared by, and so within them too"""

    def check(self) -> None:
        super().check()
        self.check_search("preference", DPOConfig)


@dataclass(frozen=True, kw_only=True)
class TuneMODPOConfig(MODPOConfig, TuneSettings):
    """Search settings for 'align modpo'."""

    evaluations_per_epoch: int = 2
    best_metric: Literal["accuracy"] = "accuracy"
    """what trials are compared by, and so within them too"""

    def check(self) -> None:
        super().check()
        self.check_search("preference", MODPOConfig)


@dataclass(frozen=True, kw_only=True)
class TuneJointConfig(JointConfig, TuneSettings):
    """Search settings for 'align joint'."""

    evaluations_per_epoch: int = 2
    best_metric: Literal["accuracy"] = "accuracy"
    """what trials are compared by, and so within them too"""

    def check(self) -> None:
        super().check()
        self.check_search("preference", JointConfig)


@dataclass(frozen=True, kw_only=True)
class TuneRewardConfig(RewardConfig, TuneSettings):
    """Search settings for 'reward'."""

    evaluations_per_epoch: int = 2
    best_metric: Literal["accuracy"] = "accuracy"
    """what trials are compared by, and so within them too"""

    def check(self) -> None:
        if self.all or self.refit or self.validation is not None:
            raise UserError(
                "tune reward takes no --all, --refit or --validation: it searches for one criterion's settings"
            )
        super().check()
        self.check_search("reward", RewardConfig)
