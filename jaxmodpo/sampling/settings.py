"""What ``responses`` can be told, and what its replies will cost."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

from jaxmodpo.costs import Cost, Estimates, Unknown
from jaxmodpo.data.text import PromptStyle, check_day
from jaxmodpo.endpoints.prices import pay_replies
from jaxmodpo.errors import UserError
from jaxmodpo.flags.help_groups import HelpGroup
from jaxmodpo.launched import Place
from jaxmodpo.models.quantized import BaseDtype
from jaxmodpo.ranges import (
    CommandSettings,
    Count,
    CountOrZero,
    FractionUpToOne,
    Incidental,
    NotNegative,
    Positive,
    Probability,
    Seed,
)
from jaxmodpo.sampling.endpoint_settings import (
    Endpoint,
    EndpointOptions,
    check_endpoint,
    endpoint_key,
)
from jaxmodpo.sampling.named_adapters import adapter_inputs, check_names, named_adapters
from jaxmodpo.schema import Range


@dataclass(frozen=True, kw_only=True)
class ResponsesConfig(EndpointOptions, CommandSettings, help_group="sampling"):
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
    adapters: Annotated[tuple[str, ...], HelpGroup("model")] = ()
    """Several models at once over one base, NAME=FOLDER each: PEFT folders, or NAME=base for the
    base alone. Each one's replies go to NAME/responses.csv in the run's folder."""
    model_name: Annotated[str, HelpGroup("model")] = ""
    """Name that is written beside each reply. Evaluation files tell models apart by it."""
    samples: Count = 5
    """Replies to each question."""
    temperature: NotNegative | None = 0.8
    """Temperature of the draws. 0 takes the likeliest token each time. None sends an endpoint no
    temperature, since some models take none."""
    top_p: Probability = 0.95
    """Tokens are drawn from the smallest set whose probability is at least this."""
    top_k: CountOrZero = 0
    """Tokens are drawn from so many likeliest ones; 0 sets no number. For the local engine."""
    min_p: FractionUpToOne = 0.0
    """Tokens are drawn from those at least this many times as likely as the likeliest. For the
    local engine."""
    repetition_penalty: Positive = 1.0
    """Makes tokens that prompt or reply hold less likely, if it is above 1: it divides their
    positive logits and multiplies the negative ones. For the local engine."""
    stop: tuple[str, ...] = ()
    """Texts before which a reply ends."""
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
    mesh: Annotated[tuple[Count, Count, Count] | None, HelpGroup("devices")] = None
    """Number of this host's devices along the mesh axes data, fsdp and tensor, for the local
    engine. By default along tensor as far as the key-value heads go, and along data beyond."""
    share: Annotated[Incidental[tuple[CountOrZero, Count] | None], HelpGroup("devices")] = None
    """Which host this is, from 0, and of how many that sample a share of the questions each, for
    the local engine. By default one host samples all."""
    base_dtype: Annotated[BaseDtype, HelpGroup("model")] = "bfloat16"
    """Number format of the local engine's base weights. int8 and nf4 quantize the projections block
    by block."""
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
            if self.dry_run:
                raise UserError("--dry-run of responses is for --engine endpoint")
            if "" in self.stop:
                raise UserError(
                    "--stop holds an empty text, before which every reply would end; leave it out"
                )
            self._check_adapters()
            if self.share is not None and self.share[0] >= self.share[1]:
                raise UserError(
                    f"--share {self.share[0]} {self.share[1]}: hosts are counted from 0, so that the"
                    f" last of {self.share[1]} is {self.share[1] - 1}"
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
                f"--engine endpoint takes no {flags}: the endpoint gets the question whole, and"
                " does the rest"
            )
        check_endpoint(endpoint_of(self))

    def _check_adapters(self) -> None:
        """Refuse models that are named twice over, or by what cannot be a folder."""
        if self.adapters and (self.adapter is not None or self.model_name):
            raise UserError(
                "--adapters names each model itself; give no --adapter and no --model-name"
            )
        if self.adapters:
            check_names(self.models(), ("responses.csv", "sampled.jsonl", "manifest.json"))

    def place(self) -> Place:
        """Return which host this is, and of how many."""
        return Place(*(self.share or (0, 1)))

    def models(self) -> dict[str, Path | None]:
        """Return each model's adapter, None for the base alone; a single model has no name here."""
        return named_adapters(self.adapters) if self.adapters else {"": self.adapter}

    def input_paths(self) -> dict[str, Path]:
        return super().input_paths() | adapter_inputs(named_adapters(self.adapters))

    def files(self) -> dict[str, Path]:
        """Return the file of replies of each of :meth:`models`."""
        return {name: self.output_dir / name / "responses.csv" for name in self.models()}

    def check_machine(self) -> None:
        """Refuse an endpoint that may not be asked.

        Raises:
            UserError: no key, or posts that may not be sent.
        """
        if self.engine == "endpoint":
            endpoint_key(endpoint_of(self))

    def cost(self, estimator: Estimates) -> Cost:
        if self.engine == "endpoint":
            return self._cost_of_endpoint(estimator)
        assert self.model is not None
        replies = self._replies(estimator)
        cost = Cost(disk=REPLY_BYTES * replies)
        try:
            adapters = estimator.sampled_adapters(self.models().values(), self.base_dtype)
            cost.chip_hours = estimator.sampling(self, replies, self.batch_size, adapters)
            cost.notes = estimator.sampler_notes(self, adapters)
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
        pay_replies(cost, self.endpoint_model, replies, self.max_new_tokens, self.model_table)
        return cost

    def _replies(self, estimator: Estimates) -> int:
        """Return how many replies there will be, and let later phases know."""
        replies = estimator.rows(self.questions) * self.samples
        files = self.files().values()
        for responses in files:
            estimator.counts[responses] = replies
            estimator.per_question[responses] = self.samples
        return replies * len(files)


REPLY_BYTES = 1_900
"""a row of responses.csv: a reply of some 300 tokens and its question"""
LOCAL = (
    "max_prompt_length",
    "prompt_date",
    "batch_size",
    "base_dtype",
    "adapters",
    "top_k",
    "min_p",
    "repetition_penalty",
    "mesh",
    "share",
)
"""settings that an endpoint cannot be told"""


def endpoint_of(config: ResponsesConfig) -> Endpoint:
    """Return the endpoint that the settings name."""
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
