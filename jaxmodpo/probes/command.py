"""``jaxmodpo probes``: crisis probes put to models, their replies checked, and the rates written.

A model with an adapter, by the name that its replies go under::

    adapters = ("mine=out/dpo/adapter",)
    probes(ProbesConfig(model=Path("mistral-7b"), adapter=adapters, output_dir=out))
    # out/probes.json, out/verdicts.csv, out/tables/probes.csv, out/mine/responses.csv
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxmodpo.files import Row, write_table
from jaxmodpo.phase import Phase, in_phase
from jaxmodpo.probes.probe_set import Probe, load_probe_set
from jaxmodpo.probes.replies import ProbeReply, match_probes, replies_of_file
from jaxmodpo.probes.rubric import PHRASES_ONLY, SCREEN, load_probe_rubric
from jaxmodpo.probes.settings import ProbesConfig
from jaxmodpo.probes.summary import TABLE_COLUMNS, Judged, summarize, table_rows
from jaxmodpo.probes.verdict import CHECKS
from jaxmodpo.records import write_questions, write_responses
from jaxmodpo.results.probes import PROBES, ProbeResults
from jaxmodpo.results.versioned import write_result

logger = logging.getLogger(__name__)

QUESTIONS = "questions.csv"
VERDICTS = "verdicts.csv"


@in_phase("probes")
def probes(config: ProbesConfig, phase: Phase) -> None:
    """Run ``probes``.

    Raises:
        UserError: a set of probes or a file of replies that is not as it should be, or folders that
            are no model or adapter.
    """
    probe_set = load_probe_set(config.probes)
    if config.questions_only:
        write_questions(
            config.output_dir / QUESTIONS, [probe.question() for probe in probe_set.probes]
        )
        phase.finish(questions=len(probe_set.probes))
        return
    # Files first: a wrong row is refused before hours go into sampling.
    replies: dict[str, list[ProbeReply]] = {}
    for name, path in config.reply_files().items():
        replies[name] = replies_of_file(path, name, probe_set.probes)
    sampled_replies, work = _sample(config, probe_set.probes, phase)
    replies = sampled_replies | replies
    checked = _check(config, [reply for of_model in replies.values() for reply in of_model], phase)
    results = ProbeResults(
        note=f"{SCREEN} {checked.note}",
        judge=checked.identity,
        probe_set=probe_set.version,
        checks=CHECKS,
        models={name: summarize(checked.of_model(name)) for name in replies},
    )
    _write(config.output_dir, results, checked.judged)
    logger.info("%s", results.note)
    phase.finish(
        work=work,
        note=results.note,
        passed={name: model.risk.rates["passed"].count for name, model in results.models.items()},
        risks=sum(probe.has_risk for probe in probe_set.probes),
        false_alarms={
            name: model.controls.rates["crisis_script"].count
            for name, model in results.models.items()
        },
        controls=sum(not probe.has_risk for probe in probe_set.probes),
        **checked.figures,
    )


def _sample(
    config: ProbesConfig, probe_list: Sequence[Probe], phase: Phase
) -> tuple[dict[str, list[ProbeReply]], list[Path]]:
    """Return the replies of the models of this machine, and the journal that they leave."""
    if config.model is None:
        return {}, []
    # It brings JAX, which replies from files do not need.
    from jaxmodpo.probes.sampled import journal_path, sample_replies

    replies: dict[str, list[ProbeReply]] = {}
    for name, responses in sample_replies(config, probe_list, phase).items():
        path = config.output_dir / name / "responses.csv"
        path.parent.mkdir(exist_ok=True)
        write_responses(path, responses)
        replies[name] = match_probes(responses, name, probe_list, str(path))
    return replies, [journal_path(config.output_dir)]


class _Checked(NamedTuple):
    """All replies with their verdicts, and who gave them."""

    judged: list[Judged]
    identity: str
    note: str
    figures: Mapping[str, Any]

    def of_model(self, name: str) -> list[Judged]:
        return [item for item in self.judged if item.reply.model == name]


def _check(config: ProbesConfig, replies: Sequence[ProbeReply], phase: Phase) -> _Checked:
    """Let the rubric or a judge look at all replies."""
    if config.judge == "endpoint":
        # It brings the client of an endpoint, which the rubric does without.
        from jaxmodpo.probes.judged import UNTRIED, judge_replies

        judge_report = judge_replies(config, replies, phase)
        judged = list(map(Judged, replies, judge_report.verdicts))
        figures = {"spent": judge_report.spent._asdict()}
        return _Checked(judged, judge_report.identity, UNTRIED, figures)
    rubric = load_probe_rubric()
    judged = [Judged(reply, rubric.check(reply.probe.kind, reply.text)) for reply in replies]
    return _Checked(judged, rubric.identity, PHRASES_ONLY, {})


VERDICT_COLUMNS = (
    *("model", "probe_id", "kind", "form", "expects", "number", "passed", *CHECKS),
    *("evidence", "probe_text", "response_text", "note"),
)


def _write(folder: Path, results: ProbeResults, judged: Sequence[Judged]) -> None:
    """Write the rates, a table of them, and every reply with its verdict."""
    write_result(folder / PROBES, results)
    tables = folder / "tables"
    tables.mkdir(exist_ok=True)
    rows = table_rows(results.models)
    write_table(
        tables / "probes.csv", [row | {"note": SCREEN} for row in rows], (*TABLE_COLUMNS, "note")
    )
    write_table(folder / VERDICTS, [_verdict_row(item) for item in judged], VERDICT_COLUMNS)


def _verdict_row(item: Judged) -> Row:
    reply, verdict = item
    row: Row = {
        "model": reply.model,
        "probe_id": reply.probe.id,
        "kind": reply.probe.kind,
        "form": reply.probe.form,
        "expects": reply.probe.expects,
        "number": reply.number,
        "probe_text": reply.probe.text,
        "response_text": reply.text,
        "note": SCREEN,
    }
    if verdict is None:
        return row
    answers = {check: _yes_or_no(holds) for check, holds in verdict.checks.items()}
    evidence = "; ".join(f"{check}: {words}" for check, words in verdict.evidence.items())
    passed = _yes_or_no(verdict.passes(risk=reply.probe.has_risk))
    return row | answers | {"passed": passed, "evidence": evidence}


def _yes_or_no(value: bool) -> str:
    return "yes" if value else "no"
