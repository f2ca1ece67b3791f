"""How an adapter was prompted: its file, the day in it, and warnings of other prompts."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from jaxmodpo.data.chat_template import Surroundings
from jaxmodpo.data.prompting import (
    FILE,
    prompt_day,
    record_common_prompt,
    record_prompt,
    warn_of_other_prompt,
)


def _text(style: str, day: str = "2026-01-02", *, dated: bool = False) -> Any:
    around = Surroundings(f"{day if dated else ''} [", "]", dated=dated)
    return SimpleNamespace(prompt_style=style, day=day, surroundings=around)


def test_an_adapter_says_how_it_was_prompted_and_another_prompt_is_warned_of(tmp_path, caplog):
    warn_of_other_prompt(None, _text("chat"))
    warn_of_other_prompt(tmp_path, _text("chat"))
    record_prompt(tmp_path, _text("instruct"))
    warn_of_other_prompt(tmp_path, _text("instruct"))
    assert not caplog.records
    warn_of_other_prompt(tmp_path, _text("chat"))
    assert "trained with --prompt-style instruct and is used here with chat" in caplog.text


def test_the_day_of_a_dated_prompt_is_kept_and_another_text_around_questions_is_warned_of(
    tmp_path, caplog
):
    record_prompt(tmp_path, _text("chat"))
    assert prompt_day(tmp_path) is None and prompt_day(None) is None
    record_prompt(tmp_path, _text("chat", dated=True))
    assert prompt_day(tmp_path) == "2026-01-02"
    assert json.loads((tmp_path / FILE).read_text())["before_question"] == "2026-01-02 ["
    warn_of_other_prompt(tmp_path, _text("chat", dated=True))
    assert not caplog.records
    warn_of_other_prompt(tmp_path, _text("chat", "2026-01-03", dated=True))
    assert "was trained with other text around its questions" in caplog.text
    (tmp_path / FILE).write_text('{"prompt_style": "chat", "prompt_date": "soon"}')
    assert prompt_day(tmp_path) is None


def test_what_is_made_of_adapters_is_prompted_as_they_are_or_says_nothing(tmp_path, caplog):
    folders = [tmp_path / name for name in ("a", "b", "soup")]
    for folder in folders:
        folder.mkdir()
    for folder in folders[:2]:
        record_prompt(folder, _text("chat", dated=True))
    record_common_prompt(folders[2], folders[:2])
    assert (folders[2] / FILE).read_text() == (folders[0] / FILE).read_text() and not caplog.records
    (folders[2] / FILE).unlink()
    record_prompt(folders[1], _text("instruct"))
    record_common_prompt(folders[2], folders[:2])
    assert not (folders[2] / FILE).exists() and "were prompted in different ways" in caplog.text


@pytest.mark.parametrize("content", ["", "[]", "{", '{"prompt_date": 3}'])
def test_a_file_of_another_shape_says_nothing(tmp_path, caplog, content):
    (tmp_path / FILE).write_text(content)
    assert prompt_day(tmp_path) is None
    warn_of_other_prompt(tmp_path, _text("chat"))
    assert "does not say how the adapter was prompted" in caplog.text
