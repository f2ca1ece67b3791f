"""The administration in a real browser: signing in, progress, decisions, links, exports, and what
keeps people out.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from app_world import Browser as RatersBrowser
from app_world import opened, write_study
from browsing import (
    AXE,
    ENTER,
    SCREENSHOTS,
    Site,
    at,
    click,
    dress,
    in_scheme,
    leaves_nothing_out,
    no_violation,
    picture,
    resize,
    send,
    tab_to,
    until,
    write,
)
from chromium import Browser, Page
from study_world import CRITERIA

from jaxmodpo.study.app.admin import AdminSettings, admin_application
from jaxmodpo.study.app.store import Store

SECRET = "a secret of this test alone"
SECOND = "another secret of this test"

ASKED = () if SCREENSHOTS else CRITERIA

NAMES = ("Dr. A. Example", "Dr. B. Example", "Dr. C. Example", "Dr. D. Example")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Return a study in which two raters have finished, the third one has failed the checks, and
    the fourth has opened the link and no more.
    """
    store = opened(dress(write_study(tmp_path, criteria="clinicians", only=ASKED, raters=4)))
    for name in NAMES:
        pseudonym, token = store.raters.new_link(name)
        browser = RatersBrowser(store)
        browser.get(f"/r/{token}")
        if name != NAMES[-1]:
            browser.consent()
            browser.rate_all(store, pseudonym, fail_checks=name == NAMES[2])
            browser.post("/finish")
    yield store
    store.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, store: Store, tmp_path: Path) -> Iterator[Page]:
    """Return the administration's first page, from which files are saved below ``tmp_path``."""
    settings = AdminSettings(SECRET, SECOND, "https://study.example.org")
    site = Site(admin_application(store, settings))
    saving = {"behavior": "allow", "downloadPath": str(tmp_path / "saved")}
    browser.call("Browser.setDownloadBehavior", saving)
    yield browser.open(site.url, width=1100)
    site.close()


@pytest.mark.slow(seconds=5)
def test_an_administrator_signs_in_decides_invites_and_exports(
    page: Page, store: Store, tmp_path: Path
):
    sign_in(page)
    finished, _, failed, invited = store.raters.all()
    text = page.value("document.body.innerText")
    count = len(store.study.assignments[0].places)
    for line in (finished.pseudonym, NAMES[0], f"{count} of {count}", "Agreement so far"):
        assert line in text
    assert not any(model in text for model in store.study.models)
    for width in (375, 1100):
        resize(page, width)
        picture(page, f"admin-{width}")
        picture(page, "study-admin", height=1000)
        leaves_nothing_out(page)

    # The rater who failed the checks is left out already. Taking that back needs no reason.
    row = f"#{failed.pseudonym}"
    click(page, f"{row} summary")
    send(page, f"{row} button[value=exclude-undo]")
    assert store.raters.named(failed.pseudonym).excluded == ""
    click(page, f"{row} summary")
    click(page, f"{row} button[value=exclude]")
    reason = f"document.querySelector({f'{row} input[name=reason]'!r})"
    assert page.value(f"{reason}.matches(':invalid')")
    assert page.value(f"{reason} === document.activeElement"), "it asks for the reason"
    write(page, f"{row} input[name=reason]", "answers in two seconds")
    send(page, f"{row} button[value=exclude]")
    assert store.raters.named(failed.pseudonym).excluded == "answers in two seconds"

    send(page, f"#{invited.pseudonym} form[action$=revoke] button")
    assert store.raters.named(invited.pseudonym).status == "revoked"
    write(page, "#label", "Dr. E. Example")
    send(page, "form[action='/links'] button")
    link = page.value("document.querySelector('main .code').textContent")
    assert store.raters.of_link(link.rsplit("/", 1)[1]) is not None
    send(page, "main a.button")

    send_file(page, "form[action='/export'] button")
    assert "choice" not in header(tmp_path / "saved" / "answers-blinded.csv")
    unblind(page, "a wrong secret")
    until(page, "document.body.innerText.includes('not the second secret')")
    send(page, "main a.button")
    unblind(page, SECOND)
    assert "choice" in header(tmp_path / "saved" / "annotations.csv")
    send(page, "nav a[href='/audit']")
    trail = page.value("document.body.innerText")
    picture(page, "admin-audit")
    for event in ("signed in", "wrong unblinding secret", "unblinded export", "link revoked"):
        assert event in trail
    send(page, "header form button")
    assert page.value("document.querySelector('#secret') !== null")


@pytest.mark.slow(seconds=5)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_the_administration(page: Page, scheme: str):
    if not AXE.is_file():
        pytest.skip("no axe-core here (npm install axe-core, or AXE_CORE=…/axe.min.js)")
    in_scheme(page, scheme)
    no_violation(page)
    write(page, "#secret", "a wrong secret")
    send(page, "main button")
    no_violation(page)
    sign_in(page)
    page.value("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    no_violation(page)
    picture(page, f"axe-admin-{scheme}")
    resize(page, 375)
    no_violation(page)
    send(page, "nav a[href='/audit']")
    no_violation(page)
    send(page, "nav a[href='/']")
    send(page, "form[action$=revoke] button")
    send(page, "form[action='/links'] button")
    no_violation(page)
    picture(page, f"axe-admin-link-{scheme}")


def sign_in(page: Page) -> None:
    """Sign in by keyboard."""
    tab_to(page, "#secret")
    page.call("Input.insertText", text=SECRET)
    page.value("window.isLeft = true; 0")
    page.press(*ENTER)
    until(page, "!window.isLeft && document.querySelector('#raters') !== null")
    at(page, "/")


def unblind(page: Page, secret: str) -> None:
    """Ask for a file that tells the models."""
    click(page, "input[name=models][value=tell]")
    write(page, "input[name=unblinding_secret]", secret)
    send_file(page, "form[action='/export'] button")


def send_file(page: Page, button: str) -> None:
    """Press a button whose answer is a file, after which the page stays."""
    click(page, button)
    time.sleep(0.2)


def header(path: Path) -> list[str]:
    """Return the columns of a file that is being saved."""
    end = time.monotonic() + 20
    while not path.is_file() or not path.stat().st_size:
        assert time.monotonic() < end, f"{path} is not saved"
        time.sleep(0.02)
    with path.open(newline="") as file:
        return next(csv.reader(file))
