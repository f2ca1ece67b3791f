"""A command's settings from flags, from a YAML file, or from both.

Every command is a frozen dataclass. :func:`parse` makes one from the command line, with the values
of ``--config FILE.yaml`` as defaults; :func:`from_mapping` makes one from a mapping alone, as an
experiment file holds it. Both turn everything into the words of one command line first, so that a
file's values are checked as flags are::

    parse(SoupConfig, ["--config", "soup.yaml", "--weights", "0.5", "0.5"], "jaxmodpo soup")
    from_mapping(SoupConfig, {"weights": [0.5, 0.5], …}, "demo.yaml, phase soup")

An unknown key or flag is an error that names the nearest one there is.
"""

from __future__ import annotations

import itertools
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from jaxmodpo.config import load_yaml
from jaxmodpo.errors import UserError
from jaxmodpo.flags.field_texts import paragraphs
from jaxmodpo.flags.help_text import print_help
from jaxmodpo.flags.names import setting_of
from jaxmodpo.flags.parser import parse_words
from jaxmodpo.flags.paths import refuse_remote
from jaxmodpo.flags.words import flag_words, given_by_place, settings_by_name

Config = TypeVar("Config")


def from_mapping(
    cls: type[Config],
    settings: Mapping[str, Any],
    source: str,
    defaults: Mapping[str, Any] | None = None,
) -> Config:
    """Make a settings dataclass from a mapping, as ``--config`` or an experiment file gives it.

    Args:
        cls: the dataclass.
        settings: names to values; a dash in a name counts as an underscore.
        source: what to call the mapping in an error ("demo.yaml, phase dpo").
        defaults: for settings that it leaves out.

    Raises:
        UserError: an unknown, missing or ill-typed setting.
    """
    values = settings_by_name(cls, defaults or {}, source)
    values |= settings_by_name(cls, settings, source)
    words = flag_words(cls, values, source)
    return parse_words(cls, words, source)


def parse(cls: type[Config], arguments: Sequence[str], prog: str) -> Config:
    """Make a settings dataclass from command-line arguments.

    ``--config FILE.yaml`` (anywhere among them) gives values that flags override. A flag that takes
    any number of values may be given several times; any other once.

    Args:
        cls: the dataclass.
        arguments: what follows the command's name.
        prog: the command's name, as in ``jaxmodpo align dpo``.

    Raises:
        UserError: an unknown, missing or ill-typed setting; a flag twice; two files that give the
            same setting.
        SystemExit: after the help, where it is asked for.
    """
    if {"-h", "--help"} & set(arguments):
        note = "--config FILE.yaml gives the same settings from a file."
        print_help(cls, prog, [*paragraphs(cls), note])
    source = prog.removeprefix("jaxmodpo ")
    words, files = _without_config_files(arguments)
    file_values = _values_of_files(cls, files, source)
    words = _collected(cls, words, source)
    # A flag overrides a file, so a file's value is used where no flag gives another.
    flags = [word for word in words if word.startswith("--")]
    flag_settings = {setting_of(flag).removeprefix("no_") for flag in flags}
    # Words before the first flag take the place of what a file says of the same settings. They stay
    # in front: behind a file's flag they would be taken for its values.
    by_place = list(itertools.takewhile(lambda word: not word.startswith("--"), words))
    if by_place:
        flag_settings |= given_by_place(cls)
    defaults = {name: value for name, value in file_values.items() if name not in flag_settings}
    file_words = flag_words(cls, defaults, source)
    return parse_words(cls, by_place + file_words + words[len(by_place) :], source)


def _without_config_files(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split arguments into those that are not about ``--config``, and the names of its files."""
    words: list[str] = []
    files: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        flag, attached, name = argument.partition("=")
        if flag != "--config":
            words.append(argument)
            continue
        if not attached:
            name = next(remaining, "")
        if not name:
            raise UserError("--config needs a YAML file")
        files.append(name)
    return words, files


def _values_of_files(cls: type, files: Sequence[str], source: str) -> dict[str, Any]:
    """Return the settings that several files give together.

    Raises:
        UserError: a file that cannot be read, or a setting that two of them give.
    """
    values: dict[str, Any] = {}
    for name in files:
        refuse_remote(name, "--config", source)
        added = settings_by_name(cls, load_yaml(Path(name)), name)
        # Here an error can still name the file.
        flag_words(cls, added, name)
        for setting in added:
            if setting in values:
                raise UserError(
                    f"{name}: an earlier --config gives the setting '{setting}' as well; leave one"
                    " out"
                )
        values |= added
    return values


def _collected(cls: type, arguments: Sequence[str], source: str) -> list[str]:
    """Put the values of a flag that was given several times behind its first occurrence.

    ``--set a=1 --set b=2`` means both, as ``--set a=1 b=2`` does; tyro alone would keep the last.

    Raises:
        UserError: a flag that takes one value, or a fixed number of them, is given twice.
    """
    hints = typing.get_type_hints(cls)
    # The words are cut into pieces: what stands before the first flag, then a piece for each flag,
    # which values of a later occurrence are added to.
    current: list[str] = []
    pieces = [current]
    piece_of: dict[str, list[str]] = {}
    for argument in arguments:
        if not argument.startswith("--"):
            current.append(argument)
            continue
        flag, attached, value = argument.partition("=")
        setting = _setting_among(hints, flag)
        if setting is None:
            # tyro's error names it.
            current = [argument]
            pieces.append(current)
            continue
        takes_several = _is_list(hints[setting])
        if setting not in piece_of:
            current = [flag, value] if attached and takes_several else [argument]
            piece_of[setting] = current
            pieces.append(current)
        elif takes_several:
            # What follows belongs to the first occurrence, attached or apart.
            current = piece_of[setting]
            if attached:
                current.append(value)
        else:
            raise UserError(f"{source}: {flag} is given twice; it takes one value")
    return list(itertools.chain.from_iterable(pieces))


def _setting_among(hints: Mapping[str, Any], flag: str) -> str | None:
    """Return the setting of a flag or of its ``--no-`` form; None where there is none."""
    name = setting_of(flag)
    setting = name if name in hints else name.removeprefix("no_")
    return setting if setting in hints else None


def _is_list(hint: Any) -> bool:
    """Return whether a setting takes any number of values: ``tuple[X, ...]``."""
    is_tuple = typing.get_origin(hint) is tuple
    return is_tuple and typing.get_args(hint)[-1:] == (Ellipsis,)
