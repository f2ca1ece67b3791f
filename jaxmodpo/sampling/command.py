"""The ``responses`` command: N replies to each question, kept as they are sampled.

A run that was killed asks for what is missing::

    config = ResponsesConfig(questions=Path("q.csv"), model=Path("mistral-7b"), output_dir=out)
    run_responses(config)   # out/responses.csv
"""

from __future__ import annotations

import collections
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxmodpo.data.text import PolicyText
from jaxmodpo.errors import UserError
from jaxmodpo.fingerprints import fingerprint
from jaxmodpo.journals import Journal
from jaxmodpo.launched import Place
from jaxmodpo.phase import Phase, identity_of, in_phase
from jaxmodpo.policy.prompts import replying_text
from jaxmodpo.records import Response, read_questions, write_responses
from jaxmodpo.results.manifest import MANIFEST, Identity, read_manifest
from jaxmodpo.sampling.draw import SamplingSettings
from jaxmodpo.sampling.endpoint import ask, refuse_empty, reply_seed, total_spending
from jaxmodpo.sampling.endpoint_forecast import forecast_replies
from jaxmodpo.sampling.journal import (
    PlannedReply,
    ReplyKey,
    plan_replies,
    refuse_empty_questions,
    sampled,
    settings_key_of,
)
from jaxmodpo.sampling.local import LocalSampler, local_sampler
from jaxmodpo.sampling.settings import ResponsesConfig, endpoint_of
from jaxmodpo.sampling.shares import (
    SHARES,
    Hosts,
    lock_share,
    own_share,
    sampled_by_others,
    share_folder,
    share_journal,
)

logger = logging.getLogger(__name__)


def run_responses(config: ResponsesConfig) -> Phase | None:
    """Run ``responses`` as the command line does.

    Returns:
        The phase; None where it only says what it would ask an endpoint and what that would cost,
        and on a host that samples a share of another one's run.
    """
    config.check()
    if config.dry_run:
        planned_replies = plan_replies(read_questions(config.questions), config.samples)
        forecast_replies(endpoint_of(config), planned_replies, config.output_dir)
        return None
    own_place = config.place()
    if own_place.number > 0:
        _sample_share(config, own_place)
        return None
    return responses(config)


@in_phase("responses")
def responses(config: ResponsesConfig, phase: Phase) -> None:
    """Run ``responses``: what was sampled or bought is on disk before the next reply is asked
    for.
    """
    if config.engine == "endpoint":
        _ask(config, phase)
    else:
        _sample(config, phase)


def _sample(config: ResponsesConfig, phase: Phase) -> None:
    """Sample the replies from a model of this machine; with other hosts, the first one's share."""
    own_place = config.place()
    work = _LocalWork.prepare(config, phase)
    settings_key = settings_key_of(phase.manifest.identity)
    hosts = None
    if own_place.count > 1:
        hosts = Hosts.join(config.output_dir, own_place, phase.manifest.identity)
    journal = work.sample(config, own_place, settings_key)
    if hosts is not None:
        hosts.wait()
    # Also of an earlier start, on more hosts: what was sampled then was not sampled again.
    rows = sampled_by_others(config.output_dir, journal.path, settings_key)
    rows |= sampled(journal, settings_key)
    missing = sum(planned_reply.key not in rows for planned_reply in work.planned_replies)
    if missing:
        raise UserError(
            f"{missing} replies are in no journal of {config.output_dir}, though every host has"
            " ended; start all of them again, and they sample those alone"
        )
    done_work = [journal.path, config.output_dir / SHARES]
    cut = work.text.cut.as_dict()
    _write(config, work.planned_replies, rows, phase, done_work, **cut)


def _sample_share(config: ResponsesConfig, place: Place) -> None:
    """Sample one host's share into a folder of its own, for the first host to read.

    Raises:
        UserError: a chat template names a day, which every host would choose for itself.
    """
    identity = identity_of("responses", config)
    settings_key = settings_key_of(identity)
    if _has_all_replies(config, identity):
        logger.info("%s is finished: this host has nothing to sample", config.output_dir)
        return
    lock = lock_share(share_folder(config.output_dir, place.number))
    hosts = Hosts.join(config.output_dir, place, identity)
    work = _LocalWork.prepare(config, None)
    if work.text.surroundings.dated and config.prompt_date is None:
        raise UserError(
            "the chat template writes a date into every prompt, and each host would take its own"
            " day; give --prompt-date"
        )
    work.sample(config, place, settings_key)
    hosts.finish()
    lock.release()


def _has_all_replies(config: ResponsesConfig, identity: Identity) -> bool:
    """Return whether the first host has finished this very run."""
    path = config.output_dir / MANIFEST
    manifest = read_manifest(path) if path.exists() else None
    return manifest is not None and manifest.is_finished and manifest.identity == identity


@dataclass(frozen=True)
class _LocalWork:
    """What a run of the local engine is to do, the same on every host.

    Attributes:
        sampler: what samples.
        planned_replies: all replies that there will be.
        prompts: as tokens, by question id.
        text: the tokenization.
    """

    sampler: LocalSampler
    planned_replies: list[PlannedReply]
    prompts: Mapping[str, Sequence[int]]
    text: PolicyText

    @classmethod
    def prepare(cls, config: ResponsesConfig, phase: Phase | None) -> _LocalWork:
        """Read questions and put them as prompts."""
        assert config.temperature is not None
        questions = read_questions(config.questions)
        planned_replies = plan_replies(questions, config.samples, list(config.models()))
        refuse_empty_questions(planned_replies)
        text = replying_text(config, phase)
        # Once for each question and not for each reply, since what is cut is counted.
        prompts = {
            question.question_id: text.prompt(question.question_text) for question in questions
        }
        text.cut.warn()
        settings = SamplingSettings(
            temperature=config.temperature,
            top_p=config.top_p,
            max_new_tokens=config.max_new_tokens,
            end_tokens=tuple(text.end_tokens),
            top_k=config.top_k,
            min_p=config.min_p,
            repetition_penalty=config.repetition_penalty,
        )
        sampler = local_sampler(config, settings, config.stop)
        return cls(sampler, planned_replies, prompts, text)

    def sample(self, config: ResponsesConfig, place: Place, settings_key: str) -> Journal:
        """Sample what no journal has of a host's share, and return the host's journal."""
        share = own_share(self.planned_replies, place)
        path = share_journal(config.output_dir, place.number)
        sampled_before = sampled_by_others(config.output_dir, path, settings_key)
        if not path.exists():
            # Before the journal is begun: a start that is refused makes nothing, so that its folder
            # may still get other settings.
            self.sampler.shapes(self.prompts)
        journal = Journal(path)
        sampled_before |= sampled(journal, settings_key)
        missing = [reply for reply in share if reply.key not in sampled_before]
        if missing:
            sampled_count = len(share) - len(missing)
            self.sampler.sample(
                missing, self.prompts, self.text, journal, settings_key, sampled_count
            )
        journal.close()
        return journal


def _ask(config: ResponsesConfig, phase: Phase) -> None:
    """Ask an endpoint for the replies."""
    planned_replies = plan_replies(read_questions(config.questions), config.samples)
    journal = Journal(config.output_dir / "sampled.jsonl")
    settings_key = settings_key_of(phase.manifest.identity)
    try:
        rows = ask(endpoint_of(config), planned_replies, journal, settings_key)
    finally:
        journal.close()
    empty = refuse_empty(rows)
    # A server may answer by another model than it was asked for, and says so.
    answering_models = collections.Counter(reply.get("model", "") for reply in rows)
    _write(
        config,
        planned_replies,
        sampled(journal, settings_key),
        phase,
        [journal.path],
        answering_models=dict(answering_models),
        empty_by_kind=empty,
        spent=total_spending(rows, endpoint_of(config).family),
    )


@dataclass(frozen=True)
class _ReplySeeds:
    """Which seeds the replies of a run have.

    Attributes:
        run_seed: of the run; None where its draws depend on none.
        is_sent: whether an endpoint is sent one for each reply.
    """

    run_seed: int | None
    is_sent: bool

    @classmethod
    def of(cls, config: ResponsesConfig) -> _ReplySeeds:
        if config.engine == "local":
            return cls(config.seed, is_sent=False)
        takes_seed = endpoint_of(config).family.seed
        return cls(config.seed if takes_seed else None, is_sent=takes_seed)

    def sent(self, planned_reply: PlannedReply) -> int | None:
        """Return the seed that an endpoint was sent for a reply; None where it was sent none."""
        if not self.is_sent or self.run_seed is None:
            return None
        return reply_seed(self.run_seed, planned_reply)


def _write(
    config: ResponsesConfig,
    planned_replies: Sequence[PlannedReply],
    rows_by_key: Mapping[ReplyKey, Mapping[str, Any]],
    phase: Phase,
    work: Sequence[Path],
    **results: Any,
) -> None:
    """Write each model's ``responses.csv`` and finish the phase; what led to it is removed."""
    settings_key = settings_key_of(phase.manifest.identity)
    seeds = _ReplySeeds.of(config)
    fingerprints = {
        name: fingerprint(folder) if folder is not None else ""
        for name, folder in config.models().items()
    }
    base = config.model.resolve().name if config.model is not None else ""
    replies: dict[str, list[Response]] = {name: [] for name in config.files()}
    for planned_reply in planned_replies:
        reply = rows_by_key[planned_reply.key]
        replies[planned_reply.model].append(
            Response(
                planned_reply.question.question_id,
                planned_reply.question.question_text,
                f"{planned_reply.question.question_id}_{planned_reply.number}",
                reply["response_text"],
                planned_reply.model or config.model_name,
                number=planned_reply.number,
                model=reply.get("model") or base,
                adapter=fingerprints[planned_reply.model][:16],
                settings=settings_key,
                seed=seeds.run_seed,
                sent_seed=seeds.sent(planned_reply),
                finish_reason=reply["finish_reason"],
                tokens=reply.get("tokens"),
                prompt_tokens=reply.get("prompt_tokens"),
            )
        )
    for name, path in config.files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_responses(path, replies[name])
    if config.adapters:
        # A model that seldom comes to an end is not to vanish in the sum of all.
        results["cut_at_max_new_tokens_by_model"] = {
            name: sum(reply.is_cut_at_limit for reply in of_model)
            for name, of_model in replies.items()
        }
    everything = [reply for of_model in replies.values() for reply in of_model]
    cut_at_limit = sum(reply.is_cut_at_limit for reply in everything)
    cut_by_filter = sum(reply.is_cut for reply in everything) - cut_at_limit
    if cut_by_filter:
        # Of an endpoint alone, so that no run of the local engine counts what it cannot have.
        results["cut_by_filter"] = cut_by_filter
    empty = sum(not reply.response_text for reply in everything)
    logger.info(
        "%d replies, %d cut at --max-new-tokens, %d empty", len(everything), cut_at_limit, empty
    )
    phase.finish(
        work=work,
        responses=len(everything),
        cut_at_max_new_tokens=cut_at_limit,
        empty=empty,
        **results,
    )
