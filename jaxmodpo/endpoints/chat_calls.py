"""One call to an OpenAI-compatible endpoint, for a chat if nothing else is said, and what became
of it.

Judges ask for votes and the sampler for replies through the same call, so that both read the same
failures, waits and names of settings. How often a call is made again is the caller's own rule,
since a vote and a reply are worth different patience;
:func:`jaxmodpo.endpoints.waits.pause_before` says how long to wait in between::

    outcome = post(client, {"model": "m", "messages": [{"role": "user", "content": "Hello"}]})
    if isinstance(outcome, FailedCall):
        print(outcome.failure.shown, outcome.wait)
    else:
        print(outcome.body["choices"][0]["message"]["content"])
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from jaxmodpo.endpoints.failures import Failure, failure_in, failure_of_exception
from jaxmodpo.endpoints.waits import exhausted_for, retry_after
from jaxmodpo.parsing import JsonObject

LimitName = Literal["max_tokens", "max_completion_tokens"]


@dataclass(frozen=True)
class Completion:
    """An answered call.

    Attributes:
        body: of chats a completion, whose first choice has a message.
        request_id: by which the endpoint knows the call; empty where it does not say.
        exhausted_for: seconds for which the endpoint has no more requests or tokens to give; None
            while it has.
    """

    body: JsonObject
    request_id: str = ""
    exhausted_for: float | None = None


@dataclass(frozen=True)
class FailedCall:
    """A call without an answer.

    Attributes:
        failure: what the endpoint or the network said.
        wait: seconds that the endpoint asks to wait before the next call; None where it names none.
        slow: whether the attempt took all the time that an attempt has.
        exhausted_for: as in :class:`Completion`.
    """

    failure: Failure
    wait: float | None = None
    slow: bool = False
    exhausted_for: float | None = None


@dataclass(frozen=True)
class Service:
    """What of an endpoint is called.

    Attributes:
        path: after the endpoint's address.
        fault: says what failed by a body of the status 200; None where it is an answer.
        headers: beside the client's own; None takes one of those away.
    """

    path: str = "/chat/completions"
    fault: Callable[[Any], Failure | None] = failure_in
    headers: Mapping[str, str | None] = field(default_factory=dict)


CHAT = Service()
"""chat completions"""


def post(client: Any, body: Mapping[str, Any], service: Service = CHAT) -> Completion | FailedCall:
    """Make one call; every failure of the endpoint or the network is returned, and none is raised.

    Args:
        client: of :func:`jaxmodpo.endpoints.address.make_client`, which makes no further
            attempts of its own.
        body: the call's JSON.
        service: what is called.
    """
    import httpx2
    import openai

    try:
        # The HTTP library's own response: the client then parses and checks nothing, which is half
        # of a call's time, and refuses nothing that a server of another make may have sent.
        omit = openai.Omit()
        headers = {name: value or omit for name, value in service.headers.items()}
        response = client.post(
            service.path, body=body, cast_to=httpx2.Response, options={"headers": headers}
        )
    except openai.APIStatusError as error:
        return FailedCall(failure_of_exception(error), retry_after(error.response.headers))
    except (openai.APIError, ValueError) as error:
        # The client's own words for a lost connection name no reason; what it was caused by does.
        reason = error.__cause__ or error
        failure = Failure(0, message=f"{type(error).__name__}: {reason}")
        return FailedCall(failure, slow=isinstance(error, openai.APITimeoutError))
    exhausted = exhausted_for(response.headers)
    try:
        completion = json.loads(response.content)
    except (ValueError, RecursionError):
        return FailedCall(Failure(0, message=f"not JSON: {response.text}"), exhausted_for=exhausted)
    # Gateways and local servers send errors with a status of 200.
    failure = service.fault(completion)
    if failure is not None:
        return FailedCall(failure, exhausted_for=exhausted)
    request_id = response.headers.get("x-request-id", "")
    return Completion(completion, request_id, exhausted)


class TokenLimit:
    """The name of the setting that limits an answer's tokens, which OpenAI has renamed.

    OpenAI's newer models refuse ``max_tokens``, and many other servers know nothing else. OpenAI's
    own hosts take the newer name for all their models. Elsewhere the model's family says which, and
    a deployment whose name tells nothing may ask for the newer one: it is used from then on.

    Args:
        base_url: the endpoint's.
        family: the name that the model's family takes.
    """

    def __init__(self, base_url: str, family: LimitName = "max_tokens"):
        host = urlsplit(base_url).hostname or ""
        self.name: LimitName = family
        if host.endswith("openai.com"):
            self.name = "max_completion_tokens"

    def renamed_after(self, failure: Failure, body: Mapping[str, Any]) -> bool:
        """Take the newer name where an endpoint asks for it; return whether to make the call again
        with that name.

        Calls that were under way together with the older name all fail alike, so that what this
        call sent decides, and not which name is in use by now.

        Args:
            failure: of the call.
            body: that the call sent.
        """
        if "max_tokens" not in body or not failure.wants_other_limit:
            return False
        self.name = "max_completion_tokens"
        return True
