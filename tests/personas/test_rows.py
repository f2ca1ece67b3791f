"""Rows of exports that are nobody's: left out and counted by the mapping, refused where it says
nothing.
"""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

from jaxmodpo.errors import UserError
from jaxmodpo.files import read_json
from jaxmodpo.personas.command import PersonasConfig, personas
from jaxmodpo.personas.mapping import load_mapping
from jaxmodpo.personas.participant import COLUMNS, Participant
from jaxmodpo.personas.rows import LeftOut
from jaxmodpo.personas.survey import read_surveys
from jaxmodpo.personas.synthetic import survey_rows

FIELDS = {name: name for name in COLUMNS}


def export(folder: Path, extra: list[dict[str, str]], labels: dict[str, str] | None = None) -> Path:
    """Write a survey whose rows have further columns."""
    rows = [row | more for row, more in zip(survey_rows(len(extra), seed=5), extra, strict=True)]
    header = {column: column for column in rows[0]} | labels if labels else None
    with (folder / "export.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows([*([header] if header else []), *rows])
    return folder / "export.csv"


def read(
    folder: Path, extra: list[dict[str, str]], **said: Any
) -> tuple[list[Participant], LeftOut]:
    labels = said.pop("labels", None)
    (folder / "map.yaml").write_text(
        yaml.safe_dump({"fields": FIELDS} | said, sort_keys=False), encoding="utf-8"
    )
    left_out = LeftOut()
    return (
        read_surveys([export(folder, extra, labels)], load_mapping(folder / "map.yaml"), left_out),
        left_out,
    )


QUALTRICS = [
    {"Status": "IP Address", "Finished": "True", "Consent": "I agree"},
    {"Status": "Survey Preview", "Finished": "True", "Consent": "I agree"},
    {"Status": "Spam", "Finished": "False", "Consent": ""},
    {"Status": "IP Address", "Finished": "False", "Consent": "I agree"},
    {"Status": "IP Address", "Finished": "1", "Consent": "I do not agree"},
    {"Status": "ip address", "Finished": "true", "Consent": "I  AGREE"},
]


def test_rows_are_left_out_by_rule_and_counted(tmp_path):
    rows, left_out = read(
        tmp_path,
        QUALTRICS,
        drop={"status": ["Survey Preview", "Spam"], "Finished": [False]},
        keep={"Consent": "I agree"},
    )
    assert [p.participant_id for p in rows] == ["p0000", "p0005"]
    assert left_out.summary() == {
        "rows": 6,
        "left_out": 4,
        "by_rule": {
            "drop Status: Survey Preview": 1,
            "drop Status: Spam": 1,
            "drop Finished: no": 1,
            "not what keep says of Consent": 1,
        },
        "expired_answers": 0,
    }


def test_a_survey_of_rows_that_are_nobodys_is_refused_with_the_lines_to_add(tmp_path):
    with pytest.raises(UserError) as refused:
        read(tmp_path, QUALTRICS)
    assert (
        str(refused.value).removeprefix(str(tmp_path))
        == "/export.csv, from row 2: Status is 'Survey Preview' in 1, Status is 'Spam' in 1,"
        " Finished is 'False' in 2, Consent is '' in 1, Consent is 'I do not agree' in 1 of its"
        " rows, which are not known to be of people who finished and consented; give the mapping"
        " drop: {Status: ['Survey Preview', 'Spam'], Finished: ['False'], Consent: ['', 'I do"
        " not agree']} to leave them out, or name under keep, by column, every answer that"
        " counts"
    )
    # A rule that misses by a letter is no answer to it.
    with pytest.raises(UserError, match=r"Status is 'Survey Preview' in 1 of"):
        read(tmp_path, QUALTRICS[:2], drop={"Status": ["Survy Preview"]})


@pytest.mark.parametrize(
    ("column", "answer", "good"),
    [
        ("Status", "RETURNED", "APPROVED"),
        ("Status", "TIMED-OUT", "AWAITING REVIEW"),
        ("Status", "Rejected", "Approved"),
        ("DistributionChannel", "preview", "anonymous"),
        ("Finished", "0", "1"),
        ("Finished", "", "TRUE"),
        ("Progress", "45", "100"),
        ("consent_revoked", "true", "false"),
        ("CONSENT_REVOKED", "2026-03-01", ""),
        ("Consent", "2", "1"),
        ("informed_consent", "NA", "Yes"),
        ("consented_at", "", "2026-03-01"),
        ("consent_date", "", "2026-03-01"),
        ("Consent signature", "", "A. B."),
        ("Do you consent to take part?", "No", "Yes"),
        ("I agree to take part", "No", "Yes"),
        ("Distribution Channel", "preview", "anonymous"),
        ("Response Type", "Survey Preview", "IP Address"),
        ("submission_status", "RETURNED", "APPROVED"),
        ("Status", "withdrawn", "Complete"),
        ("Status", "Survey Preview (spam)", "Imported"),
        ("Status", "Partial Complete", "Complete"),
        ("Is Finished", "False", "True"),
        ("Completed?", "No", "Yes"),
        ("survey_complete", "0", "2"),
        ("submitdate", "", "2026-03-01"),
        ("Progress", "99.5", "100"),
        ("Progress", "50%", "100%"),
        ("Progress", "", "100.0"),
    ],
)
def test_what_well_known_columns_call_no_participant_is_not_passed_over(
    tmp_path, column, answer, good
):
    rows = [{column: good}, {column: answer}]
    with pytest.raises(
        UserError, match=r"export.csv, from row 2: .* in 1 of its rows, which are not known"
    ):
        read(tmp_path, rows)
    assert len(read(tmp_path, rows, drop={column: [answer]})[0]) == 1
    assert len(read(tmp_path, rows, keep={column: [good, answer]})[0]) == 2
    assert len(read(tmp_path, [{column: good}] * 2)[0]) == 2


def test_codes_are_read_where_the_columns_are_qualtrics_and_consent_by_its_question(tmp_path):
    assert len(read(tmp_path, [{"Status": "1"}])[0]) == 1
    with pytest.raises(UserError, match="Status is '8' in 1"):
        read(tmp_path, [{"Status": "8", "ResponseId": "R_1"}])
    with pytest.raises(UserError, match="Q1 is 'I do not' in 1"):
        read(
            tmp_path,
            [{"Q1": "I do not"}],
            labels={"Q1": "Do you consent to this study?"},
            skip_rows=1,
        )
    assert len(read(tmp_path, [{"consent_date": "2026-03-01", "Q3": "4"}])[0]) == 1
    with pytest.raises(
        UserError, match=r"row 1: Qualtrics names its columns in this row.*skip_rows: 1"
    ):
        read(tmp_path, [{"Q1": "Yes"}], labels={"Q1": json.dumps({"ImportId": "QID1"})})


@pytest.mark.parametrize(
    ("column", "answers"),
    [
        ("Status", ["Student", "Employed full time", "Returned to work"]),
        ("consent_version", ["2", ""]),
        ("consent_date", ["", ""]),
        ("Consent_First Click", ["1.2", "3.4"]),
        ("Would you agree to take part in a follow-up?", ["No", "Yes"]),
    ],
)
def test_what_only_looks_like_a_well_known_column_is_passed_over(tmp_path, column, answers):
    assert len(read(tmp_path, [{column: answer} for answer in answers])[0]) == len(answers)


def test_codes_are_read_as_whole_numbers(tmp_path):
    with pytest.raises(UserError, match=r"Status is '8\.0' in 1"):
        read(tmp_path, [{"Status": "8.0", "Response ID": "R_1"}])


@pytest.mark.parametrize("rule", ["keep", "drop"])
def test_a_rule_of_a_column_that_another_spelling_names_is_refused(tmp_path, rule):
    with pytest.raises(
        UserError,
        match=rf"map.yaml: {rule}: 'status' stands there twice, in other capitals or spaces",
    ):
        read(tmp_path, QUALTRICS, **{rule: {"Status": ["IP Address"], "status": ["Spam"]}})


def test_a_rule_of_another_shape_or_column_is_refused_by_name(tmp_path):
    with pytest.raises(
        UserError,
        match=(
            "lacks the column 'Finishd' that drop names in the mapping map; did you mean 'Finished'"
        ),
    ):
        read(tmp_path, QUALTRICS, drop={"Finishd": ["False"]})
    with pytest.raises(UserError, match=r"map.yaml: keep must be a mapping, not \['Consent'\]"):
        read(tmp_path, QUALTRICS, keep=["Consent"])
    with pytest.raises(UserError, match=r"map.yaml: keep, Consent: name at least one answer"):
        read(tmp_path, QUALTRICS, keep={"Consent": []})
    with pytest.raises(
        UserError, match=r"all of its 1 rows were left out: not what keep says of Consent \(1\)"
    ):
        read(tmp_path, QUALTRICS[:1], keep={"Consent": ["Yes"]})


def test_who_withdrew_is_left_out_and_what_is_no_answer_is_none(tmp_path):
    extra = [
        {"gender": "CONSENT_REVOKED"},
        {"gender": "NA"},
        {"gender": "Prefer not to say"},
        {"age": "DATA_EXPIRED"},
    ]
    extra += [{"ethnicity": "n/a"}, {"diagnoses": "Anxiety;Prefer not to say"}, {"diagnoses": "NA"}]
    rows, left_out = read(tmp_path, [*extra, {}])
    by_id = {p.participant_id: p for p in rows}
    assert sorted(by_id) == [f"p{n:04d}" for n in range(1, 8)]
    assert (
        by_id["p0001"].texts["gender"]
        == by_id["p0002"].texts["gender"]
        == by_id["p0003"].texts["age"]
        == ""
    )
    assert by_id["p0004"].texts["ethnicity"] == ""
    assert (by_id["p0005"].lists["diagnoses"], by_id["p0006"].lists["diagnoses"]) == (
        ("Anxiety",),
        (),
    )
    codes = [
        {"gender": code} for code in ("-99", "-999.0", ".", "-", "Missing", "#NULL!", "No answer")
    ]
    assert {p.texts["gender"] for p in read(tmp_path, codes)[0]} == {""}
    assert (left_out.by_rule, left_out.expired) == ({"CONSENT_REVOKED": 1}, 1)
    fields = FIELDS | {
        "gender": {"column": "gender", "values": {"Prefer not to say": "Undisclosed"}}
    }
    rows, _ = read(tmp_path, extra, fields=fields)
    assert rows[1].texts["gender"] == "Undisclosed"


def test_log_manifest_and_report_say_what_was_left_out(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("jaxmodpo.personas.report.png", lambda figure: b"")
    extra = [{"Status": "Spam" if n < 3 else "IP Address"} for n in range(60)]
    extra[9]["gender"] = "DATA_EXPIRED"
    (tmp_path / "map.yaml").write_text(
        yaml.safe_dump({"fields": FIELDS, "drop": {"Status": "Spam"}})
    )
    extra = [
        {"gender": row["gender"]} | more
        for row, more in zip(survey_rows(60, seed=5), extra, strict=True)
    ]
    survey = export(tmp_path, extra)
    config = PersonasConfig(
        survey=(survey,),
        mapping=str(tmp_path / "map.yaml"),
        output_dir=tmp_path / "out",
        select=30,
        train=20,
    )
    with caplog.at_level(logging.INFO):
        results = personas(config).results
    for name in ("train_personas.json", "test_personas.json", "all_personas.json"):
        assert (tmp_path / "out" / name).stat().st_mode & 0o777 == 0o600, name
    expected = {
        "rows": 60,
        "left_out": 3,
        "by_rule": {"drop Status: Spam": 3},
        "expired_answers": 1,
    }
    assert results["survey"] == read_json(tmp_path / "out" / "report.json")["survey"] == expected
    sentence = "3 of 60 survey rows were left out: drop Status: Spam (3)"
    assert f"{sentence}; 1 answers read DATA_EXPIRED and count as not given" in caplog.messages
    page = (tmp_path / "out" / "personas_report.html").read_text(encoding="utf-8")
    assert (
        f"<p>{sentence}.</p>" in page
        and "<p>1 answers read DATA_EXPIRED and count as not given.</p>" in page
    )
