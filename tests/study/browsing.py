"""A served application and a real browser in it: waiting, clicking, pictures, accessibility.

With ``STUDY_SCREENSHOTS=FOLDER`` the tests that use it leave a picture of each page there; those
for the documentation are called ``study-…``.
"""

from __future__ import annotations

import dataclasses
import io
import os
import threading
import time
from pathlib import Path

import uvicorn
from chromium import Page
from fastapi import FastAPI
from PIL import Image

from jaxmodpo.results.versioned import write_result
from jaxmodpo.study.study_file import StudyItem, read_study

TAB = ("Tab", 9)
SPACE = (" ", 32, " ")
ENTER = ("Enter", 13, "\r")

SCREENSHOTS = os.environ.get("STUDY_SCREENSHOTS", "")
"""a folder for pictures of the pages, to be looked at"""

AXE = Path(os.environ.get("AXE_CORE", "node_modules/axe-core/axe.min.js"))
"""axe-core, which looks a page through for what keeps people out"""

POSTS = (
    (
        "Since I changed teams in spring I wake up at four and go through everything that I may have"
        " got wrong the day before. I used to like my work. Now I sit in the car for ten minutes"
        " before I can go in. My partner says it will settle. It has been five months.",
        "Five months of waking at four, and ten minutes in the car before you can go in: that sounds"
        " exhausting, and as if you had to gather strength for something that once came by itself.\n\n"
        "You write that you used to like your work. What is different in this team from the one"
        " before? If it helps, we could look at one of those four o'clock thoughts together and see"
        " what it says when it is light.",
        "Sleep problems are common after a change at work. Try to keep a regular bedtime, avoid"
        " screens in the evening and cut down on coffee after noon.\n\n"
        "You should also talk to your manager about your workload as soon as possible. If it does"
        " not get better within two weeks, look for another position. Many people feel better once"
        " they have a clear plan.",
    ),
    (
        "My mother died in January and everybody has gone back to normal. I cook for two and then"
        " remember. I do not want to be cheered up, I just do not know where to put it.",
        "Cooking for two and then remembering: grief has a way of meeting us in what our hands do by"
        " themselves. You do not have to be cheered up here.\n\n"
        "Would you like to tell me about her, or about what you cook?",
        "I am sorry for your loss. Time heals, and your mother would want you to be happy. Try to go"
        " out more and meet friends. There are also good books about the stages of grief that will"
        " show you that what you feel is normal.",
    ),
)
"""posts with two replies, written for these pages; no person wrote the posts, and no model the
replies"""


PLACEHOLDERS = {
    "[[NAME AND INSTITUTION OF THE RESEARCHERS]]": "Dr. A. Example and her group, Example University,",
    "[[MINUTES]]": "40",
    "[[PAYMENT]]": "what was agreed with you",
    "[[DATE OF DELETION]]": "the end of 2030",
    "[[CONTACT]]": "study@example.org",
    "[[ETHICS BOARD AND NUMBER]]": "none, since this is an example",
}


def dress(study: Path) -> Path:
    """Put texts into a study that look like real ones, and return it."""
    content = read_study(study)
    information = content.texts.information
    for placeholder, text in PLACEHOLDERS.items():
        information = information.replace(placeholder, text)
    texts = dataclasses.replace(content.texts, information=information)
    items: list[StudyItem] = []
    for number, item in enumerate(content.items):
        if item.kind == "question":
            post, kind, plain = POSTS[number % len(POSTS)]
            item = dataclasses.replace(item, post=post, reply_a=kind, reply_b=plain)
        items.append(item)
    write_result(study, dataclasses.replace(content, items=tuple(items), texts=texts))
    return study


class Site:
    """An application on a port of this machine, in a thread."""

    def __init__(self, application: FastAPI) -> None:
        self._server = uvicorn.Server(
            uvicorn.Config(application, port=0, log_level="error", access_log=False)
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


# --------------------------------------------------------------------------- acting


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


def go(page: Page, address: str) -> None:
    """Open an address and wait until it, or where it leads, is there."""
    page.value("window.isLeft = true; 0")
    page.call("Page.navigate", url=address)
    until(page, "!window.isLeft && document.readyState == 'complete'")


def click(page: Page, selector: str) -> None:
    page.value(f"document.querySelector({selector!r}).click()")


def send(page: Page, selector: str) -> None:
    """Press a button of a form and wait until its answer is there."""
    page.value(f"window.isLeft = true; document.querySelector({selector!r}).click()")
    until(page, "!window.isLeft && document.readyState == 'complete'")


def write(page: Page, selector: str, text: str) -> None:
    """Write into a field."""
    page.value(f"document.querySelector({selector!r}).focus()")
    page.call("Input.insertText", text=text)


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until the focus is where it should be."""
    for _ in range(60):
        page.press(*TAB)
        if page.value(f"document.activeElement.matches({selector!r})"):
            return
    raise AssertionError(f"no Tab leads to {selector}")


def resize(page: Page, width: int, height: int = 900) -> None:
    page.call(
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=height,
        deviceScaleFactor=1,
        mobile=width < 600,
    )


# --------------------------------------------------------------------------- looking


def picture(page: Page, name: str, *, height: int = 0) -> None:
    """Leave a picture of a page, whole or of its first pixels, in few colors, as a page has."""
    if not SCREENSHOTS:
        return
    Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
    path = Path(SCREENSHOTS) / f"{name}.png"
    # Beside a scroll bar the page would be cut off at its right.
    page.call("Emulation.setScrollbarsHidden", hidden=True)
    page.screenshot(path, whole=True)
    image = Image.open(io.BytesIO(path.read_bytes()))
    if height:
        image = image.crop((0, 0, image.width, min(height, image.height)))
    few = image.convert("RGB").quantize(48, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


def leaves_nothing_out(page: Page) -> None:
    """Refuse a page that is wider than its window, or whose script or policy complained."""
    width = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.value(width) <= 0
    assert page.messages == []


def in_scheme(page: Page, scheme: str) -> None:
    """Let a page be light or dark."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.call("Emulation.setEmulatedMedia", features=features)


def no_violation(page: Page) -> None:
    """Refuse a page in which axe-core finds something."""
    page.value(f"{AXE.read_text()}; 0")
    found = page.value(
        "axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa',"
        " 'best-practice']}).then((result) => result.violations.map((each) =>"
        " each.id + ': ' + each.nodes.map((node) => node.html.slice(0, 200)).join(' | ')))"
    )
    assert found == [], (page.value("location.pathname"), found)
