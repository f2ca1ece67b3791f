"""Pages from templates. Every text is escaped, and shown in a direction of its own."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Any

import jinja2
from fastapi.responses import HTMLResponse

from jaxmodpo.report.wording import readable

FOLDER = Path(__file__).parent
STATIC: dict[str, str] = {
    "study.css": "text/css; charset=utf-8",
    "study.js": "text/javascript; charset=utf-8",
}
"""the files that pages load, with their types"""

SIDE_NAMES = {"left": "Reply A", "right": "Reply B", "equal": "Both equal"}
"""what raters read for a side; their A and B are sides, and not the study's models"""


def paragraphs(text: str) -> list[str]:
    """Split a text at empty lines; what no page can hold is replaced."""
    whole = readable(text.replace("\r\n", "\n").replace("\r", "\n"))
    return [paragraph.strip("\n") for paragraph in re.split(r"\n\s*\n", whole) if paragraph.strip()]


def moment(seconds: float | None) -> str:
    """Write a moment in UTC, to the second; empty for none."""
    if seconds is None:
        return ""
    when = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return when.strftime("%Y-%m-%d %H:%M:%S")


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"paragraphs": paragraphs, "readable": readable, "moment": moment}
    return environment


_ENVIRONMENT = _environment()


def page(template: str, http_status: int = 200, /, **values: Any) -> HTMLResponse:
    """Return a page of a template."""
    html = _ENVIRONMENT.get_template(template).render(values, side_names=SIDE_NAMES)
    return HTMLResponse(html, http_status)
