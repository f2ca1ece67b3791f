"""How a sweep measures a model: by the scores of replies sampled from it, and by its divergence
from the base.

Each measurement is a file in ``points/``, so that a sweep that was cut off measures nothing again.
Two models are brought to one divergence here too, since that takes measurements of its own.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from jaxmodpo.data.examples import reward_rankings
from jaxmodpo.methods.reward_model import load_reward_model, score
from jaxmodpo.methods.score import divergence, own_replies
from jaxmodpo.policy.loaded import Policy, with_adapter
from jaxmodpo.policy.prompts import load_policy_text
from jaxmodpo.records import Candidate, Question, Ranking, read_questions
from jaxmodpo.results.sweep import Measured
from jaxmodpo.results.versioned import read_result, write_result
from jaxmodpo.rubric import load_rubric
from jaxmodpo.search.sweep_settings import BISECTIONS, SweepConfig
from jaxmodpo.training.session import Session

logger = logging.getLogger(__name__)

Scorer = Callable[[Sequence[Question], Sequence[str]], np.ndarray]
CLOSE = 0.05
"""divergences that differ by less than this share count as matched"""


def make_scorer(path: str, config: SweepConfig) -> Callable[[str], Scorer]:
    """Return what makes an objective's scorer from its name, with the built-in rubric or the reward
    model at ``path``.

    A reward model is loaded only when its scorer is made, once for the whole sweep.
    """

    def rubric(name: str) -> Scorer:
        phrases = load_rubric()
        return lambda _, texts: np.array([phrases.score(text, name) for text in texts])

    def encoder(name: str) -> Scorer:
        model, encoder_text = load_reward_model(Path(path))

        def rewards(questions: Sequence[Question], texts: Sequence[str]) -> np.ndarray:
            # The reward model scores rankings; a reply alone is a ranking of one response.
            rows: list[Ranking] = []
            for question, text in zip(questions, texts, strict=True):
                response = (Candidate("", text),)
                rows.append(Ranking(question.question_id, question.question_text, response))
            parameters = {key: variable[...] for key, variable in model.parameters.items()}
            examples = reward_rankings(rows, encoder_text)
            scores = score(model.config, parameters, examples, config.sample_batch_size)
            return scores[:, 0]

        return rewards

    return rubric if path == "rubric" else encoder


class Measure:
    """Samples from a model and keeps what it measured in ``points/``."""

    def __init__(
        self, config: SweepConfig, scorers: Mapping[str, Callable[[str], Scorer]], session: Session
    ):
        self._config = config
        self._scorers = {name: make(name) for name, make in scorers.items()}
        self._bare = session.policy(config)
        self._questions = read_questions(config.questions)
        length = config.max_prompt_length + config.max_new_tokens
        self._text = load_policy_text(
            config.model,
            config.prompt_style,
            config.max_prompt_length,
            length,
            day=config.prompt_date,
        )

    def __call__(
        self, label: str, adapter: Path | None, weights: Sequence[float] | None, scale: float = 1.0
    ) -> Measured:
        """Measure a model, or read what was measured of it before.

        Args:
            label: the name of its file.
            adapter: its folder; None of the base.
            weights: of the objectives; None of the base.
            scale: factor that the adapter is multiplied by.
        """
        path = self._config.output_dir / "points" / f"{label}.json"
        weights = None if weights is None else tuple(weights)
        if path.is_file():
            measured = read_result(path, Measured)
            if self._is_of(measured, label, weights, scale):
                # The folder may have been moved since.
                return replace(measured, adapter=adapter and str(adapter))
            logger.warning("%s is of another model or other questions; it is measured again", path)
        # The base is a policy with an adapter that adds nothing. Scaling an adapter is scaling its
        # alpha: no weight is touched, and nothing is compiled again.
        policy = self._bare if adapter is None else with_adapter(self._bare, adapter)
        policy = replace(policy, lora=replace(policy.lora, alpha=policy.lora.alpha * scale))
        prompts, replies = self._sample(policy)
        # The base does not differ from itself, and need not be scored to say so.
        divergences = np.zeros(self._shape)
        if adapter is not None:
            divergences = self._divergences(policy, prompts, replies)
        scores = self._scores(replies)
        measured = Measured(
            label=label,
            adapter=adapter and str(adapter),
            scale=scale,
            weights=weights,
            scores={name: float(values.mean()) for name, values in scores.items()},
            kl=float(divergences.mean()),
            kl_standard_error=_standard_error(divergences),
            per_question={name: self._by_question(values) for name, values in scores.items()},
        )
        write_result(path, measured)
        numbers = ", ".join(f"{name} {value:.3f}" for name, value in measured.scores.items())
        logger.info("%s: %s; KL %.2f nats", label, numbers, measured.kl)
        return measured

    def _is_of(
        self, measured: Measured, label: str, weights: tuple[float, ...] | None, scale: float
    ) -> bool:
        """Return whether a measurement is of this model, these questions and these scores."""
        questions = {question.question_id for question in self._questions}
        scores = measured.per_question
        same_model = (measured.label, measured.weights, measured.scale) == (label, weights, scale)
        same_scores = scores.keys() == self._scorers.keys()
        return same_model and same_scores and all(v.keys() == questions for v in scores.values())

    @property
    def _shape(self) -> tuple[int, int]:
        """The shape of what is measured of all replies: ``[questions, samples]``."""
        return len(self._questions), self._config.samples

    @property
    def _repeated_questions(self) -> list[Question]:
        """The question of every reply: all replies to one question stand together."""
        repeated: list[Question] = []
        for question in self._questions:
            repeated += [question] * self._config.samples
        return repeated

    def _sample(self, policy: Policy) -> tuple[list[list[int]], list[list[int]]]:
        """Return every prompt with a reply sampled to it, both as tokens."""
        prompts = [
            self._text.prompt(question.question_text) for question in self._repeated_questions
        ]
        replies = own_replies(
            policy,
            prompts,
            self._text.eos,
            self._config.max_new_tokens,
            self._config.sample_batch_size,
            self._config.seed,
        )
        return prompts, replies

    def _divergences(
        self, policy: Policy, prompts: Sequence[list[int]], replies: Sequence[list[int]]
    ) -> np.ndarray:
        """Return each reply's log-ratio of the policy to the base, ``[questions, samples]``."""
        length = max(map(len, prompts)) + self._config.max_new_tokens
        ratios = divergence(policy, prompts, replies, self._config.sample_batch_size, length)
        return ratios.reshape(self._shape)

    def _scores(self, replies: Sequence[list[int]]) -> dict[str, np.ndarray]:
        """Return each objective's scores of all replies, ``[questions, samples]``."""
        texts = [self._text.decode(reply) for reply in replies]
        scores: dict[str, np.ndarray] = {}
        for name, scorer in self._scorers.items():
            scores[name] = scorer(self._repeated_questions, texts).reshape(self._shape)
        return scores

    def _by_question(self, scores: np.ndarray) -> dict[str, float]:
        """Return the mean of each question's replies, by the question's id."""
        ids = [question.question_id for question in self._questions]
        return dict(zip(ids, scores.mean(1).round(6).tolist(), strict=True))

    def matched(
        self, first: Measured, second: Measured, bisections: int = BISECTIONS
    ) -> tuple[Measured, Measured]:
        """Scale back the one of two models that moved further, by bisection, until both diverge
        alike.
        """
        far = first if first.kl > second.kl else second
        near = second if far is first else first
        assert far.adapter is not None, far.label
        scaled = far
        # The divergence grows with the adapter's scale: 0 at scale 0, far's own at scale 1.
        low = 0.0
        high = 1.0
        for number in range(bisections):
            # Near the base a share of the divergence is less than its sampling error; 0.02 nats are
            # matched closely enough by one thousandth.
            if abs(scaled.kl - near.kl) <= CLOSE * max(near.kl, 0.02):
                break
            middle = (low + high) / 2
            label = f"{far.label}_scaled_{number}"
            scaled = self(label, Path(far.adapter), far.weights, middle)
            if scaled.kl < near.kl:
                low = middle
            else:
                high = middle
        return (scaled, second) if far is first else (first, scaled)


def _standard_error(divergences: np.ndarray) -> float | None:
    """Return the standard error of the mean of ``[questions, samples]``; None of one question."""
    if len(divergences) < 2:
        return None
    # Replies to one question are not independent, so the questions' means are the units.
    return float(divergences.mean(1).std(ddof=1) / math.sqrt(len(divergences)))
