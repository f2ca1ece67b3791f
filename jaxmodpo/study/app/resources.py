"""Where raters find help: a small YAML file, ours or the researcher's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jaxmodpo.config import builtin, load_yaml
from jaxmodpo.errors import UserError
from jaxmodpo.schema import read_as


@dataclass(frozen=True)
class CrisisResource:
    """A service that somebody in distress can turn to.

    Attributes:
        country: where it is for.
        service: its name.
        contact: how to reach it, as ``call or text 988``.
    """

    country: str
    service: str
    contact: str


@dataclass(frozen=True)
class CrisisResourcesFile:
    """The services named at the foot of every page of a study.

    Attributes:
        resources: in the order in which they are shown.
    """

    resources: list[CrisisResource]


def load_resources(source: str | Path) -> list[CrisisResource]:
    """Read services from a YAML file, or from ours by its name.

    Raises:
        UserError: a key is missing or unknown, or there is none.
    """
    path = builtin("study", source)
    resources: CrisisResourcesFile = read_as(load_yaml(path), CrisisResourcesFile, str(path))
    if not resources.resources:
        raise UserError(f"{path}: resources is empty; raters need to know where to find help")
    return resources.resources
