"""What every page of the raters' application works with: its settings, who sends a request, where a
rater goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.responses import RedirectResponse, Response

from jaxmodpo.study.app.forms import Refused, one, read_form
from jaxmodpo.study.app.guard import RateLimit
from jaxmodpo.study.app.raters import Rater
from jaxmodpo.study.app.rendering import page
from jaxmodpo.study.app.resources import CrisisResource
from jaxmodpo.study.app.signed_entry import SignedEntries
from jaxmodpo.study.app.store import Store
from jaxmodpo.study.app.tokens import form_token, is_same
from jaxmodpo.study.app.viewing import View

SESSION_SECONDS = 60 * 24 * 3600

OVER = frozenset({"finished", "withdrawn", "declined", "abandoned", "revoked"})
"""states in which nothing is answered any more"""


@dataclass(frozen=True)
class ProlificCodes:
    """What raters hand in at Prolific, by how their part ended."""

    completed: str
    screened_out: str
    attention_failed: str
    withdrawn: str
    full: str = ""
    """of who comes when no place is left; empty means ``screened_out``"""


@dataclass(frozen=True)
class WebSettings:
    """How the raters' application is reached.

    Attributes:
        public_url: what stands before every path, as ``https://study.example.org``.
        resources: where raters find help.
        codes: of Prolific; None where raters come by personal links.
        prolific_studies: the studies at Prolific that raters may come from; empty for any.
        signed: reads what Prolific signs; None where its addresses are believed as they are.
    """

    public_url: str
    resources: Sequence[CrisisResource]
    codes: ProlificCodes | None = None
    prolific_studies: frozenset[str] = frozenset()
    signed: SignedEntries | None = None

    @property
    def is_secure(self) -> bool:
        return urlsplit(self.public_url).scheme == "https"

    @property
    def cookie(self) -> str:
        """The session's cookie; with this prefix browsers take it from a secure page alone."""
        return "__Host-study" if self.is_secure else "study"


@dataclass(frozen=True)
class Context:
    """What every route works with."""

    store: Store
    settings: WebSettings
    view: View
    failed_entries: RateLimit = field(default_factory=lambda: RateLimit(burst=60, per_second=0.5))


@dataclass(frozen=True)
class Visitor:
    """A rater in a browser."""

    rater: Rater
    session: str

    @property
    def form_token(self) -> str:
        return form_token(self.session)


def context_of(request: Request) -> Context:
    """Return what the application was made with."""
    return request.app.state.context


def visitor_of(request: Request) -> Visitor:
    """Return who sends a request.

    Raises:
        Refused: nobody who is known.
    """
    context = context_of(request)
    session = request.cookies.get(context.settings.cookie, "")
    rater = context.store.raters.of_session(session) if session else None
    if rater is None or rater.status == "revoked":
        raise Refused(
            401, "We do not know this browser. Please open the study by the link you were given."
        )
    return Visitor(rater, session)


KnownVisitor = Annotated[Visitor, Depends(visitor_of)]
Form = Annotated[Mapping[str, list[str]], Depends(read_form)]


def sender_of(request: Request, form: Form) -> Visitor:
    """Return who sends a form, which must be one of our pages'.

    Raises:
        Refused: nobody who is known, or it comes from elsewhere.
    """
    # Called, and not declared: each dependency is another turn in the pool of threads.
    visitor = visitor_of(request)
    origin = request.headers.get("origin")
    ours = context_of(request).settings.public_url
    if origin not in (None, "null", ours, f"{request.url.scheme}://{request.url.netloc}"):
        raise Refused(403, "The form was sent from another site, so nothing was stored.")
    if not is_same(one(form, "form_token"), visitor.form_token):
        raise Refused(
            403,
            "The form belongs to another visit, so nothing was stored. Go back to the study and"
            " answer again.",
        )
    return visitor


Sender = Annotated[Visitor, Depends(sender_of)]


def to(path: str) -> RedirectResponse:
    """Send a browser on by GET."""
    return RedirectResponse(path, 303)


def rater_page(request: Request, visitor: Visitor | None, template: str, **values: Any) -> Response:
    """Return a page with what each page of the study has."""
    context = context_of(request)
    is_taking_part = visitor is not None and visitor.rater.status == "active"
    return page(
        template,
        study=context.store.study.title,
        resources=context.settings.resources,
        form_token="" if visitor is None else visitor.form_token,
        is_taking_part=is_taking_part,
        **values,
    )


def next_step(context: Context, rater: Rater) -> str:
    """Return the path of the page at which a rater goes on."""
    if rater.status in OVER:
        return "/end"
    if rater.status == "invited" or rater.consent_version is None:
        return "/welcome"
    if rater.consent_version != context.store.study.texts.consent_version:
        return "/welcome"
    if rater.begun_at is None:
        return "/instructions"
    position = context.view.first_open(rater, context.store.answers.counts(rater))
    return "/finish" if position is None else f"/item/{position}"
