"""The raters' application: every page that a rater can reach.

Each route reads what it needs, stores what was sent, and sends the browser on: a page that is
loaded again stores nothing twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from jaxmodpo.study.app.database import NotStored
from jaxmodpo.study.app.forms import Refused, one, read_form
from jaxmodpo.study.app.guard import Guard, RateLimit
from jaxmodpo.study.app.raters import Rater
from jaxmodpo.study.app.rendering import FOLDER, STATIC, page
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


# --------------------------------------------------------------------------- the application


def rater_application(store: Store, settings: WebSettings) -> FastAPI:
    """Return the application of a study's raters.

    It describes itself by ``openapi()`` for tests; the description is not served.
    """
    from jaxmodpo.study.app import arriving, rating

    host = urlsplit(settings.public_url).hostname or ""
    application = FastAPI(
        title="A blinded study",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        middleware=[
            Middleware(Guard, cookie=settings.cookie, is_secure=settings.is_secure),
            Middleware(TrustedHostMiddleware, allowed_hosts=[host, "127.0.0.1", "localhost"]),
        ],
    )
    application.state.context = Context(store, settings, View(store.study))
    application.include_router(static_router())
    application.include_router(arriving.ROUTER)
    application.include_router(rating.ROUTER)
    add_error_pages(
        application,
        "sorry.html",
        study=store.study.title,
        resources=settings.resources,
        is_taking_part=False,
    )
    return application


def static_router() -> APIRouter:
    """Return routes of the style and the script, which pages load from here alone."""
    router = APIRouter()
    contents = {name: (FOLDER / "static" / name).read_bytes() for name in STATIC}

    @router.get("/static/{name}", include_in_schema=False)
    def static(name: str) -> Response:
        if name not in contents:
            raise HTTPException(404)
        return Response(
            contents[name],
            headers={"Content-Type": STATIC[name], "Cache-Control": "max-age=300"},
        )

    @router.get("/favicon.ico", include_in_schema=False)
    def no_icon() -> Response:
        # Browsers ask for one of their own accord.
        return Response(status_code=204)

    return router


def add_error_pages(application: FastAPI, template: str, **values: Any) -> None:
    """Answer every trouble by a page with a sentence, and tell nothing of the inside.

    Args:
        application: where.
        template: of the page.
        values: what it shows besides the sentence.
    """

    def sorry(status: int, sentence: str) -> HTMLResponse:
        return page(template, status, sentence=sentence, form_token="", **values)

    @application.exception_handler(Refused)
    def refused(request: Request, error: Refused) -> Response:
        return sorry(error.status, error.sentence)

    @application.exception_handler(NotStored)
    def not_stored(request: Request, error: NotStored) -> Response:
        return sorry(
            503,
            "Your last step could not be stored just now. Everything before it is kept. Please wait"
            " a minute, go back and send it again.",
        )

    @application.exception_handler(RequestValidationError)
    def not_valid(request: Request, error: RequestValidationError) -> Response:
        return sorry(422, "This address or form is not one of the study's.")

    @application.exception_handler(HTTPException)
    def of_http(request: Request, error: HTTPException) -> Response:
        sentences = {404: "There is no such page.", 405: "This page cannot be used in that way."}
        answer = sorry(error.status_code, sentences.get(error.status_code, "This did not work."))
        answer.headers.update(error.headers or {})
        return answer
