"""A judging run killed outright goes on from its ledger to the files of an undisturbed one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxmodpo.files import write_json
from jaxmodpo.judging.ledger import Ledger
from jaxmodpo.judging.votes import Vote
from jaxmodpo.records import Response, write_responses

KILLER = """
import os, signal, sys
from jaxmodpo.judging.rubric import RubricJudge
real, calls = RubricJudge.answer, 0
def answer(self, request):
    global calls
    calls += 1
    if calls == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, request)
RubricJudge.answer = answer
from jaxmodpo.cli import main
main(sys.argv[2:])
"""


def counted(folder: Path) -> list[Vote]:
    """The votes that count, without the calls' names and times, which differ between any two
    runs.
    """
    with Ledger(folder / "votes.sqlite") as ledger:
        votes = [vote._replace(call="", time="") for vote in ledger.every_vote(effective_only=True)]
    return sorted(votes, key=lambda vote: vote.key)


SENTENCES = (
    "I am so sorry.",
    "Please call a crisis line.",
    "You must work harder.",
    "It makes sense.",
)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["preferences", "evaluate"])
def test_a_killed_judging_run_resumes_to_the_same_bytes(tmp_path: Path, command: str):
    replies = [
        Response(f"q{q}", f"post {q}", f"r{q}_{n}", " ".join(SENTENCES[: 1 + (q + n) % 4]))
        for q in range(6)
        for n in range(4)
    ]
    write_responses(tmp_path / "a.csv", replies)
    write_responses(tmp_path / "b.csv", replies[::-1])
    write_json(tmp_path / "personas.json", {f"p{n}": f"profile {n}" for n in range(8)})
    responses = (
        [str(tmp_path / "a.csv")]
        if command == "preferences"
        else [f"{n}={tmp_path}/{n}.csv" for n in "ab"]
    )

    def flags(folder: Path) -> list[str]:
        common_flags = [
            "--responses",
            *responses,
            "--personas",
            str(tmp_path / "personas.json"),
            "--only",
            "empathy",
        ]
        return [
            command,
            *common_flags,
            "--judge",
            "rubric",
            "--personas-per-question",
            "4",
            "--output-dir",
            str(folder),
        ]

    def run(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, *arguments],
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            capture_output=True,
        )

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = run("-m", "jaxmodpo.cli", *flags(whole))
    assert process.returncode == 0, process.stderr.decode()[-2000:]
    for after in ("9", "5"):
        process = run("-c", KILLER, after, *flags(killed))
        assert process.returncode == -9, process.stderr.decode()[-2000:]
    process = run("-m", "jaxmodpo.cli", *flags(killed))
    assert process.returncode == 0, process.stderr.decode()[-2000:]
    names = sorted(path.name for path in whole.iterdir())
    assert names == sorted(path.name for path in killed.iterdir()) and len(names) > 2
    for name in set(names) - {"manifest.json", "votes.sqlite"}:
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    assert counted(killed) == counted(whole)
