"""A run that is killed outright twenty times loses no vote, pays for none twice, and ends like one left in peace."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from faulty_server import FaultyServer, marked

from jaxmodpo.artifacts import Response, read_json, write_json, write_responses
from jaxmodpo.judging.ledger import Ledger

QUESTIONS, REPLIES, PERSONAS, KILLS = 100, 3, 50, 20
CALLS = QUESTIONS * PERSONAS
CONCURRENCY = 16


def started(folder: Path, url: str) -> subprocess.Popen[str]:
    inputs = ["--responses", str(folder / "responses.csv"), "--personas", str(folder / "personas.json")]
    endpoint = ["--judge", "endpoint", "--base-url", url, "--judge-model", "m", "--max-concurrency", str(CONCURRENCY)]
    votes = ["--only", "empathy", "--personas-per-question", "0", "--output-dir", str(folder / "out")]
    return subprocess.Popen(
        [sys.executable, "-m", "jaxmodpo.cli", "preferences", *inputs, *endpoint, *votes],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def make_inputs(folder: Path) -> None:
    folder.mkdir()
    rows = [
        Response(f"q{q}", f"question-{q}", f"r{n}", f"reply {n} to {q}")
        for q in range(QUESTIONS)
        for n in range(REPLIES)
    ]
    write_responses(folder / "responses.csv", rows)
    write_json(folder / "personas.json", {f"p{n}": f"persona-{n}" for n in range(PERSONAS)})


def held(folder: Path) -> set[tuple[str, str]]:
    """What the ledger holds valid votes on, read as any other process would: questions and personas."""
    path = folder / "out" / "votes.sqlite"
    if not path.exists():
        return set()
    connection = sqlite3.connect(path)
    try:
        rows = connection.execute("select question_id, persona_id from votes where status = 'valid'").fetchall()
    except sqlite3.OperationalError:  # killed before the tables were made
        return set()
    finally:
        connection.close()
    assert len(rows) == len(set(rows)), "a vote twice"
    return {(question[1:], persona[1:]) for question, persona in rows}


def outputs(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (folder / "out").glob("empathy_*.json")}


def finish(folder: Path, url: str) -> None:
    process = started(folder, url)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said[-2000:]


@pytest.mark.slow(seconds=120)
def test_twenty_kills_during_five_thousand_calls_lose_no_vote_and_ask_none_again(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    make_inputs(whole)
    make_inputs(killed)
    chance, kills = random.Random(42), 0
    with FaultyServer() as server:
        # Spread over the calls, so that each start gets some way; two kills fall before the first call.
        while kills < KILLS:
            stored = held(killed)
            before, answered = len(server.calls), sum(server.answered.values())
            left = CALLS - len(stored)
            assert left > 0, "all was asked before the last kill"
            # So many further calls, or the start of the process itself.
            until = chance.randint(0, 2 * left // (KILLS - kills + 1)) if kills % 10 else 0
            process = started(killed, server.url)
            if until:
                while len(server.calls) < before + until and process.poll() is None:
                    time.sleep(0.001)
                time.sleep(chance.uniform(0, 0.01))
            else:
                time.sleep(chance.uniform(0, 2.0))
            assert process.poll() is None, process.communicate()[1][-2000:]
            process.send_signal(signal.SIGKILL)
            process.communicate()
            server.wait_until_idle()
            kills += 1
            asked = {marked(call.prompt) for call in server.calls[before:]}
            assert not asked & stored, "a vote that the ledger held was asked for again"
            now = held(killed)
            assert stored <= now, "a vote was lost"
            # What is not yet in the ledger was under way: no more than there are workers.
            assert sum(server.answered.values()) - answered <= len(now) - len(stored) + CONCURRENCY
        stored, before = held(killed), len(server.calls)
        assert 0 < len(stored) < CALLS
        finish(killed, server.url)
        assert not {marked(call.prompt) for call in server.calls[before:]} & stored
        assert len(held(killed)) == CALLS
        # Answers that were under way at a kill are the only ones that were given twice.
        again = sum(times - 1 for times in server.answered.values())
        assert again <= KILLS * CONCURRENCY and len(server.answered) == CALLS
        manifest = read_json(killed / "out" / "manifest.json")
        assert manifest["results"]["votes_valid"] == manifest["results"]["spent"]["calls"] == CALLS
        finish(whole, server.url)
    assert outputs(killed) == outputs(whole) and len(outputs(whole)) == 2
    with Ledger(killed / "out" / "votes.sqlite") as one, Ledger(whole / "out" / "votes.sqlite") as other:
        orders = [{v.key: v.order for v in ledger.every_vote(counted=True)} for ledger in (one, other)]
        assert len(list(one.every_vote())) == CALLS
    assert orders[0] == orders[1]
