"""Pages before and after the items: arriving, consent, instructions, help, withdrawing, the end."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from jaxmodpo.study.app.context import (
    OVER,
    SESSION_SECONDS,
    Context,
    Form,
    KnownVisitor,
    Sender,
    Visitor,
    context_of,
    next_step,
    rater_page,
    to,
    visitor_of,
)
from jaxmodpo.study.app.forms import Refused, form_description, one
from jaxmodpo.study.app.raters import Arrival, Rater
from jaxmodpo.study.app.signed_entry import KeysAway, NotSigned, SignedEntries
from jaxmodpo.study.attention import exclusion

ROUTER = APIRouter()

# What Prolific puts into its addresses; longer or other ones are not its.
_PROLIFIC_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")

_TEXT = {"type": "string"}


# --------------------------------------------------------------------------- arriving


@ROUTER.get("/")
def start(request: Request) -> Response:
    """Go on where the rater was, or say how to come in."""
    try:
        visitor_of(request)
    except Refused:
        return rater_page(request, None, "start.html")
    return to("/study")


@ROUTER.get("/r/{token}")
def personal_link(request: Request, token: str) -> Response:
    """Come in by a personal link; it goes on where its rater was."""
    context = context_of(request)
    # Before the link is looked up: whoever guesses must not learn whether this one was right.
    _slow_down_guessing(request)
    rater = context.store.raters.of_link(token)
    if rater is None:
        _count_failed_entry(request)
        raise Refused(
            404, "This link leads nowhere. Please check that it is whole, or ask for a new one."
        )
    return _welcome(context, rater)


@ROUTER.get("/prolific")
def from_prolific(
    request: Request,
    pid: Annotated[str, Query(alias="PROLIFIC_PID")] = "",
    study: Annotated[str, Query(alias="STUDY_ID")] = "",
    session: Annotated[str, Query(alias="SESSION_ID")] = "",
    token: Annotated[str, Query(alias="prolific_token")] = "",
) -> Response:
    """Come in from Prolific, by the parameters that it adds to the study's address. Where it signs
    them, the signed ones alone are believed.
    """
    context = context_of(request)
    if context.settings.codes is None:
        raise Refused(404, "This study has no participants from Prolific.")
    _slow_down_guessing(request)
    arrival = Arrival(pid, study, session)
    try:
        if context.settings.signed is not None:
            arrival = _signed_arrival(context.settings.signed, token)
        _check_arrival(context, arrival)
        rater = context.store.raters.of_arrival(arrival)
        if rater is None:
            raise Refused(
                403,
                "You have come to this study with another submission before. Please return this one"
                " on Prolific.",
            )
    except Refused as refused:
        # What is our own trouble, such as keys that cannot be fetched, is no guess of theirs.
        if refused.status < 500:
            _count_failed_entry(request)
        raise
    return _welcome(context, rater)


def _signed_arrival(signed: SignedEntries, token: str) -> Arrival:
    """Return who comes as Prolific signed it.

    Raises:
        Refused: it did not, or that cannot be known now.
    """
    try:
        return signed.arrival(token)
    except NotSigned as error:
        if error.has_run_out:
            raise Refused(
                403, "This link from Prolific has run out. Please open the study there again."
            ) from None
        raise Refused(
            403, "This address does not come from Prolific. Please open the study there again."
        ) from None
    except KeysAway:
        raise Refused(
            503,
            "Links from Prolific cannot be checked just now. Please wait some minutes and open the"
            " study there again; nothing is lost.",
        ) from None


def _check_arrival(context: Context, arrival: Arrival) -> None:
    """Refuse parameters that are not Prolific's, or are of another study there.

    Raises:
        Refused: with a sentence for the participant.
    """
    values = (arrival.pid, arrival.study, arrival.session)
    if not all(_PROLIFIC_ID.fullmatch(value) for value in values):
        raise Refused(
            400, "This address is not complete. Please open the study from Prolific again."
        )
    # None are named where every study of the researchers' may send participants here.
    studies = context.settings.prolific_studies
    if studies and arrival.study not in studies:
        raise Refused(
            403,
            "This link is for another study on Prolific. Please open the study there again, and tell"
            " its researchers if you come back here.",
        )


def _slow_down_guessing(request: Request) -> None:
    """Refuse an address from which many wrong links came.

    Raises:
        Refused: for now.
    """
    if not context_of(request).failed_entries.has_any(_address(request)):
        raise Refused(429, "Too many wrong links were tried. Please wait some minutes.")


def _count_failed_entry(request: Request) -> None:
    context_of(request).failed_entries.allows(_address(request))


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def _welcome(context: Context, rater: Rater) -> Response:
    """Begin a session and go on where its rater was."""
    # A new one at each arrival: a session that somebody else planted in the browser is worth
    # nothing then.
    session = context.store.raters.new_session(rater)
    answer = to(next_step(context, rater))
    answer.set_cookie(
        context.settings.cookie,
        session,
        max_age=SESSION_SECONDS,
        path="/",
        secure=context.settings.is_secure,
        # Scripts never see it; and "lax", since people come by links from other sites.
        httponly=True,
        samesite="lax",
    )
    return answer


@ROUTER.get("/study")
def go_on(request: Request, visitor: KnownVisitor) -> Response:
    """Go on where the rater was."""
    return to(next_step(context_of(request), visitor.rater))


# --------------------------------------------------------------------------- before the items


@ROUTER.get("/welcome")
def welcome(request: Request, visitor: KnownVisitor, missing: bool = False) -> Response:
    """Information and consent."""
    context = context_of(request)
    step = next_step(context, visitor.rater)
    if step != "/welcome":
        return to(step)
    # Said before anybody reads the information and consents in vain.
    if not context.store.raters.has_place_for(visitor.rater):
        return to("/full")
    return rater_page(
        request, visitor, "welcome.html", texts=context.store.study.texts, missing=missing
    )


@ROUTER.post("/consent", openapi_extra=form_description(answer=_TEXT, statement=_TEXT))
def consent(request: Request, visitor: Sender, form: Form) -> Response:
    """Store a consent, or that there is none."""
    context = context_of(request)
    if next_step(context, visitor.rater) != "/welcome":
        return to("/study")
    if one(form, "answer") == "decline":
        context.store.raters.end(visitor.rater, "declined")
        return to("/end")
    texts = context.store.study.texts
    agreed = set(form.get("statement", []))
    statements = {str(number) for number in range(1, len(texts.consent) + 1)}
    # Each statement is agreed to by itself; that the browser asks for all of them proves nothing.
    if agreed != statements:
        return to("/welcome?missing=true")
    # The place is taken in the same step, since the last one may have gone meanwhile.
    if not context.store.raters.consent(visitor.rater, texts.consent_version):
        return to("/full")
    return to(_onward(context, visitor))


@ROUTER.get("/full")
def full(request: Request, visitor: KnownVisitor) -> Response:
    """Say that there is no place left."""
    context = context_of(request)
    if visitor.rater.holds_place or visitor.rater.status in OVER:
        return to("/study")
    codes = context.settings.codes
    code = ""
    if codes and visitor.rater.source == "prolific":
        code = codes.full or codes.screened_out
    return rater_page(request, visitor, "full.html", code=code)


@ROUTER.get("/instructions")
def instructions(request: Request, visitor: KnownVisitor) -> Response:
    """The content warning, what to do, and the criteria; it may be read again at any time."""
    context = context_of(request)
    step = next_step(context, visitor.rater)
    if step in ("/welcome", "/end"):
        return to(step)
    study = context.store.study
    return rater_page(
        request,
        visitor,
        "instructions.html",
        texts=study.texts,
        criteria=study.criteria,
        has_begun=visitor.rater.begun_at is not None,
    )


@ROUTER.post("/begin", openapi_extra=form_description())
def begin(request: Request, visitor: Sender) -> Response:
    """Store that the instructions were read."""
    context = context_of(request)
    # Sent a second time, as by the browser's way back, it changes nothing.
    if next_step(context, visitor.rater) == "/instructions":
        context.store.raters.begin(visitor.rater)
    return to(_onward(context, visitor))


def _onward(context: Context, visitor: Visitor) -> str:
    """Return where a rater goes on after a change; the browser is spared a redirection."""
    # Read again: what the visitor brought along is from before the change.
    rater = context.store.raters.of_session(visitor.session)
    return "/study" if rater is None else next_step(context, rater)


# --------------------------------------------------------------------------- at any time


@ROUTER.get("/help")
def crisis_help(request: Request) -> Response:
    """Where to find help; for everybody."""
    try:
        visitor = visitor_of(request)
    except Refused:
        visitor = None
    return rater_page(request, visitor, "help.html")


@ROUTER.get("/pause")
def pause(request: Request, visitor: KnownVisitor) -> Response:
    """Say that everything is stored, and how to go on."""
    return rater_page(request, visitor, "pause.html")


@ROUTER.get("/withdraw")
def ask_to_withdraw(request: Request, visitor: KnownVisitor) -> Response:
    """Ask whether the answers are to be deleted."""
    if visitor.rater.status in ("withdrawn", "declined"):
        return to("/end")
    return rater_page(request, visitor, "withdraw.html")


@ROUTER.post("/withdraw", openapi_extra=form_description(answers=_TEXT))
def withdraw(request: Request, visitor: Sender, form: Form) -> Response:
    """Withdraw a rater, with their answers if they say so."""
    choice = one(form, "answers")
    if choice not in ("keep", "delete"):
        return to("/withdraw")
    if visitor.rater.status not in ("withdrawn", "declined"):
        context_of(request).store.raters.withdraw(visitor.rater, delete=choice == "delete")
    return to("/end")


@ROUTER.get("/finish")
def ask_to_finish(request: Request, visitor: KnownVisitor) -> Response:
    """Ask whether everything is answered as it should be."""
    context = context_of(request)
    step = next_step(context, visitor.rater)
    if step != "/finish":
        return to(step)
    return rater_page(request, visitor, "finish.html", last=context.view.count(visitor.rater))


@ROUTER.post("/finish", openapi_extra=form_description())
def finish(request: Request, visitor: Sender) -> Response:
    """Store that a rater has finished, and whether the answers count."""
    context = context_of(request)
    if next_step(context, visitor.rater) != "/finish":
        return to("/study")
    # Stored with the end, and not only shown: analyses leave such answers out.
    answers = context.store.answers.of(visitor.rater)
    reason = exclusion(context.store.study, answers)
    context.store.raters.end(visitor.rater, "finished", excluded=reason)
    return to("/end")


@ROUTER.get("/end")
def end(request: Request, visitor: KnownVisitor) -> Response:
    """Thank a rater, and give the code of Prolific."""
    context = context_of(request)
    if visitor.rater.status not in OVER:
        return to("/study")
    code = _code(context, visitor.rater)
    return rater_page(request, visitor, "end.html", status=visitor.rater.status, code=code)


def _code(context: Context, rater: Rater) -> str:
    """Return what a rater hands in at Prolific; empty for others."""
    codes = context.settings.codes
    if codes is None or rater.source != "prolific":
        return ""
    if rater.status == "finished":
        failed = exclusion(context.store.study, context.store.answers.of(rater))
        return codes.attention_failed if failed else codes.completed
    return codes.screened_out if rater.status == "abandoned" else codes.withdrawn
