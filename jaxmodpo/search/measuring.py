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
from typing import Any

import numpy as np

from jaxmodpo.data.examples import reward_rankings
from jaxmodpo.files import read_json, write_json
from jaxmodpo.methods.reward_model import load_reward_model, score
from jaxmodpo.methods.score import divergence, own_replies
from jaxmodpo.policy.loaded import Policy, with_adapter
from jaxmodpo.policy.prompts import load_policy_text
from jaxmodpo.records import Candidate, Question, Ranking, read_questions
from jaxmodpo.results.shapes import Measured
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
    ) -> dict[str, Any]:
        """Return ``adapter``, ``scale``, ``weights``, means and per-question values of every score
        and of KL.
        """
        path = self._config.output_dir / "points" / f"{label}.json"
        if path.is_file():
            measured = self._measured(path, label, adapter, weights, scale)
            if measured:
                return measured
        # The base is a policy with an adapter that adds nothing. Scaling an adapter is scaling its
        # alpha: no weight is touched, and nothing is compiled again.
        policy = self._bare if adapter is None else with_adapter(self._bare, adapter)
        policy = replace(policy, lora=replace(policy.lora, alpha=policy.lora.alpha * scale))
        point = {
            "label": label,
            "adapter": adapter and str(adapter),
            "scale": scale,
            "weights": weights and list(weights),
        }
        point |= self._values(policy, adapter is None)
        write_json(path, point)
        numbers = ", ".join(f"{name} {value:.3f}" for name, value in point["scores"].items())
        logger.info("%s: %s; KL %.2f nats", label, numbers, point["kl"])
        return point

    def _measured(
        self,
        path: Path,
        label: str,
        adapter: Path | None,
        weights: Sequence[float] | None,
        scale: float,
    ) -> dict[str, Any] | None:
        """Return what was measured before, if it is of this model, these questions and scores."""
        point = dict(read_json(path, Measured))
        expected = {"label": label, "scale": scale, "weights": weights and list(weights)}
        questions = {question.question_id for question in self._questions}
        scores = point["per_question"]
        same_questions = all(
            isinstance(values, dict) and values.keys() == questions for values in scores.values()
        )
        same_scores = scores.keys() == self._scorers.keys()
        if same_questions and same_scores and expected.items() <= point.items():
            return point | {"adapter": adapter and str(adapter)}  # the folder may have been moved
        logger.warning(
            "%s is of another model, other questions or another version; it is measured again", path
        )
        return None

    def _values(self, policy: Policy, is_base: bool) -> dict[str, Any]:
        config = self._config
        # All replies to one question stand together: row n of [questions, samples] is question n's.
        repeated: list[Question] = []
        for question in self._questions:
            repeated += [question] * config.samples
        prompts = [self._text.prompt(question.question_text) for question in repeated]
        replies = own_replies(
            policy,
            prompts,
            self._text.eos,
            config.max_new_tokens,
            config.sample_batch_size,
            config.seed,
        )
        texts = [self._text.decode(reply) for reply in replies]
        ids = [question.question_id for question in self._questions]
        shape = (len(ids), config.samples)
        length = max(map(len, prompts)) + config.max_new_tokens
        if is_base:
            ratios = np.zeros(shape)
        else:
            flat_ratios = divergence(policy, prompts, replies, config.sample_batch_size, length)
            ratios = flat_ratios.reshape(shape)
        standard_error = None
        if len(ratios) > 1:
            # Replies to one question are not independent, so the questions' means are the units.
            standard_error = float(ratios.mean(1).std(ddof=1) / math.sqrt(len(ratios)))
        mean_scores: dict[str, float] = {}
        per_question: dict[str, dict[str, float]] = {}
        for name, scorer in self._scorers.items():
            scores = scorer(repeated, texts).reshape(shape)
            mean_scores[name] = float(scores.mean())
            question_means = scores.mean(1).round(6).tolist()
            per_question[name] = dict(zip(ids, question_means, strict=True))
        return {
            "scores": mean_scores,
            "kl": float(ratios.mean()),
            "kl_standard_error": standard_error,
            "per_question": per_question,
        }

    def matched(
        self, first: Mapping[str, Any], second: Mapping[str, Any], bisections: int = BISECTIONS
    ) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Scale back the one of two models that moved further, by bisection, until both diverge
        alike.
        """
        far = first if first["kl"] > second["kl"] else second
        near = second if far is first else first
        scaled = far
        # The divergence grows with the adapter's scale: 0 at scale 0, far's own at scale 1.
        low = 0.0
        high = 1.0
        for number in range(bisections):
            # Near the base a share of the divergence is less than its sampling error; 0.02 nats are
            # matched closely enough by one thousandth.
            if abs(scaled["kl"] - near["kl"]) <= CLOSE * max(near["kl"], 0.02):
                break
            middle = (low + high) / 2
            label = f"{far['label']}_scaled_{number}"
            scaled = self(label, Path(far["adapter"]), far["weights"], middle)
            if scaled["kl"] < near["kl"]:
                low = middle
            else:
                high = middle
        return (scaled, second) if far is first else (first, scaled)
