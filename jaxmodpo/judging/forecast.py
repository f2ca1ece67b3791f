"""What a judging run would ask and cost, before it asks anything: ``--dry-run``.

Texts repeat a million times, so that each is counted once, and a request's tokens are the sum of
its parts'. Nothing is written and nothing leaves this machine.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from jaxmodpo.errors import UserError
from jaxmodpo.hub import local_folder
from jaxmodpo.judging.collect import MakeRequests, is_open
from jaxmodpo.judging.database import NoLedger
from jaxmodpo.judging.endpoint import endpoint_identity
from jaxmodpo.judging.families import Families, Family
from jaxmodpo.judging.judge import Call, Request, Usage, call_key, vote_keys
from jaxmodpo.judging.ledger import Ledger, Spent
from jaxmodpo.judging.prompts import Prompts, answer_schema
from jaxmodpo.judging.settings import JudgeConfig, endpoint_of

CHARACTERS_PER_TOKEN = 4.0
"""Of English text, roughly: where no tokenizer is given and no call has been counted yet."""

_ENOUGH_CALLS = 30
_LOOK_UP = 512
_CONTENT_TOKENS_PER_MESSAGE = 4


@dataclass(frozen=True)
class Forecast:
    """What a run would ask.

    Attributes:
        calls: in all.
        answered: of them, calls whose votes the ledger has, failed ones too unless they are asked
            again.
        prompt_tokens: of the calls to come.
        completion_tokens: likewise.
        counted_by: what counted the tokens, in words.
        dollars: of the calls to come; None where no price is known.
        batch_dollars: the same through the Batch API.
    """

    calls: int
    answered: int
    prompt_tokens: float
    completion_tokens: float
    counted_by: str
    dollars: float | None
    batch_dollars: float | None


def forecast(config: JudgeConfig, output_dir: Path, requests: MakeRequests, votes: int) -> Forecast:
    """Print and return what a run would ask.

    Raises:
        UserError: settings that cannot work, or an unreadable tokenizer.
    """
    paid = config.judge in ("endpoint", "batch")
    prompts = Prompts.load(config.prompts)
    table = Families.load(config.model_table)
    family = table.of(config.judge_model)
    identity = endpoint_identity(endpoint_of(config), prompts) if paid else ""
    ledger = _open(config.ledger or output_dir / "votes.sqlite") if paid else None
    try:
        spent = ledger.spent_by(identity) if ledger is not None else None
        calls, answered, texts = _count(requests(), identity, ledger, prompts, config.retry_errors)
    finally:
        if ledger is not None:
            ledger.close()
    prompt, completion, counted_by = _tokens(config, texts, calls - answered, spent)
    dollars = _dollars(family, prompt, completion, spent) if paid else 0.0
    result = Forecast(
        calls,
        answered,
        prompt,
        completion,
        counted_by,
        dollars,
        None if dollars is None else dollars * (1 - table.batch_discount),
    )
    print(_described(result, config, votes, table.as_of))
    return result


def _open(location: str | Path) -> Ledger | None:
    """Open the ledger to read it, if there is one yet."""
    try:
        return Ledger(location, read_only=True)
    except NoLedger:
        return None


@dataclass
class _Texts:
    """The texts of the calls to come: how often each occurs, and the characters of answers."""

    prompts: dict[str, int]
    answers: int = 0
    messages: int = 0


def _count(
    requests: Iterable[Request], identity: str, ledger: Ledger | None, prompts: Prompts, retry: bool
) -> tuple[int, int, _Texts]:
    """Count calls, those answered, and the texts of the others."""
    texts, frame = _Texts({}), functools.cache(lambda *shape: framing(prompts, *shape))
    calls = answered = 0
    batch: list[Call] = []

    def count_batch() -> int:
        keys = [vote_keys(call) for call in batch]
        statuses = (
            {}
            if ledger is None
            else ledger.statuses([key for vote_keys_of_call in keys for key in vote_keys_of_call])
        )
        answered = 0
        for call, vote_keys_of_call in zip(batch, keys, strict=True):
            if any(is_open(statuses.get(key), retry) for key in vote_keys_of_call):
                _add(texts, call.request, frame)
            else:
                answered += 1
        batch.clear()
        return answered

    for request in requests:
        calls += 1
        batch.append(Call(call_key(request, identity), request))
        if len(batch) == _LOOK_UP:
            answered += count_batch()
    return calls, answered + count_batch(), texts


def _add(texts: _Texts, request: Request, frame: Callable[..., str]) -> None:
    texts_of_request = [
        request.persona_text.strip(),
        request.question_text,
        *(r.response_text for r in request.responses),
        frame(request.kind, request.criteria, len(request.responses), request.ties),
    ]
    for text in texts_of_request:
        texts.prompts[text] = texts.prompts.get(text, 0) + 1
    texts.messages += 2
    texts.answers += answer_tokens(request.kind, len(request.criteria), len(request.responses))


def answer_tokens(kind: str, criteria: int, responses: int) -> int:
    """Return about how many tokens an answer has, without thinking."""
    return criteria * (3 * responses if kind == "rank" else 1) + 12


def framing(prompts: Prompts, kind, criteria, responses: int, ties: bool) -> str:
    """Return everything that a request says around its texts, the schema of its answer included."""
    from jaxmodpo.records import Candidate

    empty = Request(
        kind, "", "", "", "", criteria, tuple(Candidate(str(n), "") for n in range(responses)), ties
    )
    contents = [message["content"] for message in prompts.messages(empty)]
    return "\n".join([*contents, json.dumps(answer_schema(empty))])


def _tokens(
    config: JudgeConfig, texts: _Texts, calls: int, spent: Spent | None
) -> tuple[float, float, str]:
    """Return the tokens of prompts and answers to come, and what counted them."""
    characters = sum(len(text) * times for text, times in texts.prompts.items())
    if config.tokenizer:
        count, name = _tokenizer(config.tokenizer)
        prompt = sum(count(text) * times for text, times in texts.prompts.items())
        prompt += _CONTENT_TOKENS_PER_MESSAGE * texts.messages
        counted_by = f"the tokenizer {name}"
    elif spent is not None and spent.counted_calls >= _ENOUGH_CALLS:
        mean = spent.prompt_tokens / spent.counted_calls
        return (
            mean * calls,
            spent.completion_tokens / spent.counted_calls * calls,
            f"the endpoint itself, in {spent.counted_calls:,} calls so far",
        )
    else:
        prompt = characters / CHARACTERS_PER_TOKEN
        counted_by = (
            f"nobody: a token is taken for {CHARACTERS_PER_TOKEN:.0f} characters; --tokenizer"
            " FOLDER counts"
        )
    completion = float(texts.answers)
    if spent is not None and spent.counted_calls:
        completion = spent.completion_tokens / spent.counted_calls * calls
    return float(prompt), completion, counted_by


def _tokenizer(location: str) -> tuple[Callable[[str], int], str]:
    from tokenizers import Tokenizer

    path = local_folder(Path(location))
    path = path / "tokenizer.json" if path.is_dir() else path
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:
        raise UserError(
            f"--tokenizer {location}: no tokenizer.json that can be read ({str(error)[:100]})"
        ) from None
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False)), str(location)


def _dollars(family: Family, prompt: float, completion: float, spent: Spent | None) -> float | None:
    cached = 0.0
    if spent is not None and spent.prompt_tokens:
        cached = prompt * spent.cached_tokens / spent.prompt_tokens
    return family.cost(Usage(round(prompt), round(cached), round(completion)))


def _described(result: Forecast, config: JudgeConfig, votes: int, as_of: str) -> str:
    to_come = result.calls - result.answered
    lines = [
        f"{result.calls:,} calls for {votes:,} votes; {result.answered:,} are in the ledger,"
        f" {to_come:,} to come"
    ]
    if config.judge in ("rubric", "replay"):
        return "\n".join([*lines, f"the judge '{config.judge}' costs nothing"])
    lines.append(
        f"{result.prompt_tokens:,.0f} tokens of prompts and about {result.completion_tokens:,.0f}"
        f" of answers, counted by {result.counted_by}"
    )
    if result.dollars is None or result.batch_dollars is None:
        lines.append(f"the table '{config.model_table}' has no price of {config.judge_model}")
    else:
        lines.append(
            f"${result.dollars:,.2f} by calls, ${result.batch_dollars:,.2f} by batches, at the"
            f" prices of {as_of}; a model that thinks before it answers costs more"
        )
    return "\n".join(lines)
