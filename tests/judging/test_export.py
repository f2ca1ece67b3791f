"""Votes leave a ledger as files and come back equal; a missing ledger is not made."""

from __future__ import annotations

import json
import sqlite3
import tracemalloc
from pathlib import Path

import pytest

from jaxmodpo.cli import main
from jaxmodpo.criteria import Criterion
from jaxmodpo.endpoints.usage import Usage
from jaxmodpo.errors import UserError
from jaxmodpo.judging import export
from jaxmodpo.judging.export import VotesConfig, read_votes, votes
from jaxmodpo.judging.judge import Answer, Call, Request, call_key
from jaxmodpo.judging.ledger import Ledger, import_votes
from jaxmodpo.judging.votes import Vote, as_record, votes_of
from jaxmodpo.records import Candidate

CRITERIA = (Criterion("empathy", "d", "b", "w"), Criterion("safety", "d", "b", "w"))
SUFFIXES = [".jsonl", ".parquet"]


def votes_on(question: str, answer: Answer, run: str = "r") -> list[Vote]:
    candidates = (Candidate("a", "one"), Candidate("b", "two"))
    request = Request("compare", question, "post", "p", "profile", CRITERIA, candidates, ties=True)
    return votes_of(Call(call_key(request, "judge"), request), answer, judge="judge", run=run)


def recorded() -> list[Vote]:
    """Votes of every kind: valid, a tie, failed, superseded in both orders, of two runs, with odd
    texts.
    """
    both = {"empathy": ("a",), "safety": ()}
    valid = Answer("valid", 'said "ü"\n\u2028', both, "m", Usage(100, 10, 7), 0.01, "id")
    return [
        *votes_on("q1", Answer("error", "HTTP 500")),
        *votes_on("q1", valid),
        *votes_on("q2", valid, "other"),
        *votes_on("q2", Answer("refusal", "no", model="m"), "other"),
        *votes_on("q3", Answer("valid", "half", {"empathy": ("b",)}, "m", Usage(3, 0, 1))),
        *votes_on("q4", Answer("expired", "late")),
        *votes_on("q4", Answer("content_filter", "")),
    ]


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    with Ledger(tmp_path / "votes.sqlite") as ledger:
        import_votes(ledger, recorded())
    return tmp_path / "votes.sqlite"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_votes_come_back_from_a_file_as_they_were(ledger, tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(export, "_GROUP", 5)
    with Ledger(ledger) as opened:
        before = list(opened.every_vote())
    out = tmp_path / f"votes{suffix}"
    votes(VotesConfig(ledger=str(ledger), output=out))
    assert list(read_votes(out)) == before and len(before) == 14
    with Ledger(tmp_path / "again.sqlite") as again:
        import_votes(again, read_votes(out))
        assert list(again.every_vote()) == before
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_parquet_has_typed_columns_and_lists_of_ids(ledger, tmp_path):
    from pyarrow import parquet

    votes(VotesConfig(ledger=str(ledger), output=tmp_path / "v.parquet"))
    schema = parquet.read_schema(tmp_path / "v.parquet")
    types = {name: str(kind) for name, kind in zip(schema.names, schema.types, strict=True)}
    assert schema.names == list(Vote._fields)
    assert types["shown"] == types["order"] == "list<element: string>"
    assert (types["cost"], types["repeat"], types["status"]) == ("double", "int32", "string")
    table = parquet.read_table(tmp_path / "v.parquet")
    assert sum(cost or 0.0 for cost in table["cost"].to_pylist()) == pytest.approx(0.02)
    assert table["shown"].to_pylist()[0] == ["a", "b"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_of_a_run_or_only_what_counts(ledger, tmp_path, suffix):
    def kept(**settings) -> list[tuple[str, str, str]]:
        votes(VotesConfig(ledger=str(ledger), output=tmp_path / f"v{suffix}", **settings))
        return [
            (vote.question_id, vote.criterion, vote.status)
            for vote in read_votes(tmp_path / f"v{suffix}")
        ]

    names = ("empathy", "safety")
    other_votes = [("q2", name, status) for status in ("valid", "refusal") for name in names]
    assert kept(run="other") == other_votes
    assert kept(run="other", counted=True) == other_votes[:2]
    assert kept(counted=True) == [
        *(("q1", name, "valid") for name in names),
        *other_votes[:2],
        ("q3", "empathy", "valid"),
        ("q3", "safety", "parse_error"),
        *(("q4", name, "content_filter") for name in names),
    ]


def test_counted_votes_are_those_that_the_ledger_counts(ledger):
    with Ledger(ledger) as opened:
        effective_votes = list(opened.every_vote(effective_only=True))
        keys = list({vote.key for vote in recorded()})
        assert {vote.key: vote for vote in effective_votes} == opened.votes(keys) and len(
            effective_votes
        ) == len(keys)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--output", "votes.csv"], "must end in .parquet or .jsonl"),
        (["--ledger", "missing.sqlite"], "there is no ledger missing.sqlite"),
        (["--ledger", "sqlite:///missing.sqlite"], "there is no ledger missing.sqlite"),
        (["--run", "othr"], "holds no votes of the run 'othr'; did you mean 'other'?"),
        (["--ledger", "empty.sqlite"], "holds no votes"),
        (["--ledger", "text.txt"], "cannot be opened"),
        (["--ledger", "://"], "must be a file or a database URL"),
        (["--ledger", "postgresql://u@h:notaport/x"], "must be a file or a database URL"),
        (["--ledger", "other.sqlite"], "is another program's"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence_and_leaves_no_file(
    ledger, tmp_path, monkeypatch, capsys, arguments, words
):
    monkeypatch.chdir(tmp_path)
    Ledger("empty.sqlite").close()
    Path("text.txt").write_text("no database" * 100)
    with sqlite3.connect("other.sqlite") as connection:
        connection.execute("create table votes (id integer)")
    connection.close()
    before = sorted(path.name for path in tmp_path.iterdir())
    settings = {"--ledger": str(ledger), "--output": "votes.jsonl"} | dict([arguments])  # type: ignore[list-item]
    with pytest.raises(SystemExit) as ended:
        main(["votes", *(word for pair in settings.items() for word in pair)])
    errors = capsys.readouterr().err
    assert ended.value.code == 2 and words in errors and len(errors.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_an_export_that_fails_leaves_the_earlier_file(ledger, tmp_path, monkeypatch):
    out = tmp_path / "votes.jsonl"
    votes(VotesConfig(ledger=str(ledger), output=out))
    before = out.read_bytes()

    def broken(vote: Vote) -> dict:
        raise OSError("no space")

    monkeypatch.setattr(export, "as_record", broken)
    with pytest.raises(OSError):
        votes(VotesConfig(ledger=str(ledger), output=out))
    assert out.read_bytes() == before and list(tmp_path.glob(".*")) == []


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("v.jsonl", b"{", "line 1: not JSON"),
        ("v.jsonl", b'{"key": "k"}\n', "row 1: not a vote"),
        ("v.jsonl", b"[]\n", "row 1: not a vote"),
        ("v.parquet", b"no parquet", "is not a Parquet file of votes"),
    ],
)
def test_a_file_that_holds_no_votes_is_a_sentence(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=words):
        list(read_votes(tmp_path / name))


def test_a_parquet_file_whose_texts_are_no_texts_is_a_sentence(ledger, tmp_path):
    path = tmp_path / "v.parquet"
    votes(VotesConfig(ledger=str(ledger), output=path))
    content = path.read_bytes()
    assert b"rank" in content or b"compare" in content
    path.write_bytes(content.replace(b"rank", b"r\xffnk").replace(b"compare", b"comp\xffre"))
    with pytest.raises(UserError, match=r"v\.parquet is not a Parquet file of votes"):
        list(read_votes(path))


@pytest.mark.parametrize(
    ("row", "field", "value", "words"),
    [
        (0, "shown", 3, "shown is '3'"),
        (0, "shown", {"a": 1, "b": 2}, "shown is "),
        (0, "raw", None, "raw is 'None'"),
        (0, "repeat", "x", "repeat is 'x'"),
        (0, "repeat", True, "repeat is 'True'"),
        (0, "cost", "1", "cost is '1'"),
        (0, "cost", float("nan"), "cost is 'nan'"),
        (0, "kind", "bogus", "its kind is 'bogus'"),
        (0, "status", "bogus", "its status is 'bogus'"),
        (0, "status", "valid", "recorded as valid, without an order"),
        (2, "status", "refusal", "recorded as refusal, but with an order"),
        (2, "order", ["zzz", "yyy", "xxx"], "does not answer 'compare' for a, b"),
        (2, "order", ["a", "b"], "does not answer 'compare'"),
        (2, "kind", "rank", r"order \['a'\] does not answer 'rank' for a, b"),
        (2, "shown", ["a", "a"], "cannot be asked about a, a"),
        (2, "shown", ["a", "b", "c"], "'compare' cannot be asked about a, b, c"),
    ],
)
def test_a_row_that_no_vote_can_be_is_a_sentence(tmp_path, row, field, value, words):
    (tmp_path / "v.jsonl").write_text(json.dumps(as_record(recorded()[row]) | {field: value}))
    with pytest.raises(UserError, match=rf"v.jsonl, row 1: not a vote \(.*{words}"):
        list(read_votes(tmp_path / "v.jsonl"))


@pytest.mark.slow(seconds=10)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_memory_does_not_grow_with_the_votes(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(export, "_GROUP", 500)
    exported = recorded()[2]
    peaks = []
    for count in (6_000, 12_000):
        ledger_path = tmp_path / f"{count}.sqlite"
        with Ledger(ledger_path) as ledger:
            import_votes(
                ledger, (exported._replace(key=f"{n:032x}", raw=f"{n}" * 100) for n in range(count))
            )
        tracemalloc.start()
        votes(VotesConfig(ledger=str(ledger_path), output=tmp_path / f"v{suffix}", counted=True))
        assert sum(1 for _ in read_votes(tmp_path / f"v{suffix}")) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
