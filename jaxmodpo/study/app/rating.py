"""Pages of the items: what is compared, and its answers, each stored as it comes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse, Response

from jaxmodpo.study.app.context import (
    Context,
    Form,
    KnownVisitor,
    Sender,
    context_of,
    next_step,
    rater_page,
    to,
)
from jaxmodpo.study.app.forms import Refused, form_description, one
from jaxmodpo.study.app.raters import Rater
from jaxmodpo.study.study_file import CHOICES, Choice

ROUTER = APIRouter()

LONGEST_REASON = 2000
"""characters; a browser does not let more be written, and more is not stored"""

Position = Annotated[int, Path(ge=1, le=100_000)]

_TEXT = {"type": "string"}
_SIDE = {"type": "string", "enum": list(CHOICES)}

# Criteria are numbered in forms, since their names may be anything.
_PREFIX = "criterion-"


@ROUTER.get("/item/{position}")
def item(
    request: Request, visitor: KnownVisitor, position: Position, missing: bool = False
) -> Response:
    """A post, two replies, and what is asked about them."""
    context = context_of(request)
    # Items open one after the other; whoever writes a later number into the address goes back.
    step = _elsewhere(context, visitor.rater, position)
    if step:
        return to(step)
    item_id = context.view.item_id(visitor.rater, position)
    # Also notes when the item was first shown, from which the seconds are counted.
    answers = context.store.answers.show(visitor.rater, item_id)
    criteria = context.store.study.criteria
    unanswered = [criterion.title for criterion in criteria if criterion.name not in answers.sides]
    return rater_page(
        request,
        visitor,
        "item.html",
        item=context.view.shown(visitor.rater, position),
        count=context.view.count(visitor.rater),
        criteria=list(enumerate(criteria, 1)),
        answers=answers.sides,
        reason=answers.reason,
        longest_reason=LONGEST_REASON,
        missing=unanswered if missing else [],
    )


@ROUTER.post(
    "/item/{position}",
    openapi_extra=form_description(**{f"{_PREFIX}1": _SIDE}, reason=_TEXT, action=_TEXT),
)
def answer_item(request: Request, visitor: Sender, form: Form, position: Position) -> Response:
    """Store a whole form, and go where its button says."""
    context = context_of(request)
    step = _elsewhere(context, visitor.rater, position)
    if step:
        return to(step)
    item_id = context.view.item_id(visitor.rater, position)
    reason = one(form, "reason")[:LONGEST_REASON]
    context.store.answers.store(visitor.rater, item_id, _sides(context, form), reason)
    # Stored whichever button was pressed: going back or pausing loses nothing.
    match one(form, "action"):
        case "back":
            return to(f"/item/{max(1, position - 1)}")
        case "pause":
            return to("/pause")
    return _after(context, visitor.rater, position, item_id)


def _after(context: Context, rater: Rater, position: int, item_id: str) -> Response:
    """Go to what comes after an item: itself again if it lacks an answer."""
    answered = context.store.answers.counts(rater).get(item_id, 0)
    if answered < len(context.store.study.criteria):
        return to(f"/item/{position}?missing=true")
    if context.view.shown(rater, position).is_practice:
        return to(f"/item/{position}/feedback")
    return to(_following(context, rater, position))


def _following(context: Context, rater: Rater, position: int) -> str:
    is_last = position == context.view.count(rater)
    return "/finish" if is_last else f"/item/{position + 1}"


@ROUTER.post(
    "/item/{position}/answer",
    openapi_extra=form_description(**{f"{_PREFIX}1": _SIDE}, reason=_TEXT),
)
def autosave(request: Request, visitor: Sender, form: Form, position: Position) -> Response:
    """Store one answer while the page stays open; said to be stored only when it is."""
    context = context_of(request)
    # No redirection: the page's script would follow it and take the answer for stored.
    if _elsewhere(context, visitor.rater, position):
        raise Refused(409, "This item is not open.")
    item_id = context.view.item_id(visitor.rater, position)
    # A form without the field says nothing of the reason, which then stays as it is.
    reason = None
    if "reason" in form:
        reason = one(form, "reason")[:LONGEST_REASON]
    context.store.answers.store(visitor.rater, item_id, _sides(context, form), reason)
    return JSONResponse({"stored": True})


@ROUTER.get("/item/{position}/feedback")
def feedback(request: Request, visitor: KnownVisitor, position: Position) -> Response:
    """What an answer to a practice item might look at."""
    context = context_of(request)
    step = _elsewhere(context, visitor.rater, position)
    if step:
        return to(step)
    if not context.view.shown(visitor.rater, position).is_practice:
        return to(f"/item/{position}")
    item_id = context.view.item_id(visitor.rater, position)
    sides = context.store.answers.show(visitor.rater, item_id).sides
    # Not before everything is answered, or the feedback would answer it.
    if len(sides) < len(context.store.study.criteria):
        return to(f"/item/{position}")
    compared, explanation = context.view.feedback(visitor.rater, position, sides)
    return rater_page(
        request,
        visitor,
        "feedback.html",
        item=context.view.shown(visitor.rater, position),
        compared=compared,
        explanation=explanation,
        count=len(context.store.study.criteria),
        following=_following(context, visitor.rater, position),
    )


def _elsewhere(context: Context, rater: Rater, position: int) -> str:
    """Return where a rater belongs who asks for an item that is not open yet; empty where it is."""
    step = next_step(context, rater)
    if step == "/finish":
        first_open = context.view.count(rater)
    elif step.startswith("/item/"):
        first_open = int(step.removeprefix("/item/"))
    else:
        return step
    return step if position > first_open else ""


def _sides(context: Context, form: Mapping[str, list[str]]) -> dict[str, Choice]:
    """Return a form's answers by criterion.

    Raises:
        Refused: an answer that there is not.
    """
    sides: dict[str, Choice] = {}
    for number, criterion in enumerate(context.store.study.criteria, 1):
        side = one(form, f"{_PREFIX}{number}")
        if side and side not in CHOICES:
            raise Refused(400, "The form holds an answer that there is not.")
        if side:
            sides[criterion.name] = side
    return sides
