"""The study in a real browser: a whole one by keyboard alone, one on a phone without JavaScript,
and every page looked through for what keeps people out.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from app_world import ARRIVAL, CODES, opened, settings_of, write_study
from chromium import Browser, Page

from jaxmodpo.study.app.store import Store
from jaxmodpo.study.app.web import WebSettings, rater_application

TAB = ("Tab", 9)
SPACE = (" ", 32, " ")
ENTER = ("Enter", 13, "\r")

SCREENSHOTS = os.environ.get("STUDY_SCREENSHOTS", "")
"""a folder for pictures of the pages, to be looked at"""

AXE = Path(os.environ.get("AXE_CORE", "node_modules/axe-core/axe.min.js"))


class Site:
    """The application on a port of this machine, in a thread."""

    def __init__(self, store: Store, settings: WebSettings) -> None:
        self._server = uvicorn.Server(
            uvicorn.Config(
                rater_application(store, settings), port=0, log_level="error", access_log=False
            )
        )
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(20)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = opened(write_study(tmp_path, questions=2, texts_of=long_text))
    yield store
    store.close()


@pytest.fixture
def site(store: Store) -> Iterator[Site]:
    site = Site(store, settings_of(codes=CODES))
    yield site
    site.close()


def long_text(model: str, number: int) -> str:
    sentence = f"It sounds as if number {number} has been weighing on you for a long while. "
    return sentence * 6 + f"\n\nWould it help to tell one person about it first? Yours, {model}"


def until(page: Page, expression: str) -> None:
    """Wait until an expression is true; while a page is left there is nothing to ask."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            if page.value(expression):
                return
        except AssertionError:
            pass
        time.sleep(0.02)
    raise AssertionError(f"{expression} at {page.value('location.href')}")


def at(page: Page, path: str) -> None:
    until(page, f"location.pathname == '{path}' && document.readyState == 'complete'")


def picture(page: Page, name: str) -> None:
    if SCREENSHOTS:
        page.screenshot(Path(SCREENSHOTS) / f"{name}.png", whole=True)


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until the focus is where it should be."""
    for _ in range(60):
        page.press(*TAB)
        if page.value(f"document.activeElement.matches({selector!r})"):
            return
    raise AssertionError(f"no Tab leads to {selector}")


def leaves_nothing_out(page: Page) -> None:
    """Refuse a page that is wider than its window, or whose script or policy complained."""
    width = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.value(width) <= 0
    assert page.messages == []


@pytest.mark.slow(seconds=20)
def test_a_clinician_goes_through_a_study_by_keyboard_alone(browser, store: Store, site: Site):
    pseudonym, token = store.raters.new_link()
    page = browser.open(f"{site.url}/r/{token}", width=1280)
    at(page, "/welcome")
    picture(page, "welcome-1280")
    for number in (1, 2, 3):
        tab_to(page, f"input[value='{number}']")
        page.press(*SPACE)
    tab_to(page, "button[value=consent]")
    page.press(*ENTER)
    at(page, "/instructions")
    picture(page, "instructions-1280")
    tab_to(page, "button")
    page.press(*ENTER)
    count = len(store.study.assignments[0].places)
    for position in range(1, count + 1):
        at(page, f"/item/{position}")
        picture(page, f"item-{position}-1280")
        tab_to(page, "input[name=criterion-1]")
        for key, code in (("1", 49), ("3", 51)):
            page.press(key, code, key)
        until(page, "document.getElementById('status').textContent.startsWith('Saved. 2 of 2')")
        rater = store.raters.named(pseudonym)
        sides = [each.side for each in store.answers.of(rater)]
        assert len(sides) == 2 * position, "answers are stored before the page is sent"
        picture(page, f"item-{position}-answered-1280")
        leaves_nothing_out(page)
        tab_to(page, "button[value=next]")
        page.press(*ENTER)
        if position == 1:  # the one practice item of a study with these criteria
            at(page, f"/item/{position}/feedback")
            picture(page, f"feedback-{position}-1280")
            tab_to(page, "a.primary")
            page.press(*ENTER)
    at(page, "/finish")
    tab_to(page, "button.primary")
    page.press(*ENTER)
    at(page, "/end")
    picture(page, "end-1280")
    assert store.raters.named(pseudonym).status == "finished"
    assert all(request.startswith(site.url) for request in page.requests)


@pytest.mark.slow(seconds=15)
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
    for position in range(1, count + 1):
        at(page, f"/item/{position}")
        left = "document.getElementById('reply-1').getBoundingClientRect().left"
        assert page.value(left) == page.value(left.replace("reply-1", "reply-2")), "replies stack"
        for width in (320, 375):  # what the guidelines ask for, and a phone
            resize(page, width)
            leaves_nothing_out(page)
        click(page, "input[name=criterion-1][value=left]")
        click(page, "input[name=criterion-2][value=right]")
        picture(page, f"item-{position}-375")
        click(page, "button[value=next]")
        if position == 1:  # the one practice item of a study with these criteria
            at(page, f"/item/{position}/feedback")
            leaves_nothing_out(page)
            click(page, "a.primary")
    at(page, "/finish")
    click(page, "main button")
    at(page, "/end")
    picture(page, "end-375")
    assert "completion code" in page.value("document.body.textContent")
    assert len(store.answers.all()) == 2 * count


def resize(page: Page, width: int) -> None:
    page.call(
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=900,
        deviceScaleFactor=1,
        mobile=True,
    )


def click(page: Page, selector: str) -> None:
    page.value(f"document.querySelector({selector!r}).click()")


@pytest.mark.slow(seconds=15)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_that_keeps_people_out(browser, store: Store, site: Site, scheme: str):
    if not AXE.is_file():
        pytest.skip("no axe-core here (npm install axe-core, or AXE_CORE=…/axe.min.js)")
    _, token = store.raters.new_link()
    page = browser.open(f"{site.url}/r/{token}", width=1280)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.call("Emulation.setEmulatedMedia", features=features)
    at(page, "/welcome")
    no_violation(page)
    for number in (1, 2, 3):
        click(page, f"input[value='{number}']")
    click(page, "button[value=consent]")
    at(page, "/instructions")
    no_violation(page)
    click(page, "main button")
    at(page, "/item/1")
    page.value("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    click(page, "input[name=criterion-1][value=left]")
    no_violation(page)
    picture(page, f"item-{scheme}-1280")
    click(page, "button[value=next]")
    until(page, "location.search == '?missing=true' && document.readyState == 'complete'")
    no_violation(page)
    click(page, "input[name=criterion-2][value=left]")
    click(page, "button[value=next]")
    at(page, "/item/1/feedback")
    no_violation(page)
    for path in ("/pause", "/withdraw", "/help", "/nowhere"):
        page.call("Page.navigate", url=site.url + path)
        at(page, path)
        no_violation(page)


def no_violation(page: Page) -> None:
    page.value(f"{AXE.read_text()}; 0")
    found = page.value(
        "axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa',"
        " 'best-practice']}).then((result) => result.violations.map((each) =>"
        " each.id + ': ' + each.nodes.map((node) => node.html.slice(0, 200)).join(' | ')))"
    )
    assert found == [], (page.value("location.pathname"), found)
