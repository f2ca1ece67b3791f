"""The ``responses`` command: N replies to each question, kept as they are sampled."""

from __future__ import annotations

import collections
import hashlib
import logging
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from jax import Array

from jaxmodpo.costs import Cost, Estimates, Unknown
from jaxmodpo.data.text import PromptStyle, check_day
from jaxmodpo.errors import UserError
from jaxmodpo.files import Journal
from jaxmodpo.help_groups import HelpGroup
from jaxmodpo.models.quantized import BaseDtype
from jaxmodpo.phase import Phase, in_phase
from jaxmodpo.policy.loaded import load_policy
from jaxmodpo.policy.prompts import load_policy_text
from jaxmodpo.progress import Progress
from jaxmodpo.ranges import Count, Incidental, NotNegative, Probability, Seed, Settings
from jaxmodpo.records import Question, Response, read_questions, write_responses
from jaxmodpo.sampling.endpoint import Endpoint, ask, check_endpoint, endpoint_key, refuse_empty
from jaxmodpo.sampling.journal import place, row, sampled
from jaxmodpo.sampling.sampler import SamplingSettings, sample
from jaxmodpo.schema import Range

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ResponsesConfig(Settings, help_group="sampling"):
    """Sample replies to questions from a model, with or without an adapter, or ask an endpoint for
    them.
    """

    questions: Path
    """question_id, question_text"""
    output_dir: Incidental[Path]
    """responses.csv is written here"""
    engine: Annotated[Literal["local", "endpoint"], HelpGroup("model")] = "local"
    """local: a model of this machine; endpoint: one behind an OpenAI-compatible URL, such as
    GPT-4o"""
    model: Annotated[Path | None, HelpGroup("model")] = None
    """the base model's Hugging Face folder, of the local engine"""
    adapter: Annotated[Path | None, HelpGroup("model")] = None
    """a PEFT folder, trained on this base"""
    model_name: Annotated[str, HelpGroup("model")] = ""
    """written beside each reply; needed to tell models apart in evaluation files"""
    samples: Count = 5
    """replies per question"""
    temperature: NotNegative | None = 0.8
    """of the draws; 0 takes the likeliest token each time; None sends an endpoint none, since some
    models take none"""
    top_p: Probability = 0.95
    """draw from the smallest set of tokens with at least this probability"""
    max_new_tokens: Count = 512
    """most tokens of a reply"""
    max_prompt_length: Annotated[int, Range(least=2), HelpGroup("text")] = 512
    """of the local engine, tokens; in a longer prompt the question loses its start"""
    prompt_style: Annotated[PromptStyle, HelpGroup("text")] = "instruct"
    """instruct: the paper's prompt; chat: the tokenizer's template on the bare question, of the
    local engine"""
    prompt_date: Annotated[str | None, HelpGroup("text")] = None
    """YYYY-MM-DD, which a chat template takes for today; by default as the adapter was trained, or
    the day on which the run began; of the local engine"""
    batch_size: Count = 64
    """of the local engine: replies sampled at a time"""
    base_dtype: Annotated[BaseDtype, HelpGroup("model")] = "bfloat16"
    """of the local engine's base weights; int8 and nf4 quantize the projections block by block"""
    seed: Seed = 0
    """of the draws; an endpoint takes none"""
    base_url: Annotated[str, HelpGroup("endpoint")] = "https://api.openai.com/v1"
    """the endpoint's address, up to and with /v1"""
    endpoint_model: Annotated[str, HelpGroup("endpoint")] = ""
    """the endpoint's model; it has no default"""
    api_key_env: Annotated[Incidental[str], HelpGroup("endpoint")] = "OPENAI_API_KEY"
    """the environment variable that holds the endpoint's key"""
    send_questions: Annotated[Incidental[bool], HelpGroup("endpoint")] = False
    """let people's posts go to an endpoint that is not on this machine"""
    max_concurrency: Annotated[Incidental[Count], HelpGroup("endpoint")] = 8
    """calls to the endpoint at once"""

    def check(self) -> None:
        super().check()
        check_day(self.prompt_date)
        if self.engine == "local":
            if self.model is None or self.temperature is None:
                raise UserError(
                    "the local engine needs --model, a model's folder, and a --temperature"
                )
            return
        if self.model is not None or self.adapter is not None:
            raise UserError(
                "--engine endpoint takes no --model and no --adapter; --endpoint-model names what"
                " to ask"
            )
        defaults = {field.name: field.default for field in fields(self)}
        if ignored := [name for name in LOCAL if getattr(self, name) != defaults[name]]:
            flags = " and no ".join(f"--{name.replace('_', '-')}" for name in ignored)
            raise UserError(
                f"--engine endpoint takes no {flags}: the endpoint gets the paper's prompt, whole"
            )
        check_endpoint(_endpoint(self))

    def check_machine(self) -> None:
        """Refuse an endpoint that may not be asked.

        Raises:
            UserError: no key, or posts that may not be sent.
        """
        if self.engine == "endpoint":
            endpoint_key(_endpoint(self))

    def cost(self, estimator: Estimates) -> Cost:
        if self.engine == "endpoint":
            return self._cost_of_endpoint(estimator)
        assert self.model is not None
        replies = self._replies(estimator)
        cost = Cost(disk=REPLY_BYTES * replies)
        try:
            cost.chip_hours = estimator.sampling(self, replies, self.batch_size)
            cost.notes = estimator.sampler_notes(self)
        except Unknown as missing:
            cost.chip_hours, cost.unknown = None, [str(missing)]
        return cost

    def _cost_of_endpoint(self, estimator: Estimates) -> Cost:
        try:
            replies = self._replies(estimator)
        except Unknown as missing:
            return Cost(endpoint_replies=None, dollars=None, disk=None, unknown=[str(missing)])
        cost = Cost(disk=REPLY_BYTES * replies, endpoint_replies=replies)
        estimator.pay_replies(cost, self.endpoint_model, replies, self.max_new_tokens)
        return cost

    def _replies(self, estimator: Estimates) -> int:
        """Return how many replies there will be, and let later phases know."""
        replies = estimator.rows(self.questions) * self.samples
        responses = self.output_dir / "responses.csv"
        estimator.counts[responses], estimator.per_question[responses] = replies, self.samples
        return replies


REPLY_BYTES = 1_900
"""a row of responses.csv: a reply of some 300 tokens and its question"""
LOCAL = ("max_prompt_length", "prompt_style", "prompt_date", "batch_size", "base_dtype")
"""settings that an endpoint cannot be told"""


def reply_key(seed: int, question_id: str, number: int) -> Array:
    """Return the random key of one reply: it depends on nothing but the seed, the question and the
    number.
    """
    words = hashlib.sha256(f"{question_id}\x1f{number}".encode()).digest()
    return jax.random.fold_in(jax.random.key(seed), int.from_bytes(words[:4], "little"))


def _endpoint(config: ResponsesConfig) -> Endpoint:
    return Endpoint(
        config.base_url,
        config.endpoint_model,
        config.api_key_env,
        config.send_questions,
        config.temperature,
        config.top_p,
        config.max_new_tokens,
        config.max_concurrency,
    )


@in_phase("responses")
def responses(config: ResponsesConfig, phase: Phase) -> None:
    """Run ``responses``: what was sampled or bought is on disk before the next reply is asked
    for.
    """
    if config.engine == "endpoint":
        _ask(config, phase)
    else:
        _sample(config, phase)


def _sample(config: ResponsesConfig, phase: Phase) -> None:
    """Sample the replies from a model of this machine."""
    assert config.model is not None and config.temperature is not None
    questions = read_questions(config.questions)
    length = config.max_prompt_length + config.max_new_tokens
    text = load_policy_text(
        config.model,
        config.prompt_style,
        config.max_prompt_length,
        length,
        day=config.prompt_date,
        adapter=config.adapter,
        phase=phase,
    )
    end_tokens = tuple(text.end_tokens)
    settings = SamplingSettings(config.temperature, config.top_p, config.max_new_tokens, end_tokens)
    wanted = [(question, number) for question in questions for number in range(config.samples)]
    prompts = {question.question_id: text.prompt(question.question_text) for question in questions}
    text.cut.warn()
    journal = Journal(config.output_dir / "sampled.jsonl")
    # A batch is sampled whole or again: a reply's last bits may depend on how long its neighbours'
    # prompts are.
    settings_key = phase.manifest.identity.digest()[:16]
    have = sampled(journal, settings_key)
    starts = [
        start
        for start in range(0, len(wanted), config.batch_size)
        if any(place(*reply) not in have for reply in wanted[start : start + config.batch_size])
    ]
    if starts:
        policy = load_policy(config.model, base_dtype=config.base_dtype, adapter=config.adapter)
        left = sum(len(wanted[start : start + config.batch_size]) for start in starts)
        bar = Progress("sampling", len(wanted), "replies", len(wanted) - left, leave=False)
        for start in starts:
            part = wanted[start : start + config.batch_size]
            keys = jnp.stack(
                [reply_key(config.seed, question.question_id, number) for question, number in part]
            )
            tokens = sample(
                policy,
                [prompts[q.question_id] for q, _ in part],
                keys,
                settings,
                rows=config.batch_size,
            )
            journal.append(
                *(
                    row(question, number, settings_key)
                    | {
                        "response_text": text.decode(reply),
                        "ended": reply[-1] in end_tokens,
                    }
                    for (question, number), reply in zip(part, tokens, strict=True)
                )
            )
            bar.update(len(part))
        bar.close()
    journal.close()
    _write(config, wanted, journal, phase, settings_key, **text.cut.as_dict())


def _ask(config: ResponsesConfig, phase: Phase) -> None:
    """Ask an endpoint for the replies."""
    wanted = [
        (q, number) for q in read_questions(config.questions) for number in range(config.samples)
    ]
    journal = Journal(config.output_dir / "sampled.jsonl")
    try:
        settings_key = phase.manifest.identity.digest()[:16]
        rows = ask(_endpoint(config), wanted, journal, settings_key)
    finally:
        journal.close()
    empty = refuse_empty(rows)
    answered = collections.Counter(reply.get("model", "") for reply in rows)
    _write(
        config,
        wanted,
        journal,
        phase,
        settings_key,
        answering_models=dict(answered),
        empty_by_kind=empty,
    )


def _write(
    config: ResponsesConfig,
    wanted: list[tuple[Question, int]],
    journal: Journal,
    phase: Phase,
    settings: str,
    **results: Any,
) -> None:
    have = sampled(journal, settings)
    rows = [have[place(*reply)] for reply in wanted]
    replies = [
        Response(
            question.question_id,
            question.question_text,
            f"{question.question_id}_{number}",
            reply["response_text"],
            config.model_name,
        )
        for (question, number), reply in zip(wanted, rows, strict=True)
    ]
    write_responses(config.output_dir / "responses.csv", replies)
    unended = sum(not reply["ended"] for reply in rows)
    empty = sum(not reply.response_text for reply in replies)
    logger.info("%d replies, %d cut at --max-new-tokens, %d empty", len(replies), unended, empty)
    phase.finish(
        work=[journal.path],
        responses=len(replies),
        cut_at_max_new_tokens=unended,
        empty=empty,
        **results,
    )
