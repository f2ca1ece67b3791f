"""What a command's settings say of themselves where they are declared.

``batch_size: Count = 4`` says that a batch has at least one example; ranges are checked in one
place, before a command does anything. ``log_every: Incidental[Count] = 10`` says besides that it is
no part of what a run computes, so that a resumed run may have another. A command's dataclass is a
:class:`CommandSettings`, which also says what the command costs; what two settings say together it
adds to ``check``, which the command, ``run`` and its dry run call first::

    @dataclass(frozen=True, kw_only=True)
    class CountConfig(CommandSettings, help_group="data"):
        questions: Path  # an input: its hash is part of the run's identity
        output_dir: Incidental[Path]
        least: Count = 1

        def cost(self, estimator: Estimates) -> Cost:
            return Cost()  # takes seconds, and leaves little behind
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple, TypeVar

from jaxmodpo.costs import Cost, Estimates
from jaxmodpo.errors import UserError
from jaxmodpo.flags.help_groups import GroupName
from jaxmodpo.schema import Range

if TYPE_CHECKING:
    from jaxmodpo.results.manifest import Manifest

Count = Annotated[int, Range(least=1)]
"""of things that must be there"""
CountOrZero = Annotated[int, Range(least=0)]
"""of things of which there may be none"""
Positive = Annotated[float, Range(above=0)]
NotNegative = Annotated[float, Range(least=0)]
FractionUpToOne = Annotated[float, Range(least=0, most=1)]
Probability = Annotated[float, Range(above=0, most=1)]
FractionBelowOne = Annotated[float, Range(least=0, below=1)]
"""such as a dropout, which cannot drop everything"""
Seed = Annotated[int, Range(least=0, most=2**32 - 1)]
"""what NumPy and JAX alike take"""


# An object of its own type: in a type's metadata, where ranges and flags' settings stand too, it
# can be taken for nothing else.
class _Mark:
    """Stands in a type beside what it says of a setting."""


_INCIDENTAL = _Mark()
_T = TypeVar("_T")
Incidental = Annotated[_T, _INCIDENTAL]
"""a setting that says where or how fast, and never what comes out; it may differ when a run is
resumed"""


class SettingsFile(NamedTuple):
    """A YAML file of settings that one command leaves for another to take as its ``--config``."""

    path: Path
    settings_class: type[Settings]
    """whose settings the file holds"""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a command can be told, and what follows from it: whether it can run, and what it reads.

    A class of these may be a command's, or a group that several commands share, such as those of a
    training loop or of the devices. A group costs nothing by itself, so that it has no ``cost``; a
    command's class adds one, see :class:`CommandSettings`.
    """

    help_group: ClassVar[GroupName | None] = None
    """the group of ``--help`` for what this class declares; a subclass names its own"""

    def __init_subclass__(cls, *, help_group: GroupName | None = None, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        cls.help_group = help_group

    def check(self) -> None:
        """Refuse settings with which the command could not run anywhere, before it reads or writes
        anything.

        Raises:
            UserError: naming the setting.
        """
        check_ranges(self)

    def check_machine(self) -> None:
        """Refuse what this machine lacks for it, such as the key of an endpoint; a dry run does
        without.

        Raises:
            UserError: what is missing.
        """

    def input_paths(self) -> dict[str, Path]:
        """Return the files and folders that decide what comes out, by the names they have in the
        manifest.

        By default every setting that is a path, or several, and not incidental.
        """
        # By type and not by name, so that a setting added later is fingerprinted without anybody
        # thinking of it.
        apart = incidental(type(self))
        paths: dict[str, Path] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in apart:
                continue
            if isinstance(value, Path):
                paths[field.name] = value
            elif isinstance(value, tuple):
                listed_paths = [path for path in value if isinstance(path, Path)]
                for number, path in enumerate(listed_paths, 1):
                    paths[f"{field.name} {number}"] = path
        return paths

    def recorded(self) -> Settings:
        """Return the settings as the manifest records them; those that are recorded alike go on
        with each other.
        """
        return self

    def goes_on(self, manifest: Manifest) -> bool:
        """Return whether the finished run of a manifest has more to do, as after
        ``--retry-errors``.
        """
        return False

    def settings_file(self) -> SettingsFile | None:
        """Return the file of settings that the command leaves, as a search leaves its best; None
        where it leaves none.
        """
        return None


@dataclass(frozen=True, kw_only=True)
class CommandSettings(Settings, abc.ABC):
    """The settings of a whole command: those of a :class:`Settings`, and what the command costs.

    A command that forgets its cost is abstract: the type checker refuses to make its settings, and
    so does Python, long before an experiment asks for the price.
    """

    spends: ClassVar[tuple[str, ...]] = ("chip_hours",)
    """fields of ``Cost`` that such a command may spend on, besides disk: unknown where its data are
    not known yet"""

    @abc.abstractmethod
    def cost(self, estimator: Estimates) -> Cost:
        """Return what the command will ask for, and tell the estimator how many rows it will have
        written.

        Raises:
            Unknown: all of it depends on data that are not there and that no earlier phase writes.
            UserError: the data that are there are too few for the settings.
        """


@dataclass(frozen=True, kw_only=True)
class Unestimated(CommandSettings):
    """Settings of a command that computes something and whose cost nobody estimates: unknown, and
    not nothing.
    """

    def cost(self, estimator: Estimates) -> Cost:
        return Cost.not_estimated("this command")


def values_of(settings: Settings, declared_by: type[Settings]) -> dict[str, Any]:
    """Return the values of those settings that a class declares or inherits, by name.

    So a search hands its method's settings on to a trial, and a sweep those of all trainings to
    each of its trainings::

        DPOConfig(**values_of(sweep, PreferenceTrainingConfig), pairs=pairs)

    Args:
        settings: a command's.
        declared_by: a class that the settings' class inherits. Names in common with any other class
            would not do: two commands may mean different things by one name.
    """
    assert isinstance(settings, declared_by)
    return {field.name: getattr(settings, field.name) for field in dataclasses.fields(declared_by)}


def check_ranges(settings: Any, source: str = "") -> None:
    """Refuse numbers outside their declared range, and any that is infinite or undefined.

    Args:
        settings: a dataclass.
        source: what to call it in an error ("demo.yaml, phase dpo").

    Raises:
        UserError: such as ``--temperature must be at least 0, not -1``.
    """
    ranges = declared(type(settings))
    prefix = f"{source}: " if source else ""
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        flag = f"--{field.name.replace('_', '-')}"
        for number in value if isinstance(value, list | tuple) else (value,):
            # True is a number in Python, and no setting's.
            if isinstance(number, bool) or not isinstance(number, int | float):
                continue
            if isinstance(number, float) and not math.isfinite(number):
                raise UserError(f"{prefix}{flag} must be a finite number, not {number}")
            bounds = ranges.get(field.name)
            if bounds is not None and not bounds.holds(number):
                raise UserError(f"{prefix}{flag} must be {words(bounds)}, not {_shown(number)}")


# Resolving a dataclass's annotations takes a millisecond; a search checks its settings per trial.
@functools.cache
def declared(cls: type) -> Mapping[str, Range]:
    """Return the ranges that a dataclass declares, by setting."""
    ranges: dict[str, Range] = {}
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        bounds = _range_in(hint)
        if bounds is not None:
            ranges[name] = bounds
    return ranges


@functools.cache
def incidental(cls: type) -> frozenset[str]:
    """Return the settings of a dataclass that are no part of a run's identity."""
    names: set[str] = set()
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        if _INCIDENTAL in getattr(hint, "__metadata__", ()):
            names.add(name)
    return frozenset(names)


def _range_in(hint: Any) -> Range | None:
    """Return the range in a type: its own, or that of what it may be or hold.

    So ``Count | None`` and ``tuple[Count, ...]`` have the range of ``Count``.
    """
    if typing.get_origin(hint) is Annotated:
        for mark in hint.__metadata__:
            if isinstance(mark, Range):
                return mark
    for inner_hint in typing.get_args(hint):
        bounds = _range_in(inner_hint)
        if bounds is not None:
            return bounds
    return None


def words(bounds: Range) -> str:
    """Return a range as it follows "must be": ``at least 1``, ``from 0 to 1``."""
    if bounds.least is not None and bounds.most is not None:
        return f"from {bounds.least} to {bounds.most}"
    numbers = {
        "at least": bounds.least,
        "above": bounds.above,
        "at most": bounds.most,
        "below": bounds.below,
    }
    stated = [f"{word} {number}" for word, number in numbers.items() if number is not None]
    return " and ".join(stated)


def _shown(number: float) -> str:
    """Return a number as a user would have written it: -1 and not -1.0."""
    return str(int(number)) if number == int(number) else str(number)
