"""Votes are counted for what they say that they are on, and a batch's lines for the request that
they name.
"""

from __future__ import annotations

import pytest

from jaxmodpo.criteria import Criterion
from jaxmodpo.errors import UserError
from jaxmodpo.judging.batch_files import BatchFiles, Draft, Header, input_line
from jaxmodpo.judging.judge import Call, Request
from jaxmodpo.judging.votes import Vote, check_votes
from jaxmodpo.records import Candidate

CRITERIA = (Criterion("empathy", "", "", ""), Criterion("safety", "", "", ""))


def votes(question: str, persona: str) -> list[Vote]:
    return [
        Vote(
            "key",
            "rank",
            question,
            persona,
            criterion.name,
            0,
            ("a", "b"),
            ("a", "b"),
            "valid",
            "",
            "m",
        )
        for criterion in CRITERIA
    ]


def test_votes_are_those_of_the_question_the_persona_and_the_criteria():
    request = Request("rank", "q1", "post", "anna", "profile", CRITERIA, ())
    cast = votes("q1", "anna")
    check_votes(request, cast)
    for wrong in (
        cast[:1],  # removed
        [cast[0], *cast],  # doubled
        cast[::-1],  # reordered
        votes("q1", "ben"),
        votes("q2", "anna"),
    ):
        with pytest.raises(UserError, match="the ledger's votes on question q1 are not those"):
            check_votes(request, wrong)


def draft(folder, keys: str) -> BatchFiles:
    files = BatchFiles(folder, "tag")
    written = Draft(files, Header("judge", "model", 1), 10, 10_000)
    for key in keys:
        request = Request(
            "rank", f"q{key}", "", "anna", "", CRITERIA, (Candidate("a", ""), Candidate("b", ""))
        )
        written.add(Call(key, request), input_line(key, {"of": key}))
    written.close()
    return files


def test_lines_of_a_batch_belong_to_the_request_that_they_name(tmp_path):
    files = draft(tmp_path, "xyz")
    whole = files.input.read_bytes().splitlines(keepends=True)
    files.input.write_bytes(b"".join(whole[::-1]))
    assert [(asked.key, asked.request.question_id, line) for asked, line in files.lines()] == [
        ("z", "qz", whole[2]), ("y", "qy", whole[1]), ("x", "qx", whole[0]),
    ]  # fmt: skip
    files.input.write_bytes(b"".join(whole[:2]))
    with pytest.raises(UserError, match=r"tag\.jsonl lacks 1 of the requests in"):
        list(files.lines())
    for lines, message in (
        ([whole[0], *whole], "line 2 is of no request in"),
        ([*whole, b"no\n"], "line 4: not JSON"),
    ):
        files.input.write_bytes(b"".join(lines))
        with pytest.raises(UserError, match=rf"tag\.jsonl, {message}"):
            list(files.lines())
