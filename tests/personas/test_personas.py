"""From survey rows to personas: profiles, their quality, selection, split, and what is refused."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from jaxmodpo.artifacts import read_json, read_personas
from jaxmodpo.errors import UserError
from jaxmodpo.personas.command import PersonasConfig, personas
from jaxmodpo.personas.profile import profile_text, quality
from jaxmodpo.personas.selection import select_diverse, split_balanced
from jaxmodpo.personas.survey import COLUMNS, Participant, read_surveys
from jaxmodpo.sandbox.survey import write_survey

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


def test_a_profile_has_the_papers_sections(tmp_path):
    assert profile_text(participant(tmp_path)) == PROFILE


def test_what_was_not_answered_is_left_out(tmp_path):
    text = profile_text(participant(tmp_path, diagnoses="", attitude_trust="", ai_experience="", importance_empathy=""))
    assert not any(absent in text for absent in ("Diagnoses", "Trust Level", "TECHNOLOGY", "Empathy and warmth"))


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
    assert rated["quality"] == pytest.approx(sum(w * p for w, p in zip((0.4, 0.3, 0.2, 0.1), parts, strict=True)))


def test_selection_takes_what_differs_most():
    texts = ["warm calm kind"] * 5 + ["cold harsh rude", "blue green red"]
    for seed in range(5):
        assert set(select_diverse(texts, 3, seed)) > {5, 6}
    assert len(set(select_diverse(texts, 7, 0))) == 7


def test_the_split_is_balanced_and_gives_small_groups_two(tmp_path):
    rows = [
        FULL
        | {"participant_id": f"p{n}", "gender": "Female" if n % 2 else "Male", "ethnicity": "MENA" if n < 4 else "A"}
        for n in range(60)
    ]
    people = read_surveys([survey(tmp_path / "s.csv", *rows)])
    train, test = split_balanced(people, 20, seed=1)
    assert (len(train), len(test)) == (40, 20) and not set(train) & set(test)
    assert sum(people[n].texts["ethnicity"] == "MENA" for n in test) == 2
    assert sum(people[n].texts["gender"] == "Female" for n in test) == 10


def test_the_command_writes_disjoint_personas_and_every_participant(tmp_path):
    write_survey(tmp_path / "a.csv", participants=60, seed=3)
    rows = [FULL | {"participant_id": f"x{n}", "age": str(20 + n)} for n in range(20)]
    survey(tmp_path / "b.csv", *rows)
    surveys = (tmp_path / "a.csv", tmp_path / "b.csv")
    results = [
        personas(PersonasConfig(survey=surveys, output_dir=tmp_path / out, select=40, train=30)).results
        for out in ("one", "two")
    ]
    assert results[0] == results[1] and results[0]["participants"] == 80
    train, test = (read_personas(tmp_path / "one" / f"{name}_personas.json") for name in ("train", "test"))
    assert (len(train), len(test)) == (30, 10) and not train.keys() & test.keys()
    everyone = read_json(tmp_path / "one" / "all_personas.json")
    assert len(everyone) == 80 and sum(row["split"] is not None for row in everyone) == 40
    assert all(row["quality"] >= 0.9 for row in everyone if row["split"])
    for name in ("train", "test", "all"):
        same = f"{name}_personas.json"
        assert (tmp_path / "one" / same).read_bytes() == (tmp_path / "two" / same).read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attitude_trust": "6"}, "row 1: attitude_trust must be from 1 to 5 in whole numbers, not '6'"),
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
    with pytest.raises(UserError, match="participant_id p1 has been given before"):
        read_surveys([one, one])
    with pytest.raises(UserError, match="lacks the column importance_patient_autonomy"):
        read_surveys([survey(tmp_path / "short.csv", FULL, columns=COLUMNS[:-1])])
    with pytest.raises(
        UserError, match=r"1 of 1 participants have a quality of 0\.9 or more, but --select asks for 150"
    ):
        personas(PersonasConfig(survey=(one,), output_dir=tmp_path / "out"))
    with pytest.raises(UserError, match="--train must lie between"):
        personas(PersonasConfig(survey=(one,), output_dir=tmp_path / "out", select=10, train=10))
