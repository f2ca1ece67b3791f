"""What a report is made from: the runs, and the evaluations among them with their results."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jaxmodpo.report.run_folders import Run
from jaxmodpo.results.evaluation import RESULTS, EvaluationResults
from jaxmodpo.results.versioned import Kind, read_result


@dataclass(frozen=True)
class Evaluation:
    """One evaluation's run and results.

    Attributes:
        run: its folder and manifest.
        results: what its ``results.json`` holds.
        prefix: what the names of its files begin with; empty where there is one evaluation.
    """

    run: Run
    results: EvaluationResults
    prefix: str

    @property
    def name(self) -> str:
        return self.run.name

    @property
    def is_finished(self) -> bool:
        return self.run.manifest.is_finished


@dataclass(frozen=True)
class Sources:
    """Everything that the sections of a page may show.

    Attributes:
        runs: the runs, by name.
        include_texts: whether the page may hold posts and replies, which are people's words.
    """

    runs: Sequence[Run]
    include_texts: bool = False

    def results_of(self, command: str, file: str, kind: type[Kind]) -> Iterator[tuple[Run, Kind]]:
        """Read what the runs of a command left in a file of results; those without it are passed
        over.
        """
        for run in self.runs:
            path = run.folder / file
            if run.command == command and path.is_file():
                yield run, read_result(path, kind)

    @functools.cached_property
    def evaluations(self) -> list[Evaluation]:
        """The evaluations, read once."""
        evaluating = [run for run in self.runs if run.evaluates]
        evaluations: list[Evaluation] = []
        for run in evaluating:
            # Only where there are several do the names of the files have to tell them apart.
            prefix = "" if len(evaluating) == 1 else f"{run.name}-"
            results = read_result(run.folder / RESULTS, EvaluationResults)
            evaluations.append(Evaluation(run, results, prefix))
        return evaluations
