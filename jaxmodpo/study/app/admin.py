"""The administrators' application: how the study goes, decisions about raters, exports, the audit
trail. It has a port of its own and a secret, and no rater can reach it.

Models are named nowhere, unless a second secret is given with an export; that is written down.
"""

from __future__ import annotations

import hmac
import secrets
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi import Path as InPath
from fastapi.responses import Response
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from jaxmodpo.errors import UserError
from jaxmodpo.study.app.context import to
from jaxmodpo.study.app.exports import ENDINGS, export_answers, export_audit
from jaxmodpo.study.app.figures import figures_of
from jaxmodpo.study.app.forms import Refused, form_description, one, read_form
from jaxmodpo.study.app.guard import Guard, RateLimit
from jaxmodpo.study.app.raters import Decision, Rater
from jaxmodpo.study.app.rendering import page
from jaxmodpo.study.app.store import Store
from jaxmodpo.study.app.tokens import form_token, is_same, new_token
from jaxmodpo.study.app.web import add_error_pages, static_router

COOKIE = "study_admin"

SESSION_SECONDS = 12 * 3600

_DECISIONS: Mapping[str, Decision] = {"exclude": "excluded", "reject": "rejected"}
_TEXT = {"type": "string"}


@dataclass(frozen=True)
class AdminSettings:
    """How the administrators' application is reached.

    Attributes:
        secret: lets somebody in.
        unblinding_secret: is needed for exports that tell the models; empty: none are given.
        public_url: of the raters' application, for new links.
        hosts: names by which the application may be called.
    """

    secret: str
    unblinding_secret: str
    public_url: str
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost")


@dataclass
class Context:
    """What every route works with."""

    store: Store
    settings: AdminSettings
    # Sessions end with the process.
    sessions: dict[str, float] = field(default_factory=dict)
    wrong_secrets: RateLimit = field(default_factory=lambda: RateLimit(burst=10, per_second=0.05))


ROUTER = APIRouter()


def context_of(request: Request) -> Context:
    """Return what the application was made with."""
    return request.app.state.context


Form = Annotated[Mapping[str, list[str]], Depends(read_form)]
Pseudonym = Annotated[str, InPath(pattern=r"^R-[A-Z0-9]{8}$")]


def session_of(request: Request) -> str:
    """Return an administrator's session; empty where nobody is let in."""
    session = request.cookies.get(COOKIE, "")
    ends_at = context_of(request).sessions.get(session, 0.0)
    return session if time.monotonic() < ends_at else ""


def admitted(request: Request) -> str:
    """Return an administrator's session.

    Raises:
        Refused: nobody is let in.
    """
    session = session_of(request)
    if not session:
        raise Refused(401, "Please sign in first.")
    return session


Session = Annotated[str, Depends(admitted)]


def sender(session: Session, form: Form) -> str:
    """Return the session that sends a form.

    Raises:
        Refused: the form is none of its pages'.
    """
    if not is_same(one(form, "form_token"), form_token(session)):
        raise Refused(403, "The form belongs to another visit; nothing was done.")
    return session


SendingSession = Annotated[str, Depends(sender)]


def admin_application(store: Store, settings: AdminSettings) -> FastAPI:
    """Return the application of a study's administrators."""
    application = FastAPI(
        title="Administration of a blinded study",
        # No description of its routes: nobody but its own pages calls them.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        middleware=[
            Middleware(Guard, cookie=COOKIE, is_secure=False),
            Middleware(TrustedHostMiddleware, allowed_hosts=list(settings.hosts)),
        ],
    )
    application.state.context = Context(store, settings)
    application.include_router(static_router())
    application.include_router(ROUTER)
    add_error_pages(application, "admin_sorry.html", study=store.study.title)
    return application


def _page(template: str, session: str, store: Store, **values: Any) -> Response:
    token = form_token(session) if session else ""
    return page(template, study=store.study.title, form_token=token, **values)


# --------------------------------------------------------------------------- signing in


@ROUTER.get("/")
def overview(request: Request) -> Response:
    """How the study goes; or the form to sign in."""
    context = context_of(request)
    session = session_of(request)
    if not session:
        return _page("admin_sign_in.html", "", context.store, wrong=False)
    quota = context.store.raters.places.quota.in_all
    figures = figures_of(context.store)
    return _page("admin.html", session, context.store, figures=figures, quota=quota)


@ROUTER.post("/sign-in", openapi_extra=form_description(secret=_TEXT))
def sign_in(request: Request, form: Form) -> Response:
    """Let in who knows the secret."""
    context = context_of(request)
    # One limit for all addresses: the secret is one.
    if not context.wrong_secrets.has_any("sign-in"):
        raise Refused(429, "Too many wrong secrets. Please wait a minute.")
    if not _same_secret(one(form, "secret"), context.settings.secret):
        context.wrong_secrets.allows("sign-in")
        context.store.note("administrator", "wrong secret")
        return _page("admin_sign_in.html", "", context.store, wrong=True)
    session = new_token()
    context.sessions[session] = time.monotonic() + SESSION_SECONDS
    context.store.note("administrator", "signed in")
    answer = to("/")
    # Strict, since an administrator comes from no other site.
    answer.set_cookie(
        COOKIE, session, max_age=SESSION_SECONDS, path="/", httponly=True, samesite="strict"
    )
    return answer


@ROUTER.post("/sign-out", openapi_extra=form_description())
def sign_out(request: Request, session: SendingSession) -> Response:
    """End a session."""
    context_of(request).sessions.pop(session, None)
    return to("/")


def _same_secret(given: str, secret: str) -> bool:
    # Both are hashed first, so that not even their lengths are compared in the open.
    key = secrets.token_bytes(32)
    hashes = [hmac.digest(key, text.encode(), "sha256") for text in (given, secret)]
    return bool(secret) and hmac.compare_digest(*hashes)


# --------------------------------------------------------------------------- decisions


@ROUTER.get("/audit")
def audit(request: Request, session: Session) -> Response:
    """The audit trail."""
    store = context_of(request).store
    return _page("admin_audit.html", session, store, entries=store.audit())


@ROUTER.post("/links", openapi_extra=form_description(label=_TEXT))
def new_link(request: Request, session: SendingSession, form: Form) -> Response:
    """Make a personal link and show it, this one time."""
    context = context_of(request)
    try:
        pseudonym, token = context.store.raters.new_link(one(form, "label")[:200])
    except UserError as error:
        raise Refused(409, f"{error}.") from None
    link = f"{context.settings.public_url}/r/{token}"
    return _page("admin_link.html", session, context.store, pseudonym=pseudonym, link=link)


@ROUTER.post(
    "/raters/{pseudonym}/decision", openapi_extra=form_description(decision=_TEXT, reason=_TEXT)
)
def decide(request: Request, session: SendingSession, form: Form, pseudonym: Pseudonym) -> Response:
    """Leave a rater out of the analysis, reject a submission, or take either back."""
    context = context_of(request)
    rater = _rater(context, pseudonym)
    what, _, way = one(form, "decision").partition("-")
    decision = _DECISIONS.get(what)
    reason = one(form, "reason").strip()[:500]
    if decision is None or way not in ("", "undo"):
        raise Refused(400, "There is no such decision.")
    # Somebody may not be paid for it: the audit trail must say why.
    if way == "" and not reason:
        raise Refused(400, "A decision about a rater needs a reason; please go back and give one.")
    context.store.raters.decide(rater, decision, "" if way == "undo" else reason)
    return to("/")


@ROUTER.post("/raters/{pseudonym}/revoke", openapi_extra=form_description())
def revoke(request: Request, session: SendingSession, pseudonym: Pseudonym) -> Response:
    """Let a rater's link lead nowhere."""
    context = context_of(request)
    context.store.raters.revoke(_rater(context, pseudonym))
    return to("/")


def _rater(context: Context, pseudonym: str) -> Rater:
    try:
        return context.store.raters.named(pseudonym)
    except UserError:
        raise Refused(404, "There is no such rater.") from None


# --------------------------------------------------------------------------- exports


@ROUTER.post(
    "/export", openapi_extra=form_description(kind=_TEXT, models=_TEXT, unblinding_secret=_TEXT)
)
def export(request: Request, session: SendingSession, form: Form) -> Response:
    """Give answers as a file; with what tells the models only for the second secret."""
    context = context_of(request)
    ending = one(form, "kind")
    if ending not in ENDINGS:
        raise Refused(400, "There is no such kind of file.")
    blinded = one(form, "models") != "tell"
    if not blinded:
        _check_unblinding(context, one(form, "unblinding_secret"))
    name = ("answers-blinded" if blinded else "annotations") + ending
    # By way of a file, as the command writes it, so that both give the same bytes.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        count = export_answers(context.store, path, blinded=blinded)
        content = path.read_bytes()
    event = "blinded export" if blinded else "unblinded export"
    context.store.note("administrator", event, f"{count} answers as {ending}")
    return _download(content, name)


@ROUTER.post("/export-audit", openapi_extra=form_description())
def export_trail(request: Request, session: SendingSession) -> Response:
    """Give the audit trail as CSV."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "audit.csv"
        export_audit(context_of(request).store, path)
        content = path.read_bytes()
    return _download(content, path.name)


def _check_unblinding(context: Context, secret: str) -> None:
    if not context.wrong_secrets.has_any("unblinding"):
        raise Refused(429, "Too many wrong secrets. Please wait a minute.")
    if not _same_secret(secret, context.settings.unblinding_secret):
        context.wrong_secrets.allows("unblinding")
        context.store.note("administrator", "wrong unblinding secret")
        raise Refused(403, "This is not the second secret, so the models stay blinded.")


def _download(content: bytes, name: str) -> Response:
    return Response(
        content,
        media_type="application/octet-stream",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )
