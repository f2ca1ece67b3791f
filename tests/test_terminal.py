"""What servers and files say moves nothing on a terminal, and is fit to be kept."""

from __future__ import annotations

import pytest

from jaxmodpo.cli import main
from jaxmodpo.config import without_password
from jaxmodpo.endpoints.messages import message_text, readable, without_key, without_thoughts
from jaxmodpo.terminal import printable


def test_control_characters_are_written_out():
    assert printable("a\x1b]0;x\x07\x9b31m\u202eb\n\tü") == "a\\x1b]0;x\\x07\\x9b31m\\u202eb\n\tü"


def test_half_of_a_surrogate_pair_is_readable_and_two_halves_are_one_character():
    assert readable("hi \ud83d") == "hi \ufffd"
    assert readable("\ud83d\ude00 a\x00b") == "\U0001f600 a\ufffdb"


def test_a_key_and_long_parts_of_it_are_cut_out_and_a_word_is_no_key():
    key = "sk-very-secret-0123456789"
    assert without_key(f"a {key} b {key[:-3]} c", key) == "a [key] b [key] c"
    assert without_key("ranking 1", "1") == "ranking 1"


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("hi", "hi"),
        ("<think>a</think> hi", " hi"),
        ("a</think>hi", "hi"),
        ("<think>a", None),
        ("[THINK]a[/THINK]b", "b"),
    ],
)
def test_thoughts_are_no_part_of_a_reply(text, spoken):
    assert without_thoughts(text) == spoken


def test_pieces_of_a_content_are_joined():
    assert (
        message_text([{"type": "text", "text": "a"}, {"type": "thinking", "thinking": "no"}, "b"])
        == "ab"
    )


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:pa:ss@h/db", "postgresql://me:***@h/db"),
        (
            "postgresql://me@h/db?password=x&sslmode=on",
            "postgresql://me@h/db?password=***&sslmode=on",
        ),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
        ("folder/a:b@c", "folder/a:b@c"),
    ],
)
def test_a_setting_is_written_down_without_its_password(url, shown):
    assert without_password(url) == shown


ESCAPE = "\x1b]0;owned\x07"


@pytest.mark.parametrize(
    "arguments",
    [
        [f"que{ESCAPE}stions"],
        ["questions", f"--inp{ESCAPE}ut", "x"],
        ["questions", "--input", f"{ESCAPE}.csv", "--output-dir", "o"],
        ["questions", "--input", "x", "--output-dir", "o", "--seed", f"{ESCAPE}"],
        ["questions", "--input", "x", "--output-dir", "o", f"stray{ESCAPE}"],
        ["questions", "--config", f"{ESCAPE}.yaml"],
        ["run", f"{ESCAPE}.yaml"],
    ],
)
def test_no_argument_and_no_files_name_moves_the_terminal(capsys, monkeypatch, tmp_path, arguments):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(arguments)
    printed = "".join(capsys.readouterr())
    assert left.value.code == 2
    assert "\x1b" not in printed and "\x07" not in printed and "\\x1b]0;owned\\x07" in printed


def test_what_a_command_prints_moves_the_terminal_no_more(capsys, tmp_path):
    (tmp_path / "e.yaml").write_text(
        "name: e\nphases:\n  - {name: a, command: questions, settings: {input:"
        f' ["x{repr(ESCAPE)[1:-1]}.csv"]}}}}\n'
    )
    main(["run", str(tmp_path / "e.yaml"), "--dry-run", "--output-dir", str(tmp_path / "o")])
    printed = capsys.readouterr().out
    assert "input: x\\x1b]0;owned\\x07.csv" in printed and "\x1b" not in printed
