"""Which judge to ask, and within which limits: settings that preference collection and evaluation
inherit.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jaxmodpo.config import builtin
from jaxmodpo.criteria import Criterion
from jaxmodpo.endpoints import is_local
from jaxmodpo.errors import UserError
from jaxmodpo.judging.budget import Budget
from jaxmodpo.judging.endpoint import EndpointJudge
from jaxmodpo.judging.endpoint_settings import Endpoint, checked_family, fitting_endpoint
from jaxmodpo.judging.families import Families
from jaxmodpo.judging.judge import Judge
from jaxmodpo.judging.ledger import Ledger
from jaxmodpo.judging.voting import Missingness
from jaxmodpo.phase import Phase
from jaxmodpo.ranges import Count, Incidental, NotNegative, Positive, Seed, Settings, Share

log = logging.getLogger(__name__)

JudgeKind = Literal["rubric", "endpoint", "batch", "replay"]


@dataclass(frozen=True, kw_only=True)
class JudgeOptions(Settings, help_group="judge"):
    """Which judge is asked, and how."""

    judge: JudgeKind
    """endpoint: a model behind an OpenAI-compatible URL; batch: the same through OpenAI's Batch
    API, at half the price within a day; replay: votes recorded before; rubric: the built-in phrase
    counter, a stand-in without clinical meaning"""
    judge_model: str = ""
    """the endpoint's model; it has no default. For replay: a part of the recorded judge's name,
    where there are more"""
    temperature: NotNegative | None = None
    """of the endpoint's model; None sends none, since some models take none (the paper: 0)"""
    max_answer_tokens: Count | None = None
    """of one answer, thinking included; None sends no limit"""
    structured: Literal["json_schema", "json_object"] = "json_schema"
    """how the form of the answer is demanded; json_object for servers that know no schemas"""
    prompts: str = "prompts"
    """a file of templates, or the name of ours"""
    model_table: Incidental[str] = "models"
    """a table of what models take and cost, or the name of ours"""
    criteria_per_call: Literal["one", "all"] = "one"
    """one call for each criterion, or one for all of them; a criterion without better_when and
    worse_when, such as overall, is always asked about alone, so that nothing primes it"""
    repeat_share: Share = 0.0
    """this share of the requests, drawn by the seed, is asked a second time; those votes do not
    count, and show how far the judge agrees with itself"""
    replay: str = ""
    """the recorded votes: a ledger (file or URL), or an export of one (.jsonl, .parquet)"""
    rubric_noise: NotNegative = 0.25
    """standard deviation of the rubric judge's seeded noise, where a reply without any phrase
    scores 0 and a full score is 1"""
    seed: Seed = 42
    """of who serves on which question, of the order shown, of ties, and of the rubric's noise"""


@dataclass(frozen=True, kw_only=True)
class EndpointOptions(Settings, help_group="endpoint"):
    """Where a judge behind a URL is, and how it may be called."""

    base_url: str = "https://api.openai.com/v1"
    """the endpoint's address, up to and with /v1"""
    api_key_env: Incidental[str] = "OPENAI_API_KEY"
    """the environment variable that holds the endpoint's key"""
    send_personas: Incidental[bool] = False
    """let persona profiles go to an endpoint that is not on this machine"""
    max_concurrency: Incidental[Count] = 32
    """calls to the endpoint at once, at most; fewer where it pushes back"""
    timeout: Incidental[Positive] = 120.0
    """seconds for one attempt"""
    poll_seconds: Incidental[Positive] = 60.0
    """between two looks at a batch"""


@dataclass(frozen=True, kw_only=True)
class BudgetOptions(Settings, help_group="budget"):
    """What a run may spend, what it asks again, and where its votes are kept."""

    budget: Incidental[Positive | None] = None
    """dollars; the run stops before it spends more, over all the times it is started"""
    budget_calls: Incidental[Count | None] = None
    """calls; the run stops before it makes more, over all the times it is started"""
    retry_errors: Incidental[bool] = False
    """ask failed votes again, even if the run is finished; without it an unfinished run asks again
    only where nobody answered"""
    ledger: Incidental[str] = ""
    """where votes are kept: a file, or the URL of a database that several machines may share
    (postgresql://user@host/name; the password comes from PGPASSWORD); votes.sqlite in the output
    folder if empty"""
    dry_run: Incidental[bool] = False
    """say what would be asked and what it would cost, and ask nothing"""
    tokenizer: Incidental[str] = ""
    """for the dry run: a folder or tokenizer.json whose tokens are counted"""


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
        family = checked_family(endpoint_of(self))
        if self.budget is not None and (family.prompt is None or family.answer is None):
            raise UserError(
                f"--budget needs the price of {self.judge_model}, which the table"
                f" '{self.model_table}' does not have; add it to a table of your own"
                " (--model-table) or limit the calls (--budget-calls)"
            )

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
        if self.judge == "replay" and Path(self.replay).suffix in (".jsonl", ".parquet"):
            paths["replay"] = Path(self.replay)
        return paths

    def recorded(self) -> JudgeConfig:
        """Calls and batches are one way of asking, and go on with each other."""
        return dataclasses.replace(self, judge="endpoint") if self.judge == "batch" else self

    def goes_on(self, results: Mapping[str, Any]) -> bool:
        return self.retry_errors


def endpoint_of(config: JudgeConfig) -> Endpoint:
    """Return the settings that concern the endpoint."""
    names = {field.name for field in dataclasses.fields(Endpoint)} & {
        f.name for f in dataclasses.fields(config)
    }
    return fitting_endpoint(
        Endpoint(model=config.judge_model, **{name: getattr(config, name) for name in names})
    )


def open_ledger(config: JudgeConfig, phase: Phase) -> Ledger:
    """Open the votes of a phase, whose run is named by a digest of its settings and inputs."""
    return Ledger(
        config.ledger or phase.directory / "votes.sqlite", phase.manifest.identity.digest()[:32]
    )


def warn_of_failed(label: str, missing: Missingness) -> None:
    """Say how many votes failed, if any did, and what to do about it."""
    failed = Counter[str]()
    for counts in missing.by_criterion().values():
        failed.update(counts["failed"])
    if failed:
        statuses = ", ".join(f"{count:,} {status}" for status, count in sorted(failed.items()))
        log.warning(
            "%s: %d votes failed (%s); --retry-errors asks them again",
            label,
            failed.total(),
            statuses,
        )


def make_judge(
    config: JudgeConfig, ledger: Ledger | None = None, output_dir: Path = Path()
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
    endpoint = endpoint_of(config)
    spent = ledger.spent(ledger.run) if ledger is not None else None
    budget = Budget(config.budget_calls, config.budget)
    if spent is not None:
        budget = Budget(
            config.budget_calls, config.budget, spent.calls, spent.dollars, spent.counted_calls
        )
    judge = EndpointJudge(endpoint, budget)
    if ledger is not None and config.temperature is not None and judge.endpoint.temperature is None:
        log.info(
            "the model %s takes no temperature; --temperature %s is left out",
            endpoint.model,
            config.temperature,
        )
    if config.judge == "endpoint" or ledger is None:
        return judge
    from jaxmodpo.judging.batch import BatchJudge

    discount = Families.load(config.model_table).batch_discount
    return BatchJudge.of(
        judge, ledger, output_dir / "batches", discount, poll_seconds=config.poll_seconds
    )


def groups(
    criteria: Sequence[Criterion], per_call: Literal["one", "all"]
) -> list[tuple[Criterion, ...]]:
    """Divide criteria into those that one call asks about together."""
    if per_call == "one":
        return [(criterion,) for criterion in criteria]
    together = tuple(c for c in criteria if c.better_when)
    return [*([together] if together else []), *((c,) for c in criteria if not c.better_when)]
