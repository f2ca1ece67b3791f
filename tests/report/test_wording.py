"""How the report says numbers and texts: what cannot be seen is shown, and nothing is a raw key."""

from __future__ import annotations

from jaxmodpo.report.blocks import Cell, Column, Table
from jaxmodpo.report.table_files import csv_of, latex_of
from jaxmodpo.report.wording import (
    count,
    counts_in_words,
    interval_in_words,
    listed,
    p_equals,
    readable,
    shortened,
    visible,
)


def test_what_cannot_be_seen_or_turns_its_surroundings_is_written_as_a_code():
    assert visible("a\u202eb\x00c\ud800d") == "a⟨U+202E⟩b⟨U+0000⟩c⟨U+D800⟩d"
    assert visible("plain, größer\n") == "plain, größer\n"
    assert readable("\u202eשלום\x00\ud800") == "\u202eשלום\ufffd\ufffd"


def test_long_names_keep_their_beginning_and_end():
    assert shortened("abcdef", 6) == "abcdef" and shortened("abcdefghi", 6) == "abc…hi"


def test_numbers_are_said_in_words():
    assert count(1, "question") == "1 question" and count(1200, "vote") == "1,200 votes"
    assert p_equals(0.0004) == "p < 0.001" and p_equals(0.031) == "p = 0.031"
    assert interval_in_words((0.219, 0.281)) == "95% interval 21.9 to 28.1"
    assert interval_in_words(None) == "no interval"
    assert listed([]) == "" and listed(["a"]) == "a" and listed(["a", "b", "c"]) == "a, b and c"
    assert (
        counts_in_words({"cut": {"prompts": 4}, "units_tied": 2}) == "cut, prompts 4; units tied 2"
    )


def test_tables_as_files_hold_their_texts_as_they_are():
    table = Table(
        "t",
        (Column("model", is_word=True), Column("x", detail="95% interval")),
        [['a,"b"_&', Cell("1", "0–2")]],
    )
    assert csv_of(table) == '"model","x","x: 95% interval"\n"a,""b""_&","1","0–2"\n'
    assert r'a,"b"\_\& & 1 {\footnotesize 0--2} \\' in latex_of(table)
