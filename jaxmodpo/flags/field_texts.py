"""What the source says of each field of a dataclass: help, and the descriptions in JSON Schemas."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import re
import textwrap
from collections.abc import Mapping


@functools.cache
def field_texts(shape: type) -> Mapping[str, str]:
    """Return what stands under each field of a dataclass, or under ``Attributes:`` in its
    docstring, as one line.
    """
    texts: dict[str, str] = {}
    # From the most general class on, so that a class may say of a field what it is there.
    for cls in reversed(shape.__mro__):
        if dataclasses.is_dataclass(cls):
            texts |= _texts_of_attributes(inspect.getdoc(cls) or "")
            texts |= _texts_below_fields(cls)
    return {name: " ".join(text.split()) for name, text in texts.items()}


def first_paragraph(shape: type) -> str:
    """Return what a class's docstring says before its first blank line, as one line."""
    return paragraphs(shape)[0]


def paragraphs(shape: type) -> list[str]:
    """Return a class's docstring, each of its paragraphs as one line."""
    blocks = (inspect.getdoc(shape) or "").split("\n\n")
    return [" ".join(block.split()) for block in blocks]


def _texts_of_attributes(docstring: str) -> dict[str, str]:
    """Return the texts of a docstring's ``Attributes:`` section."""
    section = docstring.partition("Attributes:\n")[2].partition("\n\n")[0]
    return dict(re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", section, re.MULTILINE))


def _texts_below_fields(cls: type) -> dict[str, str]:
    """Return the texts that stand as statements of their own below a class's fields."""
    # Python keeps no text that stands below a field: only the source has it.
    definition = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(definition, ast.ClassDef)
    texts: dict[str, str] = {}
    field = ""
    for statement in definition.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            field = statement.target.id
        elif (
            field and isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        ):
            texts[field] = str(statement.value.value)
            field = ""
    return texts
