"""The ``responses`` command: N replies to each question, kept as they are sampled::

config = ResponsesConfig(questions=Path("q.csv"), model=Path("mistral-7b"), output_dir=out)
phase = responses(config)   # out/responses.csv; a killed run asks for what is missing
"""

from __future__ import annotations

import collections
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from jax import Array

from jaxmodpo.costs import Cost, Estimates, Unknown
from jaxmodpo.data.text import PolicyText, PromptStyle, check_day
from jaxmodpo.errors import UserError
from jaxmodpo.flags.help_groups import HelpGroup
from jaxmodpo.journals import Journal
from jaxmodpo.models.quantized import BaseDtype
from jaxmodpo.phase import Phase, in_phase
from jaxmodpo.policy.loaded import load_policy
from jaxmodpo.policy.prompts import load_policy_text
from jaxmodpo.progress import Progress
from jaxmodpo.ranges import Count, Incidental, NotNegative, Probability, Seed
from jaxmodpo.records import Question, Response, read_questions, write_responses
from jaxmodpo.sampling.endpoint import ask, refuse_empty, total_spending
from jaxmodpo.sampling.endpoint_forecast import forecast_replies
from jaxmodpo.sampling.endpoint_settings import (
    Endpoint,
    EndpointOptions,
    check_endpoint,
    endpoint_key,
)
from jaxmodpo.sampling.journal import ReplySlot, row, sampled
from jaxmodpo.sampling.sampler import SamplingSettings, sample
from jaxmodpo.schema import Range

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ResponsesConfig(EndpointOptions, help_group="sampling"):
    """Sample replies to questions from a model, with or without an adapter, or ask an endpoint for
    them.
    """

    questions: Path
    """File of questions, with the columns question_id and question_text."""
    output_dir: Incidental[Path]
    """Folder of the run, for responses.csv."""
    engine: Annotated[Literal["local", "endpoint"], HelpGroup("model")] = "local"
    """Where the model is. local: on this machine; endpoint: behind an OpenAI-compatible URL, as
    GPT-4o is."""
    model: Annotated[Path | None, HelpGroup("model")] = None
    """Hugging Face folder of the base model, for the local engine."""
    adapter: Annotated[Path | None, HelpGroup("model")] = None
    """PEFT folder of an adapter that was trained on this base, for the local engine."""
    model_name: Annotated[str, HelpGroup("model")] = ""
    """Name that is written beside each reply. Evaluation files tell models apart by it."""
    samples: Count = 5
    """Replies to each question."""
    temperature: NotNegative | None = 0.8
    """Temperature of the draws. 0 takes the likeliest token each time. None sends an endpoint no
    temperature, since some models take none."""
    top_p: Probability = 0.95
    """Tokens are drawn from the smallest set whose probability is at least this."""
    max_new_tokens: Count = 512
    """Most tokens of a reply."""
    max_prompt_length: Annotated[int, Range(least=2), HelpGroup("text")] = 512
    """Most tokens of a prompt, for the local engine. In a longer one the question loses its
    start."""
    prompt_style: Annotated[PromptStyle, HelpGroup("text")] = "instruct"
    """How a question is put to the model. instruct: the paper's prompt; chat: the tokenizer's
    template on the bare question. An endpoint puts its own template around either."""
    prompt_date: Annotated[str | None, HelpGroup("text")] = None
    """Day, as YYYY-MM-DD, that a chat template takes for today, for the local engine. By default it
    is the adapter's, or the day on which the run began."""
    batch_size: Count = 64
    """Replies that the local engine samples at a time."""
    base_dtype: Annotated[BaseDtype, HelpGroup("model")] = "bfloat16"
    """Number format of the local engine's base weights. int8 and nf4 quantize the projections block
    by block."""
    stop: tuple[str, ...] = ()
    """Texts before which a reply ends, for the endpoint."""
    seed: Seed = 0
    """Seed of the draws. An endpoint is sent one for each reply, made of this, where its model
    takes one."""

    def check(self) -> None:
        super().check()
        check_day(self.prompt_date)
        if self.engine == "local":
            if self.model is None or self.temperature is None:
                raise UserError(
                    "the local engine needs --model, a model's folder, and a --temperature"
                )
            if self.stop or self.dry_run:
                raise UserError("--stop and --dry-run of responses are for --engine endpoint")
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
                f"--engine endpoint takes no {flags}: the endpoint gets the question whole, and"
                " does the rest"
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
            cost.chip_hours = None
            cost.unknown = [str(missing)]
        return cost

    def _cost_of_endpoint(self, estimator: Estimates) -> Cost:
        try:
            replies = self._replies(estimator)
        except Unknown as missing:
            return Cost(endpoint_replies=None, dollars=None, disk=None, unknown=[str(missing)])
        cost = Cost(disk=REPLY_BYTES * replies, endpoint_replies=replies)
        estimator.pay_replies(
            cost, self.endpoint_model, replies, self.max_new_tokens, self.model_table
        )
        return cost

    def _replies(self, estimator: Estimates) -> int:
        """Return how many replies there will be, and let later phases know."""
        replies = estimator.rows(self.questions) * self.samples
        responses = self.output_dir / "responses.csv"
        estimator.counts[responses] = replies
        estimator.per_question[responses] = self.samples
        return replies


REPLY_BYTES = 1_900
"""a row of responses.csv: a reply of some 300 tokens and its question"""
LOCAL = ("max_prompt_length", "prompt_date", "batch_size", "base_dtype")
"""settings that an endpoint cannot be told"""


def reply_key(seed: int, question_id: str, number: int) -> Array:
    """Return the random key of one reply: it depends on nothing but the seed, the question and the
    number.
    """
    words = hashlib.sha256(f"{question_id}\x1f{number}".encode()).digest()
    return jax.random.fold_in(jax.random.key(seed), int.from_bytes(words[:4], "little"))


def _endpoint(config: ResponsesConfig) -> Endpoint:
    return Endpoint(
        base_url=config.base_url,
        model=config.endpoint_model,
        api_key_env=config.api_key_env,
        send_questions=config.send_questions,
        temperature=config.temperature,
        top_p=config.top_p,
        max_tokens=config.max_new_tokens,
        stop=config.stop,
        seed=config.seed,
        prompt_style=config.prompt_style,
        max_concurrency=config.max_concurrency,
        model_table=config.model_table,
    )


def run_responses(config: ResponsesConfig) -> Phase | None:
    """Run ``responses``, or say what it would ask an endpoint and what that would cost."""
    if not config.dry_run:
        return responses(config)
    config.check()
    slots = _reply_slots(read_questions(config.questions), config.samples)
    forecast_replies(_endpoint(config), slots, config.output_dir)
    return None


@in_phase("responses")
def responses(config: ResponsesConfig, phase: Phase) -> None:
    """Run ``responses``: what was sampled or bought is on disk before the next reply is asked
    for.
    """
    if config.engine == "endpoint":
        _ask(config, phase)
    else:
        _sample(config, phase)


def _reply_slots(questions: Sequence[Question], samples: int) -> list[ReplySlot]:
    """Return a slot for each reply that there will be, in the order of ``responses.csv``."""
    return [ReplySlot(question, number) for question in questions for number in range(samples)]


def _settings_key(phase: Phase) -> str:
    """Return a digest of all that a run's replies depend on, which every row of the journal has."""
    return phase.manifest.identity.digest()[:16]


def _sample(config: ResponsesConfig, phase: Phase) -> None:
    """Sample the replies from a model of this machine."""
    assert config.model is not None and config.temperature is not None
    questions = read_questions(config.questions)
    slots = _reply_slots(questions, config.samples)
    text = load_policy_text(
        config.model,
        config.prompt_style,
        config.max_prompt_length,
        config.max_prompt_length + config.max_new_tokens,
        day=config.prompt_date,
        adapter=config.adapter,
        phase=phase,
    )
    # Once for each question and not for each reply, since what is cut is counted.
    prompts = {question.question_id: text.prompt(question.question_text) for question in questions}
    text.cut.warn()
    journal = Journal(config.output_dir / "sampled.jsonl")
    settings_key = _settings_key(phase)
    batches = [
        slots[start : start + config.batch_size]
        for start in range(0, len(slots), config.batch_size)
    ]
    # A batch is sampled whole or again: a reply's last bits may depend on how long its neighbors'
    # prompts are.
    sampled_before = sampled(journal, settings_key)
    unfinished_batches = [
        batch for batch in batches if any(slot.key not in sampled_before for slot in batch)
    ]
    if unfinished_batches:
        _sample_batches(config, unfinished_batches, prompts, text, journal, settings_key)
    journal.close()
    _write(config, slots, journal, phase, settings_key, **text.cut.as_dict())


def _sample_batches(
    config: ResponsesConfig,
    batches: Sequence[Sequence[ReplySlot]],
    prompts: Mapping[str, Sequence[int]],
    text: PolicyText,
    journal: Journal,
    settings_key: str,
) -> None:
    """Sample batch after batch, and keep each one's replies before the next is begun.

    Args:
        config: the command's settings.
        batches: what to sample.
        prompts: as tokens, by question id.
        text: turns tokens into a text, and knows which tokens end a reply.
        journal: gains a row for each reply.
        settings_key: of these rows.
    """
    assert config.model is not None and config.temperature is not None
    policy = load_policy(config.model, base_dtype=config.base_dtype, adapter=config.adapter)
    end_tokens = tuple(text.end_tokens)
    settings = SamplingSettings(config.temperature, config.top_p, config.max_new_tokens, end_tokens)
    total = config.samples * len(prompts)
    remaining = sum(len(batch) for batch in batches)
    with Progress("sampling", total, "replies", total - remaining, leave=False) as bar:
        for batch in batches:
            keys = [
                reply_key(config.seed, slot.question.question_id, slot.number) for slot in batch
            ]
            replies = sample(
                policy,
                [prompts[slot.question.question_id] for slot in batch],
                jnp.stack(keys),
                settings,
                rows=config.batch_size,
            )
            rows: list[dict[str, Any]] = []
            for slot, tokens in zip(batch, replies, strict=True):
                answer = {
                    "response_text": text.decode(tokens),
                    "finish_reason": "end" if tokens[-1] in end_tokens else "length",
                    "tokens": len(tokens),
                }
                rows.append(row(slot, settings_key) | answer)
            journal.append(*rows)
            bar.update(len(batch))


def _ask(config: ResponsesConfig, phase: Phase) -> None:
    """Ask an endpoint for the replies."""
    slots = _reply_slots(read_questions(config.questions), config.samples)
    journal = Journal(config.output_dir / "sampled.jsonl")
    settings_key = _settings_key(phase)
    try:
        rows = ask(_endpoint(config), slots, journal, settings_key)
    finally:
        journal.close()
    empty = refuse_empty(rows)
    # A server may answer by another model than it was asked for, and says so.
    answering_models = collections.Counter(reply.get("model", "") for reply in rows)
    _write(
        config,
        slots,
        journal,
        phase,
        settings_key,
        answering_models=dict(answering_models),
        empty_by_kind=empty,
        spent=total_spending(rows, _endpoint(config).family),
    )


def _write(
    config: ResponsesConfig,
    slots: Sequence[ReplySlot],
    journal: Journal,
    phase: Phase,
    settings_key: str,
    **results: Any,
) -> None:
    """Write ``responses.csv`` and finish the phase."""
    rows_by_key = sampled(journal, settings_key)
    rows = [rows_by_key[slot.key] for slot in slots]
    replies = [
        Response(
            slot.question.question_id,
            slot.question.question_text,
            f"{slot.question.question_id}_{slot.number}",
            reply["response_text"],
            config.model_name,
        )
        for slot, reply in zip(slots, rows, strict=True)
    ]
    write_responses(config.output_dir / "responses.csv", replies)
    cut = sum(reply["finish_reason"] == "length" for reply in rows)
    empty = sum(not reply.response_text for reply in replies)
    logger.info("%d replies, %d cut at --max-new-tokens, %d empty", len(replies), cut, empty)
    phase.finish(
        work=[journal.path],
        responses=len(replies),
        cut_at_max_new_tokens=cut,
        empty=empty,
        **results,
    )
