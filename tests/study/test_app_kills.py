"""A server that is killed while many write loses nothing that it acknowledged."""

from __future__ import annotations

import random
import re
import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest
from app_world import opened, write_study
from killed_runs import Runs

from jaxmodpo.bench.study_server import free_port, is_answering
from jaxmodpo.study.study_file import CHOICES

KILLS = 20

Given = tuple[str, str]
"""a side, and the number of the answer as its reason"""


@dataclass
class Rater:
    """A rater who gives one answer after another to one question, and notes what became of them."""

    url: str
    token: str
    pseudonym: str
    random: random.Random
    form: dict[str, str] = field(default_factory=dict)
    acknowledged: Given | None = None
    under_way: list[Given] = field(default_factory=list)
    """what was sent since then, of which nobody said what became"""
    count: int = 0

    def write_until_it_fails(self) -> None:
        """Answer until the server is gone."""
        try:
            with httpx2.Client(base_url=self.url, follow_redirects=True, timeout=20) as client:
                self._come(client)
                while True:
                    self._answer(client)
        except httpx2.TransportError:
            return

    def _come(self, client: httpx2.Client) -> None:
        page = client.get(f"/r/{self.token}")
        self.form = {"form_token": re.findall(r'form_token" value="(\w+)', page.text)[0]}
        if page.url.path == "/welcome":
            consent = {"answer": "consent", "statement": ["1", "2", "3"]}
            client.post("/consent", data={**self.form, **consent})
            client.post("/begin", data=self.form)

    def _answer(self, client: httpx2.Client) -> None:
        self.count += 1
        given = (self.random.choice(CHOICES), str(self.count))
        self.under_way.append(given)
        fields = {**self.form, "criterion-1": given[0], "reason": given[1]}
        answer = client.post("/item/1/answer", data=fields)
        if answer.status_code == 429:
            # Answers came faster than a person gives them: this one was not taken.
            self.under_way.pop()
            time.sleep(0.01)
            return
        assert answer.json() == {"stored": True}
        self.acknowledged = given
        self.under_way = []


def wait_for(port: int) -> None:
    """Return once a server answers."""
    end = time.monotonic() + 60
    while not is_answering(port):
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow(seconds=20)
def test_kill_9_while_many_write_loses_no_acknowledged_answer(tmp_path: Path):
    study = write_study(tmp_path)
    port = free_port()
    store = opened(study)
    raters = [
        Rater(f"http://127.0.0.1:{port}", token, pseudonym, random.Random(pseudonym))
        for pseudonym, token in (store.raters.new_link() for _ in range(3))
    ]
    store.close()
    # Imports take the longest.
    runs = Runs(tmp_path / "log.txt", "import jaxmodpo.study.app.admin, uvicorn, alembic.command\n")
    moments = random.Random(0)
    for _ in range(KILLS):
        server = runs.fork(["study", "serve", str(study), "--port", str(port)])
        wait_for(port)
        threads = [threading.Thread(target=rater.write_until_it_fails) for rater in raters]
        enough = [rater.count + 3 for rater in raters]
        for thread in threads:
            thread.start()
        while any(rater.count < count for rater, count in zip(raters, enough, strict=True)):
            assert all(thread.is_alive() for thread in threads)
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.15))
        assert runs.kill_fork(server) == -signal.SIGKILL
        for thread in threads:
            thread.join(20)
        check(study, raters)
    runs.close()
    answers = sum(rater.count for rater in raters)
    assert answers > 3 * 3 * KILLS


def check(study: Path, raters: list[Rater]) -> None:
    """Hold what is stored against what raters were told; an answer under way may be stored."""
    store = opened(study)
    for rater in raters:
        (stored,) = store.answers.of(store.raters.named(rater.pseudonym))
        given = (stored.side, stored.reason)
        assert given in (rater.acknowledged, *rater.under_way)
        rater.acknowledged = given
        rater.under_way = []
    store.close()
