"""``bench injection``: how often a reply that speaks to the judge wins where the same reply would
lose.

The replies stand in ``configs/judging/injections.yaml``. Each is shown with better ones, in every
position, to the rubric and to two scripted judges that stand for a model at its worst and at its
best: one follows any order that it finds anywhere in the message, the other any order that stands
outside the fences. If a reply could leave its fence, the second would show it. A model at an
endpoint may be tried as well.
"""

from __future__ import annotations

import itertools
import logging
import math
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from jaxmodpo.bench.injection_trials import PLAIN, POOR, Trial, load_trials
from jaxmodpo.bench.scripted_judge import ScriptedJudge, anywhere, outside_the_fences
from jaxmodpo.bench.table import text_table
from jaxmodpo.errors import UserError
from jaxmodpo.flags.help_groups import HelpGroup
from jaxmodpo.judging.collect import collect, votes_by_request
from jaxmodpo.judging.endpoint import EndpointJudge
from jaxmodpo.judging.endpoint_settings import Endpoint
from jaxmodpo.judging.judge import Judge, Kind, Request
from jaxmodpo.judging.ledger import Ledger
from jaxmodpo.judging.rubric import RubricJudge
from jaxmodpo.ranges import Count, NotNegative, Unestimated

logger = logging.getLogger(__name__)

KINDS: tuple[Kind, ...] = ("rank", "compare")

_KIND_LABELS: Mapping[Kind, str] = {"rank": "ranking", "compare": "comparison"}


@dataclass(frozen=True, kw_only=True)
class BenchInjectionConfig(Unestimated, help_group="endpoint"):
    """Let judges rank and compare replies that give them orders, and count what the orders
    bring.
    """

    injections: Annotated[str, HelpGroup("data")] = "injections"
    """File of posts, personas and injections, or the name of one that comes with jaxmodpo."""
    criterion: Annotated[str, HelpGroup("data")] = "overall"
    """Name of the therapeutic criterion that replies are judged by."""
    personas: Annotated[Count, HelpGroup("data")] = 4
    """Number of the file's personas that judge."""
    base_url: str = ""
    """Address of an OpenAI-compatible endpoint, up to and with /v1, whose model is tried as well;
    by default no model is."""
    judge_model: str = ""
    """Name of the model that is asked at the endpoint."""
    api_key_env: str = "OPENAI_API_KEY"
    """Name of the environment variable that holds the endpoint's key."""
    temperature: NotNegative | None = None
    """Temperature of the endpoint's model; with None the request names none."""
    max_concurrency: Count = 32
    """Maximum number of calls to the endpoint that are under way at once."""
    prompts: str = "prompts"
    """File of the templates that the endpoint's messages are made of, or the name of one that comes
    with jaxmodpo."""
    ledger: str = ""
    """File that the endpoint's votes are kept in, so that the same command goes on after an
    interruption; by default they are not kept."""

    def check(self) -> None:
        super().check()
        if bool(self.base_url) != bool(self.judge_model):
            raise UserError("--base-url and --judge-model go together")


def bench_injection(config: BenchInjectionConfig) -> None:
    """Run ``bench injection``.

    Raises:
        UserError: bad settings or a bad file.
    """
    config.check()
    judges = _judges(config)
    trials = list(load_trials(config.injections, config.criterion, config.personas))
    logger.info("bench injection: %s calls of each judge", f"{len(trials):,}")
    results: dict[str, Wins] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for number, (name, judge) in enumerate(judges.items()):
            path = Path(temporary) / f"{number}.sqlite"
            # Only votes that cost something are worth keeping.
            is_kept = judge.costs and config.ledger
            with Ledger(config.ledger if is_kept else path, "bench injection") as ledger:
                results[name] = count_wins(trials, judge, ledger)
    print(_described(results))


def _judges(config: BenchInjectionConfig) -> dict[str, Judge]:
    """Return the judges that are compared, by the names that the table has for them."""
    # The rubric counts words and cannot be spoken to. The other two bound what a model could do.
    judges: dict[str, Judge] = {
        "rubric": RubricJudge(0, 0.0),
        "follows every order": ScriptedJudge(anywhere),
        "respects the fences": ScriptedJudge(outside_the_fences),
    }
    if config.base_url:
        endpoint = Endpoint(
            model=config.judge_model,
            base_url=config.base_url,
            api_key_env=config.api_key_env,
            temperature=config.temperature,
            max_concurrency=config.max_concurrency,
            prompts=config.prompts,
            send_personas=True,  # the personas are made up
        )
        judges[config.judge_model] = EndpointJudge(endpoint)
    return judges


@dataclass(frozen=True)
class Wins:
    """Of one judge: by injection and kind, how often the poor reply was first, and of how many
    valid answers.
    """

    first: Mapping[tuple[str, Kind], int]
    valid: Mapping[tuple[str, Kind], int]
    failed: int

    def share(self, injection: str, kind: Kind) -> float:
        """Return the share of valid answers that put the poor reply first; NaN where none is
        valid.
        """
        valid = self.valid.get((injection, kind), 0)
        return self.first.get((injection, kind), 0) / valid if valid else float("nan")

    def gain(self, injection: str, kind: Kind) -> float:
        """Return what the injection adds to that share."""
        return self.share(injection, kind) - self.share(PLAIN, kind)


def count_wins(trials: Sequence[Trial], judge: Judge, ledger: Ledger) -> Wins:
    """Ask a judge for every trial and count how often the poor reply wins."""

    def requests() -> Iterator[Request]:
        for ballot_number, trial in enumerate(trials):
            yield replace(trial.request, ballot_number=ballot_number)

    collect(requests, judge, ledger, label="bench injection", total=len(trials))
    first = Counter[tuple[str, Kind]]()
    valid = Counter[tuple[str, Kind]]()
    failed = 0
    for request, (vote,) in votes_by_request(requests, judge.identity, ledger):
        trial = trials[request.ballot_number]
        key = (trial.injection, trial.request.kind)
        # A judge that refuses to answer is not one that the order has won over.
        if vote.order is None:
            failed += 1
            continue
        valid[key] += 1
        if vote.order[:1] == (POOR,):
            first[key] += 1
    return Wins(first, valid, failed)


def _described(results: Mapping[str, Wins]) -> str:
    """Return the table of all judges, and how many answers of each failed."""
    columns = list(itertools.product(results, KINDS))
    heads = [f"{judge}, {_KIND_LABELS[kind]}" for judge, kind in columns]
    # The same poor reply without any order: what an order adds is the difference from it.
    plain = [results[judge].share(PLAIN, kind) for judge, kind in columns]
    rows = [[PLAIN, *map(_percent, plain)]]
    gains_of_injections: list[list[float]] = []
    for injection in _injections(results):
        gains = [results[judge].gain(injection, kind) for judge, kind in columns]
        gains_of_injections.append(gains)
        rows.append([injection, *map(_signed_percent, gains)])
    means = [sum(column) / len(column) for column in zip(*gains_of_injections, strict=True)]
    rows.append(["mean of the injections", *map(_signed_percent, means)])
    lines = [
        "How often the poor reply wins, and what each injection adds to that:",
        "",
        text_table(["", *heads], rows),
    ]
    for judge, wins in results.items():
        if wins.failed:
            lines.append(f"{judge}: {wins.failed:,} failed answers, not counted")
    return "\n".join(lines)


def _injections(results: Mapping[str, Wins]) -> list[str]:
    """Return the injections that any judge answered validly, each once, in the file's order."""
    # A dictionary, since a set would forget the order.
    names: dict[str, None] = {}
    for wins in results.values():
        names.update(dict.fromkeys(injection for injection, _ in wins.valid))
    return [name for name in names if name != PLAIN]


def _percent(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.0%}"


def _signed_percent(value: float) -> str:
    return "" if math.isnan(value) else f"{value:+.0%}"
