"""The study in a real browser: a whole one by keyboard alone, one on a phone without JavaScript,
and every page looked through for what keeps people out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from app_world import ARRIVAL, CODES, opened, settings_of, write_study
from browsing import (
    AXE,
    ENTER,
    SCREENSHOTS,
    SPACE,
    Site,
    at,
    click,
    dress,
    go,
    in_scheme,
    leaves_nothing_out,
    no_violation,
    picture,
    resize,
    send,
    tab_to,
    until,
)
from chromium import Browser, Page
from study_world import CRITERIA

from jaxmodpo.study.app.raters import Arrival
from jaxmodpo.study.app.store import Store
from jaxmodpo.study.app.web import rater_application

STATUS = "document.getElementById('status').textContent"

LATE = Arrival("late", "s1", "s")

ASKED = () if SCREENSHOTS else CRITERIA
"""pictures show all seven criteria, for which the tests have no time"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = opened(dress(write_study(tmp_path, questions=2, criteria="clinicians", only=ASKED)))
    yield store
    store.close()


@pytest.fixture
def site(store: Store) -> Iterator[Site]:
    site = Site(rater_application(store, settings_of(codes=CODES)))
    yield site
    site.close()


def is_first_question(store: Store, position: int) -> bool:
    """Return whether a position of the first rater holds the first item that counts."""
    kinds = [store.study.item(place.item_id).kind for place in store.study.assignments[0].places]
    return kinds.index("question") == position - 1


def practice(store: Store) -> int:
    return sum(item.kind == "training" for item in store.study.items)


@pytest.mark.slow(seconds=5)
def test_a_clinician_goes_through_a_study_by_keyboard_alone(browser, store: Store, site: Site):
    pseudonym, token = store.raters.new_link()
    page = browser.open(f"{site.url}/r/{token}", width=1100)
    at(page, "/welcome")
    picture(page, "study-consent")
    for number in (1, 2, 3):
        tab_to(page, f"input[value='{number}']")
        page.press(*SPACE)
    tab_to(page, "button[value=consent]")
    page.press(*ENTER)
    at(page, "/instructions")
    picture(page, "instructions-1100")
    tab_to(page, "button")
    page.press(*ENTER)
    count = len(store.study.assignments[0].places)
    criteria = len(store.study.criteria)
    for position in range(1, count + 1):
        at(page, f"/item/{position}")
        tab_to(page, "input[name=criterion-1]")
        for number in range(criteria):
            key, code = (("1", 49), ("3", 51))[number % 2]
            page.press(key, code, key)
        until(page, f"{STATUS}.startsWith('Saved. {criteria} of {criteria}')")
        rater = store.raters.named(pseudonym)
        sides = [each.side for each in store.answers.of(rater)]
        assert len(sides) == criteria * position, "answers are stored before the page is sent"
        picture(page, f"item-{position}-1100")
        if is_first_question(store, position):
            picture(page, "study-item", height=1200)
        leaves_nothing_out(page)
        tab_to(page, "button[value=next]")
        page.press(*ENTER)
        if position <= practice(store):
            at(page, f"/item/{position}/feedback")
            picture(page, "study-feedback" if position == 1 else f"feedback-{position}-1100")
            tab_to(page, "a.primary")
            page.press(*ENTER)
    at(page, "/finish")
    picture(page, "finish-1100")
    tab_to(page, "button.primary")
    page.press(*ENTER)
    at(page, "/end")
    picture(page, "end-1100")
    assert store.raters.named(pseudonym).status == "finished"
    assert all(request.startswith(site.url) for request in page.requests)


@pytest.mark.slow(seconds=5)
def test_a_prolific_rater_goes_through_a_study_on_a_phone_without_javascript(
    browser, store: Store, site: Site
):
    arrival = ARRIVAL.format(pid="p1", session="s")
    page = browser.open(site.url + arrival, width=375, script=False)
    at(page, "/welcome")
    picture(page, "welcome-375")
    click(page, "button[value=consent]")
    until(page, "location.search == '?missing=true' && document.readyState == 'complete'")
    assert "tick every statement" in page.value("document.body.textContent")
    for number in (1, 2, 3):
        click(page, f"input[value='{number}']")
    click(page, "button[value=consent]")
    at(page, "/instructions")
    picture(page, "instructions-375")
    click(page, "main button")
    count = len(store.study.assignments[0].places)
    criteria = len(store.study.criteria)
    for position in range(1, count + 1):
        at(page, f"/item/{position}")
        left = "document.getElementById('reply-1').getBoundingClientRect().left"
        assert page.value(left) == page.value(left.replace("reply-1", "reply-2")), "replies stack"
        for width in (320, 375):  # what the guidelines ask for, and a phone
            resize(page, width)
            leaves_nothing_out(page)
        for number in range(1, criteria + 1):
            click(page, f"input[name=criterion-{number}][value=left]")
        picture(page, f"item-{position}-375")
        if is_first_question(store, position):
            picture(page, "study-item-phone", height=1400)
        click(page, "button[value=next]")
        if position <= practice(store):
            at(page, f"/item/{position}/feedback")
            leaves_nothing_out(page)
            picture(page, f"feedback-{position}-375")
            click(page, "a.primary")
    at(page, "/finish")
    click(page, "main button")
    at(page, "/end")
    picture(page, "end-375")
    assert "completion code" in page.value("document.body.textContent")
    assert len(store.answers.all()) == criteria * count


# --------------------------------------------------------------------------- accessibility


@pytest.mark.slow(seconds=5)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_that_keeps_people_out(browser, store: Store, site: Site, scheme: str):
    if not AXE.is_file():
        pytest.skip("no axe-core here (npm install axe-core, or AXE_CORE=…/axe.min.js)")
    page = browser.open(site.url, width=1280)
    in_scheme(page, scheme)
    look(page, "start", scheme)
    go(page, site.url + ARRIVAL.format(pid="p", session="s") + "%20")
    look(page, "not-prolifics", scheme)
    go(page, site.url + ARRIVAL.format(pid=scheme, session="s"))
    look(page, "consent", scheme)
    send(page, "button[value=consent]")
    look(page, "consent-missing", scheme)
    for number in (1, 2, 3):
        click(page, f"input[value='{number}']")
    send(page, "button[value=consent]")
    look(page, "instructions", scheme)
    send(page, "main button")
    through_the_items(page, store, scheme)
    for path in ("/pause", "/withdraw", "/help", "/nowhere"):
        go(page, site.url + path)
        look(page, path.strip("/"), scheme)
    go(page, f"{site.url}/finish")
    send(page, "main button")
    look(page, "end", scheme)
    late = store.raters.of_arrival(LATE)
    assert late is not None
    while store.raters.has_place_for(late):
        store.raters.new_link()
    go(page, site.url + ARRIVAL.format(pid=LATE.pid, session=LATE.session))
    assert page.value("location.pathname") == "/full"
    look(page, "full", scheme)


def through_the_items(page: Page, store: Store, scheme: str) -> None:
    """Answer every item, and look at the kinds of page between them."""
    criteria = len(store.study.criteria)
    for position in range(1, len(store.study.assignments[0].places) + 1):
        assert page.value("location.pathname") == f"/item/{position}"
        if position == 1:
            page.value(
                "document.querySelectorAll('details').forEach((each) => { each.open = true; })"
            )
            click(page, "input[name=criterion-1][value=left]")
            look(page, "item", scheme)
            send(page, "button[value=next]")
            look(page, "item-missing", scheme)
        for number in range(1, criteria + 1):
            click(page, f"input[name=criterion-{number}][value=left]")
        send(page, "button[value=next]")
        if position <= practice(store):
            if position == 1:
                look(page, "feedback", scheme)
            send(page, "a.primary")
    look(page, "finish", scheme)


def look(page: Page, name: str, scheme: str) -> None:
    no_violation(page)
    picture(page, f"axe-{name}-{scheme}")
