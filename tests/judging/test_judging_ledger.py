"""Votes survive, keys hold everything an answer depends on, and no private text is written."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json

import pytest

from jaxmodpo.artifacts import Candidate
from jaxmodpo.errors import UserError
from jaxmodpo.judging.criteria import Criterion
from jaxmodpo.judging.judge import Answer, Request, Status
from jaxmodpo.judging.ledger import Ledger, Vote, request_key

REQUEST = Request(
    "compare",
    "q1",
    "a post",
    "p1",
    "a private profile",
    Criterion("empathy", "d", "b", "w"),
    (Candidate("a", "first text"), Candidate("b", "second text")),
)


def vote(key: str, status: Status = "valid", order: tuple[str, ...] | None = ("a",)) -> Vote:
    return Vote.of(key, REQUEST, Answer(status, "said", order if status == "valid" else None, "m"))


def test_a_vote_reads_back_as_it_was_written(tmp_path):
    votes = [vote("1"), vote("2", order=()), vote("3", "refusal")]
    with Ledger(tmp_path / "votes.jsonl") as ledger:
        ledger.add(votes)
    with Ledger(tmp_path / "votes.jsonl") as ledger:
        assert [ledger.latest(v.key) for v in votes] == votes
        assert ledger.valid("1") == votes[0] and ledger.valid("3") is None and ledger.latest("4") is None


def test_a_vote_is_on_disk_once_added(tmp_path):
    with Ledger(tmp_path / "votes.jsonl") as ledger:
        ledger.add([vote("1")])
        assert json.loads((tmp_path / "votes.jsonl").read_text())["key"] == "1"


def test_rows_hold_neither_profiles_nor_replies_nor_posts(tmp_path):
    with Ledger(tmp_path / "votes.jsonl") as ledger:
        ledger.add([vote("1")])
    text = (tmp_path / "votes.jsonl").read_text()
    assert not any(private in text for private in ("a post", "a private profile", "first text", "second text"))
    assert json.loads(text)["shown"] == ["a", "b"]


def test_a_torn_last_line_is_as_if_never_written(tmp_path):
    path = tmp_path / "votes.jsonl"
    with Ledger(path) as ledger:
        ledger.add([vote("1"), vote("2")])
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    with Ledger(path) as ledger:
        assert ledger.valid("1") is not None and ledger.latest("2") is None
        ledger.add([vote("2")])
    assert path.read_bytes() == whole


def test_the_newest_vote_counts_and_the_failed_one_stays(tmp_path):
    path = tmp_path / "votes.jsonl"
    with Ledger(path) as ledger:
        ledger.add([vote("1", "error"), vote("2")])
        ledger.add([vote("1")])
        assert ledger.valid("1") is not None
        ledger.arrange(["1", "2"])
        ledger.add([vote("3")])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(r["key"], r["status"]) for r in rows] == [
        ("1", "error"), ("1", "valid"), ("2", "valid"), ("3", "valid")
    ]  # fmt: skip


def test_votes_outside_the_plan_are_kept_first(tmp_path):
    with Ledger(tmp_path / "votes.jsonl") as ledger:
        ledger.add([vote("2"), vote("other"), vote("1")])
        ledger.arrange(["1", "2"])
    rows = (tmp_path / "votes.jsonl").read_text().splitlines()
    assert [json.loads(row)["key"] for row in rows] == ["other", "1", "2"]


@pytest.mark.parametrize("row", ['{"key": "1"}', "[1]"])
def test_a_file_of_something_else_is_refused_with_its_line(tmp_path, row):
    (tmp_path / "votes.jsonl").write_text(row + "\n")
    with pytest.raises(UserError, match=r"votes\.jsonl, line 1: not a vote"):
        Ledger(tmp_path / "votes.jsonl")


def test_the_key_changes_with_everything_the_answer_depends_on():
    replace = dataclasses.replace
    first, second = REQUEST.responses
    variants = [
        REQUEST,
        replace(REQUEST, kind="rank"),
        replace(REQUEST, question_id="q2"),
        replace(REQUEST, question_text="another post"),
        replace(REQUEST, persona_id="p2"),
        replace(REQUEST, persona_text="another profile"),
        *(replace(REQUEST, criterion=replace(REQUEST.criterion, **{f: "x"})) for f in vars(REQUEST.criterion)),
        replace(REQUEST, responses=(second, first)),
        replace(REQUEST, responses=(first,)),
        replace(REQUEST, responses=(first, replace(second, response_text="x"))),
        replace(REQUEST, responses=(first, replace(second, response_id="x"))),
        replace(REQUEST, repeat=1),
        # Texts that run into each other are still different.
        replace(REQUEST, question_id="q1a", question_text=" post"),
    ]
    keys = [request_key(v, "judge") for v in variants] + [request_key(REQUEST, "another judge")]
    assert all(a != b for a, b in itertools.combinations(keys, 2))


def test_the_key_is_the_published_hash_so_that_old_ledgers_stay_valid():
    texts = ["judge", "compare", "q1", "a post", "p1", "a private profile", "empathy", "d", "b", "w", "0"]
    texts += ["a", "first text", "b", "second text"]
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts)
    assert request_key(REQUEST, "judge") == hashlib.blake2b(digests, digest_size=16).hexdigest()
