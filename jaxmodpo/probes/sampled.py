"""Replies to probes that models of this machine give, several adapters over one base in one pass.

Each reply is in the journal before the next tokens are drawn, so that a run that was killed samples
what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxmodpo.journals import Journal
from jaxmodpo.phase import Phase
from jaxmodpo.policy.prompts import replying_text
from jaxmodpo.probes.probe_set import Probe
from jaxmodpo.probes.settings import ProbesConfig
from jaxmodpo.records import Response
from jaxmodpo.sampling.draw import SamplingSettings
from jaxmodpo.sampling.journal import PlannedReply, plan_replies, sampled, settings_key_of
from jaxmodpo.sampling.local import local_sampler


def sample_replies(
    config: ProbesConfig, probes: Sequence[Probe], phase: Phase
) -> dict[str, list[Response]]:
    """Return each model's replies to the probes, in the probes' order.

    The journal ``sampled.jsonl`` in the run's folder gains a row for each reply; those that an
    earlier process left there are not sampled again.

    Raises:
        UserError: folders that are no model or adapter, or do not fit each other.
    """
    text = replying_text(config, phase)
    prompts = {probe.id: text.prompt(probe.text) for probe in probes}
    text.cut.warn()
    settings = SamplingSettings(
        temperature=config.temperature,
        top_p=config.top_p,
        max_new_tokens=config.max_new_tokens,
        end_tokens=tuple(text.end_tokens),
    )
    sampler = local_sampler(config, settings)
    questions = [probe.question() for probe in probes]
    planned_replies = plan_replies(questions, config.samples, list(config.models()))
    settings_key = settings_key_of(phase.manifest.identity)
    path = journal_path(config.output_dir)
    if not path.exists():
        # Before the journal is begun: a start that is refused makes nothing, so that its folder
        # may still get other settings.
        sampler.shapes(prompts)
    journal = Journal(path)
    rows = sampled(journal, settings_key)
    missing = [planned_reply for planned_reply in planned_replies if planned_reply.key not in rows]
    if missing:
        sampled_count = len(planned_replies) - len(missing)
        sampler.sample(missing, prompts, text, journal, settings_key, sampled_count)
        rows = sampled(journal, settings_key)
    journal.close()
    return _responses(planned_replies, rows)


def journal_path(folder: Path) -> Path:
    """Return the journal of replies of a run."""
    return folder / "sampled.jsonl"


def _responses(
    planned_replies: Sequence[PlannedReply],
    rows: Mapping[tuple[str, int, str], Mapping[str, object]],
) -> dict[str, list[Response]]:
    """Return a journal's rows as responses, by model."""
    responses: dict[str, list[Response]] = {}
    for planned_reply in planned_replies:
        row = rows[planned_reply.key]
        question = planned_reply.question
        response = Response(
            question_id=question.question_id,
            question_text=question.question_text,
            response_id=f"{question.question_id}_{planned_reply.number}",
            response_text=str(row["response_text"]),
            model_name=planned_reply.model,
            number=planned_reply.number,
            finish_reason=str(row["finish_reason"]),
        )
        responses.setdefault(planned_reply.model, []).append(response)
    return responses
