"""Sections laid out as one HTML page, which opens from disk and loads nothing.

The page forbids itself all that it does not need: a content security policy allows the one style
sheet and the one script by their hashes, images from inside the page, and nothing else. Texts of
strangers are escaped by the template, and could not run or load anything if they were not.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from jaxmodpo.report.blocks import Section
from jaxmodpo.report.wording import readable, visible

_TEMPLATES = Path(__file__).parent / "templates"


def lay_out(title: str, sections: Sequence[Section]) -> str:
    """Return the page.

    Args:
        title: of the page.
        sections: in their order.
    """
    style = _source("report.css")
    script = _source("browser.js")
    template = environment().get_template("report.html")
    return template.render(
        title=title,
        sections=sections,
        anchors=[f"section-{number}" for number in range(1, len(sections) + 1)],
        policy=_policy(style, script),
        style=Markup(style),
        script=Markup(script),
    )


def _source(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def environment() -> jinja2.Environment:
    jinja = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    jinja.filters["as_written"] = _as_written
    return jinja


def _finalize(value: object) -> object:
    """Make what no reader sees visible in every text that the template writes."""
    # What is already markup, such as the output of a macro, has been through here.
    if isinstance(value, str) and not isinstance(value, Markup):
        return visible(value)
    return value


def _as_written(text: str) -> Markup:
    """Escape a person's or a model's text, with its marks of direction: the element around it keeps
    them to itself.
    """
    return Markup.escape(readable(text))


def _policy(style: str, script: str) -> str:
    """Return the content security policy of a page with this style sheet and script."""
    rules = (
        "default-src 'none'",
        "img-src data:",
        f"style-src '{_hash(style)}'",
        f"script-src '{_hash(script)}'",
        "base-uri 'none'",
        "form-action 'none'",
    )
    return "; ".join(rules)


def _hash(source: str) -> str:
    digest = hashlib.sha256(source.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
