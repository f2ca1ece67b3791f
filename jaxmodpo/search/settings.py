"""The settings of ``jaxmodpo tune``: a method's own, and what a search needs besides."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from jaxmodpo.costs import Cost, Estimates
from jaxmodpo.errors import UserError
from jaxmodpo.methods.dpo import DPOConfig
from jaxmodpo.methods.joint import JointConfig
from jaxmodpo.methods.modpo import MODPOConfig
from jaxmodpo.methods.reward_settings import RewardConfig
from jaxmodpo.methods.sft import SFTConfig
from jaxmodpo.ranges import CommandSettings, Count, Incidental, SettingsFile, values_of
from jaxmodpo.results.manifest import Manifest
from jaxmodpo.search.space import Dimension, as_rows, load_space
from jaxmodpo.training.settings import TrainingConfig

BEST = "best.yaml"
"""the file's name, in a search's folder, that holds the best trial's settings"""


@dataclass(frozen=True, kw_only=True)
class TuneSettings(CommandSettings, help_group="search"):
    """Settings that every search has besides those of its method."""

    trials: Incidental[Count] = 20
    """Number of trials of the whole study, over all processes and earlier runs; pruned and failed
    trials count. Raise it to go on with a finished search."""
    space: str = "paper"
    """YAML file with the settings to vary and their ranges, or the name of one that comes with
    jaxmodpo; paper has the ranges of the paper's search."""
    study: Incidental[str | None] = None
    """URL of the study's database, as SQLAlchemy takes it; by default study.db in the output
    folder. Give a database on a server to let several machines share one search."""
    prune: bool = True
    """Stop a trial early when its held-out evaluation lies below the median of earlier trials at
    the same point."""
    keep_trials: Incidental[bool] = False
    """Keep the adapter or model of every trial; otherwise only the best trial's is kept."""

    evaluations_per_epoch: Count = 2
    """Number of held-out evaluations in each pass over the data. Trials are compared and pruned at
    these points."""
    best_metric: Literal["accuracy"] = "accuracy"
    """Held-out metric that trials are compared by; it also selects the checkpoint within a
    trial."""

    trains: ClassVar[type[TrainingConfig]]
    """the method's dataclass, which comes after this one in the bases"""
    space_section: ClassVar[str] = "preference"
    """which section of a space file is the method's"""

    def check(self) -> None:
        """Refuse what the method would, a search that has nothing to try or to compare by, and a
        space that is none.
        """
        super().check()
        # Every search inherits its method's settings besides these.
        assert isinstance(self, TrainingConfig)
        if not self.validation_fraction:
            raise UserError("a search needs a --validation-fraction above 0 to compare trials by")
        assert self.loaded_space  # reading it refuses a space that is none

    @functools.cached_property
    def loaded_space(self) -> dict[str, Dimension]:
        """The space, read once: what was checked is then what is recorded and searched, even if
        the file changes meanwhile.
        """
        return load_space(self.space, self.space_section, self.trains)

    def recorded(self) -> TuneSettings:
        """Record the space's content, wherever its file lies: a search over another one is another
        search.
        """
        return dataclasses.replace(self, space=as_rows(self.loaded_space))

    def goes_on(self, manifest: Manifest) -> bool:
        """Return whether more trials are asked for than there are, or some were still under way
        elsewhere.
        """
        results = manifest.results
        return results.get("trials", 0) < self.trials or bool(results.get("still_running"))

    def settings_file(self) -> SettingsFile:
        """Return where the best settings will lie, which train a model of the method."""
        assert isinstance(self, TrainingConfig)
        return SettingsFile(self.output_dir / BEST, self.trains)

    def cost(self, estimator: Estimates) -> Cost:
        """Return the cost of a search: every trial as long as the settings would take, none
        pruned.
        """
        # The method's class, which follows this one in the bases of every search, prices one trial.
        trial_cost = super().cost(estimator)  # pyrefly: ignore[abstract-method-call]
        assert trial_cost.chip_hours is not None
        return dataclasses.replace(trial_cost, chip_hours=trial_cost.chip_hours * self.trials)


@dataclass(frozen=True, kw_only=True)
class TuneSFTConfig(TuneSettings, SFTConfig):
    """Search settings for 'align sft'."""

    best_metric: Literal["loss"] = "loss"  # pyrefly: ignore
    """Held-out metric that trials are compared by; it also selects the checkpoint within a
    trial."""

    trains = SFTConfig
    space_section = "sft"


@dataclass(frozen=True, kw_only=True)
class TuneDPOConfig(TuneSettings, DPOConfig):
    """Search settings for 'align dpo'."""

    trains = DPOConfig


@dataclass(frozen=True, kw_only=True)
class TuneMODPOConfig(TuneSettings, MODPOConfig):
    """Search settings for 'align modpo'."""

    trains = MODPOConfig


@dataclass(frozen=True, kw_only=True)
class TuneJointConfig(TuneSettings, JointConfig):
    """Search settings for 'align joint'."""

    trains = JointConfig


@dataclass(frozen=True, kw_only=True)
class TuneRewardConfig(TuneSettings, RewardConfig):
    """Search settings for 'reward'."""

    trains = RewardConfig
    space_section = "reward"

    def check(self) -> None:
        if self.all or self.refit or self.validation is not None:
            raise UserError(
                "tune reward takes no --all, --refit or --validation: it searches for one"
                " criterion's settings"
            )
        super().check()


SearchConfig = TuneSFTConfig | TuneDPOConfig | TuneMODPOConfig | TuneJointConfig | TuneRewardConfig


def trial_settings(config: SearchConfig, params: Mapping[str, Any], folder: Path) -> TrainingConfig:
    """Return a trial's settings: those of the search, with the trial's own."""
    settings = values_of(config, config.trains)
    settings["output_dir"] = folder
    settings |= params
    return config.trains(**settings)
