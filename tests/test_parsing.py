"""JSON and YAML read strictly: what a second reader of the same file would understand, or a
sentence.
"""

from __future__ import annotations

import json
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from jaxmodpo.parsing import is_serialized, parse_json, parse_yaml, serialized_messages, yaml_text

BOMB = "k0: &k0 [a,a,a,a,a,a,a,a,a]\n" + "".join(
    f"k{n}: &k{n} [{','.join([f'*k{n - 1}'] * 9)}]\n" for n in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "the key 'a' stands twice in one mapping .line 3"),
        ("x: {a: 1, 'a': 2}", "stands twice"),
        ("1: a\n'1': b", "stands twice"),
        ("true: a\n1: b", "stands twice"),
        ("<<: {a: 1}\n<<: {b: 1}", "stands twice"),
        (BOMB, "unfold into more than 200,000"),
        ("a: &s [*s]", "inside of what it stands for"),
        ("a: &s {<<: *s}", "inside of what it stands for"),
        ("[" * 3000, "nested deeper than 64"),
        ("{a: " * 3000, "nested deeper than 64"),
        ("a: " + "9" * 5000, "4300 digits"),
        ("a: !!binary aGk=", "the type 'binary'"),
        ("a: !!python/object/apply:os.getcwd []", "the type 'python"),
        ("a: !!bool maybe", "neither true nor false"),
        ("? [a]\n: b", "a key is a list"),
        ("a: [", "expected the node content|flow"),
        ("a\n---\nb", "single document"),
    ],
)
def test_yaml_that_could_mean_two_things_or_explodes_is_one_sentence(text, message):
    with pytest.raises(ValueError, match=message) as error:
        parse_yaml(text)
    assert "\n" not in str(error.value)


def test_yaml_texts_stay_the_texts_that_they_are():
    values = parse_yaml(
        "[012, 1:30, 2024-01-05, 2024-99-99, 1_000, 0x10, '7', 1e-6, 12, -3, .5, yes, null, ~]"
    )
    assert values == [
        "012",
        "1:30",
        "2024-01-05",
        "2024-99-99",
        "1_000",
        "0x10",
        "7",
        1e-6,
        12,
        -3,
        0.5,
        True,
        None,
        None,
    ]
    assert parse_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: [*a, *a]") == {
        "a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": [{"x": 1, "y": 2}] * 2,
    }  # fmt: skip


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"))
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(VALUES)
def test_what_yaml_and_json_write_is_read_back(value):
    assert parse_yaml(yaml_text(value)) == value
    assert parse_yaml(yaml.safe_dump(value)) == value
    # PyYAML writes Unicode's own line breaks as they are, and its reader folds them into spaces.
    text = yaml.safe_dump(value, allow_unicode=True)
    if not re.search("[\x85\u2028\u2029]", text):
        assert parse_yaml(text) == value
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode("utf-8-sig")) == value


@pytest.mark.parametrize(
    "text",
    [
        "out/a\x85b",
        "out/a\u2028 b\u2029",
        "1e-4",
        "012",
        "yes",
        "~",
        "2026-01-31",
        "a: #b",
        "\ufeffx",
    ],
)
def test_texts_that_yaml_takes_for_something_else_are_read_back(text):
    assert parse_yaml(yaml_text({"path": text, text: [text]})) == {"path": text, text: [text]}


def test_letters_of_all_scripts_stay_readable():
    assert yaml_text({"model": "Übung/模型", "beta": 0.1}) == "model: Übung/模型\nbeta: 0.1\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' stands twice"),
        ('[{"x": {"p": 1, "p": 1}}]', "the key 'p' stands twice"),
        ("[" * 100_000, "nested too deeply"),
        (r'{"a": "\ud83d"}', "surrogate"),
    ],
)
def test_json_that_hides_something_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_json(text)


def test_messages_written_into_a_cell_are_told_from_texts():
    messages = [{"role": "assistant", "content": "Don't [worry]"}]
    for text in (json.dumps(messages), json.dumps(messages, indent=1), json.dumps(messages[0])):
        assert serialized_messages(text) == messages
    for text in (
        repr(messages),
        f"array({messages}, dtype=object)",
        "[{'type': 'text', 'text': 'Hello'}]",
    ):
        assert is_serialized(text) and serialized_messages(text) is None
    for text in ("[sighs] I see", '{"a": 1}', "[{", "role: assistant", '[{"name": "x"}]', ""):
        assert not is_serialized(text)
