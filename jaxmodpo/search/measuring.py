"""How a sweep measures a model: by the scores of replies sampled from it, and by its divergence
from the base.

Several models are sampled in one run, side by side over one base. Each measurement is a file in
``points/``, and each reply is in a journal until then, so that a sweep that was cut off samples and
measures nothing again.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jaxmodpo.data.replies import reward_rankings
from jaxmodpo.journals import Journal
from jaxmodpo.methods.divergence import OwnSampling, divergence
from jaxmodpo.methods.reward_model import load_reward_model, score
from jaxmodpo.policy.loaded import Policy, ScaledAdapter, with_adapter
from jaxmodpo.policy.prompts import load_policy_text
from jaxmodpo.records import Candidate, Question, Ranking, read_questions
from jaxmodpo.results.sweep import Measured
from jaxmodpo.results.versioned import read_result, write_result
from jaxmodpo.rubric import load_rubric
from jaxmodpo.search.sweep_settings import SweepConfig
from jaxmodpo.training.session import Session

logger = logging.getLogger(__name__)

Scorer = Callable[[Sequence[Question], Sequence[str]], np.ndarray]


def make_scorer(path: str, config: SweepConfig) -> Callable[[str], Scorer]:
    """Return what makes an objective's scorer from its name, with the built-in rubric or the reward
    model at ``path``.

    A reward model is loaded only when its scorer is made, once for the whole sweep.
    """

    def rubric(name: str) -> Scorer:
        phrases = load_rubric()

        def scores(_questions: Sequence[Question], texts: Sequence[str]) -> np.ndarray:
            return np.array([phrases.score(text, name) for text in texts])

        return scores

    def encoder(name: str) -> Scorer:
        model, encoder_text = load_reward_model(Path(path))

        def rewards(questions: Sequence[Question], texts: Sequence[str]) -> np.ndarray:
            # The reward model scores rankings; a reply alone is a ranking of one response.
            rows: list[Ranking] = []
            for question, text in zip(questions, texts, strict=True):
                response = (Candidate("", text),)
                rows.append(Ranking(question.question_id, question.question_text, response))
            parameters = {key: variable[...] for key, variable in model.parameters.items()}
            rankings = reward_rankings(rows, encoder_text).by_question()
            scores = score(model.config, parameters, rankings.examples, config.sample_batch_size)
            return rankings.of_comparisons(scores)[:, 0]

        return rewards

    return rubric if path == "rubric" else encoder


@dataclass(frozen=True)
class SweptModel:
    """A model that a sweep measures.

    Attributes:
        label: the name of its file.
        adapter: its folder; None of the base.
        weights: of the objectives; None of the base.
        scale: factor that the adapter is multiplied by.
    """

    label: str
    adapter: Path | None
    weights: tuple[float, ...] | None
    scale: float = 1.0


class Measure:
    """Samples from models and keeps what it measured in ``points/``."""

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
        self._journal = Journal(journal_path(config))

    def __call__(self, models: Sequence[SweptModel]) -> list[Measured]:
        """Measure models, or read what was measured of them before.

        Models are sampled in runs of equal size as far as that goes, so that what is compiled for
        one run serves the next. A model whose file is there still has its place in its run, and
        replies to nothing: the shapes, and so the numbers, are those of a sweep that was never cut
        off.
        """
        measured: list[Measured] = []
        for group in _groups(models, self._config.models_at_once):
            by_label: dict[str, Measured] = {}
            missing: list[SweptModel] = []
            for model in group:
                result = self._measured_before(model)
                if result is None:
                    missing.append(model)
                else:
                    by_label[model.label] = result
            if missing:
                by_label |= self._measure(group, missing)
            measured += [by_label[model.label] for model in group]
        return measured

    def _measured_before(self, model: SweptModel) -> Measured | None:
        """Return what an earlier start measured of a model, if it did."""
        path = self._path(model)
        if not path.is_file():
            return None
        measured = read_result(path, Measured)
        if not self._is_of(measured, model):
            logger.warning("%s is of another model or other questions; it is measured again", path)
            return None
        # The folder may have been moved since.
        return replace(measured, adapter=str(model.adapter) if model.adapter else None)

    def _measure(
        self, group: Sequence[SweptModel], missing: Sequence[SweptModel]
    ) -> dict[str, Measured]:
        """Measure those of a group that no file has; return what was measured by label."""
        prompts: list[list[int]] = []
        for question in self._repeated_questions:
            prompts.append(self._text.prompt(question.question_text))
        sampling = OwnSampling(
            prompts,
            self._text.eos,
            self._config.max_new_tokens,
            self._config.sample_batch_size,
            self._config.seed,
        )
        adapters = [ScaledAdapter(model.adapter, model.scale) for model in group]
        repliers = [group.index(model) for model in missing]
        replies_of_models = sampling.replies(self._bare, adapters, self._journal, repliers)
        measured: dict[str, Measured] = {}
        for model, replies in zip(missing, replies_of_models, strict=True):
            result = self._measured(model, prompts, replies)
            write_result(self._path(model), result)
            numbers = ", ".join(f"{name} {value:.3f}" for name, value in result.scores.items())
            logger.info("%s: %s; KL %.2f nats", model.label, numbers, result.kl)
            measured[model.label] = result
        # What was measured needs its replies no more.
        self._journal.replace([])
        return measured

    def _measured(
        self, model: SweptModel, prompts: Sequence[list[int]], replies: Sequence[list[int]]
    ) -> Measured:
        """Return what replies say of the model that gave them."""
        # The base does not differ from itself, and need not be scored to say so.
        divergences = np.zeros(self._shape)
        if model.adapter is not None:
            policy = with_adapter(self._bare, model.adapter, model.scale)
            divergences = self._divergences(policy, prompts, replies)
        means: dict[str, float] = {}
        means_by_question: dict[str, dict[str, float]] = {}
        for name, scores in self._scores(replies).items():
            means[name] = float(scores.mean())
            means_by_question[name] = self._by_question(scores)
        return Measured(
            label=model.label,
            adapter=str(model.adapter) if model.adapter else None,
            scale=model.scale,
            weights=model.weights,
            scores=means,
            kl=float(divergences.mean()),
            kl_standard_error=_standard_error(divergences),
            per_question=means_by_question,
        )

    def _path(self, model: SweptModel) -> Path:
        return self._config.output_dir / "points" / f"{model.label}.json"

    def _is_of(self, measured: Measured, model: SweptModel) -> bool:
        """Return whether a measurement is of this model, these questions and these scores."""
        recorded_model = (measured.label, measured.weights, measured.scale)
        if recorded_model != (model.label, model.weights, model.scale):
            return False
        if measured.per_question.keys() != self._scorers.keys():
            return False
        question_ids = {question.question_id for question in self._questions}
        scores_by_question = measured.per_question.values()
        return all(scores.keys() == question_ids for scores in scores_by_question)

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
            score_of_reply = scorer(self._repeated_questions, texts)
            scores[name] = score_of_reply.reshape(self._shape)
        return scores

    def _by_question(self, scores: np.ndarray) -> dict[str, float]:
        """Return the mean of each question's replies, by the question's id."""
        question_ids = [question.question_id for question in self._questions]
        means = scores.mean(axis=1).round(6).tolist()
        return dict(zip(question_ids, means, strict=True))


def journal_path(config: SweepConfig) -> Path:
    """Return where replies are kept until their model is measured."""
    return config.output_dir / "sampled.jsonl"


def _groups(models: Sequence[SweptModel], models_at_once: int) -> list[Sequence[SweptModel]]:
    """Divide models into as few groups as can be of at most so many, as even as can be."""
    count = math.ceil(len(models) / models_at_once)
    # Of nine models and at most four: 3, 3, 3, and not 4, 4, 1. Groups of one size are compiled
    # once.
    groups: list[Sequence[SweptModel]] = []
    start = 0
    for number in range(1, count + 1):
        end = round(len(models) * number / count)
        groups.append(models[start:end])
        start = end
    return groups


def _standard_error(divergences: np.ndarray) -> float | None:
    """Return the standard error of the mean of ``[questions, samples]``; None of one question."""
    if len(divergences) < 2:
        return None
    # Replies to one question are not independent, so the questions' means are the units.
    means = divergences.mean(axis=1)
    return float(means.std(ddof=1) / math.sqrt(len(means)))
