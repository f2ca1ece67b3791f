"""Every command explains itself: its help, what a wrong flag is answered with, and the help of
every flag.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import re
import typing

import pytest
import tyro

from jaxmodpo.cli import main
from jaxmodpo.commands import COMMANDS, load
from jaxmodpo.errors import UserError
from jaxmodpo.flags.help_text import REQUIRED, UNGROUPED, is_required, settings_by_box
from jaxmodpo.flags.names import OTHER_NAMES
from jaxmodpo.flags.parse import parse


@functools.cache  # the order of the flags and each mistyped one ask for it again
def helps(settings: type) -> dict[str, str]:
    """Return what the help says of each flag, by the setting's name."""
    hints = typing.get_type_hints(settings, include_extras=True)
    named = [
        f
        for f in dataclasses.fields(settings)
        if tyro.conf.Positional not in typing.get_args(hints[f.name])
    ]
    return {f.name: tyro._docstrings.get_field_docstring(settings, f.name, ()) or "" for f in named}


@functools.cache  # two tests of each command read it
def printed_help(name: str) -> str:
    """Return what ``jaxmodpo NAME --help`` prints, once it has ended with exit code 0."""
    with contextlib.redirect_stdout(io.StringIO()) as printed, pytest.raises(SystemExit) as left:
        main([*name.split(), "--help"])
    assert left.value.code in (0, None)
    return printed.getvalue()


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_exits_with_0_and_says_what_each_flag_is(name):
    settings, _ = load(name)
    printed = printed_help(name)
    help_text = " ".join(re.sub(r"[│╭╮╰╯─]", " ", printed).split())
    assert "``" not in help_text, "quotes of the source are none of a terminal's"
    # How the source breaks and indents a docstring is nothing to who reads the help.
    head = printed.partition("--config FILE.yaml gives")[0]
    assert not re.search(r"^ ", head, re.MULTILINE), head
    texts = helps(settings)
    assert texts
    for flag, text in texts.items():
        text = " ".join(text.split())
        assert f"--{flag.replace('_', '-')}" in help_text
        # A sentence begins with a capital, or with the value that it explains, as in "paper: …".
        begins_as_sentence = re.match(r"[A-Z]|[\w-]+: ", text)
        assert begins_as_sentence and text.endswith((".", "…")), f"{name} --{flag}: {text!r}"
        assert len(text) >= 20, f"{name} --{flag}: {text!r}"
        assert text[:20] in help_text


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_every_setting_in_a_short_group_with_the_required_ones_first(name):
    settings, _ = load(name)
    boxes = settings_by_box(settings)
    assert UNGROUPED not in boxes, f"{name} has settings without a help group: {boxes[UNGROUPED]}"
    for box, names in boxes.items():
        assert len(names) <= 15, f"{name} has {len(names)} settings in the group {box}"
    flags_in_order = [
        f"--{setting.replace('_', '-')}"
        for names in boxes.values()
        for setting in names
        if setting in helps(settings)
    ]
    # Outside a terminal tyro draws a box as a title with a line below, and a space before each row.
    shown = re.findall(r"^[│ ] (--[\w-]+)", printed_help(name), re.MULTILINE)
    assert shown == flags_in_order
    required = [field.name for field in dataclasses.fields(settings) if is_required(field)]
    assert boxes.get(REQUIRED, []) == required
    assert REQUIRED not in boxes or next(iter(boxes)) == REQUIRED


@pytest.mark.parametrize("name", COMMANDS)
def test_a_mistyped_flag_names_the_one_that_was_meant(name):
    settings, _ = load(name)
    for setting in helps(settings):
        flag = f"--{setting.replace('_', '-')}"
        if len(setting) < 4:
            continue
        wrong = flag[:-2] + flag[-1] + flag[-2] + "x"
        with pytest.raises(UserError, match=f"unknown flag '{wrong}'; did you mean '--"):
            parse(settings, [wrong, "1"], f"jaxmodpo {name}")
    for theirs, ours in OTHER_NAMES.items():
        if ours in helps(settings) and theirs not in helps(settings):
            with pytest.raises(UserError, match=f"; did you mean '--{ours.replace('_', '-')}'?"):
                parse(settings, [f"--{theirs.replace('_', '-')}", "1"], f"jaxmodpo {name}")
