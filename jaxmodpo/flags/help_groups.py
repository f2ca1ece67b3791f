"""The groups that ``--help`` sorts a command's settings into.

A setting belongs to the group of the class that declares it first; one that stands among others
names its own group. Nothing else lists settings by group, so a new setting is sorted where it is
declared::

    @dataclass(frozen=True, kw_only=True)
    class DPOConfig(PreferenceTrainingConfig, help_group="objective"):
        link: Link = "sigmoid"
        pairs_per_question: Annotated[PairsPerQuestion, HelpGroup("data")] = "best-worst"
"""

from __future__ import annotations

import functools
import typing
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

GroupName = Literal[
    "run",
    "data",
    "model",
    "adapter",
    "text",
    "objective",
    "optimizer",
    "batch",
    "validation",
    "sampling",
    "judge",
    "endpoint",
    "votes",
    "budget",
    "search",
    "selection",
    "world",
    "measurement",
    "devices",
    "computation",
    "output",
]
"""every group, in the order in which help shows them"""

GROUP_NAMES: tuple[GroupName, ...] = typing.get_args(GroupName)


class HelpGroup(NamedTuple):
    """Stands in the type of a setting whose group is not that of its class."""

    name: GroupName


@functools.cache
def groups_of(cls: type) -> Mapping[str, GroupName]:
    """Return the group of each setting of a dataclass; a setting without a group is left out.

    A subclass that declares a setting again, to change its default, leaves it in its group.
    """
    groups: dict[str, GroupName] = {}
    for base in reversed(cls.__mro__):
        # The attribute is looked up in the class itself, since a group is not inherited: what a
        # subclass adds is rarely of its base's kind.
        class_group: GroupName | None = vars(base).get("help_group")
        hints = typing.get_type_hints(base, include_extras=True)
        for setting in vars(base).get("__annotations__", {}):
            own_group = _own_group(hints[setting])
            if own_group is not None:
                groups[setting] = own_group
            elif class_group is not None:
                groups.setdefault(setting, class_group)
    return groups


def _own_group(hint: Any) -> GroupName | None:
    """Return the group that a setting's type names."""
    for mark in getattr(hint, "__metadata__", ()):
        if isinstance(mark, HelpGroup):
            return mark.name
    return None
