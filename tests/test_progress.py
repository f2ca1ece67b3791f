"""Work that nobody watches says now and then how far it is."""

from __future__ import annotations

import logging

from jaxmodpo import progress
from jaxmodpo.progress import Progress


def test_without_a_terminal_a_line_comes_now_and_then(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    bar = Progress("sampling", 4000, "replies", 1000)
    for _ in range(30):
        now[0] += 10
        bar.update(100)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 10
    assert (messages[0], messages[-1]) == (
        "sampling: 1,300 of 4,000 replies",
        "sampling: 4,000 of 4,000 replies",
    )


def test_what_was_done_before_is_counted_without_a_line(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    bar = Progress("judging", None, "votes")
    bar.skip(7)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    bar.update()
    assert caplog.messages == ["judging: 8 votes"]


def test_a_note_stands_behind_the_count(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    bar = Progress("training", 50, "updates")
    bar.note("loss 0.6931, 3,200 tokens a second")
    bar.update()
    assert caplog.messages == ["training: 1 of 50 updates, loss 0.6931, 3,200 tokens a second"]
