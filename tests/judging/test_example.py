"""The example in the first lines of the room runs as it stands, and prints what it says."""

from __future__ import annotations

import textwrap

import jaxmodpo.judging


def test_the_rooms_first_example_prints_what_its_comment_says(tmp_path, monkeypatch, capsys):
    docstring = jaxmodpo.judging.__doc__ or ""
    _, _, after = docstring.partition("::\n")
    example, _, _ = after.partition("\nWhere to read on")
    monkeypatch.chdir(tmp_path)
    exec(compile(textwrap.dedent(example), "the example", "exec"), {})
    assert capsys.readouterr().out == "valid ('2', '1')\n"
    assert (tmp_path / "votes.sqlite").is_file()
