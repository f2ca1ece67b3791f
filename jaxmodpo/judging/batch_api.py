"""The few calls of OpenAI's Batch API that a judge needs, each made with patience.

Batches take hours, in which a network fails and comes back: a call is made again until it succeeds
or there is no hope. Apart from the judge because what is safe to do twice is decided here: creating
a batch is not, so that one whose answer was lost is looked for before it is created again.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from jaxmodpo.endpoints.failures import ACCOUNT_CODES, failure_of_exception
from jaxmodpo.endpoints.failures import HOPELESS as HOPELESS_MEANINGS
from jaxmodpo.endpoints.waits import retry_after
from jaxmodpo.errors import UserError
from jaxmodpo.judging.batch_files import URL, private_file

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types import Batch

Result = TypeVar("Result")

ATTEMPTS = 11
"""Of one call; with a backoff of a second they take a quarter of an hour."""

HOPELESS = ACCOUNT_CODES | {
    "unsupported_value",
    "unsupported_parameter",
    "model_not_found",
    "invalid_api_key",
}
"""Codes by which a batch, or a line of one, says that no request like this one can succeed."""

NO_ROOM = "token_limit_exceeded"
"""The code of a batch that is refused while too many tokens wait in others."""

_TAG = "jaxmodpo"
_LONGEST_PAUSE = 600.0


@dataclass(eq=False)
class BatchAPI:
    """Files and batches at an endpoint.

    Attributes:
        client: makes no attempts of its own.
        backoff: seconds before a call's second attempt; doubled for each further one.

    Raises:
        UserError: from every method: a wrong key, a refusal, or an endpoint that does not answer.
    """

    client: OpenAI
    backoff: float = 1.0

    def upload(self, path: Path) -> str:
        """Send an input file and return its id."""

        def send() -> str | None:
            # Opened for each attempt: one that broke off has read a part of the file.
            with path.open("rb") as file:
                uploaded = self.client.files.create(file=(path.name, file), purpose="batch")
            return getattr(uploaded, "id", None)

        # Safe to do twice: a file that nobody uses costs nothing and expires.
        return self._patiently(send)

    def create(self, file_id: str, tag: str) -> Batch | None:
        """Create a batch that carries a tag, once; None where there is no room for it now."""
        import httpx2
        import openai

        # Not _patiently: a second batch of the same file would be paid a second time. Whether the
        # endpoint acted before the network failed cannot be known from here; only its list of
        # batches knows. So after each failure the batch is looked for by its tag.
        last = ""
        for attempt in range(1, ATTEMPTS + 1):
            wait = None
            try:
                created = self.client.batches.create(
                    input_file_id=file_id,
                    endpoint=URL,
                    completion_window="24h",
                    metadata={_TAG: tag},
                )
                if _is_batch(created):
                    return created
                last = "not a batch"
            except (openai.APIError, httpx2.HTTPError) as error:
                if getattr(error, "code", None) == NO_ROOM:
                    return None
                self._refuse_hopeless(error)
                last = _named(error)
                wait = _requested_wait(error)
            # Before the look, not after it: a batch may take a moment to appear in the list.
            self._pause(attempt, wait)
            # Its answer may be all that was lost.
            created = self.tagged().get(tag)
            if created is not None:
                return created
        raise self._no_answer(last)

    def tagged(self) -> dict[str, Batch]:
        """Return the endpoint's batches by their tags, the newest of each; not those that never
        began.
        """

        def list_batches() -> dict[str, Batch]:
            batch_by_tag: dict[str, Batch] = {}
            # The newest come first.
            for batch in self.client.batches.list(limit=100):
                tag = (batch.metadata or {}).get(_TAG)
                if tag is not None and batch.status != "failed":
                    batch_by_tag.setdefault(tag, batch)
            return batch_by_tag

        return self._patiently(list_batches)

    def retrieve(self, batch_id: str) -> Batch:
        """Return how a batch stands."""

        def retrieve_batch() -> Batch | None:
            batch = self.client.batches.retrieve(batch_id)
            return batch if _is_batch(batch) else None

        return self._patiently(retrieve_batch)

    def download(self, file_id: str, path: Path) -> None:
        """Write a file's content to ``path``; nothing where the endpoint does not have it any
        more.
        """
        import openai

        def receive() -> bool:
            content = self.client.files.with_streaming_response.content(file_id)
            # The file is emptied for each attempt, so that one that broke off leaves nothing
            # behind.
            with (
                private_file(path) as file,
                contextlib.suppress(openai.NotFoundError),
                content as response,
            ):
                for data in response.iter_bytes():
                    file.write(data)
            return True

        self._patiently(receive)

    def delete(self, file_id: str) -> None:
        """Delete a file at the endpoint, if that can be done: it expires there by itself."""
        import httpx2
        import openai

        with contextlib.suppress(openai.APIError, httpx2.HTTPError):
            self.client.files.delete(file_id)

    def _patiently(self, call: Callable[[], Result | None]) -> Result:
        """Make a call that is safe to make twice until it succeeds or there is no hope."""
        import httpx2
        import openai

        last = ""
        for attempt in range(1, ATTEMPTS + 1):
            wait = None
            try:
                result = call()
                if result is not None:
                    return result
                last = "an answer of another kind"
            except (openai.APIError, httpx2.HTTPError) as error:
                self._refuse_hopeless(error)
                last = _named(error)
                wait = _requested_wait(error)
            if attempt < ATTEMPTS:
                self._pause(attempt, wait)
        raise self._no_answer(last)

    def _pause(self, attempt: int, wait: float | None) -> None:
        """Wait for as long as the endpoint asks, and never less than the back-off."""
        # Spread over half of itself, so that several runs do not come back together.
        seconds = self.backoff * 2 ** (attempt - 1) * random.uniform(0.5, 1.0)
        if wait is not None:
            seconds = max(wait, seconds)
        time.sleep(min(_LONGEST_PAUSE, seconds))

    def _refuse_hopeless(self, error: Exception) -> None:
        """End the run where no further attempt can succeed.

        Raises:
            UserError: the endpoint refuses, for a reason that another attempt does not change.
        """
        import openai

        if not isinstance(error, openai.APIStatusError):
            return
        status = error.status_code
        has_wait = _requested_wait(error) is not None
        meaning = failure_of_exception(error).meaning(wait=has_wait)
        may_pass = status >= 500 or status in (408, 409, 425, 429)
        if may_pass and meaning not in HOPELESS_MEANINGS:
            return
        # The server's own words may repeat a part of the key.
        if status == 401:
            refusal = "refused the key"
        elif error.code:
            refusal = f"said {error.code} (HTTP {status})"
        else:
            refusal = f"said (HTTP {status})"
        raise UserError(
            f"the Batch API at {self.client.base_url} {refusal}; what it already has goes on there:"
            " mend it and run the same command again"
        ) from None

    def _no_answer(self, last: str) -> UserError:
        return UserError(
            f"the Batch API at {self.client.base_url} does not answer ({last}); what it already has"
            " goes on there: run the same command again later"
        )


def _is_batch(value: object) -> bool:
    """Return whether this is a batch: the client takes whatever a server sends for one."""
    has_id = bool(getattr(value, "id", None))
    return has_id and isinstance(getattr(value, "status", None), str)


def _named(error: Exception) -> str:
    """Return what a failed call is called in a sentence."""
    status = getattr(error, "status_code", None)
    return f"HTTP {status}" if status else type(error).__name__


def _requested_wait(error: Exception) -> float | None:
    """Return the seconds that the endpoint asks to wait; None where it does not say."""
    response = getattr(error, "response", None)
    return None if response is None else retry_after(response.headers)
