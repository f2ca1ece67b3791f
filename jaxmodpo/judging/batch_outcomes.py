"""What the lines of a batch's output and error files say, one outcome for each request.

The two files hold answers, errors, errors inside of answers, and lines that are neither. Servers
differ in where they put a status and a code; whatever a line has, it is read into the same few
facts, and decided once whether another attempt may go well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxmodpo.endpoints.failures import failure_in

# A message without a code is cut before it can repeat a profile.
_LONGEST_MESSAGE = 60

EXPIRED = "batch_expired"
"""The code of a request that a batch did not come to."""


class Outcome(NamedTuple):
    """What came back for one request.

    ``answered`` says that ``completion`` is what the model answered; where not, ``code`` and
    ``message`` tell what went wrong, and ``passing`` whether it may go well another time.
    """

    key: str
    answered: bool
    completion: Any = None
    code: str = ""
    message: str = ""
    passing: bool = False
    request_id: str = ""


def outcomes(path: Path) -> Iterator[Outcome]:
    """Yield what the lines of an output or error file say; lines that name no request are passed
    over.
    """
    with path.open("rb") as file:
        for line in file:
            outcome = outcome_of(line)
            if outcome is not None:
                yield outcome


def outcome_of(line: bytes) -> Outcome | None:
    """Read one line of an output or error file; None where it names no request."""
    try:
        value = json.loads(line)
        key = str(value["custom_id"])
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    response = value.get("response")
    if not isinstance(response, dict):
        response = {}
    status = response.get("status_code")
    body = response.get("body")
    request_id = str(response.get("request_id") or value.get("id") or "")
    # Some servers put an error into the place of an answer, with a status of 200.
    failure_inside = failure_in(body) if status == 200 else None
    if status == 200 and failure_inside is None:
        return Outcome(key, True, body, request_id=request_id)
    if failure_inside is not None and failure_inside.status:
        # An error in the place of an answer counts by its own status.
        status = failure_inside.status
    error = _error_in(value.get("error"), body)
    code = str(error.get("code") or "")
    # A code says enough; a message may repeat what was asked, and profiles belong in no ledger.
    message = code or str(error.get("message") or "")[:_LONGEST_MESSAGE]
    if status:
        message = f"HTTP {status}: {message}"
    is_passing = code == EXPIRED or _may_pass(status, error)
    return Outcome(key, False, None, code, message, is_passing, request_id)


def _error_in(error: Any, body: Any) -> Mapping[str, Any]:
    """Return the error of a line, which stands beside the answer or inside of it."""
    if isinstance(error, dict):
        return error
    inside = body.get("error") if isinstance(body, dict) else None
    if isinstance(inside, dict):
        return inside
    return {"message": "a line that says neither an answer nor an error"}


def _may_pass(status: Any, error: Mapping[str, Any]) -> bool:
    """Return whether the request may be answered another time."""
    if isinstance(status, int) and (status in (408, 409, 425, 429) or status >= 500):
        return True
    # Without a status nobody answered; a 200 without an answer is none.
    return not error.get("code") and status in (None, 0, 200)
