"""The way from simulated votes to a report is measured step by step, and its growth fitted."""

from __future__ import annotations

import json

import numpy as np
import pytest

from jaxmodpo.bench import coverage
from jaxmodpo.bench.analysis import (
    STEPS,
    BenchAnalysisConfig,
    Size,
    Step,
    bench_analysis,
    fitted_exponents,
    measured,
)
from jaxmodpo.bench.coverage import BenchCoverageConfig, World, bench_coverage
from jaxmodpo.bench.simulated_contest import evaluation_of
from jaxmodpo.errors import UserError
from jaxmodpo.evaluation.vote_reading import read_votes
from jaxmodpo.judging.ledger import Ledger
from jaxmodpo.results.evaluation import RESULTS, EvaluationResults
from jaxmodpo.results.versioned import read_result


@pytest.mark.slow(seconds=20)
def test_an_evaluation_finds_every_simulated_vote_and_asks_nobody(tmp_path):
    size = measured(tmp_path, models=2, questions=6, personas=3)
    assert size.votes == 6 * 3 * 2 and [step.name for step in size.steps] == list(STEPS)
    results = read_result(tmp_path / "runs" / "evaluation" / RESULTS, EvaluationResults)
    assert results.counts.valid == size.votes
    with Ledger(evaluation_of(tmp_path, 2).ledger, read_only=True) as ledger:
        assert read_votes([ledger]).models == ["simulated"], "the judge itself was asked"
    assert (tmp_path / "report" / "report.html").is_file()


def test_growth_in_proportion_has_the_exponent_one_and_memory_that_stays_zero():
    def size(votes: int) -> Size:
        return Size(votes, [Step(name, 9.0, votes / 7, 100) for name in STEPS])

    exponents = fitted_exponents([size(10), size(40), size(1000)])
    assert exponents["evaluate, time"] == pytest.approx(1)
    assert exponents["report, memory"] == pytest.approx(0, abs=1e-12)
    assert set(fitted_exponents([size(10)]).values()) == {None}


def test_a_step_that_fails_is_told_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxmodpo.bench.analysis.STEPS", {"no step": None})
    with pytest.raises(UserError, match="the step 'no step' failed: KeyError"):
        measured(tmp_path, models=2, questions=1, personas=1)


def test_measurements_are_written_with_the_machine(tmp_path, monkeypatch, capsys):
    steps = [Step(name, 1.0, 2.0, 2**20) for name in STEPS]
    monkeypatch.setattr(
        "jaxmodpo.bench.analysis.measured", lambda folder, m, q, personas: Size(personas, steps)
    )
    bench_analysis(BenchAnalysisConfig(personas=(3, 9), json=tmp_path / "m.json"))
    written = json.loads((tmp_path / "m.json").read_text())
    assert [size["votes"] for size in written["sizes"]] == [3, 9]
    assert written["machine"]["cores"] >= 1 and "python" in written["machine"]["versions"]
    assert "report, time: grows with the votes to the power of" in capsys.readouterr().out
    with pytest.raises(UserError, match="--personas needs one number at least"):
        bench_analysis(BenchAnalysisConfig(personas=()))


def test_the_table_of_coverage_has_a_row_for_each_world(monkeypatch, capsys):
    monkeypatch.setattr(coverage, "WORLDS", (World(8, 4, 0.2, 0.7, 0.5), World(6, 3, 0, 1, 1)))
    monkeypatch.setattr(coverage, "_PANELS_OF_TRUTH", 5)
    bench_coverage(BenchCoverageConfig(draws=2, bootstrap=10))
    header, line, *rows = capsys.readouterr().out.splitlines()
    assert "sd of personas' effects" in header and set(line) <= set("|- ")
    shares = np.array([[cell.strip() for cell in row.split("|")[6:8]] for row in rows])
    assert shares.shape == (2, 2) and set(shares.ravel()) <= {"0%", "50%", "100%"}
