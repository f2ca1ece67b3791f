"""The machine's clock is set, forward or back, while a study is served or between two starts."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import pytest
from app_world import ARRIVAL, CODES, Browser, opened

from jaxmodpo.study.app import clock
from jaxmodpo.study.app.store import Store

HOUR = 3600.0
DAY = 24 * HOUR


@dataclass
class Machine:
    """Stands in for the module ``time`` of the clock."""

    of_day: float = 1_800_000_000.0
    counter: float = 100.0

    def time(self) -> float:
        return self.of_day

    def monotonic(self) -> float:
        return self.counter

    def wait(self, seconds: float) -> None:
        self.of_day += seconds
        self.counter += seconds


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(clock, "time", machine)
    return machine


@pytest.fixture
def path(study: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "study.json"
    copy.write_bytes(study.read_bytes())
    return copy


def seconds_of(store: Store) -> set[float]:
    return {stored.annotation.seconds for stored in store.answers.all()}


def moments(store: Store) -> list[float]:
    return [entry.at for entry in store.audit()]


def at_first_item(store: Store) -> Browser:
    _, token = store.raters.new_link()
    browser = Browser(store)
    browser.get(f"/r/{token}")
    browser.consent()
    return browser


def in_the_same_browser(browser: Browser, store: Store) -> Browser:
    """Return a browser as it was before the server was started again."""
    again = Browser(store)
    again.client.cookies.update(browser.client.cookies)
    again.get("/study")
    return again


def test_a_clock_that_is_set_while_a_study_is_served_changes_no_time(path: Path, machine: Machine):
    store = opened(path)
    browser = at_first_item(store)
    machine.of_day += 3 * DAY
    machine.wait(5)
    browser.answer("left", action="pause")
    assert seconds_of(store) == {5.0}
    machine.of_day -= 9 * DAY
    machine.wait(3)
    browser.get("/item/1")
    browser.answer("right", action="pause")
    assert seconds_of(store) == {8.0}
    store.note("researcher", "a note")
    assert moments(store) == sorted(moments(store))
    store.close()


@pytest.mark.parametrize("set_by", [-400 * DAY, -HOUR, -2.0])
def test_after_a_start_with_the_clock_set_back_times_go_on_in_order(
    path: Path, machine: Machine, caplog: pytest.LogCaptureFixture, set_by: float
):
    store = opened(path)
    browser = at_first_item(store)
    machine.wait(4)
    browser.answer("left", action="pause")
    (before,) = {stored.answered_at for stored in store.answers.all()}
    store.close()
    machine.of_day += set_by
    machine.counter = 0.0
    with caplog.at_level(logging.WARNING):
        store = opened(path)
    assert "behind the last moment that is stored" in caplog.text
    browser = in_the_same_browser(browser, store)
    # The session outlives both, and what was open goes on.
    assert browser.path == "/item/2"
    machine.wait(6)
    browser.answer("left")
    browser.get("/item/1")
    machine.wait(1)
    browser.answer("right", action="pause")
    later = {stored.answered_at for stored in store.answers.all()}
    assert min(later) > before
    # Of the item that was shown before the start, what passed in between is unknown and not less
    # than nothing.
    assert sorted(seconds_of(store)) == [6.0, 11.0]
    assert moments(store) == sorted(moments(store))
    store.close()


def from_prolific(store: Store, pid: str) -> Browser:
    browser = Browser(store, codes=CODES)
    browser.get(ARRIVAL.format(pid=pid, session=f"session-{pid}"))
    return browser


def test_nobody_loses_a_place_at_once_to_a_clock_that_was_set_forward(path: Path, machine: Machine):
    store = opened(path, abandoned_after=DAY)
    for number in range(3):
        from_prolific(store, f"p{number}").consent()
    store.close()
    machine.of_day += 300 * DAY
    machine.counter = 0.0
    store = opened(path, abandoned_after=DAY)
    assert from_prolific(store, "late").path == "/full"
    assert from_prolific(store, "p1").path == "/item/1"
    machine.wait(HOUR + 1)
    # Who was not seen since then has left; who was seen has not.
    later = from_prolific(store, "late")
    later.consent()
    states = {rater.status: rater.holds_place for rater in store.raters.all()[:1]}
    assert states == {"abandoned": False}
    assert from_prolific(store, "p1").path == "/item/1"
    store.close()
