"""Chat templates: the text around a question as transformers renders it, on one day, within
limits.
"""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from jaxmodpo.data import chat_template
from jaxmodpo.data.chat_template import Surroundings, surroundings
from jaxmodpo.errors import UserError

TEMPLATES = {
    "mistral": (
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content']"
        " }} [/INST]{% else %}{{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
    ),
    "llama": (
        "{% for m in messages %}<|start|>{{ m['role'] }}<|end|>\n\n{{ m['content'] | trim"
        " }}<|eot|>{% endfor %}{% if add_generation_prompt %}<|start|>assistant<|end|>\n\n{%"
        " endif %}"
    ),
    "generation": (
        "{%- for m in messages %}{{ m.content }}{% generation %}!{% endgeneration %}{% break %}{%"
        " endfor %}"
    ),
}
DATED = (
    "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% endif %}: {{"
    " messages[0].content }}"
)


@pytest.fixture
def here(monkeypatch):
    """Templates are run in this process, which saves the time that another takes to start."""

    def run(template, special_tokens, wanted, folder):
        task = {"template": template, "special_tokens": special_tokens, "renderings": wanted}
        answer = chat_template._answer(task)
        if "error" in answer:
            raise UserError(answer["error"])
        return answer["texts"]

    monkeypatch.setattr(chat_template, "_run", run)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_question_between_head_and_tail_is_what_transformers_renders(here, name):
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1}, "<s>")),
        bos_token="<s>",
        eos_token="</s>",
    )
    around = surroundings(TEMPLATES[name], tokenizer.special_tokens_map, "2026-01-02", "folder")
    for question in ("Why?", '  two\nlines <s> & "more" \n', "{{ 7 * 7 }}"):
        rendered = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}],
            chat_template=TEMPLATES[name],
            add_generation_prompt=True,
            tokenize=False,
        )
        assert around.head + around.fit(question) + around.tail == rendered
    assert around.trim == ("both" if name == "llama" else "") and not around.dated


def test_the_day_is_the_one_that_is_asked_for(here):
    assert surroundings(DATED, {}, "2026-01-02", "folder") == Surroundings(
        "02 Jan 2026: ", "", dated=True
    )
    weekday = "{{ strftime_now('%A') }} {{ messages[0].content }}"
    assert surroundings(weekday, {}, "2026-11-28", "folder") == Surroundings(
        "Saturday ", "", dated=True
    )


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("{{ raise_exception('only\nuser') }}", "it raises TemplateError: only user"),
        ("{% for i in range(10**12) %}{% endfor %}", "it raises OverflowError: Range too big"),
        ("{% if %}", "it raises TemplateSyntaxError"),
        ("{{ messages[1].content }}", "it raises UndefinedError"),
        ("{{ messages[0].content | upper }}", "writes a question 0 times"),
        ("{{ messages[0].content }}{{ messages[0].content }}", "writes a question 2 times"),
        ("{{ messages[0].content[:300] }}", "changes a question's own text"),
        ("{{ messages[0].content | escape }}", "changes a question's own text"),
        ("{{ '\\ud800' }}{{ messages[0].content }}", "writes half of a surrogate pair"),
        ("{{ lipsum() }}{{ messages[0].content }}", "or writes another text each time"),
        (
            "{{ 'ab' * 1000000 }}{{ messages[0].content }}",
            "it writes 2000012 characters around a question",
        ),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_in_a_sentence(here, template, sentence):
    with pytest.raises(UserError, match=sentence.replace("(", r"\(")):
        surroundings(template, {}, "2026-01-02", "folder")


@pytest.mark.slow(seconds=30)
@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 'a' * 10**11 }}",
    ],
)
def test_a_template_that_never_ends_or_takes_all_memory_is_stopped(template):
    with pytest.raises(UserError) as refused:
        surroundings(template, {}, "2026-01-02", "folder")
    assert (
        str(refused.value)
        == "the chat template of folder cannot be used: it took more than 5 seconds or 1024 MiB of"
        " memory; mend the template, or take --prompt-style instruct"
    )


@pytest.mark.slow(seconds=10)
def test_the_process_of_its_own_gives_the_same_and_says_what_a_template_raises():
    assert surroundings(DATED, {}, "2026-03-04", "folder").head == "04 Mar 2026: "
    with pytest.raises(
        UserError,
        match=r"the chat template of here cannot be used: it raises TemplateError: no; mend",
    ):
        surroundings("{{ raise_exception('no') }}", {}, "2026-01-02", "here")
