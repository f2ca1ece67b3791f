"""A judge of replies to probes: a model at an endpoint, asked seven questions about each reply.

Answers are scores in the ledger, so that each is paid for once and is on disk before it counts. A
reply that stands there twice, of two models that agree, is asked about once, and an empty one not
at all.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from jaxmodpo.config import builtin
from jaxmodpo.criteria import Criterion, load_criteria
from jaxmodpo.judging.budget import Budget
from jaxmodpo.judging.collect import collect, votes_by_request
from jaxmodpo.judging.endpoint import EndpointJudge
from jaxmodpo.judging.judge import Request
from jaxmodpo.judging.ledger import Ledger, Spent
from jaxmodpo.judging.votes import Vote
from jaxmodpo.phase import Phase
from jaxmodpo.probes.replies import ProbeReply
from jaxmodpo.probes.settings import CHECKS_FILE, ProbesConfig, endpoint_of
from jaxmodpo.probes.verdict import CHECKS, Verdict
from jaxmodpo.records import Candidate

logger = logging.getLogger(__name__)

UNTRIED = (
    "The replies were checked by a language model, whose answers nobody has compared with people's"
    " on these posts."
)
"""what is said besides where a model was the judge"""

_NOTHING = Verdict(dict.fromkeys(CHECKS, False))
"""of an empty reply, about which nobody need be asked"""


class JudgeReport(NamedTuple):
    """What a judge said.

    Attributes:
        verdicts: of each reply, in the replies' order; None where an answer cannot be read.
        identity: everything that shapes the judge's answers.
        spent: on this run so far.
    """

    verdicts: list[Verdict | None]
    identity: str
    spent: Spent


def judge_replies(config: ProbesConfig, replies: Sequence[ProbeReply], phase: Phase) -> JudgeReport:
    """Ask the endpoint about all replies, those of an earlier start excepted.

    Raises:
        UserError: what will hold for every call, such as a wrong key, or a budget that is spent.
    """
    checks = load_criteria(builtin("judging", CHECKS_FILE), list(CHECKS))
    distinct = {_key(reply): reply for reply in replies if reply.text.strip()}

    def requests() -> Iterator[Request]:
        for reply in distinct.values():
            yield _request(reply, checks)

    # A digest names the run, by which a budget adds up over all of its starts.
    run = phase.manifest.identity.digest()[:32]
    with Ledger(config.ledger or phase.directory / "votes.sqlite", run) as ledger:
        judge = EndpointJudge(
            endpoint_of(config),
            Budget.after(ledger.spent(ledger.run), config.budget_calls, config.budget),
        )
        total = len(distinct) * len(checks)
        collect(requests, judge, ledger, label="probes", total=total, retry=config.retry_errors)
        verdict_of_key: dict[_Key, Verdict | None] = {}
        answered = votes_by_request(requests, judge.identity, ledger)
        for key, (_, votes) in zip(distinct, answered, strict=True):
            verdict_of_key[key] = _verdict(votes)
        spent = ledger.spent(ledger.run)
    _warn_of_missing(verdict_of_key)
    verdicts = [
        verdict_of_key[_key(reply)] if reply.text.strip() else _NOTHING for reply in replies
    ]
    return JudgeReport(verdicts, judge.identity, spent)


_Key = tuple[str, str]


def _key(reply: ProbeReply) -> _Key:
    return reply.probe.id, reply.text


def _request(reply: ProbeReply, checks: Sequence[Criterion]) -> Request:
    """Return the questions about one reply, in one call."""
    return Request(
        kind="score",
        question_id=reply.probe.id,
        question_text=reply.probe.text,
        persona_id="",
        persona_text="",
        criteria=tuple(checks),
        # Not the model's name: equal replies of two models are one question.
        responses=(Candidate("reply", reply.text),),
        yes_no=True,
    )


def _verdict(votes: Sequence[Vote]) -> Verdict | None:
    """Return what the votes on one reply say; None unless every question has an answer.

    A verdict of some questions would count as a pass what nobody looked at.
    """
    checks: dict[str, bool] = {}
    for vote in votes:
        if vote.score is None:
            return None
        checks[vote.criterion] = vote.score >= 0.5
    return Verdict(checks)


def _warn_of_missing(verdicts: Mapping[_Key, Verdict | None]) -> None:
    missing = sum(verdict is None for verdict in verdicts.values())
    if missing:
        logger.warning(
            "probes: %d of %d replies have no verdict, since the judge's answers failed or cannot be"
            " read; --retry-errors asks them again",
            missing,
            len(verdicts),
        )
