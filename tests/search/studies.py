"""What tests of searches share: trainings that are pretended, and the study that they leave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import optuna

from jaxmodpo.methods.dpo import DPOConfig
from jaxmodpo.training.session import Session

Training = Callable[[DPOConfig, Session], float | None]


class Killed(BaseException):
    """As a kill: nobody handles it, so the study hears nothing."""


def stored(inputs: Path) -> optuna.Study:
    return optuna.load_study(study_name=None, storage=f"sqlite:///{inputs}/shared.db")


def ending(error: BaseException, folders: list[str]) -> Training:
    """A training that notes where it is, and ends with an error."""

    def training(config: DPOConfig, session: Session) -> float:
        folders.append(config.output_dir.name)
        raise error if len(folders) < 10 else Killed("a search that does not end")

    return training
