"""A judging run killed outright goes on from its ledger to the files of an undisturbed one."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from forked_programs import COMMAND, ForkedPrograms

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
def test_a_killed_judging_run_resumes_to_the_same_bytes(
    tmp_path: Path, forked_programs: ForkedPrograms, command: str
):
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

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    forked_programs.run(COMMAND, flags(whole))
    for after in ("9", "5"):
        program = forked_programs.start(KILLER, [after, *flags(killed)])
        ((code, output),) = forked_programs.endings([program])
        assert code == -signal.SIGKILL, output[-2000:]
    forked_programs.run(COMMAND, flags(killed))
    names = sorted(path.name for path in whole.iterdir())
    assert names == sorted(path.name for path in killed.iterdir()) and len(names) > 2
    for name in set(names) - {"manifest.json", "votes.sqlite"}:
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    assert counted(killed) == counted(whole)
