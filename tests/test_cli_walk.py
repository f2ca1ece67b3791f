"""Every command explains itself: its help, what a wrong flag is answered with, and the help of
every flag.
"""

from __future__ import annotations

import dataclasses
import re
import typing

import pytest
import tyro

from jaxmodpo.cli import main
from jaxmodpo.commands import COMMANDS, load
from jaxmodpo.config import OTHER_NAMES, parse
from jaxmodpo.errors import UserError


def helps(settings: type) -> dict[str, str]:
    """Return what the help says of each flag, by the setting's name."""
    hints = typing.get_type_hints(settings, include_extras=True)
    named = [
        f
        for f in dataclasses.fields(settings)
        if tyro.conf.Positional not in typing.get_args(hints[f.name])
    ]
    return {f.name: tyro._docstrings.get_field_docstring(settings, f.name, ()) or "" for f in named}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_exits_with_0_and_says_what_each_flag_is(name, capsys):
    settings, _ = load(name)
    with pytest.raises(SystemExit) as left:
        main([*name.split(), "--help"])
    said = " ".join(re.sub(r"[│╭╮╰╯─]", " ", capsys.readouterr().out).split())
    assert left.value.code in (0, None)
    texts = helps(settings)
    assert texts
    for flag, text in texts.items():
        text = " ".join(text.split())
        assert f"--{flag.replace('_', '-')}" in said
        assert len(text) >= 20 and text[0].isalpha(), f"{name} --{flag}: {text!r}"
        assert text[:20] in said


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
