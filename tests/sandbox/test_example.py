"""The example in the first lines of the room runs as it stands, and prints what it says."""

from __future__ import annotations

import textwrap

import jaxmodpo.sandbox


def test_the_rooms_first_example_prints_what_its_comments_say(capsys):
    docstring = jaxmodpo.sandbox.__doc__ or ""
    _, _, example = docstring.partition("::\n")
    example = textwrap.dedent(example.lstrip("\n"))
    exec(compile(example, "the example", "exec"), {})
    comments = [line.removeprefix("# ") for line in example.splitlines() if line.startswith("# ")]
    assert " ".join(comments) == " ".join(capsys.readouterr().out.splitlines())
