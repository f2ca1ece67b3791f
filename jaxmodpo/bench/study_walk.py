"""Simulated raters who walk a study over HTTP, as browsers do: each by a link of its own, with
cookies and a connection of its own.

They note what the server acknowledged, so that it can be compared with what is stored::

    record = asyncio.run(walk_all(url, tokens, criteria=6, pacing=Pacing(10.0, 60.0), seed=0))
    record.acknowledged["R-7Q4MZ2KC", 1, 2]     # "left", on the first item's second criterion
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import ssl
import time
from collections import Counter
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jaxmodpo.study.study_file import CHOICES

if TYPE_CHECKING:
    import httpx2

_FORM_TOKEN = re.compile(r'name="form_token" value="([0-9a-f]+)"')
_STATEMENTS = re.compile(r'name="statement" value="(\d+)"')

# Seconds after which a rater gives a request up.
_PATIENCE = 60.0

Answer = tuple[str, int, int]
"""a rater's pseudonym, the position of an item, and the number of a criterion; both from 1"""


@dataclass(frozen=True)
class Pacing:
    """How long raters think, and how long they go on.

    Attributes:
        longest_pause: in seconds. Before each answer a rater waits for a time that is drawn evenly
            from 0 to this, and before coming as well.
        seconds: after which no further answer is given.
    """

    longest_pause: float
    seconds: float


@dataclass
class WalkRecord:
    """What raters saw of a server. Times are in seconds, until the whole page was there."""

    acknowledged: dict[Answer, str] = field(default_factory=dict)
    """the side of each answer that was said to be stored; the last one, where it was changed"""
    opening: list[float] = field(default_factory=list)
    """from a link to the page of information, with all redirects"""
    answering: list[float] = field(default_factory=list)
    """of each single answer"""
    turning: list[float] = field(default_factory=list)
    """from *Save and go on* to the next page"""
    errors: Counter[str] = field(default_factory=Counter)
    """requests without an answer of success, by what came instead"""


class _Trouble(Exception):
    """A request without success."""


async def walk_all(
    url: str, tokens: Mapping[str, str], *, criteria: int, pacing: Pacing, seed: int
) -> WalkRecord:
    """Let all raters walk a study at once, and return what they saw.

    Args:
        url: of the server.
        tokens: of personal links, by pseudonym.
        criteria: how many an item has.
        pacing: of all raters.
        seed: of pauses and answers.
    """
    record = WalkRecord()
    # Making one takes as long as several requests, and no connection here is secure.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    end = time.perf_counter() + pacing.seconds
    walks: list[Coroutine[Any, Any, None]] = []
    for place, (pseudonym, token) in enumerate(tokens.items()):
        walk = _Walk(
            url=url,
            context=context,
            pseudonym=pseudonym,
            criteria=criteria,
            pacing=pacing,
            end=end,
            random=random.Random(f"{seed} {place}"),
            record=record,
        )
        walks.append(walk.go(token))
    await asyncio.gather(*walks)
    return record


@dataclass(kw_only=True)
class _Walk:
    """One rater's way through the study."""

    url: str
    context: ssl.SSLContext
    pseudonym: str
    criteria: int
    pacing: Pacing
    end: float
    random: random.Random
    record: WalkRecord
    client: httpx2.AsyncClient = field(init=False)

    async def go(self, token: str) -> None:
        """Come by the link, and answer until everything is answered or the time is over."""
        import httpx2

        transport = httpx2.AsyncHTTPTransport(verify=self.context)
        async with httpx2.AsyncClient(
            base_url=self.url, transport=transport, follow_redirects=True, timeout=_PATIENCE
        ) as self.client:
            await self._pause()
            # Trouble is counted where it is met. Without the page there is no way to go on.
            with contextlib.suppress(_Trouble):
                page = await self._open(token)
                while page is not None and page.url.path.startswith("/item/"):
                    page = await self._next_page(page)

    async def _open(self, token: str) -> httpx2.Response | None:
        """Return the page of the first item, after consent and instructions."""
        page = await self._timed("GET", f"/r/{token}", None, self.record.opening)
        consent = {"answer": "consent", "statement": _STATEMENTS.findall(page.text)}
        page = await self._timed("POST", "/consent", {**_form(page), **consent})
        return await self._timed("POST", "/begin", _form(page))

    async def _next_page(self, page: httpx2.Response) -> httpx2.Response | None:
        """Answer an item criterion by criterion, and return the page to which that leads; None once
        the time is over.
        """
        position = int(page.url.path.split("/")[2])
        if page.url.path.endswith("/feedback"):
            return await self._timed("GET", f"/item/{position + 1}", None, self.record.turning)
        form = _form(page)
        sides: dict[int, str] = {}
        for criterion in range(1, self.criteria + 1):
            await self._pause()
            if time.perf_counter() > self.end:
                return None
            sides[criterion] = self.random.choice(CHOICES)
            await self._answer(position, form, criterion, sides[criterion])
        fields = {f"criterion-{criterion}": side for criterion, side in sides.items()}
        following = await self._timed(
            "POST",
            f"/item/{position}",
            {**form, **fields, "reason": "", "action": "next"},
            self.record.turning,
        )
        # The whole form was stored again: with what was not acknowledged the first time.
        for criterion, side in sides.items():
            self.record.acknowledged[self.pseudonym, position, criterion] = side
        return following

    async def _answer(
        self, position: int, form: Mapping[str, str], criterion: int, side: str
    ) -> None:
        fields = {**form, f"criterion-{criterion}": side}
        try:
            answer = await self._timed(
                "POST", f"/item/{position}/answer", fields, self.record.answering
            )
        except _Trouble:
            # A browser says so, and sends it again with the whole form.
            return
        if answer.json() == {"stored": True}:
            self.record.acknowledged[self.pseudonym, position, criterion] = side

    async def _timed(
        self,
        method: str,
        path: str,
        form: Mapping[str, object] | None,
        durations: list[float] | None = None,
    ) -> httpx2.Response:
        """Send a request, with a form if there is one, and note how long it took.

        Raises:
            _Trouble: it was not answered with success, which is counted.
        """
        import httpx2

        began = time.perf_counter()
        try:
            answer = await self.client.request(method, path, data=form)
        except httpx2.HTTPError as error:
            self.record.errors[type(error).__name__] += 1
            raise _Trouble from error
        if durations is not None:
            durations.append(time.perf_counter() - began)
        if not answer.is_success:
            self.record.errors[f"status {answer.status_code}"] += 1
            raise _Trouble
        return answer

    async def _pause(self) -> None:
        await asyncio.sleep(self.random.uniform(0, self.pacing.longest_pause))


def _form(page: httpx2.Response) -> dict[str, str]:
    """Return what every form of a page carries."""
    match = _FORM_TOKEN.search(page.text)
    return {} if match is None else {"form_token": match[1]}
