"""A run that is killed outright twenty times loses no vote, pays for none twice, and ends like one
left in peace.
"""

from __future__ import annotations

import functools
import random
import signal
import sqlite3
import time
from pathlib import Path

import pytest
from faulty_server import FaultyServer, marked
from killed_runs import Runs, check_kill

from jaxmodpo.files import read_json, write_json
from jaxmodpo.judging.ledger import Ledger
from jaxmodpo.records import Response, write_responses

QUESTIONS, REPLIES, PERSONAS, KILLS = 100, 3, 50, 20
CALLS = QUESTIONS * PERSONAS
CONCURRENCY = 16

PRELOADED = """
import httpx2, openai, sqlalchemy.dialects.sqlite
from jaxmodpo.judging import endpoint, preferences
"""


def command(folder: Path, url: str) -> list[str]:
    inputs = [
        "--responses",
        str(folder / "responses.csv"),
        "--personas",
        str(folder / "personas.json"),
    ]
    endpoint = [
        "--judge",
        "endpoint",
        "--base-url",
        url,
        "--judge-model",
        "m",
        "--max-concurrency",
        str(CONCURRENCY),
    ]
    votes = [
        "--only",
        "empathy",
        "--personas-per-question",
        "0",
        "--output-dir",
        str(folder / "out"),
    ]
    return ["preferences", *inputs, *endpoint, *votes]


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
    """What the ledger holds valid votes on, read as any other process would: questions and
    personas.
    """
    path = folder / "out" / "votes.sqlite"
    if not path.exists():
        return set()
    connection = sqlite3.connect(path)
    try:
        rows = connection.execute(
            "select question_id, persona_id from votes where status = 'valid'"
        ).fetchall()
    except sqlite3.OperationalError:  # killed before the tables were made
        return set()
    finally:
        connection.close()
    assert len(rows) == len(set(rows)), "a vote twice"
    return {(question[1:], persona[1:]) for question, persona in rows}


def outputs(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (folder / "out").glob("empathy_*.json")}


@pytest.mark.slow(seconds=60)
def test_twenty_kills_during_five_thousand_calls_lose_no_vote_and_ask_none_again(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    make_inputs(whole)
    make_inputs(killed)
    chance, runs = random.Random(42), Runs(tmp_path / "said", PRELOADED)
    with FaultyServer() as server:
        arguments = command(killed, server.url)

        def start_and_kill(stored: set[tuple[str, str]], kill: int) -> None:
            left = CALLS - len(stored)
            assert left > 0, "all was asked before the last kill"
            if kill % 10 == 0:
                # While it starts.
                process = runs.start(arguments)
                time.sleep(chance.uniform(0, 2.0))
                process.kill()
                assert process.wait() == -signal.SIGKILL
            else:
                # After so many further calls, so that the kills are spread over all.
                calls = chance.randint(1, 2 * left // (KILLS - kill + 1))
                runs.kill_after_calls(arguments, server, calls, pause=chance.uniform(0, 0.01))

        for kill in range(KILLS):
            check_kill(
                server,
                functools.partial(start_and_kill, kill=kill),
                lambda: held(killed),
                marked,
                CONCURRENCY,
            )
        stored, before = held(killed), len(server.calls)
        assert CALLS // 2 < len(stored) < CALLS
        assert runs.finish(arguments) == 0, runs.newest_output()
        assert not {marked(call.prompt) for call in server.calls[before:]} & stored
        assert len(held(killed)) == CALLS
        # Answers that were under way at a kill are the only ones that were given twice.
        again = sum(times - 1 for times in server.answered.values())
        assert again <= KILLS * CONCURRENCY and len(server.answered) == CALLS
        manifest = read_json(killed / "out" / "manifest.json")
        assert manifest["results"]["votes_valid"] == manifest["results"]["spent"]["calls"] == CALLS
        assert runs.finish(command(whole, server.url)) == 0, runs.newest_output()
    runs.close()
    assert outputs(killed) == outputs(whole) and len(outputs(whole)) == 2
    with (
        Ledger(killed / "out" / "votes.sqlite") as one,
        Ledger(whole / "out" / "votes.sqlite") as other,
    ):
        orders = [
            {v.key: v.order for v in ledger.every_vote(effective_only=True)}
            for ledger in (one, other)
        ]
        assert len(list(one.every_vote())) == CALLS
    assert orders[0] == orders[1]
