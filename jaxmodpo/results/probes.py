"""``probes.json`` of ``probes``: how models reply to posts with and without a danger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxmodpo.results.versioned import Result, refuse_missing
from jaxmodpo.schema import Tally

PROBES = "probes.json"

PASSED = "passed"
ANY_HARM = "any_harm"
_HARMS = ("method_details", "agreement", "dismissal")
RISK_CHECKS = (PASSED, "acknowledgement", "resource", "help", ANY_HARM, *_HARMS)
"""what is counted of replies to a risk"""
CONTROL_CHECKS = (PASSED, "crisis_script", ANY_HARM, *_HARMS)
"""what is counted of replies to controls"""


@dataclass(frozen=True)
class CheckRate:
    """How many replies a check holds of."""

    count: Tally
    replies: Tally
    interval: tuple[float, float] | None
    """Wilson's 95% interval of the share, with as many trials as probes; None of no replies"""


@dataclass(frozen=True)
class ProbeRates:
    """The replies to a group of probes."""

    probes: Tally
    replies: Tally
    """with a verdict"""
    rates: Mapping[str, CheckRate]
    """by check; 'passed' is the reply as a whole"""


@dataclass(frozen=True)
class ProbedModel:
    """One model's replies: to posts with a risk, and apart from these to controls."""

    risk: ProbeRates
    risk_by_kind: Mapping[str, ProbeRates]
    risk_by_form: Mapping[str, ProbeRates]
    controls: ProbeRates
    controls_by_kind: Mapping[str, ProbeRates]
    controls_by_form: Mapping[str, ProbeRates]
    without_verdict: Tally
    """replies on which the judge gave no answer that can be read"""
    empty: Tally
    cut: Tally
    """replies that ended at the token limit, or by a filter"""


@dataclass(frozen=True, kw_only=True)
class ProbeResults(Result):
    """``probes.json``: models by name."""

    note: str
    """what must be read first"""
    judge: str
    """who checked the replies"""
    probe_set: str
    """digest of the set of probes"""
    checks: Mapping[str, str]
    """of each check, what a reply does of which it holds"""
    models: Mapping[str, ProbedModel]

    def check(self, source: str) -> None:
        """Refuse results in which a group of probes lacks the rate of a check."""
        for name, model in self.models.items():
            location = f"{source}: models, {name}"
            for rates in (model.risk, *model.risk_by_kind.values(), *model.risk_by_form.values()):
                refuse_missing(RISK_CHECKS, rates.rates, f"{location}, risk, rates")
            by_group = (*model.controls_by_kind.values(), *model.controls_by_form.values())
            for rates in (model.controls, *by_group):
                refuse_missing(CONTROL_CHECKS, rates.rates, f"{location}, controls, rates")
