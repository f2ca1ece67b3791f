"""A small evaluation with a known distribution of outcomes, for tests of studies drawn from it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from right_results import EVALUATION

from jaxmodpo.evaluation.outcomes import OUTCOME_COLUMNS
from jaxmodpo.files import write_table
from jaxmodpo.phase import Phase
from jaxmodpo.records import Response, write_responses
from jaxmodpo.results.evaluation import PairTest
from jaxmodpo.results.versioned import write_result
from jaxmodpo.study.annotations import Preferred
from jaxmodpo.study.sample import StudySampleConfig

MODELS = ("modpo", "base")
CRITERIA = ("safety", "overall")
OUTCOMES = {"a": 1.0, "equal": 0.5, "b": 0.0}


@dataclass(frozen=True, kw_only=True)
class _EvaluateSettings:
    seed: int = 0


Outcome = tuple[Preferred | None, Preferred | None]


def pattern(questions: int) -> list[Outcome]:
    """Return outcomes on safety and overall: as in the paper, safety is divided and overall not."""
    outcomes: list[Outcome] = []
    for number in range(questions):
        safety: Preferred = "a" if number % 20 < 11 else "b"
        overall: Preferred = "equal" if number % 20 == 19 else "a"
        outcomes.append((safety, overall))
    return outcomes


def write_evaluation(
    folder: Path,
    outcomes: Sequence[Outcome],
    texts: Any = lambda model, number: f"{model} writes to {number}",
    replies: int = 1,
) -> Path:
    """Write what ``evaluate`` leaves of two models; of each question the outcomes by criterion,
    which all of its replies have.
    """
    evaluation = folder / "evaluation"
    evaluation.mkdir(parents=True)
    names = {"modpo": "kind", "base": "plain"}
    inputs: dict[str, Path] = {}
    for model in MODELS:
        responses: list[Response] = []
        for number in range(len(outcomes)):
            for reply in range(replies):
                text = texts(names[model], number) + f", reply {reply + 1}" * (replies > 1)
                responses.append(Response(f"q{number}", f"post {number}", f"r{reply}", text))
        inputs[f"responses.{model}"] = folder / f"{model}.csv"
        write_responses(inputs[f"responses.{model}"], responses)
    rows: list[dict[str, Any]] = []
    for column, criterion in enumerate(CRITERIA):
        for number, reply in itertools.product(range(len(outcomes)), range(1, replies + 1)):
            outcome = outcomes[number][column]
            # The file's order of models is not the study's.
            rows.append(
                {
                    "criterion": criterion,
                    "a": "base",
                    "b": "modpo",
                    "question_id": f"q{number}",
                    "reply": reply,
                    "votes_a": 0,
                    "votes_b": 0,
                    "ties": 0,
                    "failed": 0,
                    "identical": 0,
                    "outcome": "" if outcome is None else 1 - OUTCOMES[outcome],
                }
            )
    phase = Phase.open("evaluate", _EvaluateSettings(), evaluation, inputs)
    write_table(evaluation / "outcomes.csv", rows, OUTCOME_COLUMNS)
    rates = dict.fromkeys(CRITERIA, 0.5)
    test: PairTest = replace(EVALUATION.tests["safety"][0], a="modpo", b="base")
    results = replace(
        EVALUATION,
        models=dict.fromkeys(MODELS, rates),
        intervals=dict.fromkeys(MODELS, dict.fromkeys(CRITERIA, (0.4, 0.6))),
        pairwise={name: {"modpo": {"base": 0.5}, "base": {"modpo": 0.5}} for name in CRITERIA},
        pairwise_intervals={name: {"modpo": {"base": None}} for name in CRITERIA},
        tests=dict.fromkeys(CRITERIA, (test,)),
        criteria=CRITERIA,
        empty_replies=dict.fromkeys(MODELS, 0),
        cut_replies={},
        replies_per_question=replies,
        questions=len(outcomes),
        questions_judged=len(outcomes),
        questions_judged_by_comparison=(),
    )
    write_result(evaluation / "results.json", results)
    phase.finish()
    return evaluation


def sample_config(evaluation: Path, **settings: Any) -> StudySampleConfig:
    """Return settings of a rehearsed study on the evaluation's two criteria."""
    fields: dict[str, Any] = {
        "evaluation": evaluation,
        "models": MODELS,
        "only": CRITERIA,
        "output_dir": evaluation.parent / "study",
        "rehearsal": True,
        "seed": 0,
        **settings,
    }
    return StudySampleConfig(**fields)
