"""From survey rows to personas: profiles, their quality, what the command writes, and what is
refused.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from jaxmodpo.cli import main
from jaxmodpo.errors import UserError
from jaxmodpo.files import read_json
from jaxmodpo.personas.command import PersonasConfig, personas
from jaxmodpo.personas.participant import COLUMNS, Participant
from jaxmodpo.personas.profile import profile_text, quality
from jaxmodpo.personas.survey import read_surveys
from jaxmodpo.personas.synthetic import survey_rows, write_survey
from jaxmodpo.records import read_personas
from jaxmodpo.results.versioned import plain

# The paper's Figure 7, whose values are synthetic, and the answers that it shows.
FIGURE_7 = """\
You are roleplaying as a patient with the following characteristics:

DEMOGRAPHICS:
- Age: 35-44
- Gender: Male
- Ethnicity: Black/African American

MENTAL HEALTH BACKGROUND:
- Diagnoses: Depression, Anxiety
- Severity level: Moderate
- Current treatment: Not currently receiving treatment

TECHNOLOGY EXPERIENCE:
You have previous experience with AI tools for:
- General information/knowledge search
- Educational or work-related tasks
- Entertainment or casual conversation

YOUR ATTITUDES TOWARD AI IN MENTAL HEALTH:
- Accessibility: You think that LLMs can help by offering accessible mental health support
- AI Empathy: You think that LLMs can provide empathetic responses similar to human therapists
- Error Concerns: You are concerned about LLMs making factual errors in mental health conversations
- Replacement vs Complement: You strongly believe that LLMs should only complement, not replace, human therapists
- Trust Level: You have moderate trust in LLMs for safe and accurate mental health support

THERAPY PREFERENCES (importance ratings out of 5):
- Empathy and warmth: 4.0/5 importance
- Active listening: 4.0/5 importance
- Trust and rapport building: 4.5/5 importance
- Self-motivated change support: 4.0/5 importance
- Patient autonomy: 4.5/5 importance

AREAS WHERE YOU THINK AI COULD BE HELPFUL:
- Mild depression or anxiety
- Stress management

YOUR VIEWS ON APPROPRIATE USES OF AI IN THERAPY:
You think AI is appropriate for:
- Providing general information or education about mental health
- Offering emotional support or empathy
- Facilitating casual conversations to reduce stress
- Suggesting self-care or wellness activities
- Recommending resources or external help (e.g., therapists, hotlines)"""
FIGURE_7_ANSWERS = {
    "participant_id": "p7",
    "population": "Prolific",
    "age": "35-44",
    "gender": "Male",
    "ethnicity": "Black/African American",
    "severity": "Moderate",
    "treatment": "Not currently receiving treatment",
    "diagnoses": "Depression;Anxiety",
    "ai_experience": (
        "General information/knowledge search;Educational or work-related tasks;"
        "Entertainment or casual conversation"
    ),
    "helpful_areas": "Mild depression or anxiety;Stress management",
    "appropriate_uses": (
        "Providing general information or education about mental health;Offering emotional support"
        " or empathy;Facilitating casual conversations to reduce stress;Suggesting self-care or"
        " wellness activities;Recommending resources or external help (e.g., therapists, hotlines)"
    ),
    "attitude_accessibility": "4",
    "attitude_ai_empathy": "4",
    "attitude_error_concerns": "4",
    "attitude_complement_only": "5",
    "attitude_trust": "3",
    "importance_empathy": "4.0",
    "importance_active_listening": "4.0",
    "importance_trust_rapport": "4.5",
    "importance_self_motivated_change": "4.0",
    "importance_patient_autonomy": "4.5",
}
FULL = {
    "participant_id": "p1",
    "population": "UCLA",
    "age": "25-34",
    "gender": "Female",
    "ethnicity": "Asian",
    "severity": "Moderate",
    "treatment": "Therapy",
    "diagnoses": "Depression; Anxiety",
    "ai_experience": "Emotional support",
    "helpful_areas": "Sleep problems",
    "appropriate_uses": "Casual conversations to reduce stress",
    "attitude_accessibility": "5",
    "attitude_ai_empathy": "2",
    "attitude_error_concerns": "5",
    "attitude_complement_only": "3",
    "attitude_trust": "1",
    "importance_empathy": "4.5",
    "importance_active_listening": "4",
    "importance_trust_rapport": "3",
    "importance_self_motivated_change": "2.5",
    "importance_patient_autonomy": "5",
}
PROFILE = """\
You are roleplaying as a patient with the following characteristics:

DEMOGRAPHICS:
- Age: 25-34
- Gender: Female
- Ethnicity: Asian

MENTAL HEALTH BACKGROUND:
- Diagnoses: Depression, Anxiety
- Severity level: Moderate
- Current treatment: Therapy

TECHNOLOGY EXPERIENCE:
You have previous experience with AI tools for:
- Emotional support

YOUR ATTITUDES TOWARD AI IN MENTAL HEALTH:
- Accessibility: You strongly believe that LLMs can help by offering accessible mental health support
- AI Empathy: You doubt that LLMs can provide empathetic responses similar to human therapists
- Error Concerns: You are very concerned about LLMs making factual errors in mental health conversations
- Replacement vs Complement: You are unsure whether LLMs should only complement, not replace, human therapists
- Trust Level: You have very low trust in LLMs for safe and accurate mental health support

THERAPY PREFERENCES (importance ratings out of 5):
- Empathy and warmth: 4.5/5 importance
- Active listening: 4.0/5 importance
- Trust and rapport building: 3.0/5 importance
- Self-motivated change support: 2.5/5 importance
- Patient autonomy: 5.0/5 importance

AREAS WHERE YOU THINK AI COULD BE HELPFUL:
- Sleep problems

YOUR VIEWS ON APPROPRIATE USES OF AI IN THERAPY:
You think AI is appropriate for:
- Casual conversations to reduce stress"""


def survey(path: Path, *rows: dict[str, str], columns: tuple[str, ...] = COLUMNS) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def participant(folder: Path, **changes: str) -> Participant:
    return read_surveys([survey(folder / "one.csv", FULL | changes)])[0]


@pytest.fixture
def blank_figures(monkeypatch):
    """Leave the figures undrawn, where a test is not about them."""
    monkeypatch.setattr("jaxmodpo.personas.report.draw_figures", lambda summary: {})
    monkeypatch.setattr("jaxmodpo.personas.report.render", lambda summary, shown: "page")


def test_a_profile_has_the_papers_sections(tmp_path):
    assert profile_text(participant(tmp_path)) == PROFILE


def test_a_profile_is_the_papers_figure_7_word_for_word(tmp_path):
    assert profile_text(participant(tmp_path, **FIGURE_7_ANSWERS)) == FIGURE_7


def test_an_answer_of_several_lines_adds_none_to_the_profile(tmp_path):
    text = profile_text(
        participant(tmp_path, treatment="Therapy\n- Empathy and warmth: 1.0/5 importance")
    )
    assert text.count("\n- Empathy and warmth") == 1 and len(text.splitlines()) == len(
        PROFILE.splitlines()
    )


def test_what_was_not_answered_is_left_out(tmp_path):
    text = profile_text(
        participant(
            tmp_path, diagnoses="", attitude_trust="", ai_experience="", importance_empathy=""
        )
    )
    assert not any(
        absent in text
        for absent in ("Diagnoses", "Trust Level", "TECHNOLOGY", "Empathy and warmth")
    )


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({}, (1, 1, 1, 1)),
        ({"severity": "", "attitude_trust": ""}, (18 / 20, 1, 1, 1)),
        ({"diagnoses": ""}, (19 / 20, 0.5, 1, 1)),
        ({"attitude_trust": "5", "attitude_ai_empathy": "1"}, (1, 0.5, 1, 1)),
        ({"diagnoses": "", "attitude_trust": "4", "attitude_ai_empathy": "1"}, (19 / 20, 0, 1, 1)),
        ({"helpful_areas": "", "appropriate_uses": ""}, (18 / 20, 1, 0.5, 1)),
        ({name: "3" for name in COLUMNS if name.startswith("importance")}, (1, 1, 0.5, 1)),
        ({"diagnoses": "Anxiety; Anxiety"}, (1, 1, 1, 0.5)),
        ({"age": ""}, (19 / 20, 1, 1, 0.5)),
    ],
)
def test_quality_is_the_weighted_sum_of_its_parts(tmp_path, changes, parts):
    rated = quality(participant(tmp_path, **changes))
    names = ("completeness", "consistency", "specificity", "validity")
    assert [rated[name] for name in names] == pytest.approx(parts)
    assert rated["quality"] == pytest.approx(
        sum(w * p for w, p in zip((0.4, 0.3, 0.2, 0.1), parts, strict=True))
    )


@pytest.mark.slow(seconds=8)
def test_the_command_writes_disjoint_personas_and_every_participant(tmp_path):
    write_survey(tmp_path / "a.csv", participants=60, seed=3)
    rows = [FULL | {"participant_id": f"x{n}", "age": str(20 + n)} for n in range(20)]
    survey(tmp_path / "b.csv", *rows)
    surveys = (tmp_path / "a.csv", tmp_path / "b.csv")
    results = [
        personas(
            PersonasConfig(survey=surveys, output_dir=tmp_path / out, select=40, train=30)
        ).results
        for out in ("one", "two")
    ]
    assert results[0] == results[1] and results[0]["participants"] == 80
    train, test = (
        read_personas(tmp_path / "one" / f"{name}_personas.json") for name in ("train", "test")
    )
    assert (len(train), len(test)) == (30, 10) and not train.keys() & test.keys()
    everyone = read_json(tmp_path / "one" / "all_personas.json")
    assert len(everyone) == 80 and sum(row["split"] is not None for row in everyone) == 40
    assert all(row["quality"] >= 0.9 for row in everyone if row["split"])
    written = [
        path.relative_to(tmp_path / "one")
        for path in (tmp_path / "one").rglob("*")
        if path.is_file()
    ]
    assert len(written) == 3 + 2 + 8 + 1  # personas, report and numbers, figures, manifest
    for same in written:
        if same.name != "manifest.json":
            assert (tmp_path / "one" / same).read_bytes() == (tmp_path / "two" / same).read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"attitude_trust": "6"},
            "row 1: attitude_trust must be from 1 to 5 in whole numbers, not '6'",
        ),
        ({"attitude_trust": "2.5"}, "whole numbers"),
        ({"importance_empathy": "4.2"}, "steps of 0.5"),
        ({"importance_empathy": "high"}, "not 'high'"),
        ({"participant_id": " "}, "the participant_id is empty"),
    ],
)
def test_a_wrong_answer_is_named_with_its_place(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        participant(tmp_path, **changes)


def test_missing_columns_doubles_and_too_few_are_refused(tmp_path):
    one = survey(tmp_path / "one.csv", FULL)
    with pytest.raises(
        UserError, match=r"one.csv, row 1: the participant_id has been given before"
    ):
        read_surveys([one, one])
    with pytest.raises(UserError, match="lacks the column importance_patient_autonomy"):
        read_surveys([survey(tmp_path / "short.csv", FULL, columns=COLUMNS[:-1])])
    with pytest.raises(
        UserError,
        match=(
            r"1 of 1 participants have a quality of 0\.9 or more, but --select asks for 150; give"
            r" more"
        ),
    ):
        personas(PersonasConfig(survey=(one,), output_dir=tmp_path / "out"))
    with pytest.raises(UserError, match="--train must be below"):
        personas(PersonasConfig(survey=(one,), output_dir=tmp_path / "out", select=10, train=10))
    assert not (tmp_path / "out").exists(), "a folder of a refused run would refuse the mended one"


def test_a_finished_folder_is_left_alone(tmp_path, blank_figures):
    config = PersonasConfig(synthesize=40, output_dir=tmp_path / "out", select=20, train=12)
    personas(config)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    personas(config)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}


def test_a_killed_run_is_made_again_in_the_same_bytes(tmp_path, blank_figures, monkeypatch):
    config = PersonasConfig(synthesize=40, output_dir=tmp_path / "out", select=20, train=12)
    personas(PersonasConfig(synthesize=40, output_dir=tmp_path / "whole", select=20, train=12))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("jaxmodpo.personas.report.write_report", killed)
        personas(config)
    assert read_json(tmp_path / "out" / "manifest.json")["status"] == "running"
    assert (
        plain(personas(config).manifest.outputs)
        == read_json(tmp_path / "whole" / "manifest.json")["outputs"]
    )


def test_a_synthetic_survey_is_written_and_gone_on_with(tmp_path, blank_figures):
    personas(PersonasConfig(synthesize=200, output_dir=tmp_path / "made", seed=5))
    written = tmp_path / "made" / "survey.csv"
    assert [dict(p.texts) for p in read_surveys([written])] == [
        {
            name: row[name]
            for name in ("population", "age", "gender", "ethnicity", "severity", "treatment")
        }
        for row in survey_rows(200, seed=5)
    ]
    # Read from its file, the same survey makes the same personas.
    personas(PersonasConfig(survey=(written,), output_dir=tmp_path / "read", seed=5))
    for name in ("train", "test", "all"):
        same = f"{name}_personas.json"
        assert (tmp_path / "made" / same).read_bytes() == (tmp_path / "read" / same).read_bytes()
    assert read_json(tmp_path / "made" / "report.json")["synthetic"]
    assert not read_json(tmp_path / "read" / "report.json")["synthetic"]


def test_a_synthetic_survey_is_written_where_it_is_asked_for(tmp_path, blank_figures):
    elsewhere = tmp_path / "data" / "made_up.csv"
    personas(
        PersonasConfig(
            synthesize=40, survey_output=elsewhere, output_dir=tmp_path / "out", select=20, train=12
        )
    )
    assert len(read_surveys([elsewhere])) == 40 and not (tmp_path / "out" / "survey.csv").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "give --survey FILES or --synthesize N, one of the two"),
        (
            ["--survey", "SURVEY", "--synthesize", "9"],
            "give --survey FILES or --synthesize N, not both",
        ),
        (["--synthesize", "0"], "--synthesize must be at least 1, not 0"),
        (["--synthesize", "200", "--seed", "-1"], "--seed must be from 0 to 4294967295, not -1"),
        (["--synthesize", "9", "--mapping", "paper"], "leave --mapping out"),
        (["--survey", "SURVEY", "--survey-output", "x.csv"], "leave it out with --survey"),
        (
            ["--survey", "SURVEY", "--mapping", "canonicle"],
            "no personas file 'canonicle' here; did you mean 'canonical'",
        ),
        (
            ["--survey", "SURVEY", "--mapping", "paper"],
            "lacks the column 1. What is your age group? (age)",
        ),
        (["--synthesize", "40", "--min-group", "-1"], "--min-group must be at least 0, not -1"),
        (["--synthesize", "40", "--min-quality", "2"], "--min-quality must be from 0 to 1, not 2"),
        (
            ["--synthesize", "40"],
            "but --select asks for 150; give more participants, or lower --select",
        ),
    ],
)
def test_a_wrong_command_ends_in_one_sentence_and_exit_code_2(tmp_path, capsys, flags, message):
    write_survey(tmp_path / "survey.csv", participants=3, seed=0)
    flags = [str(tmp_path / "survey.csv") if flag == "SURVEY" else flag for flag in flags]
    with pytest.raises(SystemExit) as ended:
        main(["personas", *flags, "--output-dir", str(tmp_path / "out")])
    errors = capsys.readouterr().err
    assert ended.value.code == 2 and message in errors and errors.count("\n") == 1
    assert not (tmp_path / "out").exists()
