"""Control tokens that users' texts name, in every kind of tokenizer, alone and within a prompt."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from jaxmodpo.data.controls import ControlTokens
from jaxmodpo.data.text import PROMPT

HEAD, _, TAIL = PROMPT.partition("{question}")
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
NAMES = ["<unk>", "<s>", "</s>", "<pad>", "[INST]", "[/INST]"]
CORPUS = [PROMPT.format(question="one two three ab s > / < | pad end")] * 20


def _byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=NAMES, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def _as_llama() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=NAMES, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def _unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=90, special_tokens=NAMES, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def _tokenizer(kind: str) -> Any:
    if kind == "python":
        return ByT5Tokenizer(bos_token="<s>")
    made = {"byte level": _byte_level, "as Llama's": _as_llama, "unigram": _unigram}[kind]()
    marks = {"additional_special_tokens": ["[INST]", "[/INST]"]}
    return PreTrainedTokenizerFast(tokenizer_object=made, **SPECIAL, **marks)


KINDS = ("byte level", "as Llama's", "unigram", "python")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "text", ["one <pad> two", "</s>", "ab<s>ab", "[INST] one [/INST] <pad><pad>"]
)
def test_a_named_control_token_is_spelled_out(kind, text):
    tokenizer = _tokenizer(kind)
    controls = ControlTokens(tokenizer, PROMPT)
    tokens, named = controls.encode(text)
    assert named or (kind == "python" and "INST" in text)
    special = set(tokenizer.all_special_ids)
    assert not set(tokens) & special
    assert str(tokenizer.decode(tokens)).strip() == text
    # transformers' own way lets a vocabulary that has the name as a piece take the piece.
    theirs = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    assert tokens == theirs or (set(theirs) & special and kind in ("as Llama's", "unigram"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompts_own_control_tokens_stay_and_the_border_to_the_question_is_as_always(kind):
    tokenizer = _tokenizer(kind)
    controls = ControlTokens(tokenizer, PROMPT)
    ordinary, named = controls.encode("ab one", HEAD, TAIL)
    assert not named and ordinary == tokenizer.encode(
        HEAD + "ab one" + TAIL, add_special_tokens=False
    )
    tokens, named = controls.encode("ab one <pad> one", HEAD, TAIL)
    after = controls.encode("one", HEAD, TAIL)[0]
    before = len(ordinary) - len(tokenizer.encode("x" + TAIL, add_special_tokens=False))
    assert named and tokens[:before] == ordinary[:before]
    assert tokens[-3:] == after[-3:]
    special = set(tokenizer.all_special_ids)
    assert [token for token in tokens if token in special] == [
        token for token in ordinary if token in special
    ]
    assert "<pad>" in tokenizer.decode(tokens)


def test_an_added_token_is_plain_text_where_the_prompts_own_text_holds_it_and_vocabulary_elsewhere():
    tokenizer = _tokenizer("byte level")
    tokenizer.add_tokens(["<|end|>", "  "])
    end, spaces = (tokenizer.added_tokens_encoder[piece] for piece in ("<|end|>", "  "))
    tokens, named = ControlTokens(tokenizer, "<|end|>").encode("one<|end|>  two", "<|end|>")
    assert named and tokens.count(end) == 1 and tokens[0] == end and tokens.count(spaces) == 1
    tokens, named = ControlTokens(tokenizer).encode("one<|end|>  two")
    assert not named and tokens.count(end) == 1


def test_words_and_runs_of_spaces_stay_vocabulary_where_a_template_holds_them():
    tokenizer = _tokenizer("byte level")
    tokenizer.add_tokens(["    ", "  ", "therapist", "<|user|>"])
    template = "{%- for m in messages %}\n    {{ '<|user|>You ask a therapist.' }}\n{%- endfor %}"
    text = "my therapist said  two"
    tokens, named = ControlTokens(tokenizer, template).encode(text)
    assert not named and tokens == tokenizer.encode(text, add_special_tokens=False)
    assert ControlTokens(tokenizer, template).encode("one <|user|>")[1]


def test_marks_are_the_texts_of_control_tokens_alone():
    tokenizer = _tokenizer("byte level")
    ids = [tokenizer.get_vocab()[piece] for piece in ("</s>", "a")]
    assert ControlTokens(tokenizer).marks(ids) == ["</s>"]
