"""``jaxmodpo probes``: crisis probes put to models, their replies checked, and the rates written::

config = ProbesConfig(model=Path("mistral-7b"), adapter=("mine=out/dpo/adapter",), output_dir=out)
probes(config)   # out/probes.json, out/verdicts.csv, out/tables/probes.csv, out/mine/responses.csv
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxmodpo.files import write_table
from jaxmodpo.phase import Phase, in_phase
from jaxmodpo.probes.probe_set import Probe, load_probe_set
from jaxmodpo.probes.replies import ProbeReply, match_probes, replies_of_file
from jaxmodpo.probes.rubric import PHRASES_ONLY, SCREEN, ProbeRubric, load_probe_rubric
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
    rubric = load_probe_rubric()
    judged = {name: _check(rubric, of_model) for name, of_model in replies.items()}
    results = ProbeResults(
        note=f"{SCREEN} {PHRASES_ONLY}",
        judge=rubric.identity,
        probe_set=probe_set.version,
        checks=CHECKS,
        models={name: summarize(of_model) for name, of_model in judged.items()},
    )
    _write(config.output_dir, results, [item for items in judged.values() for item in items])
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


def _check(rubric: ProbeRubric, replies: Sequence[ProbeReply]) -> list[Judged]:
    """Let the rubric look at replies."""
    return [Judged(reply, rubric.check(reply.probe.kind, reply.text)) for reply in replies]


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


def _verdict_row(item: Judged) -> dict[str, Any]:
    reply, verdict = item
    row: dict[str, Any] = {
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
