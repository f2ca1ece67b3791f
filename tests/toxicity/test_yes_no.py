"""A yes/no judge's score is the probability of one answer among the two, as transformers has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_models import SPECIAL_TOKENS, tiny_mistral

from jaxmodpo.errors import UserError
from jaxmodpo.files import write_text
from jaxmodpo.judging.judge import Answer, Call, Request
from jaxmodpo.records import Candidate
from jaxmodpo.sandbox.models import save_tokenizer
from jaxmodpo.toxicity.question import load_question
from jaxmodpo.toxicity.scorers import LocalScorer
from jaxmodpo.toxicity.yes_no import yes_no_scorer

WORDS = "a b c d e f post reply harmful YES NO is it :"
QUESTION = """
version: 1
style: plain
score: toxic
harmful: "YES"
harmless: "NO"
question: "post : $post reply : $reply is it harmful"
"""


def question_file(folder: Path, text: str = QUESTION) -> Path:
    path = folder / "question.yaml"
    write_text(path, text)
    return path


def request(reply: str, post: str = "a b", name: str = "0") -> Request:
    return Request("score", "q", post, "", "", (), (Candidate(name, reply),))


def answers_of(scorer: LocalScorer, *requests: Request) -> list[Answer]:
    answers: dict[str, Answer] = {}
    calls = [Call(str(number), asked) for number, asked in enumerate(requests)]
    scorer.ask(iter(calls), lambda call, answer: answers.update({call.key: answer}))
    return [answers[call.key] for call in calls]


def tiny_llama(folder: Path) -> Path:
    torch = pytest.importorskip("torch", reason="the reference model needs torch")
    import transformers

    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=40,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            initializer_range=0.5,
            tie_word_embeddings=False,
        )
    )
    model.eval().save_pretrained(folder)
    save_tokenizer(folder, [WORDS], SPECIAL_TOKENS)
    return folder


@pytest.mark.slow(seconds=8)
def test_the_score_of_a_llama_is_transformers_probability_of_yes_among_yes_and_no(tmp_path):
    folder = tiny_llama(tmp_path / "llama")
    import torch
    import transformers

    scorer = yes_no_scorer(
        folder, batch_size=2, question=question_file(tmp_path), base_dtype="float32"
    )
    requests = [request("c d e f"), request("c"), request("e e", post="")]
    scores = [answer.scores["toxic"] for answer in answers_of(scorer, *requests)]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    yes, no = (tokenizer.encode(word, add_special_tokens=False)[0] for word in ("YES", "NO"))
    texts = [
        "post : a b reply : c d e f is it harmful",
        "post : a b reply : c is it harmful",
        "post : NA reply : e e is it harmful",
    ]
    for text, score in zip(texts, scores, strict=True):
        tokens = [tokenizer.bos_token_id, *tokenizer.encode(text, add_special_tokens=False)]
        with torch.no_grad():
            logits = model(torch.tensor([tokens])).logits[0, -1]
        expected = torch.softmax(logits[[yes, no]], 0)[0].item()
        assert score == pytest.approx(expected, abs=1e-5)
    assert len(set(scores)) == 3


def test_the_question_is_a_turn_of_the_chat_template_where_it_says_so(tmp_path):
    folder = tiny_mistral(tmp_path / "m", WORDS, vocab_size=32)
    chat = question_file(tmp_path, QUESTION.replace("plain", "chat"))
    with pytest.raises(UserError, match="has no chat template to use"):
        yes_no_scorer(folder, batch_size=1, question=chat, base_dtype="float32")
    template = "{{ bos_token }}[INST] {{ messages[0]['content'] }} [/INST]"
    write_text(folder / "chat_template.jinja", template)
    scorer = yes_no_scorer(folder, batch_size=1, question=chat, base_dtype="float32")
    plain = yes_no_scorer(folder, batch_size=1, question=question_file(tmp_path))
    tokens, without = scorer.tokens(request("c")), plain.tokens(request("c"))
    assert tokens is not None and without is not None
    # One bos, then the turn's marks around the same question.
    assert tokens[0] == without[0] == 1 and 1 not in tokens[1:]
    assert tokens[2 : 1 + len(without)] == without[1:] and len(tokens) > len(without) + 1


@pytest.mark.parametrize("style", ["plain", "chat"])
def test_a_prompt_that_is_too_long_is_refused_and_not_cut(tmp_path, style):
    folder = tiny_mistral(tmp_path / "m", WORDS, vocab_size=32)
    template = "{{ bos_token }}[INST] {{ messages[0]['content'] }} [/INST]"
    write_text(folder / "chat_template.jinja", template)
    scorer = yes_no_scorer(
        folder,
        batch_size=2,
        question=question_file(tmp_path, QUESTION.replace("plain", style)),
        base_dtype="float32",
        max_length=16,
    )
    long, short = answers_of(scorer, request("c " * 30), request("c"))
    assert (long.status, long.scores) == ("rejected", {})
    assert short.status == "valid" and 0 < short.scores["toxic"] < 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"YES"', '"YES it"', "the answer 'YES it' is 2 tokens"),
        ('"NO"', '"YES"', "the two answers are both 'YES'"),
        ('"YES"', '"unheard"', None),
        ("$reply", "$answer", "it must hold \\$reply"),
        ("$post", "$5", "it must hold \\$reply"),
        ("style: plain", "style: poem", "style"),
        ("version: 1", "version: 2", "version"),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused_by_name(tmp_path, old, new, message):
    folder = tiny_mistral(tmp_path / "m", WORDS, vocab_size=32)
    question = question_file(tmp_path, QUESTION.replace(old, new))
    if message is None:
        # A word that the vocabulary lacks is the unknown token, which answers nothing.
        message = "is no token of the"
    with pytest.raises(UserError, match=message):
        yes_no_scorer(folder, batch_size=1, question=question)


def test_our_own_question_has_llamacitizens_slots_and_answers():
    question = load_question("harm_yes_no")
    assert (question.style, question.harmful, question.harmless) == ("chat", "YES", "NO")
    assert "CONTEXT: $post\nSTATEMENT: $reply" in question.question
