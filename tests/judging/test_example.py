"""The examples in the first lines of the room run as they stand, and print what they say."""

from __future__ import annotations

import re
import textwrap

from chat_server import Server, said

import jaxmodpo.judging


def test_the_rooms_examples_print_what_their_comments_say(tmp_path, monkeypatch, capsys):
    docstring = jaxmodpo.judging.__doc__ or ""
    first, scores = re.findall(r"::\n\n((?:    .*\n|\n)+)", docstring)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    exec(compile(textwrap.dedent(first), "the first example", "exec"), namespace)
    assert capsys.readouterr().out == "valid ('2', '1')\n"
    assert (tmp_path / "votes.sqlite").is_file()
    with Server() as server:
        server.script = lambda body: (200, said('{"acknowledges": "yes", "harms": "no"}'))
        namespace["url"] = server.url
        exec(compile(textwrap.dedent(scores), "the example of scores", "exec"), namespace)
    assert capsys.readouterr().out == "{'acknowledges': 1.0, 'harms': 0.0}\n"
