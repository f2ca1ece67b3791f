"""What a failed call means: for this request alone, for a while, or for every request of the
account or the settings.

Servers say it by a status, a code, a type, the name of a setting, or in words only; some say it in
a body whose own status is 200. Judges, batches and the sampler ask here, so that the same answer
ends all of them alike.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

Meaning = Literal[
    "account", "key", "model", "schema", "setting", "filter", "busy", "passing", "request", "other"
]
"""account: no credit; key, model, schema and setting hold for every request as well; filter: the
request was filtered; busy: ask later; passing: ask again; request: this one is not taken; other:
said of the address (a redirection)."""

HOPELESS: frozenset[Meaning] = frozenset({"account", "key", "model", "schema", "setting"})
"""Meanings that hold for every request of a run."""

ACCOUNT_CODES = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "billing_not_active",
        "insufficient_balance",
        "insufficient_funds",
        "insufficient_credits",
        "payment_required",
        "account_deactivated",
        "access_terminated",
        "quota_exceeded_billing",
        "billing_error",
        "credit_balance_too_low",
        "organization_deactivated",
    }
)
"""Codes that say that the account pays for nothing more, whatever is asked."""

_KEY_CODES = frozenset({"invalid_api_key", "authentication_error", "invalid_authentication"})
_MODEL_CODES = frozenset(
    {"model_not_found", "DeploymentNotFound", "invalid_model", "model_not_available"}
)
_SETTING_CODES = frozenset(
    {
        "unsupported_value",
        "unsupported_parameter",
        "unsupported_country_region_territory",
        "unknown_parameter",
    }
)
_FILTER_CODES = frozenset(
    {"content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation"}
)
# Characters of a server's words in a sentence of ours.
_QUOTED = 300
# Characters of a body that are shown: nobody reads more, and taking secrets out of them takes time.
_LONGEST_BODY = 100_000
# What a client sends alike with every request.
_SETTINGS = frozenset(
    {
        "model",
        "response_format",
        "temperature",
        "top_p",
        "stop",
        "seed",
        "max_tokens",
        "max_completion_tokens",
    }
)

_NO_CREDIT = re.compile(
    r"insufficient[ _](?:balance|credits?|funds)|credit balance is too low|billing (?:hard"
    r" )?limit|out of credits|"
    r"account is not active|check your billing",
    re.IGNORECASE,
)
_NO_SCHEMA = re.compile(
    r"response_format|json_schema|structured outputs?|guided_(?:json|decoding)",
    re.IGNORECASE,
)
_TOO_LONG = re.compile(
    r"context.length|context.window|maximum context|too many tokens|too long",
    re.IGNORECASE,
)


class Failure(NamedTuple):
    """A call without an answer, as the server told it."""

    status: int
    code: str = ""
    kind: str = ""
    param: str = ""
    message: str = ""

    @property
    def shown(self) -> str:
        return f"HTTP {self.status}: {self.message}" if self.status else self.message

    def quotation(self, meaning: Meaning) -> str:
        """Return the server's words as they go into a sentence, ``: '…'``; nothing where there are
        none, and of a refused key, a part of which the words may repeat.
        """
        if not self.message or meaning == "key":
            return ""
        return f": '{self.message[:_QUOTED]}'"

    def meaning(self, *, wait: bool = False) -> Meaning:
        """Return what it means; ``wait`` says that the server names a time after which to ask
        again.
        """
        # The order is the rule: what holds for every request is looked for first, since a run that
        # takes it for a fault of one request asks all others in vain, and one that takes a passing
        # fault for it ends without need. Codes come before words, which anybody may write.
        status = self.status
        words = self.message
        names = {self.code, self.kind}
        says_no_credit = _NO_CREDIT.search(words) is not None
        if status == 402 or names & ACCOUNT_CODES:
            return "account"
        if status in (400, 403) and says_no_credit:
            return "account"
        # With a time after which to ask again it is a limit by the minute, whatever the words say.
        if status == 429 and not wait and says_no_credit:
            return "account"
        if status == 401 or names & _KEY_CODES:
            return "key"
        if status == 404 or names & _MODEL_CODES:
            return "model"
        if names & _FILTER_CODES:
            return "filter"
        if status in (400, 422) and (self.param == "response_format" or _NO_SCHEMA.search(words)):
            return "schema"
        if names & _SETTING_CODES:
            return "setting"
        # A request that is too long for the model blames max_tokens, although the next one may fit.
        if status in (400, 422) and self.param in _SETTINGS and not _TOO_LONG.search(words):
            return "setting"
        if status == 429 or (status in (503, 529) and wait):
            return "busy"
        if status in (0, 408, 409, 425) or status >= 500:
            return "passing"
        if 400 <= status < 500 and status != 403:
            return "request"
        return "other"

    @property
    def wants_other_limit(self) -> bool:
        """Whether the setting that limits an answer has its newer name here, as at deployments of
        any name.
        """
        return (
            self.status in (400, 422)
            and "max_tokens" in self.message
            and "max_completion_tokens" in self.message
        )


def failure_of(status: int, error: Any) -> Failure:
    """Return what an ``error`` of a body says, beside the status of the call; its own status goes
    before a 200.
    """
    if not isinstance(error, Mapping):
        message = error if isinstance(error, str) else ""
        return Failure(0 if status == 200 else status, message=message)
    if status in (0, 200):
        status = _status_inside(error)
    return Failure(
        status=status,
        code=_word(error.get("code")),
        kind=_word(error.get("type")),
        param=_word(error.get("param")),
        message=_word(error.get("message")),
    )


def _status_inside(error: Mapping[str, Any]) -> int:
    """Return the status that an error itself names; 0 where it names none."""
    for name in ("code", "status", "status_code"):
        value = error.get(name)
        if _is_status(value):
            return int(str(value))
    return 0


def failure_in(completion: Any) -> Failure | None:
    """Return the failure that a body with the status 200 holds; None where it is an answer.

    An error beside the answers, or in place of one, or no answer at all.
    """
    if not isinstance(completion, Mapping):
        return Failure(0, message=_no_completion(completion))
    choices = completion.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if isinstance(choice, Mapping) and isinstance(choice.get("message"), Mapping):
        # One that broke off in the middle says so beside what it had written.
        if isinstance(choice.get("error"), Mapping):
            return failure_of(200, choice["error"])
        return None
    error = completion.get("error")
    failure = failure_of(200, error) if error else Failure(0)
    words = _no_completion(completion)
    if failure.message:
        words = f"not a chat completion: {failure.message}"
    return failure._replace(message=words)


def _no_completion(body: Any) -> str:
    """Show a body that is no answer and says nothing of why."""
    body_text = "" if body is None or body == "" else json.dumps(body, ensure_ascii=False)
    return f"not a chat completion: {body_text[:_LONGEST_BODY]}"


def failure_of_exception(error: Any) -> Failure:
    """Return what an error of the ``openai`` client says: its body may be anything."""
    body = error.body
    if isinstance(body, Mapping) and isinstance(body.get("error"), Mapping):
        body = body["error"]
    if not isinstance(body, Mapping):
        return Failure(error.status_code, message=str(error.message))
    failure = failure_of(error.status_code, body)
    if failure.message:
        return failure
    return failure._replace(message=str(error.message))


def _word(value: Any) -> str:
    """Return what should be a word as one; nothing where a server sent something else."""
    is_word = isinstance(value, str | int) and not isinstance(value, bool)
    return str(value) if is_word else ""


def _is_status(value: Any) -> bool:
    if not isinstance(value, str | int) or not str(value).isdecimal():
        return False
    # Cut, since a number of a million digits takes its time to be read.
    return 400 <= int(str(value)[:9]) < 600
