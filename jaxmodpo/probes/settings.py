"""What ``probes`` can be told, and what it will cost."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from jaxmodpo.config import builtin, named_values
from jaxmodpo.costs import Cost, Estimates, Unknown, WeightFormat
from jaxmodpo.data.text import PromptStyle, check_day
from jaxmodpo.endpoints import address
from jaxmodpo.errors import UserError
from jaxmodpo.flags.help_groups import HelpGroup
from jaxmodpo.judging.endpoint_settings import Endpoint, check_budget, fitting_endpoint
from jaxmodpo.judging.prices import pay_judge
from jaxmodpo.probes.probe_set import load_probe_set
from jaxmodpo.probes.rubric import RUBRIC_FILE
from jaxmodpo.probes.verdict import CHECKS
from jaxmodpo.ranges import (
    CommandSettings,
    Count,
    Incidental,
    NotNegative,
    Positive,
    Probability,
    Seed,
)
from jaxmodpo.results.manifest import Manifest
from jaxmodpo.sampling.named_adapters import BASE, adapter_inputs, check_names, named_adapters
from jaxmodpo.schema import Range


@dataclass(frozen=True, kw_only=True)
class ProbesConfig(CommandSettings, help_group="sampling"):
    """Put crisis probes to models and check the replies: a screen, and no instrument."""

    spends = ("chip_hours", "judge_calls", "dollars")

    output_dir: Incidental[Path]
    """Folder of the run, for probes.json, verdicts.csv and tables."""
    probes: Annotated[str, HelpGroup("data")] = "crisis"
    """The set of probes: a YAML file, or the name of ours."""
    responses: Annotated[tuple[str, ...], HelpGroup("data")] = ()
    """Replies that are there already, NAME=FILE for each model. The question_id of a row is the
    probe's id."""
    questions_only: Annotated[bool, HelpGroup("data")] = False
    """Write the probes as questions.csv and stop, so that responses can ask an endpoint for
    replies to them."""
    model: Annotated[Path | None, HelpGroup("model")] = None
    """Hugging Face folder of the base model that is to reply. Without --adapter the base itself is
    probed."""
    adapter: Annotated[tuple[str, ...], HelpGroup("model")] = ()
    """Models over this base, NAME=FOLDER each: PEFT folders, or NAME=base for the base alone.
    All of them are sampled in one pass."""
    base_dtype: Annotated[WeightFormat, HelpGroup("model")] = "bfloat16"
    """Number format of the base weights. int8 and nf4 quantize the projections block by block."""
    judge: Annotated[Literal["rubric", "endpoint"], HelpGroup("judge")] = "rubric"
    """Who checks the replies. rubric: a search for phrases, which needs no network and understands
    nothing. endpoint: a model behind an OpenAI-compatible URL, asked seven questions about each
    reply."""
    judge_model: Annotated[str, HelpGroup("judge")] = ""
    """The name by which the endpoint knows the model. It has no default."""
    judge_temperature: Annotated[NotNegative | None, HelpGroup("judge")] = None
    """The sampling temperature of the judge, 0 or more. None sends none, since some models take
    none."""
    max_answer_tokens: Annotated[Count | None, HelpGroup("judge")] = None
    """The most tokens of one of the judge's answers, thinking included. None sends no limit."""
    structured: Annotated[Literal["json_schema", "json_object"], HelpGroup("judge")] = "json_schema"
    """How the form of the judge's answer is demanded. Choose json_object for servers that know no
    JSON schemas."""
    prompts: Annotated[str, HelpGroup("judge")] = "scores"
    """The wording of the requests: a YAML file of templates for scores, or the name of ours."""
    model_table: Annotated[Incidental[str], HelpGroup("judge")] = "models"
    """The table of what models take and cost: a YAML file, or the name of ours."""
    base_url: Annotated[str, HelpGroup("endpoint")] = "https://api.openai.com/v1"
    """The endpoint's address, up to and with /v1."""
    api_key_env: Annotated[Incidental[str], HelpGroup("endpoint")] = "OPENAI_API_KEY"
    """The name of the environment variable that holds the endpoint's key. The key itself is never
    written anywhere."""
    send_replies: Annotated[Incidental[bool], HelpGroup("endpoint")] = False
    """Allow probes and replies to be sent to an endpoint that is not on this machine. Without it
    such an endpoint is refused."""
    max_concurrency: Annotated[Incidental[Count], HelpGroup("endpoint")] = 32
    """The most calls to the endpoint at once."""
    timeout: Annotated[Incidental[Positive], HelpGroup("endpoint")] = 120.0
    """The seconds that one attempt of a call may take."""
    budget: Annotated[Incidental[Positive | None], HelpGroup("budget")] = None
    """The most dollars that the judge may cost, over all the times the run is started. No limit by
    default."""
    budget_calls: Annotated[Incidental[Count | None], HelpGroup("budget")] = None
    """The most calls to the judge, over all the times the run is started. No limit by default."""
    retry_errors: Annotated[Incidental[bool], HelpGroup("budget")] = False
    """Ask failed answers of the judge again, even if the run is finished."""
    ledger: Annotated[Incidental[str], HelpGroup("budget")] = ""
    """Where the judge's answers are kept: a file, or the URL of a database. It is votes.sqlite in
    the output folder if empty."""
    samples: Count = 1
    """Replies to each probe. Intervals count probes and not replies, so that more of them make a
    rate steadier and no interval falsely narrow."""
    temperature: NotNegative = 0.8
    """Temperature of the draws. 0 takes the likeliest token each time."""
    top_p: Probability = 0.95
    """Tokens are drawn from the smallest set whose probability is at least this."""
    max_new_tokens: Count = 512
    """Most tokens of a reply."""
    max_prompt_length: Annotated[int, Range(least=2), HelpGroup("text")] = 512
    """Most tokens of a prompt. In a longer one the probe loses its start."""
    prompt_style: Annotated[PromptStyle, HelpGroup("text")] = "instruct"
    """How a probe is put to the model, as in training. instruct: the paper's prompt; chat: the
    tokenizer's template."""
    prompt_date: Annotated[str | None, HelpGroup("text")] = None
    """Day, as YYYY-MM-DD, that a chat template takes for today. By default it is the adapter's, or
    the day on which the run began."""
    batch_size: Annotated[Count, HelpGroup("batch")] = 64
    """Replies that are sampled at a time."""
    mesh: Annotated[tuple[Count, Count, Count] | None, HelpGroup("devices")] = None
    """Number of devices along the mesh axes data, fsdp and tensor. By default as in responses."""
    seed: Seed = 0
    """Seed of the draws, which are the same for every model."""

    def check(self) -> None:
        super().check()
        check_day(self.prompt_date)
        if self.questions_only:
            return
        self._check_judge()
        if self.adapter and self.model is None:
            raise UserError(
                "--adapter needs --model, the folder of the base that it was trained on"
            )
        if self.model is None and not self.responses:
            raise UserError(
                "probes needs --model, a folder whose replies are sampled, or --responses with a"
                " NAME=FILE for each model whose replies are there"
            )
        models = self.models()
        files = self.reply_files()
        check_names(models, OWN_FILES, "--adapter")
        for name in files:
            if name in models:
                raise UserError(
                    f"--responses: the name '{name}' is also a sampled model's; rename it"
                )

    def _check_judge(self) -> None:
        """Refuse a judge that could not be asked anywhere."""
        if self.judge != "endpoint":
            return
        if not self.judge_model:
            raise UserError("--judge endpoint needs --judge-model; there is no default model")
        address.is_local(self.base_url)
        check_budget(endpoint_of(self), self.budget)

    def check_machine(self) -> None:
        """Refuse an endpoint that may not be asked.

        Raises:
            UserError: no key, or replies that may not be sent.
        """
        if self.judge == "endpoint" and not self.questions_only:
            address.checked_key(
                self.base_url,
                self.api_key_env,
                texts="probes and replies",
                allowed=self.send_replies,
                flag="--send-replies",
            )

    def goes_on(self, manifest: Manifest) -> bool:
        return self.retry_errors and self.judge == "endpoint"

    def models(self) -> dict[str, Path | None]:
        """Return the adapter of each model that is sampled, None for the base alone."""
        if self.model is None:
            return {}
        return named_adapters(self.adapter, "--adapter") or {BASE: None}

    def reply_files(self) -> dict[str, Path]:
        """Return the files of replies that are there already, by model."""
        named = named_values(self.responses, "--responses")
        return {name: Path(file) for name, file in named.items()}

    def input_paths(self) -> dict[str, Path]:
        paths = super().input_paths() | adapter_inputs(self.models(), "adapter")
        paths |= {f"responses.{name}": path for name, path in self.reply_files().items()}
        paths["probes"] = builtin("probes", self.probes)
        if self.judge == "rubric":
            paths["rubric"] = builtin("judging", RUBRIC_FILE)
        else:
            paths["checks"] = builtin("judging", CHECKS_FILE)
            paths["prompts"] = builtin("judging", self.prompts)
        return paths

    def cost(self, estimator: Estimates) -> Cost:
        models = self.models()
        if self.questions_only:
            return Cost()  # takes seconds, and leaves little behind
        replies = len(load_probe_set(self.probes).probes) * self.samples * len(models)
        cost = Cost(disk=REPLY_BYTES * replies)
        self._add_judge(cost, estimator, replies)
        if not models:
            return cost
        try:
            adapters = estimator.sampled_adapters(models.values(), self.base_dtype)
            cost.chip_hours = estimator.sampling(self, replies, self.batch_size, adapters)
            cost.notes = estimator.sampler_notes(self, adapters)
        except Unknown as missing:
            cost.chip_hours = None
            cost.unknown = [str(missing)]
        return cost

    def _add_judge(self, cost: Cost, estimator: Estimates, sampled: int) -> None:
        """Add the judge's calls and their price: one call for each reply."""
        if self.judge != "endpoint":
            return
        replies = sampled + sum(estimator.rows(path) for path in self.reply_files().values())
        assert cost.disk is not None
        cost.judge_calls = replies
        cost.disk += VOTE_BYTES * replies * len(CHECKS)
        pay_judge(cost, self, "score", 1, len(CHECKS))

    @property
    def criteria(self) -> str:
        """The judge's questions, as a file of criteria; their price is counted by it."""
        return str(builtin("judging", CHECKS_FILE))

    @property
    def only(self) -> tuple[str, ...]:
        """All of the questions are asked."""
        return ()


def endpoint_of(config: ProbesConfig) -> Endpoint:
    """Return the endpoint that judges."""
    endpoint = Endpoint(
        base_url=config.base_url,
        model=config.judge_model,
        api_key_env=config.api_key_env,
        temperature=config.judge_temperature,
        max_answer_tokens=config.max_answer_tokens,
        structured=config.structured,
        # No personas are sent; what may be sent are replies, and check_machine has asked for that.
        send_personas=config.send_replies,
        timeout=config.timeout,
        max_concurrency=config.max_concurrency,
        prompts=config.prompts,
        model_table=config.model_table,
    )
    return fitting_endpoint(endpoint)


CHECKS_FILE = "probe_checks"
"""name of the judge's questions in ``configs/judging``"""

OWN_FILES = ("probes.json", "verdicts.csv", "sampled.jsonl", "manifest.json", "tables")
"""what the run itself has in its folder"""

VOTE_BYTES = 550
"""a row of the ledger: ids, raw and parsed answer, model, tokens"""

REPLY_BYTES = 2_000
"""a row of verdicts.csv: a reply of some 300 tokens, and what was seen in it"""
