"""Hosts that sample shares of one run: who waits for whom, and whom a host refuses to wait for."""

from __future__ import annotations

import dataclasses
import threading
import time
from pathlib import Path

import pytest

from jaxmodpo.errors import UserError
from jaxmodpo.journals import Journal
from jaxmodpo.launched import Place
from jaxmodpo.records import Question
from jaxmodpo.results.manifest import Identity
from jaxmodpo.sampling import shares
from jaxmodpo.sampling.journal import PlannedReply, row
from jaxmodpo.sampling.shares import Hosts, own_share, sampled_by_others, share_journal

OURS = Identity(command="responses", settings={"seed": 0}, inputs={"model": "abc"})
OTHER_SEED = dataclasses.replace(OURS, settings={"seed": 5})


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(shares, "SECONDS_BETWEEN_LOOKS", 0.01)
    monkeypatch.setattr(shares, "SECONDS_TO_AGREE", 0.3)


def test_hosts_that_agree_wait_for_each_other_and_no_longer(tmp_path: Path):
    first, second, third = (Hosts.join(tmp_path, Place(number, 3), OURS) for number in range(3))
    second.finish()
    waiting = threading.Thread(target=first.wait, daemon=True)
    waiting.start()
    waiting.join(timeout=0.5)
    assert waiting.is_alive()  # for the third host
    third.finish()
    waiting.join(timeout=60)
    assert not waiting.is_alive()


@pytest.mark.parametrize(
    ("place", "identity", "sentence"),
    [
        (
            Place(1, 3),
            OURS,
            "host 1 was started with --share 1 3, and this one with --share 0 2; start every host"
            " with the same settings and the same number of hosts. What was sampled is kept",
        ),
        (
            Place(1, 2),
            OTHER_SEED,
            "host 1 was started with other settings than this one, host 0 (seed was 5, is 0); start"
            " every host with the same settings and the same number of hosts. What was sampled is"
            " kept",
        ),
    ],
)
@pytest.mark.parametrize("started_later", [False, True])
def test_a_host_that_disagrees_is_refused(tmp_path, place, identity, sentence, started_later):
    if not started_later:
        Hosts.join(tmp_path, place, identity).finish()
    first = Hosts.join(tmp_path, Place(0, 2), OURS)
    if started_later:
        Hosts.join(tmp_path, place, identity)
    began = time.monotonic()
    with pytest.raises(UserError) as refusal:
        first.wait()
    assert str(refusal.value) == sentence
    # Of an earlier start nobody knows whether it goes on; a later one was meant.
    assert (time.monotonic() - began < 0.3) == started_later


def test_a_host_beyond_the_count_is_refused_if_it_was_started_later(tmp_path: Path):
    Hosts.join(tmp_path, Place(2, 3), OURS)
    first = Hosts.join(tmp_path, Place(0, 2), OURS)
    Hosts.join(tmp_path, Place(1, 2), OURS).finish()
    first.wait()  # the third host is of an earlier start, and nobody needs it
    Hosts.join(tmp_path, Place(2, 3), OURS)
    with pytest.raises(UserError, match="host 2 was started with --share 2 3, and this one with"):
        first.wait()


def test_replies_of_more_hosts_in_an_earlier_start_are_not_sampled_again(tmp_path: Path):
    planned_replies = [PlannedReply(Question(f"q{n}", "text"), 0) for n in range(6)]
    for number in range(3):
        journal = Journal(share_journal(tmp_path, number))
        for settings, text in (("now", "a"), ("before", "b")):
            for planned in own_share(planned_replies, Place(number, 3))[:1]:
                answer = {"response_text": text, "finish_reason": "end"}
                journal.append(row(planned, settings) | answer)
        journal.close()
    replies = sampled_by_others(tmp_path, share_journal(tmp_path, 1), "now")
    assert {key: reply["response_text"] for key, reply in replies.items()} == {
        ("q0", 0, ""): "a",
        ("q2", 0, ""): "a",
    }
