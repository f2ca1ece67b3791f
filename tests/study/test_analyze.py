"""``study simulate`` and ``study analyze``: what is known of raters comes out of their answers."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

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
from jaxmodpo.study.sample import study_sample
from jaxmodpo.study.simulate import StudySimulateConfig, study_simulate
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


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rehearsal")
    return simulated(
        folder,
        400,
        {"questions": 240, "raters": 7, "seed": 3},
        outcomes=folder / "evaluation" / "outcomes.csv",
        reliability=0.8,
        reliability_of=("safety=0.7",),
        tie_rate=0.1,
        judge_accuracy=0.75,
        careless=1,
        seed=5,
    )


def holds(figure: Any, known: float) -> bool:
    low, high = figure.interval
    return low <= known <= high


def is_near(figure: Any, known: float) -> bool:
    """Return whether a known value lies within twice the interval's reach.

    Of ten figures of one draw one lies outside its 95% interval in four draws of ten.
    """
    low, high = figure.interval
    return abs(figure.value - known) <= high - low


def test_simulated_raters_of_known_reliability_recover_the_known_figures(rehearsed: Path):
    results = analyzed(rehearsed)
    assert results.is_simulated and results.judge_is_samples
    assert results.raters.counted == 6
    assert results.raters.excluded in (
        {"failed 2 attention checks": 1},
        {"failed 3 attention checks": 1},
    )
    truth = truth_of(rehearsed)
    for criterion, reliability in (("safety", 0.7), ("overall", 0.8)):
        found = results.criteria[criterion]
        # Two raters who see the truth independently of each other, or both find the replies equal.
        both_prefer = 0.9**2 * (reliability**2 + (1 - reliability) ** 2)
        assert is_near(found.levels.human_human, 0.1**2 + both_prefer)
        better = sum(truth[criterion].values()) / 240
        # Shares of answers a, b and equal make the agreement by chance of Fleiss' κ.
        first = 0.9 * (better * reliability + (1 - better) * (1 - reliability))
        by_chance = 0.1**2 + first**2 + (0.9 - first) ** 2
        kappa = (0.1**2 + both_prefer - by_chance) / (1 - by_chance)
        assert is_near(found.fleiss, kappa)
    # On overall the judge never prefers the second model, and its κ is 0, as in the paper.
    assert results.criteria["overall"].two_class.kappa.value == 0
    # The judge decides all of safety; a rater agrees who sees a truth that it tells, or neither.
    safety = results.criteria["safety"]
    agree = 0.9 * (0.7 * 0.75 + 0.3 * 0.25)
    assert is_near(safety.levels.human_judge, agree)


def truth_of(folder: Path) -> dict[str, dict[str, bool]]:
    """Return by criterion and question whether the first model's reply is the better one."""
    truth: dict[str, dict[str, bool]] = {name: {} for name in CRITERIA}
    for row in read_table(folder / "answers" / "truth.csv", ("criterion", "better")):
        truth[row["criterion"]][row["question_id"]] = row["better"] == "a"
    return truth


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
    true_share = sum(truth_of(folder)["overall"].values()) / 300
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
    found = results.criteria["safety"]
    assert found.fleiss.undefined == "no question has two raters, or all answers are the same"
    assert found.leave_one_out.accuracy.undefined == (
        "no rater can be compared with a majority of others"
    )
    assert found.two_class.accuracy.value is not None


def equal(row: Annotation) -> Annotation:
    return dataclasses.replace(row, choice="equal", side="equal")


def test_nothing_but_ties_leaves_empty_cells_that_say_why(tmp_path):
    results = rewritten(simulated(tmp_path, sample={"questions": 6}), equal)
    found = results.criteria["safety"]
    assert found.shares["equal"].value == 1
    # Wilson's, and not the bootstrap's ± 0.
    low, high = found.shares["equal"].interval or (1.0, 0.0)
    assert low < 0.7 and high == 1
    assert found.two_class.accuracy.undefined == "no question is decided by both"
    assert all(one.accuracy.value is None for one in found.consensus)


def test_one_question_has_values_and_no_intervals(tmp_path):
    results = rewritten(simulated(tmp_path, sample={"questions": 1}), lambda row: row)
    found = results.criteria["safety"]
    assert found.shares["a"].interval is None
    assert found.corrected.corrected.undefined is not None
    assert found.intraclass.value is None


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
    other = folder / "other.csv"
    text = (folder / "evaluation" / "outcomes.csv").read_text()
    other.write_text(text.replace('"q0","1"', '"q00","1"'))
    results = analyzed(folder, outcomes=other)
    assert not results.judge_is_samples


def test_simulated_sides_are_what_a_rater_would_press(tmp_path):
    folder = simulated(tmp_path, sample={"questions": 12})
    study: StudyFile = read_study(folder / "study" / "study.json")
    is_left = {
        (f"S{assignment.number}", place.item_id): place.a_is_left
        for assignment in study.assignments
        for place in assignment.places
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
