"""Forms as browsers send them, and nothing else: no uploads, no other encodings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request

from jaxmodpo.parsing import JsonObject

FORM_TYPE = "application/x-www-form-urlencoded"

_MOST_FIELDS = 200


class Refused(Exception):
    """A request that is answered with a sentence.

    Attributes:
        status: of HTTP.
        sentence: what the page says.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


async def read_form(request: Request) -> dict[str, list[str]]:
    """Return a form's values by field.

    Raises:
        Refused: it is not a form, or none that a browser sends.
    """
    content_type, _, _ = request.headers.get("content-type", "").partition(";")
    if content_type.strip().lower() != FORM_TYPE:
        raise Refused(415, "This page takes forms alone.")
    try:
        text = (await request.body()).decode("ascii")
        pairs = parse_qsl(
            text, keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS
        )
    except ValueError:
        raise Refused(400, "The form could not be read.") from None
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        # Postgres has no place for a zero byte in a text.
        values.setdefault(name, []).append(value.replace("\x00", ""))
    return values


def one(form: Mapping[str, list[str]], name: str) -> str:
    """Return a field's last value; empty where the form lacks it."""
    return form.get(name, [""])[-1]


def form_description(**fields: Mapping[str, Any]) -> JsonObject:
    """Return how OpenAPI describes a form, for a route's ``openapi_extra``."""
    properties = {"form_token": {"type": "string"}, **fields}
    schema = {"type": "object", "properties": properties, "required": ["form_token"]}
    return {"requestBody": {"required": True, "content": {FORM_TYPE: {"schema": schema}}}}
