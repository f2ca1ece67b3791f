"""What the commands of a running study have in common: its file and its database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from jaxmodpo.costs import Cost, Estimates
from jaxmodpo.errors import UserError
from jaxmodpo.flags.help_groups import HelpGroup
from jaxmodpo.ranges import CommandSettings, Incidental

if TYPE_CHECKING:
    from jaxmodpo.study.app.store import Store


@dataclass(frozen=True, kw_only=True)
class StudyPlace(CommandSettings, help_group="data"):
    """A study and what was answered in it."""

    study: Annotated[Path, tyro.conf.Positional]
    """The study file that study sample wrote, study.json."""
    database: Annotated[Incidental[str | None], HelpGroup("data")] = None
    """Where answers are stored: a file of SQLite, or a URL such as postgresql://user@host/name. By
    default answers.sqlite beside the study file."""

    def cost(self, estimator: Estimates) -> Cost:
        return Cost()  # waits for people


def open_place(
    place: StudyPlace,
    *,
    create: bool = False,
    abandoned_hours: float = 24.0,
    quota: int = 0,
    prolific_quotas: Mapping[str, int] | None = None,
) -> Store:
    """Open what a study stores.

    Args:
        place: the study and its database.
        create: make a database that is not there.
        abandoned_hours: hours after which a rater of Prolific who left may lose the place.
        quota: how many raters are wanted in all; 0 means as many as there are places.
        prolific_quotas: the same by study at Prolific.

    Raises:
        UserError: packages of the extra ``study`` are missing, or see ``open_store``.
    """
    try:
        from jaxmodpo.study.app.places import Quota
        from jaxmodpo.study.app.store import open_store
    except ModuleNotFoundError as error:
        raise missing_package(error) from None
    return open_store(
        place.study,
        place.database,
        create=create,
        abandoned_after=abandoned_hours * 3600,
        quota=Quota(quota, prolific_quotas or {}),
    )


def missing_package(error: ModuleNotFoundError) -> UserError:
    """Return what to install."""
    return UserError(f"this needs the package {error.name}: pip install 'jaxmodpo[study]'")
