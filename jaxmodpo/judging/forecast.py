"""What a judging run would ask and cost, before it asks anything: ``--dry-run``.

Texts repeat a million times, so that each is counted once, and a request's tokens are the sum of
its parts'. Nothing is written and nothing leaves this machine.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

from jaxmodpo.costs import CHARACTERS_PER_TOKEN
from jaxmodpo.criteria import Criterion
from jaxmodpo.endpoints.families import Families, Family
from jaxmodpo.endpoints.usage import Usage
from jaxmodpo.errors import UserError
from jaxmodpo.hub import local_folder
from jaxmodpo.judging.answer_forms import answer_schema
from jaxmodpo.judging.collect import MakeRequests, is_open
from jaxmodpo.judging.database import NoLedger
from jaxmodpo.judging.endpoint_settings import endpoint_identity
from jaxmodpo.judging.judge import Call, Kind, Request, call_key, vote_keys
from jaxmodpo.judging.ledger import Ledger, Spent
from jaxmodpo.judging.prompts import Prompts
from jaxmodpo.judging.settings import JudgeConfig, endpoint_of
from jaxmodpo.records import Candidate

# From so many calls on, the mean of what the endpoint counted is better than any guess of ours.
_ENOUGH_CALLS = 30
# Calls whose votes are looked up in the ledger by one query.
_LOOK_UP = 512
# What a chat template puts around each message: its role and the marks of its beginning and end.
_CONTENT_TOKENS_PER_MESSAGE = 4
# The braces, quotation marks and names of an answer, whatever it says.
_ANSWER_FRAME_TOKENS = 12


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
    is_paid = config.judge in ("endpoint", "batch")
    prompts = Prompts.load(config.prompts)
    table = Families.load(config.model_table)
    identity = ""
    ledger = None
    spent = None
    if is_paid:
        identity = endpoint_identity(endpoint_of(config), prompts)
        ledger = _open(config.ledger or output_dir / "votes.sqlite")
    try:
        if ledger is not None:
            spent = ledger.spent_by(identity)
        counts = _count(requests(), identity, ledger, prompts, config.retry_errors)
    finally:
        if ledger is not None:
            ledger.close()
    to_come = counts.calls - counts.answered
    tokens = _tokens(config, counts.texts, to_come, spent)
    dollars = 0.0
    if is_paid:
        family = table.of(config.judge_model)
        dollars = _dollars(family, tokens, spent)
    batch_dollars = None if dollars is None else dollars * (1 - table.batch_discount)
    result = Forecast(
        calls=counts.calls,
        answered=counts.answered,
        prompt_tokens=tokens.prompt,
        completion_tokens=tokens.completion,
        counted_by=tokens.counted_by,
        dollars=dollars,
        batch_dollars=batch_dollars,
    )
    print(_described(result, config, votes, table.as_of))
    return result


def _open(location: str | Path) -> Ledger | None:
    """Open the ledger to read it, if there is one yet."""
    try:
        return Ledger(location, read_only=True)
    except NoLedger:
        return None


# --------------------------------------------------------------------------- counting calls


@dataclass
class _Texts:
    """The texts of the calls to come.

    Attributes:
        times: how often each text is sent.
        answers: the tokens that the answers will have, roughly.
        messages: how many messages are sent.
    """

    times: Counter[str] = field(default_factory=Counter)
    answers: int = 0
    messages: int = 0

    def add(self, request: Request, framing_text: str) -> None:
        """Add what one call sends, and about how much it brings back."""
        self.times[request.persona_text.strip()] += 1
        self.times[request.question_text] += 1
        for response in request.responses:
            self.times[response.response_text] += 1
        self.times[framing_text] += 1
        # The persona is the system's message, everything else the user's.
        self.messages += 2
        self.answers += answer_tokens(request.kind, len(request.criteria), len(request.responses))


@dataclass
class _Counts:
    """Calls in all, those whose votes are in the ledger, and the texts of the others."""

    calls: int = 0
    answered: int = 0
    texts: _Texts = field(default_factory=_Texts)


def _count(
    requests: Iterable[Request],
    identity: str,
    ledger: Ledger | None,
    prompts: Prompts,
    retry: bool,
) -> _Counts:
    """Count calls, those answered, and the texts of the others."""
    counts = _Counts()
    # A run has a million requests and a handful of shapes: what stands around the texts is filled
    # in once for each shape.
    framing_of_shape = functools.cache(functools.partial(framing, prompts))
    calls = (Call(call_key(request, identity), request) for request in requests)
    # In groups, since a query for each of a million calls would take an hour.
    while group := list(itertools.islice(calls, _LOOK_UP)):
        counts.calls += len(group)
        unanswered = _unanswered(group, ledger, retry)
        counts.answered += len(group) - len(unanswered)
        for request in unanswered:
            counts.texts.add(request, framing_of_shape(Shape.of(request)))
    return counts


def _unanswered(calls: Sequence[Call], ledger: Ledger | None, retry: bool) -> list[Request]:
    """Return the requests of the calls that lack a vote: the same rule by which a run asks."""
    if ledger is None:
        return [call.request for call in calls]
    keys_by_call = [vote_keys(call) for call in calls]
    every_key = list(itertools.chain.from_iterable(keys_by_call))
    statuses = ledger.statuses(every_key)
    unanswered: list[Request] = []
    for call, keys in zip(calls, keys_by_call, strict=True):
        if any(is_open(statuses.get(key), retry) for key in keys):
            unanswered.append(call.request)
    return unanswered


# --------------------------------------------------------------------------- counting tokens


def answer_tokens(kind: Kind, criteria: int, responses: int) -> int:
    """Return about how many tokens an answer has, without thinking."""
    # A ranking names every response: a number, a comma and a space. A comparison names one letter.
    # Each score is a field of its own: a name, a colon, a word or a number, a comma.
    tokens_of_kind: dict[Kind, int] = {"rank": 3 * responses, "compare": 1, "score": 8}
    return criteria * tokens_of_kind[kind] + _ANSWER_FRAME_TOKENS


class Shape(NamedTuple):
    """What a request is besides its texts; few shapes are asked a million times."""

    kind: Kind
    criteria: tuple[Criterion, ...]
    responses: int
    ties: bool = False
    yes_no: bool = False
    shows_post: bool = True

    @classmethod
    def of(cls, request: Request) -> Self:
        """Return a request's shape."""
        return cls(
            request.kind,
            request.criteria,
            len(request.responses),
            request.ties,
            request.yes_no,
            bool(request.question_text),
        )


def framing(prompts: Prompts, shape: Shape) -> str:
    """Return everything that a request says around its texts, the schema of its answer included."""
    candidates = tuple(Candidate(str(number), "") for number in range(shape.responses))
    # A score may be asked without a post, and an empty post is none: a space stands for one.
    post = " " if shape.kind == "score" and shape.shows_post else ""
    empty = Request(
        shape.kind,
        question_id="",
        question_text=post,
        persona_id="",
        persona_text="",
        criteria=shape.criteria,
        responses=candidates,
        ties=shape.ties,
        yes_no=shape.yes_no,
    )
    contents = [message["content"] for message in prompts.messages(empty)]
    contents.append(json.dumps(answer_schema(empty)))
    return "\n".join(contents)


@dataclass(frozen=True)
class _Tokens:
    """The tokens of the prompts and answers to come, and what counted them, in words."""

    prompt: float
    completion: float
    counted_by: str


def _tokens(config: JudgeConfig, texts: _Texts, calls: int, spent: Spent | None) -> _Tokens:
    """Count the tokens to come, by the best that is at hand.

    A tokenizer that the user names counts best, then the endpoint's own count of the calls so far,
    and four characters are taken for a token where there is neither.
    """
    completion = float(texts.answers)
    if spent is not None and spent.counted_calls:
        # A mean of real answers holds their thinking, which no rule can guess.
        completion = spent.completion_tokens / spent.counted_calls * calls
    if config.tokenizer:
        count_tokens = _tokenizer(config.tokenizer)
        # Every text is counted once, however often it is sent.
        prompt = _CONTENT_TOKENS_PER_MESSAGE * texts.messages
        for text, times in texts.times.items():
            prompt += count_tokens(text) * times
        return _Tokens(float(prompt), completion, f"the tokenizer {config.tokenizer}")
    if spent is not None and spent.counted_calls >= _ENOUGH_CALLS:
        mean_prompt = spent.prompt_tokens / spent.counted_calls
        counted_by = f"the endpoint itself, in {spent.counted_calls:,} calls so far"
        return _Tokens(mean_prompt * calls, completion, counted_by)
    characters = 0
    for text, times in texts.times.items():
        characters += len(text) * times
    counted_by = (
        f"characters, {CHARACTERS_PER_TOKEN:.0f} of them for a token; --tokenizer FOLDER counts"
        " tokens"
    )
    return _Tokens(characters / CHARACTERS_PER_TOKEN, completion, counted_by)


def _tokenizer(location: str) -> Callable[[str], int]:
    """Return what counts a text's tokens by a ``tokenizer.json``."""
    from tokenizers import Tokenizer

    path = local_folder(Path(location))
    if path.is_dir():
        path = path / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:
        raise UserError(
            f"--tokenizer {location}: no tokenizer.json that can be read ({str(error)[:100]})"
        ) from None
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))


def _dollars(family: Family, tokens: _Tokens, spent: Spent | None) -> float | None:
    """Return the price of the calls to come; their share of cached tokens is that of the past."""
    cached = 0.0
    if spent is not None and spent.prompt_tokens:
        cached_share = spent.cached_tokens / spent.prompt_tokens
        cached = tokens.prompt * cached_share
    usage = Usage(round(tokens.prompt), round(cached), round(tokens.completion))
    return family.cost(usage)


def _described(result: Forecast, config: JudgeConfig, votes: int, as_of: str) -> str:
    """Return the lines that a dry run prints."""
    to_come = result.calls - result.answered
    lines = [
        f"{result.calls:,} calls for {votes:,} votes; {result.answered:,} are in the ledger,"
        f" {to_come:,} to come"
    ]
    if config.judge in ("rubric", "replay"):
        lines.append(f"the judge '{config.judge}' costs nothing")
        return "\n".join(lines)
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
