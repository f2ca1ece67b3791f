"""Settings files, files that come with the package, and settings as manifests record them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jaxmodpo import config
from jaxmodpo.config import builtin, load_yaml, named_values
from jaxmodpo.errors import UserError


def yaml(folder: Path, text: str) -> str:
    (folder / "s.yaml").write_text(text)
    return str(folder / "s.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "must hold a mapping"),
        ("a: [", "not YAML"),
        ("", "is empty, and must hold settings"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        load_yaml(Path(yaml(tmp_path, text)))


def test_named_values_keep_their_order_and_refuse_nonsense():
    assert list(named_values(["b=1", "a=x=y"], "--margin").items()) == [("b", "1"), ("a", "x=y")]
    for wrong in (["a"], ["=1"], ["a="], ["a=1", "a=2"]):
        with pytest.raises(UserError, match="--margin"):
            named_values(wrong, "--margin")


def test_our_files_are_found_by_name_and_others_by_path(tmp_path):
    assert builtin("criteria", "therapeutic").name == "therapeutic.yaml"
    assert builtin("criteria", yaml(tmp_path, "a: 1")) == tmp_path / "s.yaml"
    with pytest.raises(UserError, match="did you mean 'therapeutic'"):
        builtin("criteria", "therapeutics")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "{} is empty, and must hold settings, as in 'seed: 1'"),
        (b"- a\n", "{} must hold a mapping of settings, as in 'seed: 1', but is [\"a\"]"),
        ("seed: 1".encode("utf-16"), "{} is not UTF-8 text (byte 0); save it as UTF-8"),
        (
            b"a:\n\t- b\n",
            (
                "{} is not YAML that can be read: while scanning for the next token found character"
                " '\\t' that cannot start any token at line 2, column 1: - b ^"
            ),
        ),
    ],
)
def test_a_settings_file_that_holds_no_settings_is_refused_in_words(tmp_path, content, message):
    path = tmp_path / "s.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as refused:
        load_yaml(path)
    assert str(refused.value) == message.format(path)


def test_a_file_that_is_read_again_is_parsed_once_and_each_caller_has_a_mapping_of_its_own(
    tmp_path, monkeypatch
):
    parsed: list[str] = []
    parse_yaml = config.parse_yaml

    def counted(text: str) -> Any:
        parsed.append(text)
        return parse_yaml(text)

    monkeypatch.setattr(config, "parse_yaml", counted)
    path = tmp_path / "settings.yaml"
    path.write_text("read_again: [1, 2]\n")
    first = config.load_yaml(path)
    first["read_again"].append(3)
    assert config.load_yaml(path) == {"read_again": [1, 2]} and len(parsed) == 1
    # It is the text that counts, and not the file's name or time.
    path.write_text("read_again: [1, 2, 4]\n")
    assert config.load_yaml(path) == {"read_again": [1, 2, 4]} and len(parsed) == 2
