"""Mappings: another survey's columns and answers become ours, and what is wrong is named with its
place.
"""

from __future__ import annotations

import copy
import csv
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from jaxmodpo.config import builtin, load_yaml
from jaxmodpo.errors import UserError
from jaxmodpo.personas.answers import band, group_of
from jaxmodpo.personas.mapping import find_mapping, load_mapping
from jaxmodpo.personas.mapping_fields import FieldSource
from jaxmodpo.personas.participant import ATTITUDES, COLUMNS, IMPORTANCES, LISTS
from jaxmodpo.personas.profile import quality
from jaxmodpo.personas.survey import entries, participants_of, read_surveys
from jaxmodpo.personas.synthetic import survey_rows, write_survey

WORDS = {
    "1": "Strongly disagree",
    "2": "Disagree",
    "3": "Neutral",
    "4": "Agree",
    "5": "Strongly agree",
}
DIAGNOSES = ("Depression", "Anxiety", "ADHD", "PTSD", "OCD", "Eating disorder", "Bipolar disorder")
# A survey laid out otherwise in every respect that a mapping can bridge.
OTHER: dict[str, Any] = {
    "separator": "|",
    "skip_rows": 1,
    "missing": ["n/a"],
    "scales": {"agreement": {word: int(number) for number, word in WORDS.items()}},
    "files": {"students*.csv": {"population": "UCLA"}, "panel*.csv": {"population": "Prolific"}},
    "fields": {
        "participant_id": "ResponseId",
        "age": {"column": "How old are you?", "bands": [18, 25, 35, 45, 55]},
        "gender": {"column": "Q2", "values": {"woman": "Female", "man": "Male"}},
        "ethnicity": "Q3",
        "severity": "Q4",
        "treatment": {"column": "Q5", "values": {"none": "Not currently receiving treatment"}},
        "diagnoses": {"ticks": {f"dx_{n}": name for n, name in enumerate(DIAGNOSES)}},
        "ai_experience": "Q7",
        "helpful_areas": {"column": "Q8", "separator": ","},
        "appropriate_uses": {"column": "Q9", "values": {"none of these": None}},
        **{name: {"column": f"Q_{name}", "scale": "agreement"} for name in ATTITUDES},
        # Rated from 1 to 9 there.
        **{
            name: {"column": f"Q_{name}", "values": {n: 1 + (n - 1) / 2 for n in range(1, 10)}}
            for name in IMPORTANCES
        },
    },
}


def write_mapping(path: Path, content: Any) -> Path:
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return path


def write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def other_row(row: dict[str, str]) -> dict[str, str]:
    """Say what a canonical row says in the other survey's way."""
    years = {"18-24": "18", "25-34": "34", "35-44": "40.0", "45-54": "45", "55+": "81"}
    gender = {"Female": "Woman", "Male": " MAN "}
    given_diagnoses = row["diagnoses"].split(";")
    return {
        "ResponseId": row["participant_id"],
        "How old  are you? ": years[row["age"]],
        "Q2": gender.get(row["gender"], row["gender"]),
        "Q3": row["ethnicity"],
        "Q4": row["severity"] or "N/A",
        "Q5": row["treatment"].replace("Not currently receiving treatment", "None"),
        **{f"dx_{n}": "1" if name in given_diagnoses else "0" for n, name in enumerate(DIAGNOSES)},
        "Q7": row["ai_experience"].replace(";", " | "),
        "Q8": row["helpful_areas"].replace(";", ","),
        "Q9": row["appropriate_uses"].replace(";", "|") or "None of these",
        **{f"Q_{name}": WORDS.get(row[name], "n/a") for name in ATTITUDES},
        **{
            f"Q_{name}": str(round(2 * float(row[name]) - 1)) if row[name] else ""
            for name in IMPORTANCES
        },
        "Comments": "not read",
    }


def test_the_canonical_mapping_names_every_field_as_itself():
    mapping = load_mapping()
    assert {name: source.column for name, source in mapping.sources.items()} == {
        name: name for name in COLUMNS
    }
    assert find_mapping("canonical") == builtin("personas", "canonical")


def test_another_survey_gives_the_same_participants(tmp_path):
    rows = survey_rows(120, seed=4)
    files = []
    for name, population in (("students_2024.csv", "UCLA"), ("Panel.csv", "Prolific")):
        mine = [other_row(row) for row in rows if row["population"] == population]
        header = {column: f"the question of {column}" for column in mine[0]}
        files.append(write_csv(tmp_path / name, [header, *mine]))
    mapping = load_mapping(write_mapping(tmp_path / "other.yaml", OTHER))
    surveys, expected = read_surveys(files, mapping), participants_of(rows)
    assert [p.participant_id for p in surveys] == [p.participant_id for p in expected]
    for survey, same in zip(surveys, expected, strict=True):
        assert (survey.texts, survey.ratings) == (same.texts, same.ratings)
        assert {name: set(items) for name, items in survey.lists.items()} == {
            n: set(i) for n, i in same.lists.items()
        }
        assert quality(survey) == quality(same)


def test_the_papers_mapping_reads_the_columns_of_the_authors_code(tmp_path):
    fields = load_yaml(builtin("personas", "paper"))["fields"]
    column = {
        name: field_text["column"] if isinstance(field_text, dict) else field_text
        for name, field_text in fields.items()
        if name[0] != "p"
    }
    # Spreadsheets curl apostrophes and double spaces.
    assert len(column) == len(COLUMNS) - 2
    respelled = {
        name: text.replace("'", "’").replace("6. Have", "6.  Have") for name, text in column.items()
    }
    answers = {
        **dict.fromkeys(column, ""),
        "age": "18-24",
        "gender": "Female",
        "ethnicity": "Caucasian,Asian",
        "diagnoses": "Depression,Anxiety",
        "appropriate_uses": "Offering support,Recommending help (e.g., therapists, hotlines)",
        "attitude_accessibility": "Strongly Agree",
        "attitude_trust": "Very low trust",
        "importance_empathy": "4.5",
    }
    path = write_csv(
        tmp_path / "survey_UCLA.csv", [{respelled[name]: answers[name] for name in column}] * 2
    )
    first_survey, two = read_surveys([path], load_mapping("paper"))
    assert (first_survey.participant_id, two.participant_id) == ("ucla-0001", "ucla-0002")
    assert (
        first_survey.texts["population"] == "UCLA"
        and first_survey.texts["ethnicity"] == "Caucasian,Asian"
    )
    assert first_survey.group("ethnicity") == "White/Caucasian"  # "asian" ends another word
    assert first_survey.lists["appropriate_uses"] == (
        "Offering support",
        "Recommending help (e.g., therapists, hotlines)",
    )
    assert (
        first_survey.ratings["attitude_accessibility"],
        first_survey.ratings["attitude_trust"],
    ) == (5.0, 1.0)
    with pytest.raises(
        UserError, match=r"other.csv: nothing gives the population: .* \(\*ucla\*, \*prolific\*\)"
    ):
        read_surveys([path.rename(tmp_path / "other.csv")], load_mapping("paper"))


def test_what_a_survey_does_not_ask_costs_no_quality(tmp_path):
    content = copy.deepcopy(load_yaml(builtin("personas", "canonical")))
    content["fields"] |= dict.fromkeys(("diagnoses", "severity", *ATTITUDES), None)
    row = {**survey_rows(1, seed=0)[0], "treatment": "Therapy"}
    asked = {
        name: text
        for name, text in row.items()
        if name not in ("diagnoses", "severity", *ATTITUDES)
    }
    mapping = load_mapping(write_mapping(tmp_path / "short.yaml", content))
    (survey,) = read_surveys([write_csv(tmp_path / "short.csv", [asked])], mapping)
    assert survey.unasked == {"diagnoses", "severity", *ATTITUDES}
    assert {name: quality(survey)[name] for name in ("completeness", "consistency")} == {
        "completeness": 1,
        "consistency": 1,
    }


def changed(path: str, value: Any) -> dict[str, Any]:
    """Return the other survey's mapping with one thing changed; a dot parts keys."""
    content = copy.deepcopy(OTHER)
    *outer, last = path.split(".")
    inner = content
    for key in outer:
        inner = inner[key]
    inner[last] = value
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed("feilds", {}), r"other.yaml: unknown key 'feilds'; did you mean 'fields'\?"),
        (changed("fields.gendr", "Q2"), r"fields: unknown key 'gendr'; did you mean 'gender'\?"),
        (
            changed("fields.age.band", [18]),
            r"fields, age: unknown key 'band'; did you mean 'bands'\?",
        ),
        (changed("fields.gender.ticks", {}), r"fields, gender: unknown key 'ticks'"),
        (
            changed("fields.attitude_trust.scale", "agrement"),
            r"no scale 'agrement' under scales; did you mean 'agree",
        ),
        (
            changed("files.x", {"populaton": "A"}),
            r"files, x: unknown key 'populaton'; did you mean 'population'\?",
        ),
        (
            changed("fields.gender.values", {"M": "Male", "m ": "Female"}),
            (
                r"fields, gender, values: 'm ' stands there twice, in other capitals or spaces;"
                r" leave one out"
            ),
        ),
        (
            changed("scales.agreement", {"Agree": 4, "agree": 5}),
            r"scales, agreement: 'agree' stands there twice",
        ),
        (
            changed("fields.diagnoses", {"ticks": {"Q6": "A", "q6": "B"}}),
            r"diagnoses, ticks: 'q6' stands there twice",
        ),
        (changed("fields.gender", None), r"fields, gender cannot be null"),
        (changed("fields.age.bands", [25, 18]), r"fields, age: bands must be rising ages"),
        (
            changed("fields.diagnoses.column", "Q6"),
            r"fields, diagnoses must have exactly one of column or ticks",
        ),
        (changed("fields.diagnoses", {"ticks": {}}), r"ticks must name at least one column"),
        (
            changed("scales.agreement", {"Agree": 6}),
            r"attitude_accessibility must be from 1 to 5 in whole numbers, not '6'",
        ),
        (
            changed("fields.gender.values", {True: "x"}),
            r"a bare yes, no, true or false is no text to YAML",
        ),
        (changed("fields.ethnicity", ["Q3"]), r"fields, ethnicity: expected a text, not \['Q3'\]"),
        (changed("fields", None), r"other.yaml: fields must be a mapping, not nothing"),
        (changed("skip_rows", -1), r"skip_rows must be a whole number of rows, not -1"),
        (changed("missing", "n/a"), r"missing must be a list of answers"),
        (changed("separator", ""), r"separator must be a text"),
        (
            {
                **OTHER,
                "fields": {
                    k: v for k, v in OTHER["fields"].items() if k not in ("severity", "treatment")
                },
            },
            r"fields says nothing of severity, treatment; give each its column, or null",
        ),
        (
            {**OTHER, "fields": OTHER["fields"] | dict.fromkeys(IMPORTANCES, None)},
            r"at least one importance rating",
        ),
    ],
)
def test_a_wrong_mapping_is_named_with_its_place(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        load_mapping(write_mapping(tmp_path / "other.yaml", content))


@pytest.mark.parametrize(
    ("column", "answer", "message"),
    [
        (
            "How old  are you? ",
            "17",
            "row 2: age must be a whole number of years from 18, not '17'",
        ),
        ("How old  are you? ", "young", "row 2: age must be a whole number of years"),
        (
            "Q_attitude_trust",
            "Agreee",
            r"row 2: attitude_trust: 'Agreee' is not among the answers of .*'agree'\?",
        ),
        (
            "Q_attitude_trust",
            "What I never told anybody before",
            "a text of 32 characters is not among the answers",
        ),
        (
            "How old  are you? ",
            "9" * 400,
            "age must be a whole number of years from 18, not a text of 400 characters",
        ),
        ("Q_importance_empathy", "10", "row 2: importance_empathy must be from 1 to 5"),
    ],
)
def test_a_wrong_answer_is_named_without_anybodys_words(tmp_path, column, answer, message):
    row = other_row(survey_rows(1, seed=0)[0])
    path = write_csv(
        tmp_path / "panel.csv", [row, row | {column: answer, "ResponseId": "somebody@example.org"}]
    )
    with pytest.raises(UserError, match=message) as error:
        read_surveys([path], load_mapping(write_mapping(tmp_path / "other.yaml", OTHER)))
    assert "never told" not in str(error.value) and "somebody" not in str(error.value)


def test_missing_columns_are_named_with_their_fields(tmp_path):
    mapping = load_mapping(write_mapping(tmp_path / "other.yaml", OTHER))
    row = other_row(survey_rows(1, seed=0)[0])
    path = write_csv(
        tmp_path / "panel.csv", [{"Q5_": "", **{k: v for k, v in row.items() if k != "Q5"}}]
    )
    with pytest.raises(
        UserError,
        match=r"panel.csv lacks the column Q5 \(treatment\) of the mapping other; did you mean",
    ):
        read_surveys([path], mapping)
    write_survey(path, participants=2, seed=0)
    with pytest.raises(
        UserError,
        match=r"How old are you\? \(age\), .* and \d+ more of the mapping other; its columns",
    ):
        read_surveys([path], mapping)
    with pytest.raises(UserError, match=r"has no rows below the 1 that .* skips"):
        read_surveys([write_csv(path, [row])], mapping)


@given(st.lists(st.text("ab ,(é", min_size=1), min_size=1), st.sampled_from([";", "|", "\n", "::"]))
def test_a_list_is_parted_where_it_was_joined(parts, separator):
    parts = [" ".join(sentence.split()) for sentence in parts if sentence.strip()]
    assert entries(separator.join(parts), FieldSource(separator=separator)) == parts


def test_a_separator_inside_parentheses_or_a_known_answer_does_not_part():
    source = FieldSource(separator=",", values={"yes, often": "often", "yes": "yes"})
    assert entries("help (e.g., a, b), Yes, often,yes,(open, no", source) == [
        *("help (e.g., a, b)", "Yes, often", "yes", "(open", "no"),
    ]


@given(st.integers(0, 120))
def test_an_age_is_in_its_band(age):
    label = band(age, (18, 25, 35))
    expected = None if age < 18 else "18-24" if age < 25 else "25-34" if age < 35 else "35+"
    assert label == expected


def test_a_group_is_the_first_whose_word_begins_a_word():
    groups = {"hispanic": "H", "asian": "A", "white": "W"}
    assert [group_of(t, groups) for t in ("White,Hispanic", "Caucasian", "South ASIAN", "-")] == [
        "H",
        "Other",
        "A",
        "Other",
    ]
    assert len(LISTS) == 4


def test_the_mapping_in_the_docs_and_every_one_of_ours_is_valid(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "personas.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "shown.yaml").write_text(example, encoding="utf-8")
    assert load_mapping(tmp_path / "shown.yaml").unasked(["population"]) == {"severity"}
    ours = sorted(path.stem for path in builtin("personas", "canonical").parent.glob("*.yaml"))
    assert ours == ["canonical", "paper"] and all(load_mapping(name).sources for name in ours)


def ticked(tmp_path: Path, cell: str) -> tuple[str, ...]:
    row = survey_rows(1, seed=3)[0]
    del row["diagnoses"]
    fields = {name: name for name in COLUMNS} | {"diagnoses": {"ticks": {"Q6_1": "Depression"}}}
    mapping = write_mapping(tmp_path / "m.yaml", {"fields": fields, "missing": ["not shown"]})
    (participant,) = read_surveys(
        [write_csv(tmp_path / "s.csv", [row | {"Q6_1": cell}])], load_mapping(mapping)
    )
    return participant.lists["diagnoses"]


def test_a_box_is_ticked_where_its_cell_says_so_and_nowhere_else(tmp_path):
    for yes in ("1", "1.0", "Yes", "y", "TRUE", "x", "Selected", "checked", "depression"):
        assert ticked(tmp_path, yes) == ("Depression",), yes
    for no in (
        "",
        "0",
        "0.0",
        "N",
        "No",
        "False",
        "NaN",
        "NA",
        "None",
        "-",
        "Not Selected",
        "Unchecked",
        "-99",
        "not shown",
    ):
        assert ticked(tmp_path, no) == (), no
    for unknown in ("2", "maybe", "Anxiety", "WITHDRAWN"):
        with pytest.raises(
            UserError, match=rf"s\.csv, row 1: the box 'Q6_1' holds '{unknown}', which is neither"
        ):
            ticked(tmp_path, unknown)


def test_a_box_whose_entry_reads_like_an_empty_cell_is_ticked_or_not_as_the_mapping_says(tmp_path):
    row = survey_rows(1, seed=0)[0]
    del row["diagnoses"]
    path = write_csv(tmp_path / "s.csv", [row | {"Q6_9": "None"}])

    def diagnoses(said: dict, **more: list) -> tuple[str, ...]:
        fields = {name: name for name in COLUMNS} | {
            "diagnoses": {"ticks": {"Q6_9": "None"}} | said
        }
        mapping = write_mapping(tmp_path / "m.yaml", {"fields": fields} | more)
        return read_surveys([path], load_mapping(mapping))[0].lists["diagnoses"]

    with pytest.raises(
        UserError,
        match=r"s\.csv, row 1: the box 'Q6_9' holds 'None', which is its entry's text and",
    ):
        diagnoses({})
    assert diagnoses({}, missing=["None"]) == ()
    assert diagnoses({"values": {"None": "No diagnosis"}}) == ("No diagnosis",)
