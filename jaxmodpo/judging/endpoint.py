"""A judge behind an OpenAI-compatible chat endpoint: OpenAI, vLLM, Ollama and the like.

It turns a request into one call with a JSON schema, and whatever comes back into an answer with a
named status. Its other duties are those of a client that handles private data and a key: persona
profiles leave this machine only where that was asked for, and the key is never written anywhere.
"""

from __future__ import annotations

import ipaddress
import json
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from jaxmodpo.errors import UserError
from jaxmodpo.judging.judge import Answer, Request
from jaxmodpo.judging.prompts import answer_schema, labels, messages, prompts_version

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletion

# Codes by which endpoints say that no request like this one can succeed.
HOPELESS_CODES = frozenset(
    {"unsupported_value", "unsupported_parameter", "model_not_found", "insufficient_quota", "invalid_api_key"}
)


class EndpointJudge:
    """Asks a model at ``base_url``; one call per request, structured by a JSON schema.

    Statuses: ``refusal`` (the message says so), ``content_filter`` (the call or its answer was
    filtered), ``parse_error`` (not JSON of the schema, not a permutation, or cut off), ``error``
    (HTTP or network, after the client's own retries, which honour Retry-After). ``raw`` is what was
    said, ``model`` the model that answered.

    Args:
        base_url: the endpoint, up to and with ``/v1``.
        model: asked for by this name; there is no default.
        api_key_env: the environment variable that holds the key; a server on this machine needs none.
        temperature: None sends none, which reasoning models require.
        send_personas: allow persona profiles to go to another machine.
        timeout: of one attempt, in seconds.
        max_retries: after failed attempts that may be tried again.

    Raises:
        UserError: no model, an unusable URL, no key, or personas that may not be sent.
    """

    costs = True

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key_env: str = "OPENAI_API_KEY",
        temperature: float | None = None,
        send_personas: bool = False,
        timeout: float = 120.0,
        max_retries: int = 4,
    ):
        local = is_local(base_url)
        if not model:
            raise UserError("--judge endpoint needs --judge-model; there is no default model")
        if not (local or send_personas):
            raise UserError(
                f"persona profiles would be sent to {urlsplit(base_url).hostname}; give --send-personas if "
                "that is allowed, or use a server on this machine"
            )
        key = os.environ.get(api_key_env, "")
        if not (key or local):
            raise UserError(f"the environment variable {api_key_env} holds no key for {base_url}; set it")
        from openai import DefaultHttpxClient, OpenAI

        self.model = model
        self.identity = f"endpoint {base_url}; model {model}; temperature {temperature}; prompts {prompts_version()}"
        self._base_url, self._api_key_env, self._key = base_url, api_key_env, key
        self._sampling: dict[str, Any] = {} if temperature is None else {"temperature": temperature}
        self._client = OpenAI(
            base_url=base_url,
            api_key=key or "none",
            timeout=timeout,
            max_retries=max_retries,
            # A proxy from the environment, or a redirect, would take profiles off this machine.
            http_client=DefaultHttpxClient(trust_env=False, follow_redirects=False) if local else None,
        )

    def answer(self, request: Request) -> Answer:
        """Ask once.

        Raises:
            UserError: the endpoint said what will hold for every request: wrong key, no such model,
                an unsupported parameter, no credit left.
        """
        import openai

        try:
            completion = self._client.chat.completions.create(
                model=self.model,
                messages=messages(request),  # type: ignore[arg-type]
                response_format={
                    "type": "json_schema",
                    "json_schema": {"name": request.kind, "strict": True, "schema": answer_schema(request)},
                },
                **self._sampling,
            )
        except openai.APIStatusError as error:
            return self._status_error(error)
        except (openai.APIError, ValueError) as error:
            return Answer("error", self._without_key(f"{type(error).__name__}: {error}"), None, self.model)
        return self._read(completion, request)

    def _read(self, completion: ChatCompletion, request: Request) -> Answer:
        # The client builds its objects unchecked: whatever a server sent may stand here.
        try:
            choice = completion.choices[0]
            message, model = choice.message, str(completion.model or self.model)
            content, refusal = message.content, message.refusal
        except (AttributeError, IndexError, TypeError):
            return Answer("error", self._without_key(f"not a chat completion: {completion}"), None, self.model)
        raw = self._without_key(str(content or refusal or ""))
        if refusal:
            return Answer("refusal", self._without_key(str(refusal)), None, model)
        if choice.finish_reason == "content_filter":
            return Answer("content_filter", raw, None, model)
        order = parse_order(raw, request)
        return Answer("parse_error" if order is None else "valid", raw, order, model)

    def _status_error(self, error: Any) -> Answer:
        if error.status_code in (401, 404) or error.code in HOPELESS_CODES:
            reason = {
                401: f"refused the key in {self._api_key_env}; set a valid one",
                404: f"has no model {self.model} at this URL; see --base-url and --judge-model",
            }.get(error.status_code)
            if reason is None:
                named = f" ({error.param})" if error.param else ""
                reason = f"said {error.code}{named} for the model {self.model}; change the settings or the account"
            # The server's own words may repeat a part of the key.
            raise UserError(f"the judge at {self._base_url} {reason}") from None
        status = "content_filter" if error.code in ("content_filter", "content_policy_violation") else "error"
        return Answer(status, self._without_key(f"HTTP {error.status_code}: {error.message}"), None, self.model)

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text


def parse_order(raw: str, request: Request) -> tuple[str, ...] | None:
    """Read an answer of :func:`answer_schema` as response ids, best first; None where it is anything else."""
    ids = [r.response_id for r in request.responses]
    try:
        value = json.loads(raw)
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    if request.kind == "compare":
        named = dict(zip(labels(request), ids, strict=True))
        better = value.get("better")
        return (named[better],) if isinstance(better, str) and better in named else None
    ranking = value.get("ranking")
    if not isinstance(ranking, list) or not all(type(n) is int for n in ranking):
        return None
    if sorted(ranking) != list(range(1, len(ids) + 1)):
        return None
    return tuple(ids[n - 1] for n in ranking)


def is_local(base_url: str) -> bool:
    """Return whether an endpoint is on this machine; refuse a URL that holds a secret or is none."""
    try:
        url = urlsplit(base_url)
        host = url.hostname or ""
    except ValueError:
        raise UserError(f"--base-url {base_url} is not a URL") from None
    if url.username or url.password or url.query:
        raise UserError(
            "--base-url must hold neither a user name nor a query, since it is written down; see --api-key-env"
        )
    if url.scheme not in ("http", "https") or not host:
        raise UserError(f"--base-url {base_url} must begin with http:// or https:// and name a host")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
