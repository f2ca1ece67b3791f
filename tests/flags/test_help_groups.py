"""Which group of the help a setting is in follows from where it is declared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest

from jaxmodpo.flags.help_groups import HelpGroup, groups_of
from jaxmodpo.flags.help_text import print_help, settings_by_box
from jaxmodpo.ranges import Count, Incidental, Settings


@dataclass(frozen=True, kw_only=True)
class Base(Settings, help_group="optimizer"):
    rate: float = 1.0
    """Step size of the update."""
    folder: Annotated[Incidental[str], HelpGroup("output")] = "out"
    """Folder that is written."""


@dataclass(frozen=True, kw_only=True)
class Derived(Base, help_group="data"):
    pairs: str
    """File of pairs."""
    rate: float = 2.0
    folder: Incidental[str] = "elsewhere"
    rows: Count = 3
    """Number of rows."""


@dataclass(frozen=True, kw_only=True)
class Ungrouped(Derived):
    extra: bool = False
    """Whether there is more."""


def test_a_setting_is_in_the_group_of_the_class_that_declares_it_first_or_of_its_own_type():
    assert groups_of(Base) == {"rate": "optimizer", "folder": "output"}
    assert groups_of(Derived) == {
        "rate": "optimizer",
        "folder": "output",
        "pairs": "data",
        "rows": "data",
    }


def test_a_setting_of_a_class_without_a_group_has_none_and_is_shown_last():
    assert "extra" not in groups_of(Ungrouped)
    assert settings_by_box(Ungrouped) == {
        "required": ["pairs"],
        "data": ["rows"],
        "optimizer": ["rate"],
        "output": ["folder"],
        "other": ["extra"],
    }


def test_help_has_a_box_for_each_group_and_flags_without_a_prefix(capsys):
    with pytest.raises(SystemExit) as left:
        print_help(Ungrouped, "jaxmodpo x", ["What it does."])
    assert left.value.code == 0
    _, _, boxes = capsys.readouterr().out.partition("required options")
    # Outside a terminal tyro draws a box as a title with a line below.
    lines = [" ".join(line.strip("│╭╮╰╯─ ").split()) for line in boxes.splitlines()]
    rows = [line for line in lines if line.strip("-")]
    assert rows == [
        "--pairs STR File of pairs. (required)",
        "data options",
        "--rows INT Number of rows. (default: 3)",
        "optimizer options",
        "--rate FLOAT Step size of the update. (default: 2.0)",
        "output options",
        "--folder STR Folder that is written. (default: elsewhere)",
        "other options",
        "--extra, --no-extra Whether there is more. (default: False)",
    ]
