"""Tokenisation: one BOS, a learned EOS, cuts that are counted, one rule for sampling and scoring."""

from __future__ import annotations

from pathlib import Path

import pytest

from jaxmodpo.data.text import PROMPT, PolicyText, RewardText, load_tokenizer, pad_rows
from jaxmodpo.errors import UserError
from jaxmodpo.methods.reward import RewardConfig
from jaxmodpo.sandbox.models import save_tokenizer

WORDS = "one two three four five six seven eight nine ten"
SPECIAL = {
    "bos_token": "<s>",
    "cls_token": "<s>",
    "pad_token": "</s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "unk_token": "<unk>",
}


@pytest.fixture
def tokenizer(tmp_path: Path):
    save_tokenizer(tmp_path, [WORDS, PROMPT.format(question=WORDS)], SPECIAL)
    return load_tokenizer(tmp_path)


def test_an_example_is_bos_prompt_response_eos_even_where_pad_is_eos(tokenizer):
    tokens, prompt = PolicyText(tokenizer).example("one two", "three four")
    assert tokens.count(tokenizer.bos_token_id) == 1 and tokens[0] == tokenizer.bos_token_id
    assert tokens[-1] == tokenizer.eos_token_id == tokenizer.pad_token_id
    assert tokenizer.decode(tokens[prompt:-1]).strip() == "three four"
    assert tokens[:prompt] == PolicyText(tokenizer).prompt("one two")


def test_chat_style_has_one_bos_too(tokenizer):
    tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}{{ m['content'] }} {% endfor %}"
    tokens = PolicyText(tokenizer, prompt_style="chat").prompt("one two")
    assert tokens.count(tokenizer.bos_token_id) == 1 and tokenizer.decode(tokens[1:]).strip() == "one two"


def test_a_long_prompt_keeps_its_end_a_long_response_its_start_and_both_are_counted(tokenizer):
    text = PolicyText(tokenizer, max_prompt_length=6, max_length=9)
    whole = PolicyText(tokenizer).prompt(WORDS)
    tokens, prompt = text.example(WORDS, "one two three four five")
    assert tokens[:prompt] == [tokenizer.bos_token_id, *whole[-5:]]
    assert tokenizer.decode(tokens[prompt:]).strip() == "one two three" and len(tokens) == 9
    assert (text.cut.prompts, text.cut.responses, text.cut.tokens) == (1, 1, len(whole) - 6 + 3)


def test_reward_text_is_robertas_sentence_pair(tokenizer):
    start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    asked, replied = (tokenizer.encode(t, add_special_tokens=False) for t in ("one two", "three"))
    assert RewardText(tokenizer).example("one two", "three") == [start, *asked, end, end, *replied, end]


@pytest.mark.parametrize(("question", "response"), [(WORDS, "one"), ("one", WORDS), (WORDS, WORDS)])
def test_reward_text_cuts_to_its_length_and_keeps_all_marks(tokenizer, question, response):
    text = RewardText(tokenizer, max_length=10)
    tokens = text.example(question, response)
    assert len(tokens) == 10 and tokens[0] == tokenizer.cls_token_id and tokens.count(tokenizer.sep_token_id) == 3
    assert text.cut.tokens == len(question.split()) + len(response.split()) - 6


def test_reward_text_keeps_a_token_of_both_sides_at_its_shortest_and_refuses_less(tokenizer):
    tokens = RewardText(tokenizer, max_length=6).example(WORDS, "one two")
    asked, replied = (tokenizer.encode(t, add_special_tokens=False) for t in ("ten", "one"))
    start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    assert tokens == [start, *asked, end, end, *replied, end]
    for length in (5, 0, -1):
        with pytest.raises(UserError, match=f"at least 6, not {length}"):
            RewardText(tokenizer, max_length=length)
        with pytest.raises(UserError, match=f"--max-length must be at least 6, not {length}"):
            RewardConfig(model=Path("m"), pairs=Path("p"), output_dir=Path("o"), max_length=length).check()


def test_a_response_that_fits_is_not_cut_because_the_question_is_long(tokenizer):
    text = RewardText(tokenizer, max_length=12)
    tokens = text.example(WORDS, "one two")
    assert tokenizer.decode(tokens[-3:-1]).strip() == "one two" and text.cut.responses == 0


def test_padding_goes_to_the_right():
    assert pad_rows([[1], [2, 3]], 3).tolist() == [[1, 0, 0], [2, 3, 0]]


def test_what_cannot_tokenise_is_refused(tmp_path, tokenizer):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no tokenizer"):
        load_tokenizer(tmp_path / "empty")
    with pytest.raises(UserError, match="chat template"):
        PolicyText(tokenizer, prompt_style="chat")
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="eos"):
        PolicyText(tokenizer)
