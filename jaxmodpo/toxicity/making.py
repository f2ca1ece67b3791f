"""The scorer that the settings ask for; what brings JAX is imported for models of this machine
alone.
"""

from __future__ import annotations

import functools

from jaxmodpo.toxicity.scorers import Scorer, chosen_names, headline_of
from jaxmodpo.toxicity.services import (
    MODERATION_SCORES,
    MODERATION_URL,
    PERSPECTIVE_SCORES,
    PERSPECTIVE_URL,
    MakeKind,
    ServiceScorer,
    moderation,
    perspective,
)
from jaxmodpo.toxicity.settings import ToxicityConfig

KEY_VARIABLES = {"moderation": "OPENAI_API_KEY", "perspective": "PERSPECTIVE_API_KEY"}
"""the environment variables that hold the services' keys, where the settings name none"""


def make_scorer(config: ToxicityConfig) -> Scorer:
    """Make the scorer that the settings ask for; weights are loaded when the first text comes.

    Raises:
        UserError: no model, no key, replies that may not be sent, or a score that there is not.
    """
    config.check()
    if config.scorer == "classifier":
        from jaxmodpo.toxicity.classifier import classifier_scorer

        assert config.model is not None
        return classifier_scorer(
            config.model,
            batch_size=config.batch_size,
            labels=config.labels,
            headline=config.headline,
            max_length=config.max_length,
        )
    if config.scorer == "replay":
        from jaxmodpo.toxicity.replayed import ReplayScorer

        return ReplayScorer(config.replay, config.recorded_scorer, config.headline)
    if config.scorer == "yes_no":
        return _yes_no(config)
    return _service(config)


def _yes_no(config: ToxicityConfig) -> Scorer:
    from jaxmodpo.toxicity.yes_no import yes_no_scorer

    assert config.model is not None
    scorer = yes_no_scorer(
        config.model,
        batch_size=config.batch_size,
        question=config.template,
        base_dtype=config.base_dtype,
        max_length=config.max_length,
    )
    names = [criterion.name for criterion in scorer.criteria]
    chosen_names(names, config.labels, "the yes/no judge")
    if config.headline:
        headline_of(names, config.headline, "the yes/no judge")
    return scorer


def _service(config: ToxicityConfig) -> Scorer:
    name = f"--scorer {config.scorer}"
    if config.scorer == "moderation":
        kind: MakeKind = functools.partial(moderation, config.moderation_model)
        all_scores, url = MODERATION_SCORES, MODERATION_URL
    else:
        kind = perspective
        all_scores, url = PERSPECTIVE_SCORES, PERSPECTIVE_URL
    scores = chosen_names(all_scores, config.labels, name)
    return ServiceScorer(
        base_url=config.base_url or url,
        api_key_env=config.api_key_env or KEY_VARIABLES[config.scorer],
        make_kind=kind,
        allowed=config.send_replies,
        scores=scores,
        headline=headline_of(scores, config.headline, name),
        max_concurrency=config.max_concurrency,
        timeout=config.timeout,
    )
