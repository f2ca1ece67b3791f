"""The scorer that the settings ask for; what brings JAX is imported for models of this machine
alone.
"""

from __future__ import annotations

import functools

from jaxmodpo.toxicity.scorers import Scorer
from jaxmodpo.toxicity.services import MakeKind, ServiceScorer, moderation, perspective
from jaxmodpo.toxicity.settings import ToxicityConfig

KEY_VARIABLES = {"moderation": "OPENAI_API_KEY", "perspective": "PERSPECTIVE_API_KEY"}
"""the environment variables that hold the services' keys, where the settings name none"""


def make_scorer(config: ToxicityConfig) -> Scorer:
    """Make the scorer that the settings ask for; weights are loaded when the first text comes.

    Raises:
        UserError: no model, no key, or replies that may not be sent.
    """
    config.check()
    if config.scorer == "classifier":
        from jaxmodpo.toxicity.classifier import classifier_scorer

        assert config.model is not None
        return classifier_scorer(
            config.model,
            batch_size=config.batch_size,
            max_length=config.max_length,
        )
    if config.scorer == "replay":
        from jaxmodpo.toxicity.replayed import ReplayScorer

        return ReplayScorer(config.replay, config.recorded_scorer)
    if config.scorer == "yes_no":
        from jaxmodpo.toxicity.yes_no import yes_no_scorer

        assert config.model is not None
        return yes_no_scorer(
            config.model,
            batch_size=config.batch_size,
            question=config.template,
            base_dtype=config.base_dtype,
            max_length=config.max_length,
        )
    return _service(config)


def _service(config: ToxicityConfig) -> Scorer:
    kind: MakeKind = perspective
    if config.scorer == "moderation":
        kind = functools.partial(moderation, config.moderation_model)
    scorer = ServiceScorer(
        base_url=config.address(),
        api_key_env=config.api_key_env or KEY_VARIABLES[config.scorer],
        make_kind=kind,
        allowed=config.send_replies,
        max_concurrency=config.max_concurrency,
        timeout=config.timeout,
    )
    if not config.dry_run:
        scorer.connect()
    return scorer
