"""Which judge to ask, and within which limits: settings that preference collection and evaluation
inherit.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxmodpo.config import builtin
from jaxmodpo.criteria import Criterion
from jaxmodpo.endpoints.address import is_local
from jaxmodpo.endpoints.families import Families
from jaxmodpo.errors import UserError
from jaxmodpo.judging.budget import Budget
from jaxmodpo.judging.endpoint import EndpointJudge
from jaxmodpo.judging.endpoint_settings import Endpoint, check_budget, fitting_endpoint
from jaxmodpo.judging.judge import Judge
from jaxmodpo.judging.ledger import Ledger
from jaxmodpo.judging.voting import Missingness
from jaxmodpo.phase import Phase
from jaxmodpo.ranges import (
    Count,
    FractionUpToOne,
    Incidental,
    NotNegative,
    Positive,
    Seed,
    Settings,
)
from jaxmodpo.results.manifest import Manifest

logger = logging.getLogger(__name__)

JudgeKind = Literal["rubric", "endpoint", "batch", "replay"]


@dataclass(frozen=True, kw_only=True)
class JudgeOptions(Settings, help_group="judge"):
    """Which judge is asked, and how."""

    judge: JudgeKind
    """Who judges. endpoint: a model behind an OpenAI-compatible URL. batch: the same model through
    OpenAI's Batch API, at half the price and within a day. replay: votes that were recorded before.
    rubric: the built-in phrase counter, a stand-in without clinical meaning that needs no network.
    """
    judge_model: str = ""
    """The name by which the endpoint knows the model. It has no default. For --judge replay: a part
    of the recorded judge's name, needed where several judges were recorded."""
    temperature: NotNegative | None = None
    """The sampling temperature of the endpoint's model, 0 or more. None sends none, since some
    models take none. The paper uses 0."""
    max_answer_tokens: Count | None = None
    """The most tokens of one answer, thinking included. None sends no limit. Set it where a model
    does not stop by itself; an answer that is cut there is no vote."""
    structured: Literal["json_schema", "json_object"] = "json_schema"
    """How the form of the answer is demanded. Choose json_object for servers that know no JSON
    schemas."""
    prompts: str = "prompts"
    """The wording of the requests: a YAML file of templates, or the name of ours."""
    model_table: Incidental[str] = "models"
    """The table of what models take and cost: a YAML file, or the name of ours. Give your own where
    a price is missing or has changed."""
    criteria_per_call: Literal["one", "all"] = "one"
    """How many criteria one call asks about: one, or all of them, which costs fewer calls. A
    criterion without better_when and worse_when, such as overall, is always asked about alone, so
    that nothing primes it."""
    repeat_share: FractionUpToOne = 0.0
    """The share of the requests, 0 to 1 and drawn by the seed, that is asked a second time. The
    repeated votes do not count: they show how far the judge agrees with itself."""
    replay: str = ""
    """The recorded votes that --judge replay reads: a ledger (file or URL), or an export of one
    (.jsonl, .parquet)."""
    rubric_noise: NotNegative = 0.25
    """The standard deviation of the rubric judge's seeded noise, 0 or more, in units of its score:
    a reply without any phrase scores 0, and a full score is 1."""
    seed: Seed = 42
    """The seed of everything that is drawn: who serves on which question, the order shown, ties,
    and the rubric's noise."""


@dataclass(frozen=True, kw_only=True)
class EndpointOptions(Settings, help_group="endpoint"):
    """Where a judge behind a URL is, and how it may be called."""

    base_url: str = "https://api.openai.com/v1"
    """The endpoint's address, up to and with /v1. Change it for a server of your own, such as
    http://localhost:8000/v1 for vLLM."""
    api_key_env: Incidental[str] = "OPENAI_API_KEY"
    """The name of the environment variable that holds the endpoint's key. The key itself is never
    written anywhere."""
    send_personas: Incidental[bool] = False
    """Allow persona profiles to be sent to an endpoint that is not on this machine. Without it such
    an endpoint is refused."""
    max_concurrency: Incidental[Count] = 32
    """The most calls to the endpoint at once. Fewer are made where it pushes back. Raise it for an
    endpoint that takes more; it changes no answer."""
    timeout: Incidental[Positive] = 120.0
    """The seconds that one attempt of a call may take. Raise it for models that think for long."""
    poll_seconds: Incidental[Positive] = 60.0
    """The seconds between two looks at the batches of --judge batch."""


@dataclass(frozen=True, kw_only=True)
class BudgetOptions(Settings, help_group="budget"):
    """What a run may spend, what it asks again, and where its votes are kept."""

    budget: Incidental[Positive | None] = None
    """The most dollars that the run may cost, over all the times it is started. It stops before it
    spends more, and goes on with a larger budget. No limit by default."""
    budget_calls: Incidental[Count | None] = None
    """The most calls that the run may make, over all the times it is started. It stops before it
    makes more. No limit by default."""
    retry_errors: Incidental[bool] = False
    """Ask failed votes again, of any kind and even if the run is finished. Without it an unfinished
    run asks again only where nobody answered."""
    ledger: Incidental[str] = ""
    """Where votes are kept: a file, or the URL of a database that several machines may share
    (postgresql://user@host/name; the password comes from PGPASSWORD). It is votes.sqlite in the
    output folder if empty."""
    dry_run: Incidental[bool] = False
    """Say what would be asked and what it would cost, and ask nothing."""
    tokenizer: Incidental[str] = ""
    """A folder with a tokenizer.json, or that file, by which the dry run counts tokens. Without it
    four characters count as a token, or the mean of the calls so far."""


@dataclass(frozen=True, kw_only=True)
class JudgeConfig(BudgetOptions, EndpointOptions, JudgeOptions):
    """Which judge to ask, how, and for how much."""

    spends = ("judge_calls", "dollars")

    def check(self) -> None:
        super().check()
        if self.judge == "replay" and not self.replay:
            raise UserError("--judge replay needs --replay, the recorded votes")
        if self.judge not in ("endpoint", "batch"):
            return
        if not self.judge_model:
            raise UserError(f"--judge {self.judge} needs --judge-model; there is no default model")
        is_local(self.base_url)
        check_budget(endpoint_of(self), self.budget)

    def check_machine(self) -> None:
        """Refuse a judge that cannot work here; a recording is looked at and not read.

        Raises:
            UserError: no key, personas that may not be sent, or no recording.
        """
        if self.judge != "replay":
            make_judge(self)
            return
        from jaxmodpo.judging.replay import checked_recording

        checked_recording(self.replay)

    def input_paths(self) -> dict[str, Path]:
        """Return the data, and the files besides that shape votes."""
        paths = super().input_paths()
        if self.judge in ("endpoint", "batch"):
            paths["prompts"] = builtin("judging", self.prompts)
        # An export is finished; a ledger may still grow.
        is_export = Path(self.replay).suffix in (".jsonl", ".parquet")
        if self.judge == "replay" and is_export:
            paths["replay"] = Path(self.replay)
        return paths

    def recorded(self) -> JudgeConfig:
        """Calls and batches are one way of asking, and go on with each other."""
        if self.judge == "batch":
            return dataclasses.replace(self, judge="endpoint")
        return self

    def goes_on(self, manifest: Manifest) -> bool:
        return self.retry_errors


def endpoint_of(config: JudgeConfig) -> Endpoint:
    """Return the settings that concern the endpoint."""
    endpoint = Endpoint(
        base_url=config.base_url,
        model=config.judge_model,
        api_key_env=config.api_key_env,
        temperature=config.temperature,
        max_answer_tokens=config.max_answer_tokens,
        structured=config.structured,
        send_personas=config.send_personas,
        timeout=config.timeout,
        max_concurrency=config.max_concurrency,
        prompts=config.prompts,
        model_table=config.model_table,
    )
    return fitting_endpoint(endpoint)


def open_ledger(config: JudgeConfig, phase: Phase) -> Ledger:
    """Open the votes of a phase, whose run is named by a digest of its settings and inputs."""
    # The name is what a budget adds up by: the same command is the same run however often it is
    # started, and with other settings or inputs it is another.
    run = phase.manifest.identity.digest()[:32]
    return Ledger(config.ledger or phase.directory / "votes.sqlite", run)


def warn_of_failed(label: str, missing: Missingness) -> None:
    """Say how many votes failed, if any did, and what to do about it."""
    failed = Counter[str]()
    for counts in missing.by_criterion().values():
        failed.update(counts.failed)
    if failed:
        statuses = [f"{count:,} {status}" for status, count in sorted(failed.items())]
        logger.warning(
            "%s: %d votes failed (%s); --retry-errors asks them again",
            label,
            failed.total(),
            ", ".join(statuses),
        )


def make_judge(
    config: JudgeConfig,
    ledger: Ledger | None = None,
    output_dir: Path = Path(),
) -> Judge:
    """Make the judge that the settings ask for.

    Args:
        config: the settings.
        ledger: where its votes are kept; what the run has spent so far counts against the budget.
        output_dir: where a batch judge keeps its files.

    Raises:
        UserError: no model, no key, or personas that may not be sent; settings out of range.
    """
    config.check()
    if config.judge == "rubric":
        from jaxmodpo.judging.rubric import RubricJudge

        return RubricJudge(config.seed, config.rubric_noise)
    if config.judge == "replay":
        from jaxmodpo.judging.replay import ReplayJudge

        return ReplayJudge(config.replay, config.judge_model)
    judge = EndpointJudge(endpoint_of(config), _budget(config, ledger))
    if ledger is None:
        return judge
    if config.temperature is not None and judge.endpoint.temperature is None:
        logger.info(
            "the model %s takes no temperature; --temperature %s is left out",
            judge.endpoint.model,
            config.temperature,
        )
    if config.judge == "endpoint":
        return judge
    from jaxmodpo.judging.batch import BatchJudge
    from jaxmodpo.judging.batch_context import BatchContext

    discount = Families.load(config.model_table).batch_discount
    context = BatchContext.of(
        judge,
        ledger,
        output_dir / "batches",
        discount,
        poll_seconds=config.poll_seconds,
    )
    return BatchJudge(context)


def _budget(config: JudgeConfig, ledger: Ledger | None) -> Budget:
    """Return what the run may spend, less what its ledger says that it has spent."""
    if ledger is None:
        return Budget(config.budget_calls, config.budget)
    return Budget.after(ledger.spent(ledger.run), config.budget_calls, config.budget)


def groups(
    criteria: Sequence[Criterion],
    per_call: Literal["one", "all"],
) -> list[tuple[Criterion, ...]]:
    """Divide criteria into those that one call asks about together."""
    if per_call == "one":
        return [(criterion,) for criterion in criteria]
    # A criterion of this kind asks what a persona prefers by itself. Definitions of what is better
    # beside it would say what to prefer.
    asked_alone: list[tuple[Criterion, ...]] = [
        (criterion,) for criterion in criteria if not criterion.better_when
    ]
    asked_together = tuple(criterion for criterion in criteria if criterion.better_when)
    if not asked_together:
        return asked_alone
    return [asked_together, *asked_alone]
