"""The raters' application: every page that a rater can reach.

Each route reads what it needs, stores what was sent, and sends the browser on: a page that is
loaded again stores nothing twice. The routes stand in :mod:`jaxmodpo.study.app.arriving` and
:mod:`jaxmodpo.study.app.rating`, and what they share in :mod:`jaxmodpo.study.app.context`.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from jaxmodpo.study.app import arriving, rating
from jaxmodpo.study.app.context import Context, WebSettings
from jaxmodpo.study.app.database import NotStored
from jaxmodpo.study.app.forms import Refused
from jaxmodpo.study.app.guard import Guard
from jaxmodpo.study.app.rendering import FOLDER, STATIC, page
from jaxmodpo.study.app.store import Store
from jaxmodpo.study.app.viewing import View


def rater_application(store: Store, settings: WebSettings) -> FastAPI:
    """Return the application of a study's raters.

    It describes itself by ``openapi()`` for tests; the description is not served.
    """
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
