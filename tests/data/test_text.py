"""Tokenization: one BOS, a learned EOS, cuts that are counted, one rule for sampling and
scoring.
"""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path

import pytest

from jaxmodpo.data import chat_template
from jaxmodpo.data.replies import policy_pairs
from jaxmodpo.data.text import (
    PROMPT,
    Cut,
    PolicyText,
    PromptStyle,
    RewardText,
    load_tokenizer,
    pad_rows,
    without_ends,
)
from jaxmodpo.errors import UserError
from jaxmodpo.methods.reward_settings import RewardConfig
from jaxmodpo.records import Candidate, Pair
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


@pytest.fixture
def here(monkeypatch):
    """Chat templates are run in this process, which saves the time that another takes to start."""
    monkeypatch.setattr(chat_template, "_run", _run_here)


def _run_here(template, special_tokens, wanted, folder):
    answer = chat_template._answer(
        {"template": template, "special_tokens": special_tokens, "renderings": wanted}
    )
    if "error" in answer:
        raise UserError(answer["error"])
    return answer["texts"]


def test_an_example_is_bos_prompt_response_eos_even_where_pad_is_eos(tokenizer):
    tokens, prompt = PolicyText(tokenizer).example("one two", "three four")
    assert tokens.count(tokenizer.bos_token_id) == 1 and tokens[0] == tokenizer.bos_token_id
    assert tokens[-1] == tokenizer.eos_token_id == tokenizer.pad_token_id
    assert tokenizer.decode(tokens[prompt:-1]).strip() == "three four"
    assert tokens[:prompt] == PolicyText(tokenizer).prompt("one two")


def test_chat_style_has_one_bos_too(tokenizer, here):
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}{{ m['content'] }} {% endfor %}"
    )
    tokens = PolicyText(tokenizer, prompt_style="chat").prompt("one two")
    assert (
        tokens.count(tokenizer.bos_token_id) == 1
        and tokenizer.decode(tokens[1:]).strip() == "one two"
    )


@pytest.mark.parametrize("before", ["{{ bos_token }}", "six\n{{ bos_token }}", "", "six "])
def test_a_template_gives_transformers_own_tokens(tokenizer, here, before):
    tokenizer.chat_template = before + "[INST] {{ messages[0].content }} [/INST]"
    theirs = tokenizer.apply_chat_template(
        [{"role": "user", "content": "one two"}], tokenize=True, return_dict=True
    )
    ours = PolicyText(tokenizer, "chat").prompt("one two")
    assert ours == theirs["input_ids"] and ours.count(tokenizer.bos_token_id) == before.count(
        "bos_token"
    )


def test_a_tokenizer_without_bos_needs_a_template_and_a_prompt_needs_a_token(tokenizer, here):
    tokenizer.bos_token = None
    with pytest.raises(
        UserError, match="has no bos token, which --prompt-style instruct begins with"
    ):
        PolicyText(tokenizer)
    tokenizer.chat_template = "{{ messages[0].content }}"
    text = PolicyText(tokenizer, "chat")
    assert tokenizer.decode(text.prompt("one two")).strip() == "one two" and not text.has_bos
    with pytest.raises(UserError, match="a question without text gives a prompt without tokens"):
        text.prompt("")


def test_conversations_of_several_messages_are_refused_in_chat_style_and_texts_in_the_papers(
    tokenizer, here
):
    tokenizer.chat_template = "{{ messages[0].content }}"
    chat, instruct = PolicyText(tokenizer, "chat"), PolicyText(tokenizer, "instruct")
    alone = Pair("q1", "one", Candidate("a", "two"), Candidate("b", "three"))
    several = dataclasses.replace(alone, question_id="q2", conversation=True)
    for chosen_only in (False, True):
        assert len(policy_pairs([[alone]], chat, chosen_only=chosen_only)) == 1
        assert len(policy_pairs([[several]], instruct, chosen_only=chosen_only)) == 1
    for tokenize in (
        lambda: policy_pairs([[alone, several]], chat),
        lambda: policy_pairs([[alone, several]], chat, chosen_only=True),
    ):
        with pytest.raises(
            UserError, match="prompts of 1 of 2 pairs, that of question q2 first, are conversations"
        ):
            tokenize()


@pytest.mark.parametrize("trim", ["", " | trim"])
@pytest.mark.parametrize("style", ["instruct", "chat"])
def test_a_long_question_keeps_its_end_a_long_response_its_start_and_both_are_counted(
    tokenizer, here, style: PromptStyle, trim
):
    tokenizer.chat_template = f"{{{{ bos_token }}}}six {{{{ messages[0].content{trim} }}}} seven"
    whole = PolicyText(tokenizer, style).prompt(WORDS)
    around = len(whole) - 10
    text = PolicyText(tokenizer, style, max_prompt_length=around + 4, max_length=around + 7)
    tokens, prompt = text.example(WORDS, "one two three four five")
    assert tokens[:prompt] == PolicyText(tokenizer, style).prompt("seven eight nine ten")
    assert (
        tokenizer.decode(tokens[prompt:]).strip() == "one two three" and len(tokens) == around + 7
    )
    assert text.cut.counts == (1, 1, 6 + 3, 0, 0)
    with pytest.raises(
        UserError, match=r"leaves no room for a question: the text around it takes \d+ tokens"
    ):
        PolicyText(tokenizer, style, max_prompt_length=around, max_length=around + 7)


def test_reward_text_is_robertas_sentence_pair(tokenizer):
    start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    prompt_ids, replied = (
        tokenizer.encode(t, add_special_tokens=False) for t in ("one two", "three")
    )
    assert RewardText(tokenizer).example("one two", "three") == [
        start,
        *prompt_ids,
        end,
        end,
        *replied,
        end,
    ]


@pytest.mark.parametrize(("question", "response"), [(WORDS, "one"), ("one", WORDS), (WORDS, WORDS)])
def test_reward_text_cuts_to_its_length_and_keeps_all_marks(tokenizer, question, response):
    text = RewardText(tokenizer, max_length=10)
    tokens = text.example(question, response)
    assert (
        len(tokens) == 10
        and tokens[0] == tokenizer.cls_token_id
        and tokens.count(tokenizer.sep_token_id) == 3
    )
    assert text.cut.tokens == len(question.split()) + len(response.split()) - 6


def test_reward_text_keeps_a_token_of_both_sides_at_its_shortest_and_refuses_less(tokenizer):
    tokens = RewardText(tokenizer, max_length=6).example(WORDS, "one two")
    prompt_ids, replied = (tokenizer.encode(t, add_special_tokens=False) for t in ("ten", "one"))
    start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    assert tokens == [start, *prompt_ids, end, end, *replied, end]
    for length in (5, 0, -1):
        with pytest.raises(UserError, match=f"at least 6, not {length}"):
            RewardText(tokenizer, max_length=length)
        with pytest.raises(UserError, match=f"--max-length must be at least 6, not {length}"):
            RewardConfig(
                model=Path("m"), pairs=Path("p"), output_dir=Path("o"), max_length=length
            ).check()


def test_a_response_that_fits_is_not_cut_because_the_question_is_long(tokenizer):
    text = RewardText(tokenizer, max_length=12)
    tokens = text.example(WORDS, "one two")
    assert tokenizer.decode(tokens[-3:-1]).strip() == "one two" and text.cut.responses == 0


def test_padding_goes_to_the_right():
    assert pad_rows([[1], [2, 3]], 3).tolist() == [[1, 0, 0], [2, 3, 0]]


def test_the_day_of_a_chat_prompt_is_the_one_that_is_given_or_today(tokenizer, here):
    tokenizer.chat_template = "{{ strftime_now('%Y') }} one {{ messages[0].content }}"
    text = PolicyText(tokenizer, "chat", day="1999-05-06")
    assert text.surroundings == chat_template.Surroundings("1999 one ", "", dated=True)
    assert PolicyText(tokenizer, "chat").day == datetime.date.today().isoformat()
    for wrong in ("yesterday", "20260131", "2026-02-30"):
        with pytest.raises(
            UserError, match=f"--prompt-date must be a day such as 2026-01-31, not '{wrong}'"
        ):
            PolicyText(tokenizer, day=wrong)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer.json", ""),
        ("tokenizer.json", '{"model": {"type": "Fancy"}}'),
        ("tokenizer.json", "[]"),
        ("tokenizer_config.json", '{"extra_special_tokens": [[1]], "added_tokens_decoder": 3}'),
        ("tokenizer_config.json", "[]"),
    ],
)
def test_a_tokenizer_that_does_not_load_is_refused_in_a_sentence(
    tmp_path, tokenizer, file, content
):
    (tmp_path / file).write_text(content)
    with pytest.raises(
        UserError,
        match=r"the tokenizer in .* cannot be loaded \(\w+: .*; compare its tokenizer.json",
    ):
        load_tokenizer(tmp_path)


def test_a_tokenizer_in_sentencepieces_own_file_alone_is_refused_with_the_way_to_convert_it(
    tmp_path,
):
    (tmp_path / "tokenizer.model").write_bytes(b"pieces")
    with pytest.raises(UserError, match=r"tokenizer.model alone, and tokenizer.json is needed"):
        load_tokenizer(tmp_path)


def test_what_cannot_tokenize_is_refused(tmp_path, tokenizer):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no tokenizer"):
        load_tokenizer(tmp_path / "empty")
    with pytest.raises(UserError, match="chat template"):
        PolicyText(tokenizer, prompt_style="chat")
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="eos"):
        PolicyText(tokenizer)


NAMES = "<pad> </s> <s> <unk> <| | end | INST"


@pytest.fixture
def quoting(tmp_path: Path):
    """A tokenizer whose vocabulary has the signs that control tokens are written with, and a token
    for padding.
    """
    save_tokenizer(
        tmp_path, [WORDS, NAMES, PROMPT.format(question=WORDS)], SPECIAL | {"pad_token": "<pad>"}
    )
    return load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    "named", ["one <pad> two", "</s>", "<s> one", "[INST] one [/INST]", "<unk> two"]
)
def test_a_control_token_that_a_text_names_is_plain_text_in_prompt_reply_and_reward(quoting, named):
    plain = quoting.encode(named, add_special_tokens=False, split_special_tokens=True)
    assert not set(plain) & set(quoting.all_special_ids) and len(plain) > 2
    text = PolicyText(quoting)
    without, start = text.example("one two", "three")
    tokens, prompt = text.example(named, f"{named} three")
    own = [token for token in without[:start] if token in quoting.all_special_ids]
    assert [token for token in tokens[:prompt] if token in quoting.all_special_ids] == own and len(
        own
    ) == 3
    position = without.index(quoting.encode("one", add_special_tokens=False)[0])
    assert tokens[:prompt] == without[:position] + plain + without[position + 2 : start]
    assert tokens[prompt:-1] == [*plain, *quoting.encode("three", add_special_tokens=False)]
    start, end = quoting.cls_token_id, quoting.sep_token_id
    assert RewardText(quoting).example(named, "two") == [
        *(start, *plain, end, end),
        *quoting.encode("two", add_special_tokens=False),
        end,
    ]
    assert text.cut.named == 2


def test_a_named_token_that_the_model_has_no_row_for_is_refused(quoting):
    quoting.add_special_tokens({"additional_special_tokens": ["<|end|>"]})
    number = quoting.convert_tokens_to_ids("<|end|>")
    with pytest.raises(
        UserError, match=rf"names <\|end\|>, the tokenizer's token {number}, .* has {number} rows"
    ):
        PolicyText(quoting, rows=number).example("one", "two <|end|> three")
    assert (
        PolicyText(quoting, rows=number + 1).example("one", "two <|end|> three")[0].count(number)
        == 0
    )


@pytest.mark.parametrize(
    "written", ["three four</s>", "three four</s></s>", "three four</s>\n </s> "]
)
def test_an_end_token_that_ends_a_reply_is_left_out_and_counted_and_one_inside_is_text(
    quoting, written
):
    text = PolicyText(quoting)
    assert text.example("one", written) == text.example("one", "three four")
    assert (text.cut.ended, text.cut.named) == (1, 0)
    assert text.example("one", "three </s> four")[0].count(quoting.eos_token_id) == 1
    assert (
        without_ends("one <end>", ["<end>"]) == "one "
        and without_ends("one \n", ["<end>"]) == "one \n"
    )


def test_end_tokens_of_the_generation_settings_are_left_out_too(quoting):
    text = PolicyText(quoting, end_tokens=(quoting.eos_token_id, quoting.pad_token_id))
    assert text.example("one", "three<pad></s>") == text.example("one", "three")


def test_what_was_cut_and_left_out_is_said_and_added_up(caplog):
    cut = Cut(prompts=1, responses=2, tokens=3)
    cut.warn()
    assert [record.getMessage() for record in caplog.records] == [
        "texts cut to fit: 1 prompts and 2 replies lost 3 tokens"
    ]
    cut.add(0, 0, 0, 4, 5)
    assert cut == Cut(1, 2, 3, 4, 5) and cut.counts == (1, 2, 3, 4, 5)
    caplog.clear()
    cut.warn()
    assert [record.getMessage() for record in caplog.records][1:] == [
        (
            "4 replies are written with their end token, which was left out: each reply gets one"
            " anyway"
        ),
        "5 texts name a control token of the model; it is plain text there",
    ]
