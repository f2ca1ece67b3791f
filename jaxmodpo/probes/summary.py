"""Rates of verdicts: by model, by kind of risk and by form, risks and controls apart.

Pure functions. An interval counts probes and not replies: several replies to one probe are no
independent trials, so that each probe is one trial whose success is the share of its replies::

    interval = wilson_interval(sum of shares, number of probes)
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from jaxmodpo.files import Row
from jaxmodpo.probes.probe_set import CONTROL_FORMS, KINDS, RISK_FORMS
from jaxmodpo.probes.replies import ProbeReply
from jaxmodpo.probes.verdict import Verdict
from jaxmodpo.results.probes import (
    ANY_HARM,
    CONTROL_CHECKS,
    PASSED,
    RISK_CHECKS,
    CheckRate,
    ProbedModel,
    ProbeRates,
)
from jaxmodpo.statistics.intervals import wilson_interval


class Judged(NamedTuple):
    """A reply and what was seen in it; None where the judge gave no readable answer."""

    reply: ProbeReply
    verdict: Verdict | None


def holds(check: str, reply: ProbeReply, verdict: Verdict) -> bool:
    """Return whether a check, or one of the two that sum up, holds of a reply."""
    if check == PASSED:
        return verdict.passes(risk=reply.probe.has_risk)
    if check == ANY_HARM:
        return bool(verdict.harms)
    return verdict.checks[check]


def rates_of(judged: Sequence[Judged], checks: Sequence[str]) -> ProbeRates:
    """Return how often each check holds of replies; those without a verdict do not count."""
    decided = [(reply, verdict) for reply, verdict in judged if verdict is not None]
    replies_of_probe = Counter(reply.probe.id for reply, _ in decided)
    rates: dict[str, CheckRate] = {}
    for check in checks:
        held_by_probe: Counter[str] = Counter()
        for reply, verdict in decided:
            if holds(check, reply, verdict):
                held_by_probe[reply.probe.id] += 1
        # Several replies to one probe are alike: the interval counts each probe as one trial, with
        # the share of its replies of which the check holds.
        shares: list[float] = []
        for probe, replies_that_hold in held_by_probe.items():
            shares.append(replies_that_hold / replies_of_probe[probe])
        rates[check] = CheckRate(
            count=held_by_probe.total(),
            replies=len(decided),
            interval=wilson_interval(sum(shares), len(replies_of_probe)),
        )
    return ProbeRates(probes=len(replies_of_probe), replies=len(decided), rates=rates)


def summarize(judged: Sequence[Judged]) -> ProbedModel:
    """Return the rates of one model's replies."""
    # Never together: what is right where somebody is in danger is wrong where nobody is.
    risks: list[Judged] = []
    controls: list[Judged] = []
    for item in judged:
        if item.reply.probe.has_risk:
            risks.append(item)
        else:
            controls.append(item)
    return ProbedModel(
        risk=rates_of(risks, RISK_CHECKS),
        risk_by_kind=_rates_by(risks, RISK_CHECKS, KINDS, lambda reply: reply.probe.kind),
        risk_by_form=_rates_by(risks, RISK_CHECKS, RISK_FORMS, lambda reply: reply.probe.form),
        controls=rates_of(controls, CONTROL_CHECKS),
        controls_by_kind=_rates_by(controls, CONTROL_CHECKS, KINDS, lambda reply: reply.probe.kind),
        controls_by_form=_rates_by(
            controls, CONTROL_CHECKS, CONTROL_FORMS, lambda reply: reply.probe.form
        ),
        without_verdict=sum(item.verdict is None for item in judged),
        empty=sum(not item.reply.text.strip() for item in judged),
        cut=sum(item.reply.is_cut for item in judged),
    )


def _rates_by(
    judged: Sequence[Judged],
    checks: Sequence[str],
    groups: Sequence[str],
    group_of: Callable[[ProbeReply], str],
) -> dict[str, ProbeRates]:
    """Return the rates of each group that has a probe, in the groups' order."""
    of_group: dict[str, list[Judged]] = defaultdict(list)
    for item in judged:
        of_group[group_of(item.reply)].append(item)
    return {group: rates_of(of_group[group], checks) for group in groups if of_group[group]}


TABLE_COLUMNS = (
    *("model", "expects", "by", "group", "check"),
    *("count", "replies", "probes", "share", "low", "high"),
)


def table_rows(models: Mapping[str, ProbedModel]) -> list[Row]:
    """Return all rates as rows of one long table; what is not there is an empty field."""
    rows: list[Row] = []
    for name, model in models.items():
        for expects, by, groups in (
            ("risk", "all", {"all": model.risk}),
            ("risk", "kind", model.risk_by_kind),
            ("risk", "form", model.risk_by_form),
            ("control", "all", {"all": model.controls}),
            ("control", "kind", model.controls_by_kind),
            ("control", "form", model.controls_by_form),
        ):
            for group, rates in groups.items():
                head = {"model": name, "expects": expects, "by": by, "group": group}
                for check, rate in rates.rates.items():
                    numbers = _numbers(rate) | {"probes": rates.probes}
                    rows.append(head | {"check": check} | numbers)
    return rows


def _numbers(rate: CheckRate) -> Row:
    low, high = rate.interval if rate.interval is not None else ("", "")
    share = rate.count / rate.replies if rate.replies else ""
    return {
        "count": rate.count,
        "replies": rate.replies,
        "share": share,
        "low": low,
        "high": high,
    }
