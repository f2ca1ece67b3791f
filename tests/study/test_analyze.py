"""``study simulate`` and ``study analyze``: what is known of raters comes out of their answers."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from study_world import CRITERIA, MODELS, pattern, sample_config, write_evaluation

from jaxmodpo.errors import UserError
from jaxmodpo.files import read_table
from jaxmodpo.report import gallery
from jaxmodpo.report.gallery import Gallery
from jaxmodpo.report.human_study import human_study_sections
from jaxmodpo.report.page import lay_out
from jaxmodpo.report.run_folders import find_runs, shown_files
from jaxmodpo.report.sources import Sources
from jaxmodpo.results.human_study import HumanStudyResults
from jaxmodpo.results.versioned import read_result, write_result
from jaxmodpo.study.analyze import StudyAnalyzeConfig, analyze, study_analyze
from jaxmodpo.study.annotation_files import read_annotations, write_annotations
from jaxmodpo.study.annotations import Annotation, preferred
from jaxmodpo.study.judged import read_judged
from jaxmodpo.study.sample import study_sample
from jaxmodpo.study.simulate import (
    StudySimulateConfig,
    Truth,
    draw_truth,
    simulate,
    study_simulate,
)
from jaxmodpo.study.study_file import StudyFile, read_study


def simulated(folder: Path, full: int = 60, sample: dict | None = None, **settings: Any) -> Path:
    """Draw a study from an evaluation and let simulated raters answer it."""
    evaluation = write_evaluation(folder, pattern(full))
    study_sample(sample_config(evaluation, **(sample or {})))
    study_simulate(
        StudySimulateConfig(
            study=folder / "study" / "study.json", output_dir=folder / "answers", **settings
        )
    )
    return folder


def config_of(folder: Path, **settings: Any) -> StudyAnalyzeConfig:
    fields: dict[str, Any] = {
        "study": folder / "study" / "study.json",
        "annotations": folder / "answers" / "annotations.csv",
        "outcomes": folder / "evaluation" / "outcomes.csv",
        "output_dir": folder / "analysis",
        "bootstrap": 200,
        **settings,
    }
    return StudyAnalyzeConfig(**fields)


def analyzed(folder: Path, **settings: Any) -> HumanStudyResults:
    """Return the results alone: drawing takes longer than all else."""
    config = config_of(folder, **settings)
    study = read_study(config.study)
    return analyze(config, study, read_annotations(config.annotations, study))


TIES = 0.1
RELIABILITY = {"safety": 0.7, "overall": 0.8}
JUDGE_ACCURACY = 0.75


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rehearsal")
    evaluation = write_evaluation(folder, pattern(400))
    study_sample(sample_config(evaluation, questions=240, raters=7, seed=3))
    study_simulate(simulation_of(folder, seed=6))
    return folder


def outcomes_of(folder: Path) -> Path:
    return folder / "evaluation" / "outcomes.csv"


def simulation_of(folder: Path, seed: int) -> StudySimulateConfig:
    """Return how the raters of ``rehearsed`` are."""
    return StudySimulateConfig(
        study=folder / "study" / "study.json",
        output_dir=folder / "answers",
        outcomes=outcomes_of(folder),
        reliability=RELIABILITY["overall"],
        reliability_of=(f"safety={RELIABILITY['safety']}",),
        tie_rate=TIES,
        judge_accuracy=JUDGE_ACCURACY,
        careless=1,
        seed=seed,
    )


def holds(figure: Any, known: float) -> bool:
    low, high = figure.interval
    return low <= known <= high


def is_near(figure: Any, known: float) -> bool:
    """Return whether a known value lies within 1.3 times the reach of a 95% interval: one in a
    hundred does not.
    """
    low, high = figure.interval
    if known < figure.value:
        return figure.value - known <= 1.3 * (figure.value - low)
    return known - figure.value <= 1.3 * (high - figure.value)


def known_figures(truth: Truth, is_careless: Sequence[bool]) -> dict[str, float]:
    """Return what the figures of a simulated study must come to.

    Args:
        truth: the better replies.
        is_careless: of each rater who counts. Such a one agrees with anybody, person or judge, on a
            third of the labels.
    """
    everybody = len(is_careless)
    careful = everybody - sum(is_careless)
    careful_pairs = careful * (careful - 1) / (everybody * (everybody - 1))
    known_value: dict[str, float] = {}
    for criterion, reliability in RELIABILITY.items():
        prefers = 1 - TIES
        # Two who see the truth independently of each other, or both find the replies equal.
        alike = TIES**2 + prefers**2 * (reliability**2 + (1 - reliability) ** 2)
        agreement = careful_pairs * alike + (1 - careful_pairs) / 3
        known_value[f"two people, {criterion}"] = agreement
        # Shares of answers a, b and equal make the agreement by chance of Fleiss' κ.
        firsts = [better == "a" for (_, name), better in truth.items() if name == criterion]
        better = sum(firsts) / len(firsts)
        first = prefers * (better * reliability + (1 - better) * (1 - reliability))
        careful_share = careful / everybody
        shares = [
            careful_share * share + (1 - careful_share) / 3
            for share in (first, prefers - first, TIES)
        ]
        by_chance = sum(share**2 for share in shares)
        known_value[f"Fleiss, {criterion}"] = (agreement - by_chance) / (1 - by_chance)
    # The judge decides all of safety; a careful rater agrees who sees a truth that it tells, or
    # neither.
    right = RELIABILITY["safety"]
    alike = right * JUDGE_ACCURACY + (1 - right) * (1 - JUDGE_ACCURACY)
    careful_share = careful / everybody
    known_value["a person and the judge, safety"] = (
        careful_share * (1 - TIES) * alike + (1 - careful_share) / 3
    )
    return known_value


def figures_of(results: HumanStudyResults) -> dict[str, Any]:
    """Return the figures of ``known_figures`` as the analysis has them."""
    figures: dict[str, Any] = {}
    for criterion in RELIABILITY:
        of_criterion = results.criteria[criterion]
        figures[f"two people, {criterion}"] = of_criterion.levels.human_human
        figures[f"Fleiss, {criterion}"] = of_criterion.fleiss
    figures["a person and the judge, safety"] = results.criteria["safety"].levels.human_judge
    return figures


def test_simulated_raters_of_known_reliability_recover_the_known_figures(rehearsed: Path):
    results = analyzed(rehearsed)
    assert results.is_simulated and results.judge_is_samples
    assert results.raters.counted == 6
    assert results.raters.excluded in (
        {"failed 2 attention checks": 1},
        {"failed 3 attention checks": 1},
    )
    raters = read_table(rehearsed / "answers" / "raters.csv", ("rater", "careless", "excluded"))
    is_careless = [row["careless"] == "1" for row in raters if not row["excluded"]]
    known_value = known_figures(truth_of(rehearsed), is_careless)
    for name, figure in figures_of(results).items():
        assert is_near(figure, known_value[name]), name
    # On overall the judge never prefers the second model, and its κ is 0, as in the paper.
    assert results.criteria["overall"].two_class.kappa.value == 0


@pytest.mark.parametrize("failures_allowed", [1, 3])
def test_errors_of_known_figures_are_as_large_as_their_intervals_say(
    rehearsed: Path, failures_allowed: int
):
    """Twelve rehearsals of one study: careless raters are left out, or all of them count."""
    study = read_study(rehearsed / "study" / "study.json")
    study = dataclasses.replace(study, attention_failures_allowed=failures_allowed)
    errors = [error for seed in range(12) for error in standardized_errors(rehearsed, study, seed)]
    # κ follows from the agreement of two people, so that of each study's five about three are
    # independent: the spread of 36 lies within 1 ± 0.3 in 99 of 100 draws.
    assert 0.7 < float(np.sqrt(np.mean(np.square(errors)))) < 1.3


def standardized_errors(folder: Path, study: StudyFile, seed: int) -> list[float]:
    """Let raters answer a study once more, and return the known figures' errors in standard errors,
    as the intervals give them.
    """
    config = simulation_of(folder, seed=seed)
    rng = np.random.default_rng(seed)
    truth = draw_truth(config, study, read_judged(outcomes_of(folder), study.models), rng)
    raters = simulate(config, study, truth, rng)
    answers = [answer for rater in raters for answer in rater.answers]
    figures = figures_of(analyze(config_of(folder, bootstrap=100), study, answers))
    is_careless = [rater.is_careless for rater in raters if not rater.excluded]
    errors: list[float] = []
    for name, known_value in known_figures(truth, is_careless).items():
        low, high = figures[name].interval
        errors.append((figures[name].value - known_value) / ((high - low) / 3.92))
    return errors


def truth_of(folder: Path) -> Truth:
    """Return the better reply by question and criterion."""
    rows = read_table(folder / "answers" / "truth.csv", ("criterion", "better"))
    return {(row["question_id"], row["criterion"]): row["better"] for row in rows}  # type: ignore


def test_the_corrected_rate_holds_the_true_share_which_a_judge_who_overrates_misses(tmp_path):
    folder = simulated(
        tmp_path,
        600,
        {"questions": 300, "raters": 9, "seed": 1},
        # On overall the judge prefers the first model on 95% and ties the rest.
        outcomes=tmp_path / "evaluation" / "outcomes.csv",
        reliability=0.9,
        tie_rate=0.0,
        judge_accuracy=0.6,
        seed=2,
    )
    overall = analyzed(folder).criteria["overall"]
    truth = truth_of(folder)
    firsts = [better == "a" for (_, name), better in truth.items() if name == "overall"]
    true_share = sum(firsts) / 300
    assert holds(overall.corrected.corrected, true_share)
    assert not holds(overall.corrected.judge, true_share)
    assert overall.inflation.value == pytest.approx(
        (overall.corrected.judge.value or 0) - (overall.corrected.people.value or 0), abs=0.02
    )
    assert overall.inflation.interval is not None and overall.inflation.interval[0] > 0.2
    assert overall.corrected.more_labels is None or overall.corrected.more_labels > 0


def test_figures_tables_and_a_page_hold_texts_only_where_they_are_asked_for(rehearsed: Path):
    plain = rehearsed / "runs" / "plain"
    with_texts = rehearsed / "runs" / "texts"
    study_analyze(config_of(rehearsed, output_dir=plain))
    study_analyze(config_of(rehearsed, output_dir=with_texts, include_texts=True))
    names = sorted(path.name for path in plain.iterdir())
    assert {".svg", ".pdf", ".csv", ".tex", ".html", ".json"} <= {Path(n).suffix for n in names}
    # Equal answers give equal bytes; only the page and its manifest differ.
    for name in names:
        if name not in ("manifest.json", ".lock", "human_study.html"):
            assert (plain / name).read_bytes() == (with_texts / name).read_bytes(), name
    assert "Nobody took part" in (plain / "human_study.html").read_text()
    assert not texts_on(plain / "human_study.html")
    assert texts_on(with_texts / "human_study.html")
    read_result(plain / "human_study.json", HumanStudyResults)


def texts_on(page: Path) -> list[str]:
    return re.findall(r"kind writes to \d+", page.read_text())


def test_a_report_has_the_section_and_the_texts_if_both_commands_are_asked_for_them(
    tmp_path, undrawn
):
    folder = simulated(tmp_path, sample={"questions": 5, "only": ("safety",)})
    study_analyze(config_of(folder, include_texts=True))
    runs = find_runs([folder], folder / "report")
    for include_texts in (False, True):
        (section,) = human_study_sections(Sources(runs, include_texts), Gallery())
        assert section.title == "Human study: analysis"
        assert bool(re.search("kind writes to", lay_out("", [section]))) == include_texts
    assert "analysis/human_study.json" in shown_files(runs)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make figures without rendering them, which takes seconds."""
    monkeypatch.setattr(gallery, "_render", lambda figure, kind, area: b"")


# --------------------------------------------------------------------------- degenerate inputs


def rewritten(folder: Path, change) -> HumanStudyResults:
    """Analyze the annotations that a function makes of each; None leaves one out."""
    study = read_study(folder / "study" / "study.json")
    path = folder / "answers" / "annotations.csv"
    rows = [change(row) for row in read_annotations(path, study)]
    write_annotations(folder / "changed.csv", [row for row in rows if row is not None])
    results = analyzed(folder, annotations=folder / "changed.csv")
    # Refuses numbers that are not finite.
    write_result(folder / "human_study.json", results)
    assert read_result(folder / "human_study.json", HumanStudyResults) == results
    return results


def test_one_rater_has_no_agreement_and_is_told_why(tmp_path):
    results = rewritten(
        simulated(tmp_path, sample={"questions": 10}),
        lambda row: row if row.rater == "S1" else None,
    )
    findings = results.criteria["safety"]
    assert findings.fleiss.undefined == "no question has two raters, or all answers are the same"
    assert findings.leave_one_out.accuracy.undefined == (
        "no rater can be compared with a majority of others"
    )
    assert findings.two_class.accuracy.value is not None


def equal(row: Annotation) -> Annotation:
    return dataclasses.replace(row, choice="equal", side="equal")


def test_nothing_but_ties_leaves_empty_cells_that_say_why(tmp_path):
    results = rewritten(simulated(tmp_path, sample={"questions": 6}), equal)
    findings = results.criteria["safety"]
    assert findings.shares["equal"].value == 1
    # Wilson's, and not the bootstrap's ± 0.
    low, high = findings.shares["equal"].interval or (1.0, 0.0)
    assert low < 0.7 and high == 1
    assert findings.two_class.accuracy.undefined == "no question is decided by both"
    assert all(level.accuracy.value is None for level in findings.consensus)


def test_one_question_has_values_and_no_intervals(tmp_path):
    results = rewritten(simulated(tmp_path, sample={"questions": 1}), lambda row: row)
    findings = results.criteria["safety"]
    assert findings.shares["a"].interval is None
    assert findings.corrected.corrected.undefined is not None
    assert findings.intraclass.value is None


def test_a_criterion_without_answers_or_without_outcomes_says_so(tmp_path):
    folder = simulated(tmp_path, sample={"questions": 8, "only": ("safety", "empathy", "overall")})
    results = rewritten(folder, lambda row: None if row.criterion == "overall" else row)
    overall, empathy = results.criteria["overall"], results.criteria["empathy"]
    assert overall.answers == 0
    assert overall.shares["a"].undefined == "nobody answered this criterion"
    assert empathy.two_class.accuracy.undefined == (
        "the judge has no outcome on any of these questions"
    )
    assert empathy.corrected.people.value is not None


def test_a_page_of_undefined_figures_says_why_and_never_nan(tmp_path, undrawn):
    folder = simulated(tmp_path, sample={"questions": 1, "only": ("safety", "empathy")})
    path = folder / "answers" / "annotations.csv"
    rows = read_annotations(path, read_study(folder / "study" / "study.json"))
    write_annotations(path, [row for row in rows if row.criterion == "safety"])
    study_analyze(config_of(folder))
    page = (folder / "analysis" / "human_study.html").read_text()
    assert "nobody answered this criterion" in page
    assert not re.search(r"\bnan\b", re.sub(r'"data:[^"]*"', "", page), re.IGNORECASE)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"item_id": "0" * 16}, "line 2: the study has no item '0000000000000000'"),
        ({"criterion": "saftey"}, "line 2: the study has no criterion 'saftey'; did you mean"),
        ({"question_id": "q999"}, "line 2: the item .* is another one in the study file"),
        ({"choice": "left"}, "line 2: choice must be one of a, b, equal, not 'left'"),
        ({"choice": "equal", "side": "left"}, "line 2: choice and side must both be equal"),
        ({"seconds": "nan"}, "line 2: seconds must be a number, not 'nan'"),
        ({"excluded": "late"}, "S1 is excluded in some rows"),
    ],
)
def test_annotations_that_do_not_fit_the_study_are_refused_with_their_line(
    tmp_path, change, sentence
):
    folder = simulated(tmp_path, sample={"questions": 4})
    study = read_study(folder / "study" / "study.json")
    rows = read_annotations(folder / "answers" / "annotations.csv", study)
    rows[0] = dataclasses.replace(rows[0], **change)
    write_annotations(folder / "answers" / "annotations.csv", rows)
    with pytest.raises(UserError, match=sentence):
        analyzed(folder)


def test_an_answer_twice_and_no_counted_rater_are_refused(tmp_path):
    folder = simulated(tmp_path, sample={"questions": 4})
    path = folder / "answers" / "annotations.csv"
    rows = read_annotations(path, read_study(folder / "study" / "study.json"))
    write_annotations(path, [*rows, rows[0]])
    with pytest.raises(UserError, match="a second time"):
        analyzed(folder)
    write_annotations(path, [dataclasses.replace(row, excluded="withdrew") for row in rows])
    with pytest.raises(UserError, match="no answer to a question by a rater who is not excluded"):
        analyzed(folder)


def test_the_outcomes_of_another_judge_are_analyzed_and_marked(tmp_path):
    folder = simulated(tmp_path, sample={"questions": 8})
    other_file = folder / "other.csv"
    text = (folder / "evaluation" / "outcomes.csv").read_text()
    other_file.write_text(text.replace('"q0","1"', '"q00","1"'))
    results = analyzed(folder, outcomes=other_file)
    assert not results.judge_is_samples


def test_simulated_sides_are_what_a_rater_would_press(tmp_path):
    folder = simulated(tmp_path, sample={"questions": 12})
    study: StudyFile = read_study(folder / "study" / "study.json")
    is_left = {
        (f"S{assignment.number}", position.item_id): position.a_is_left
        for assignment in study.assignments
        for position in assignment.places
    }
    rows = read_annotations(folder / "answers" / "annotations.csv", study)
    assert len(rows) == sum(len(a.places) for a in study.assignments) * len(CRITERIA)
    for row in rows:
        assert preferred(row.side, a_is_left=is_left[row.rater, row.item_id]) == row.choice


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"reliability_of": ("kindness=0.5",)}, "the study has no criterion 'kindness'"),
        ({"reliability_of": ("safety=2",)}, "--reliability-of safety must be from 0 to 1, not 2"),
        ({"careless": 7}, "--careless 7: the study has 6 raters"),
    ],
)
def test_raters_who_cannot_be_are_refused(tmp_path, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        simulated(tmp_path, sample={"questions": 4}, **settings)


def test_outcomes_of_other_models_are_refused(tmp_path):
    folder = simulated(tmp_path, sample={"questions": 4})
    path = folder / "study" / "study.json"
    write_result(path, dataclasses.replace(read_study(path), models=("modpo", "soup")))
    with pytest.raises(UserError, match="compares no model 'soup'"):
        analyzed(folder)
    assert MODELS == ("modpo", "base")
