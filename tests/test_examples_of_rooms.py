"""Every room's first file shows what it is for by an example, and the examples are true."""

from __future__ import annotations

import ast
import importlib
import re
import textwrap
from pathlib import Path

import pytest
from test_architecture import FOUNDATION, PACKAGE, ROOMS, TOOLS

SHOWN_ELSEWHERE = {"losses", "study", "flags", "judging", "sandbox"}
"""a file and a page of commands; and rooms whose examples other tests run"""


def docstring_of(room: str) -> str:
    module = importlib.import_module(f"jaxmodpo.{room}")
    return module.__doc__ or ""


def examples_of(room: str) -> list[str]:
    """Return the pieces of code in the docstring of a room's first file."""
    blocks = re.findall(r"::\n\n((?: {4}.*\n|\n)+)", docstring_of(room))
    return [textwrap.dedent(block) for block in blocks]


def printed_by(example: str) -> list[str]:
    """Return what the comments behind an example's ``print`` say that it prints."""
    return re.findall(r"^print\(.*\) +# (.*)$", example, re.MULTILINE)


@pytest.mark.parametrize("room", sorted({*ROOMS, *TOOLS, *FOUNDATION}))
def test_a_rooms_first_file_has_an_example(room: str):
    assert "::\n\n    " in docstring_of(room)


@pytest.mark.parametrize("room", sorted({*ROOMS, *TOOLS, *FOUNDATION} - SHOWN_ELSEWHERE))
def test_an_examples_imports_are_there(room: str):
    for example in examples_of(room):
        for statement in ast.walk(ast.parse(example)):
            if isinstance(statement, ast.ImportFrom):
                module = importlib.import_module(statement.module or "")
                for alias in statement.names:
                    assert hasattr(module, alias.name), f"{statement.module}: {alias.name}"


@pytest.mark.parametrize(
    "room",
    [
        "bench",
        "endpoints",
        "evaluation",
        "methods",
        "probes",
        "report",
        "results",
        "sampling",
        "statistics",
    ],
)
def test_an_example_prints_what_its_comments_say(
    room: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    [example] = examples_of(room)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, room, "exec"), {})
    expected = printed_by(example)
    assert expected
    assert capsys.readouterr().out.splitlines() == expected


def test_an_example_is_indented_wherever_two_colons_announce_one():
    """A docstring of nothing but a title and an example loses the indentation to the formatter,
    and is no example to a reader or to the pages of ``make docs``.
    """
    lost: list[str] = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                docstring = ast.get_docstring(node) or ""
                if re.search(r"::\n\n\S", docstring):
                    lost.append(f"{path}: {docstring.splitlines()[0]}")
    assert lost == []
