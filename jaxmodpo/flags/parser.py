"""From the words of a command line to a settings dataclass, or to one sentence on what is wrong.

tyro converts the values. What it would say in a box, or in Python's words, is said here in a
sentence about the flag; and what it takes but no command can use is refused.
"""

from __future__ import annotations

import dataclasses
import io
import re
import typing
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, TypeVar

from jaxmodpo.errors import UserError
from jaxmodpo.flags.help_text import is_required
from jaxmodpo.flags.names import flag_of, suggested_flag
from jaxmodpo.flags.paths import refuse_empty_paths, refuse_remote
from jaxmodpo.flags.words import given_by_place
from jaxmodpo.ranges import check_ranges

Config = TypeVar("Config")


def _what_is_missing(match: re.Match[str]) -> str:
    """Name an argument by its help, whose first letter is a capital only where it stands alone."""
    help_text = match[1]
    return f"it needs {help_text[0].lower()}{help_text[1:]}"


_SENTENCES: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (
        r"Error parsing (\S+): invalid literal for int\(\) with base 10: (.*)",
        r"\1 must be a whole number, not \2",
    ),
    (
        r"Error parsing (\S+): could not convert string to float: (.*)",
        r"\1 must be a number, not \2",
    ),
    (
        r"Error parsing (\S+): no type matching (.*) could be instantiated from \[(.*)\]\.?",
        r"\1 must be \2, not \3",
    ),
    (r"Missing value for argument '(\S+)'\. Expected 1 values\.", r"\1 needs a value"),
    (r"Missing from \S+: \S+ (.*) \(required\)", _what_is_missing),
    (
        r"Unrecognized options: (.*)",
        r"\1 belongs to no flag; leave it out, or put its flag before it",
    ),
)
"""what tyro passes on of Python's own errors, and the same as a sentence about the flag"""


def parse_words(cls: type[Config], arguments: list[str], source: str) -> Config:
    """Make a settings dataclass of the words of a command line.

    Args:
        cls: the dataclass.
        arguments: each flag at most once.
        source: what to call them in an error.

    Raises:
        UserError: an unknown, missing or ill-typed setting, or a number outside its range.
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    _check_flags(cls, arguments, source)
    refuse_empty_paths(arguments, hints, source)
    config = _parsed_by_tyro(cls, arguments, source)
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        if field.name != "base_url":  # which is remote, and says itself how it must begin
            value = getattr(config, field.name)
            refuse_remote(value, flag_of(field.name), source, arguments)
    check_ranges(config, source)
    return config


def _check_flags(cls: type, arguments: Sequence[str], source: str) -> None:
    """Refuse flags that there are not, and the lack of those that must be given.

    tyro would do both as well; here the error names the flag that was meant.
    """
    fields = _fields_with_flags(cls)
    flags = [flag_of(field.name) for field in fields]
    switches_off = ["--no-" + flag.removeprefix("--") for flag in flags]
    allowed = [*flags, *switches_off]
    present = _flags_among(arguments)
    for flag in sorted(present - set(allowed)):
        raise UserError(f"{source}: unknown flag '{flag}'{suggested_flag(flag, allowed)}")
    required = [flag_of(field.name) for field in fields if is_required(field)]
    missing = [flag for flag in required if flag not in present]
    if missing:
        raise UserError(f"{source}: {' and '.join(missing)} must be given")


def _fields_with_flags(cls: type) -> list[dataclasses.Field[Any]]:
    """Return the settings that a flag gives; the others are given by their place."""
    by_place = given_by_place(cls)
    return [field for field in dataclasses.fields(cls) if field.name not in by_place]


def _flags_among(arguments: Sequence[str]) -> set[str]:
    """Return the flags among the words of a command line, without their values."""
    flags: set[str] = set()
    for argument in arguments:
        if argument.startswith("--"):
            flag = argument.partition("=")[0]
            flags.add(flag.replace("_", "-"))
    return flags


def _parsed_by_tyro(cls: type[Config], arguments: list[str], source: str) -> Config:
    """Let tyro make the dataclass, and say in one sentence why it cannot."""
    import tyro

    output = io.StringIO()
    try:
        with redirect_stderr(output), redirect_stdout(output):
            return tyro.cli(cls, args=arguments, prog=source)
    except SystemExit:
        sentence = _in_words(_first_paragraph(output.getvalue()))
        raise UserError(f"{source}: {sentence}") from None


def _in_words(message: str) -> str:
    """Return what tyro says of a flag as a sentence."""
    for pattern, sentence in _SENTENCES:
        message = re.sub(pattern, sentence, message)
    return message


def _first_paragraph(box: str) -> str:
    """Return what a tyro error says under its title, up to the first rule, on one line."""
    # Without the box's frame, an empty line and a rule are both empty texts.
    lines = [line.strip("│╭╮╰╯─- ") for line in box.splitlines()]
    # Where nothing stands under the title, the title itself has to do.
    paragraph = _first_lines(lines[1:]) or _first_lines(lines)
    return " ".join(paragraph)


def _first_lines(lines: Sequence[str]) -> list[str]:
    """Return the lines from the first that is not empty to the next that is."""
    paragraph: list[str] = []
    for line in lines:
        if line:
            paragraph.append(line)
        elif paragraph:
            break
    return paragraph
