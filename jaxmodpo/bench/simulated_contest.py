"""Models, replies, personas and votes that nobody gave, in the files that real ones stand in.

An evaluation reads them as it reads its own: the votes stand in a ledger under the keys of what the
evaluation asks, so that it finds all of them and asks nobody.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import norm

from jaxmodpo.evaluation.contest import Contest, Unit, plan
from jaxmodpo.evaluation.head_to_head import EvaluateConfig, load_contest, requests
from jaxmodpo.files import write_json
from jaxmodpo.judging.judge import Answer, Call, Judge, call_key
from jaxmodpo.judging.ledger import Ledger, import_votes
from jaxmodpo.judging.settings import make_judge
from jaxmodpo.judging.votes import Vote, votes_of
from jaxmodpo.records import Response, write_responses

CRITERIA = ("empathy", "safety")
RUN = "bench analysis"

_GENDERS = ("female", "male", "non-binary")
_ETHNICITIES = ("Asian", "Black", "Hispanic", "White")
_REPLY_WORDS = 100

_WORDS = """
you are not alone with this and it sounds hard what would help right now could we take a small step
I hear how tired that day left feeling sorry before sleep friend talk slowly again tomorrow
"""


def write_inputs(folder: Path, models: int, questions: int, personas: int) -> None:
    """Write the models' replies and the personas of a simulated evaluation.

    Args:
        folder: where to.
        models: how many; each has a file ``m0.csv``, ``m1.csv``, … there.
        questions: that each model answers, once.
        personas: in ``personas.json``, with the lines that groups are read from.
    """
    folder.mkdir(parents=True, exist_ok=True)
    generator = random.Random(0)
    for model in range(models):
        replies: list[Response] = []
        for question in range(questions):
            reply = _reply(generator, model, question)
            replies.append(reply)
        write_responses(folder / f"m{model}.csv", replies)
    texts: dict[str, str] = {}
    for persona in range(personas):
        texts[f"p{persona}"] = _persona(generator)
    write_json(folder / "personas.json", texts)


def _reply(generator: random.Random, model: int, question: int) -> Response:
    words = generator.randint(_REPLY_WORDS // 2, _REPLY_WORDS)
    return Response(
        question_id=f"q{question}",
        question_text=f"post {question}",
        response_id=f"m{model}q{question}",
        # Its own in every case: identical replies are not judged.
        response_text=f"{model} {question} {' '.join(generator.choices(_WORDS.split(), k=words))}",
        model_name=f"m{model}",
        finish_reason="stop",
        tokens=words,
    )


def _persona(generator: random.Random) -> str:
    lines = [
        f"- Age: {generator.randint(18, 79)}",
        f"- Gender: {generator.choice(_GENDERS)}",
        f"- Ethnicity: {generator.choice(_ETHNICITIES)}",
        f"- Empathy: {generator.randint(1, 5)}/5 importance",
        f"- Safety: {generator.randint(1, 5)}/5 importance",
    ]
    return "\n".join(lines)


def evaluation_of(folder: Path, models: int) -> EvaluateConfig:
    """Return the settings of the evaluation of :func:`write_inputs`'s files, below ``folder``."""
    return EvaluateConfig(
        # The votes are there, and so the judge only gives its name to their keys.
        judge="rubric",
        responses=tuple(f"m{model}={folder / f'm{model}.csv'}" for model in range(models)),
        personas=folder / "personas.json",
        output_dir=folder / "runs" / "evaluation",
        only=CRITERIA,
        ledger=str(folder / "runs" / "evaluation" / "votes.sqlite"),
    )


def fill_ledger(config: EvaluateConfig) -> int:
    """Put a vote for everything that an evaluation asks into its ledger; return how many there
    are.

    A persona prefers the first of two replies with the probability Φ(difference of the models +
    effect of the question + effect of the persona).
    """
    contest = load_contest(config)
    units = list(plan(contest))
    judge = make_judge(config)
    with Ledger(str(config.ledger), RUN) as ledger:
        return import_votes(ledger, _votes(config, contest, units, judge))


def _votes(
    config: EvaluateConfig, contest: Contest, units: Sequence[Unit], judge: Judge
) -> Iterator[Vote]:
    random_state = np.random.default_rng(0)
    of_models = np.linspace(0.4, -0.4, len(contest.models))
    of_questions = random_state.normal(0, 0.7, len(units))
    of_personas = dict(
        zip(contest.personas, random_state.normal(0, 0.5, len(contest.personas)), strict=True)
    )
    for number, asked in itertools.groupby(
        requests(config, contest, units), key=lambda request: request.ballot_number
    ):
        unit = units[number]
        mean = of_models[unit.model_a] - of_models[unit.model_b] + of_questions[number]
        calls = [Call(call_key(request, judge.identity), request) for request in asked]
        effects = np.array([of_personas[call.request.persona_id] for call in calls])
        is_for_first = random_state.random(len(calls)) < norm.cdf(mean + effects)
        for call, prefers_first in zip(calls, is_for_first, strict=True):
            winner = unit.a if prefers_first else unit.b
            orders = {criterion.name: (winner.response_id,) for criterion in call.request.criteria}
            answer = Answer("valid", winner.response_id, orders, model="simulated")
            yield from votes_of(call, answer, judge=judge.identity, run=RUN)
