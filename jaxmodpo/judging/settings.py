"""Which judge to ask, as settings: preference collection and evaluation inherit the same ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxmodpo.errors import UserError
from jaxmodpo.judging.judge import Judge

JudgeKind = Literal["rubric", "endpoint"]


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """Which judge to ask, and how."""

    judge: JudgeKind
    """endpoint: a model behind an OpenAI-compatible URL; rubric: the built-in phrase counter, a
    stand-in without clinical meaning"""
    base_url: str = "https://api.openai.com/v1"
    """of the endpoint judge"""
    judge_model: str = ""
    """the endpoint's model; it has no default"""
    api_key_env: str = "OPENAI_API_KEY"
    """the environment variable that holds the endpoint's key"""
    temperature: float | None = None
    """of the endpoint's model; None sends none, since some models take none (the paper: 0)"""
    send_personas: bool = False
    """let persona profiles go to an endpoint that is not on this machine"""
    rubric_noise: float = 0.25
    """standard deviation of the rubric judge's seeded noise, where a reply without any phrase scores 0
    and a full score is 1"""
    seed: int = 42
    """of who serves on which question, of the order shown, of ties, and of the rubric's noise"""
    max_concurrency: int = 8
    """calls to the endpoint at once"""


def make_judge(config: JudgeConfig) -> Judge:
    """Make the judge that the settings ask for.

    Raises:
        UserError: no model, no key, or personas that may not be sent; settings out of range.
    """
    if config.max_concurrency < 1:
        raise UserError(f"--max-concurrency is {config.max_concurrency}; it must be at least 1")
    if config.judge == "rubric":
        from jaxmodpo.judging.rubric import RubricJudge

        return RubricJudge(config.seed, config.rubric_noise)
    from jaxmodpo.judging.endpoint import EndpointJudge

    return EndpointJudge(
        config.base_url,
        config.judge_model,
        api_key_env=config.api_key_env,
        temperature=config.temperature,
        send_personas=config.send_personas,
    )
