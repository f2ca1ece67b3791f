"""A dry run counts what a run would ask, to the token and the cent, and leaves nothing behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from jaxmodpo.costs import CHARACTERS_PER_TOKEN
from jaxmodpo.criteria import load_criteria
from jaxmodpo.endpoints.usage import Usage
from jaxmodpo.errors import UserError
from jaxmodpo.files import write_json
from jaxmodpo.judging.answer_forms import answer_schema
from jaxmodpo.judging.endpoint_settings import endpoint_identity
from jaxmodpo.judging.forecast import Forecast, forecast
from jaxmodpo.judging.judge import Answer, Call, Request, Status, call_key
from jaxmodpo.judging.ledger import Ledger
from jaxmodpo.judging.preferences import PreferencesConfig, _plan, preferences
from jaxmodpo.judging.prompts import Prompts
from jaxmodpo.judging.settings import endpoint_of
from jaxmodpo.judging.votes import votes_of
from jaxmodpo.records import Response, write_responses

QUESTIONS, REPLIES, PERSONAS = 5, 3, 8
SAID = (
    "I am so sorry that this is hard for you; it makes sense to feel alone, and you can ask for"
    " help today"
)


def text(n: int) -> str:
    words = SAID.split()
    return " ".join(words[(n * 7 + m) % len(words)] for m in range(20 + n % 11)) + "."


@pytest.fixture
def work(tmp_path: Path) -> Path:
    rows = [
        Response(f"q{q}", text(100 + q), f"r{n}", text(10 * q + n))
        for q in range(QUESTIONS)
        for n in range(REPLIES)
    ]
    write_responses(tmp_path / "responses.csv", rows)
    write_json(
        tmp_path / "personas.json",
        {f"p{n}": f"You are patient {n}.\n{text(n)}\n" for n in range(PERSONAS)},
    )
    word_level = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    word_level.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    (tmp_path / "words").mkdir()
    word_level.save(str(tmp_path / "words" / "tokenizer.json"))
    return tmp_path


def config_for(work: Path, **settings) -> PreferencesConfig:
    fields: dict[str, Any] = {
        "judge": "endpoint",
        "judge_model": "gpt-5-mini",
        "responses": work / "responses.csv",
        "personas": work / "personas.json",
        "output_dir": work / "out",
        "only": ("empathy", "safety"),
        "personas_per_question": 4,
        "dry_run": True,
        "tokenizer": str(work / "words"),
        **settings,
    }
    return PreferencesConfig(**fields)


def plan(config: PreferencesConfig) -> list[Request]:
    return list(_plan(config, load_criteria(config.criteria, config.only))[0]())


def predicted(config: PreferencesConfig) -> Forecast:
    return forecast(
        config, config.output_dir, *_plan(config, load_criteria(config.criteria, config.only))
    )


def whole_tokens(config: PreferencesConfig, tokenizer: Tokenizer) -> int:
    """The tokens of all calls, each of its messages encoded as a whole."""
    prompts, total = Prompts.load(), 0
    for request in plan(config):
        texts = [message["content"] for message in prompts.messages(request)] + [
            json.dumps(answer_schema(request))
        ]
        total += sum(len(tokenizer.encode(t, add_special_tokens=False)) for t in texts) + 2 * 4
    return total


@pytest.mark.parametrize("per_call", ["one", "all"])
def test_the_tokens_of_prompts_are_those_of_the_whole_messages(work, per_call):
    config = config_for(work, criteria_per_call=per_call)
    result = predicted(config)
    assert result.calls == QUESTIONS * 4 * (2 if per_call == "one" else 1)
    tokenizer = Tokenizer.from_file(str(work / "words" / "tokenizer.json"))
    # Words do not run together, so that parts add up exactly.
    assert result.prompt_tokens == whole_tokens(config, tokenizer)
    assert str(work / "words") in result.counted_by


def test_with_merges_across_words_the_parts_add_up_to_within_two_in_a_hundred(work):
    byte_pairs = Tokenizer(models.BPE())
    byte_pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    corpus = [text(n) for n in range(50)] + list(Prompts.load().templates.values())
    byte_pairs.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=600, show_progress=False))  # type: ignore[call-arg]
    byte_pairs.save(str(work / "bpe.json"))
    config = config_for(work, tokenizer=str(work / "bpe.json"))
    assert predicted(config).prompt_tokens == pytest.approx(
        whole_tokens(config, byte_pairs), rel=0.02
    )


def test_dollars_are_tokens_times_prices_and_half_by_batches(work):
    result = predicted(config_for(work))
    # gpt-5-mini: 0.25 dollars a million tokens of prompts, 2.00 of answers.
    expected = (result.prompt_tokens * 0.25 + result.completion_tokens * 2.0) / 1e6
    assert result.dollars == pytest.approx(expected, rel=1e-9)
    assert result.batch_dollars == pytest.approx(expected / 2, rel=1e-9)


def test_a_model_without_a_price_has_no_dollars(work, capsys):
    result = predicted(config_for(work, judge_model="mistral-7b"))
    assert result.dollars is result.batch_dollars is None
    assert "the table 'models' has no price of mistral-7b" in capsys.readouterr().out


def test_without_a_tokenizer_characters_are_counted_and_that_is_said(work):
    config = config_for(work, tokenizer="")
    result = predicted(config)
    prompts = Prompts.load()
    characters = sum(
        sum(len(m["content"]) for m in prompts.messages(r)) + len(json.dumps(answer_schema(r)))
        for r in plan(config)
    )
    assert result.prompt_tokens == pytest.approx(characters / CHARACTERS_PER_TOKEN, rel=0.02)
    assert result.counted_by == (
        "characters, 4 of them for a token; --tokenizer FOLDER counts tokens"
    )


def test_the_dry_run_says_it_all_and_writes_and_asks_nothing(work, capsys):
    before = sorted(work.rglob("*"))
    # There is no key, no model answers at this URL, and personas may not be sent.
    assert preferences(config_for(work, base_url="http://192.0.2.1/v1", repeat_share=0.5)) is None
    printed = capsys.readouterr().out
    repeats = sum(r.repeat for r in plan(config_for(work, repeat_share=0.5)))
    assert 0 < repeats < 40
    assert printed.startswith(
        f"{40 + repeats} calls for 60 votes; 0 are in the ledger, {40 + repeats} to come\n"
    )
    assert "at the prices of 2026-06" in printed and "costs more" in printed
    assert sorted(work.rglob("*")) == before
    assert (
        preferences(config_for(work, ledger=f"sqlite:///{work}/none.sqlite", repeat_share=0.5))
        is None
    )
    assert capsys.readouterr().out == printed and sorted(work.rglob("*")) == before
    assert preferences(config_for(work, judge="rubric")) is None
    assert (
        capsys.readouterr().out
        == "40 calls for 40 votes; 0 are in the ledger, 40 to come\nthe judge 'rubric' costs"
        " nothing\n"
    )
    assert sorted(work.rglob("*")) == before


def fill(config: PreferencesConfig, statuses: list[Status], usage: Usage) -> None:
    """Put votes on the first of the requests into the ledger."""
    identity = endpoint_identity(endpoint_of(config), Prompts.load())
    with Ledger(config.output_dir / "votes.sqlite", "r") as ledger:
        for request, status in zip(plan(config), statuses, strict=False):
            orders = {
                c.name: tuple(r.response_id for r in request.responses) for c in request.criteria
            }
            answer = Answer(status, "", orders if status == "valid" else {}, "m", usage, 0.001)
            ledger.add(
                votes_of(
                    Call(call_key(request, identity), request), answer, judge=identity, run="r"
                )
            )


@pytest.mark.parametrize(("retry", "to_come"), [(False, 8), (True, 13)])
def test_what_the_ledger_has_is_not_counted_and_what_would_be_asked_again_is(work, retry, to_come):
    config = config_for(work, retry_errors=retry)
    there: dict[Status, int] = {
        "valid": 27,
        "refusal": 4,
        "parse_error": 1,
        "error": 2,
        "expired": 1,
    }
    statuses: list[Status] = [status for status, times in there.items() for _ in range(times)]
    fill(config, statuses, Usage(300, 60, 11))
    # 35 of 40 calls are there; error and expired are asked again by themselves.
    result = predicted(config)
    assert (result.calls, result.answered) == (40, 40 - to_come)
    # Answers are as long as those so far; prompts are counted; a fifth of them is cached, as so
    # far.
    assert result.completion_tokens == pytest.approx(11 * to_come)
    prompt, cached = result.prompt_tokens, result.prompt_tokens / 5
    expected = ((prompt - cached) * 0.25 + cached * 0.025 + 11 * to_come * 2.0) / 1e6
    assert result.dollars == pytest.approx(expected, rel=1e-2)
    uncounted = predicted(config_for(work, retry_errors=retry, tokenizer=""))
    assert (
        uncounted.prompt_tokens == pytest.approx(300 * to_come)
        and "35 calls so far" in uncounted.counted_by
    )


def test_a_tokenizer_that_cannot_be_read_is_refused(work):
    with pytest.raises(
        UserError, match=r"--tokenizer .*nowhere: no tokenizer.json that can be read"
    ):
        predicted(config_for(work, tokenizer=str(work / "nowhere")))
