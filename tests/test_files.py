"""Files that are whole or absent, and sentences for those that cannot be read or written."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmodpo.errors import UserError
from jaxmodpo.files import (
    atomic_directory,
    check_writable,
    private_database,
    read_json,
    read_table,
    write_json,
    write_table,
    write_text,
)
from jaxmodpo.records import (
    read_personas,
    read_questions,
)


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    with pytest.raises(RuntimeError), atomic_directory(tmp_path / "folder") as temporary:
        write_text(temporary / "half", "half")
        raise RuntimeError
    assert read_json(tmp_path / "a.json") == {"x": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_replaced_folder_keeps_nothing_of_the_old_one(tmp_path):
    for name in ("old", "new"):
        with atomic_directory(tmp_path / "folder") as temporary:
            write_text(temporary / name, name)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["new"]


def test_half_of_a_surrogate_pair_is_refused_where_it_is_read(tmp_path):
    """Python's JSON lets it in; hashing, databases and UTF-8 files do not let it out."""
    file = tmp_path / "personas.json"
    for text, whole in (
        (r"sad \ud83d\ude22", True),
        (r"\\ud83d is its code", True),
        (r"sad \ud83d", False),
    ):
        file.write_text(f'{{"p": "{text}"}}')
        if whole:
            assert len(read_personas(file)) == 1
        else:
            with pytest.raises(
                UserError, match=r"personas\.json is not valid JSON: .*surrogate pair \('\\ud83d'\)"
            ):
                read_personas(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "lacks the column question_id, question_text; it is empty"),
        (
            b"question_id,text\n1,a\n",
            "lacks the column question_text; its columns are question_id, text",
        ),
        (b"question_id,question_text\n", "a header but no rows"),
        (b"question_id,question_text\n1,a\n1,b\n", "the question_id 1 stands there twice"),
        (b"question_id,question_text\n1,\xe9\n", "not UTF-8"),
        (b"question_id,question_text\n1,a,b\n", "line 2: not 2 fields"),
        (
            b"question_id,question_text,question_text\n1,a,b\n",
            "'question_text' stands there twice, as the columns 2 and 3",
        ),
        (
            b"question_id,question_text,Question_Text \n1,a,b\n",
            "'question_text' stands there twice",
        ),
        (b"question_id;question_text\n1;a\n", "save it with commas between the fields, not ';'"),
        (
            b"question_id,question_text\n1,\"[{'role': 'user', 'content': 'a'}]\"\n",
            "row 1, question_text: a list of messages",
        ),
    ],
)
def test_a_broken_table_is_described_in_one_sentence(tmp_path, content, message):
    (tmp_path / "q.csv").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_questions(tmp_path / "q.csv")
    assert "q.csv" in str(caught.value) and "\n" not in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.text(), st.text(st.sampled_from("a\r\n\"',; \x00\u2028\x85\x0b\ud83d"))),
        min_size=1,
    )
)
def test_every_table_that_is_written_can_be_read(tmp_path_factory, cells):
    """Python before 3.11.9 leaves a bare carriage return without quotes; half of a surrogate pair
    is no UTF-8.
    """
    path = tmp_path_factory.mktemp("t") / "t.csv"
    write_table(path, [{"one": a, "two": b} for a, b in cells], ["one", "two"])
    whole = [[re.sub("[\ud800-\udfff]", "\ufffd", text) for text in row] for row in cells]
    assert [[row["one"], row["two"]] for row in read_table(path, ["one"])] == whole


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_database_and_what_sqlite_keeps_beside_it_are_their_owners_alone(tmp_path):
    path = tmp_path / "votes.sqlite"
    for _ in range(2):
        private_database(path)
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("CREATE TABLE IF NOT EXISTS words (said TEXT)")
            database.commit()
            beside = [tmp_path / f"votes.sqlite{ending}" for ending in ("", "-wal", "-shm")]
            assert [mode(file) for file in beside] == [0o600] * 3
            for file in beside:
                file.chmod(0o644)  # as an earlier version left them
            private_database(path)
            assert [mode(file) for file in beside] == [0o600] * 3
        path.chmod(0o644)
    path.chmod(0o660)
    private_database(path)
    assert mode(path) == 0o660, "shared with a group on purpose"


@pytest.mark.parametrize("name", ["votes.sqlite", "votes.sqlite-wal"])
def test_no_database_is_made_through_a_link(tmp_path, name):
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).symlink_to(elsewhere)
    with pytest.raises(
        UserError, match=rf"{name} is a link, and nothing is written through one; remove it"
    ):
        private_database(tmp_path / "out" / "votes.sqlite")
    assert not elsewhere.exists()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("folder", "folder: it is a folder; name a file"),
        ("folder/..", "folder/..: it is a folder; name a file"),
        ("file/rows.jsonl", "file/rows.jsonl: File exists"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_the_work(tmp_path, name, told):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"^cannot write to .*{re.escape(told)}$"):
        check_writable(tmp_path / name)
    check_writable(tmp_path / "new" / "rows.jsonl")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_csv_file_without_a_header_is_empty(tmp_path):
    path = tmp_path / "survey.csv"
    for content, told in [("", "is empty"), ("a,b\n", "has a header but no rows")]:
        path.write_text(content)
        with pytest.raises(UserError, match=f"^{re.escape(str(path))} {told}$"):
            read_table(path, ())
    # A list of exceptions may have none; without a header it is no such list.
    assert read_table(path, ("a",), rows_expected=False) == []
    path.write_text("")
    with pytest.raises(UserError, match=r"is empty$"):
        read_table(path, (), rows_expected=False)


def test_json_in_another_encoding_is_refused_in_words(tmp_path):
    path = tmp_path / "personas.json"
    path.write_bytes('{"a": 1}'.encode("utf-16"))
    with pytest.raises(
        UserError, match=r"personas.json is not UTF-8 text \(byte 0\); save it as UTF-8$"
    ):
        read_json(path)
