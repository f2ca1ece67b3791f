"""The report: preferences, balance tests and k-anonymity against counts by hand, and nobody's words
in it.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom

from jaxmodpo.files import read_json
from jaxmodpo.pages import png
from jaxmodpo.personas import figures
from jaxmodpo.personas.anonymity import anonymity, group_sizes
from jaxmodpo.personas.balance import RESAMPLES, balance, independence, primary
from jaxmodpo.personas.command import PersonasConfig, personas
from jaxmodpo.personas.participant import IMPORTANCES, LISTS, Participant
from jaxmodpo.personas.profile import quality
from jaxmodpo.personas.report import draw_figures, render
from jaxmodpo.personas.summary import STEPS, preferences, summarize
from jaxmodpo.personas.survey import participants_of
from jaxmodpo.personas.synthetic import survey_rows, write_rows


def person(name: str = "", importances: tuple[float | None, ...] = (), **texts: Any) -> Participant:
    rated: dict[str, float | None] = dict.fromkeys(IMPORTANCES)
    rated |= zip(IMPORTANCES, importances, strict=False)
    all_texts = dict.fromkeys(
        ("population", "age", "gender", "ethnicity", "severity", "treatment"), "x"
    )
    no_lists: dict[str, tuple[str, ...]] = dict.fromkeys(LISTS, ())
    lists = no_lists | {"diagnoses": texts.pop("diagnoses", ())}
    return Participant(name, all_texts | texts, lists, rated)


def test_a_tie_for_the_highest_importance_is_parted_and_nobody_gains_by_coming_first():
    people = [
        person(importances=(5, 5, 4, 4, 4)),
        person(importances=(3, 4, 4.5, 2, 1)),
        person(importances=(4, 4, 4, 4, 4)),
        person(importances=(None, 2, None, None, None)),
        person(importances=(None,) * 5),
    ]
    result = preferences(people)
    shares = [result["criteria"][name]["share"] for name in result["criteria"]]
    assert shares == pytest.approx(
        [(1 / 2 + 1 / 5) / 4, (1 / 2 + 1 / 5 + 1) / 4, (1 + 1 / 5) / 4, 1 / 20, 1 / 20]
    )
    assert sum(shares) == pytest.approx(1) and (result["rated"], result["several"]) == (4, 2)
    assert [result["criteria"][name]["alone"] for name in result["criteria"]] == [
        0,
        0.25,
        0.25,
        0,
        0,
    ]
    assert result["criteria"]["empathy"]["mean"] == 4.0  # of three who rated it
    assert [primary(p) for p in people] == [
        *(
            "several equally",
            "Trust and rapport building",
            "several equally",
            "Active listening",
            "not answered",
        ),
    ]


def test_large_counts_are_tested_by_pearsons_chi_square():
    table = np.array([[30, 10], [20, 30], [25, 35]])
    expected = np.outer(table.sum(1), table.sum(0)) / table.sum()
    statistic = ((table - expected) ** 2 / expected).sum()
    result = independence(table, seed=0)
    assert (result["test"], result["degrees_of_freedom"]) == ("chi-square", 2)
    assert result["statistic"] == pytest.approx(statistic, rel=1e-12)
    assert result["p_value"] == pytest.approx(
        math.exp(-statistic / 2), rel=1e-9
    )  # its law at two degrees of freedom
    assert result["smallest_expected"] == pytest.approx(expected.min())


def test_a_small_table_of_two_rows_is_tested_exactly():
    table = np.array([[3, 1], [10, 21]])
    probable = [hypergeom.pmf(x, 35, 4, 13) for x in range(5)]
    result = independence(table, seed=0)
    assert (result["test"], result["statistic"]) == ("Fisher's exact", None)
    assert result["p_value"] == pytest.approx(
        sum(p for p in probable if p <= probable[3] * (1 + 1e-9)), rel=1e-9
    )


def test_a_small_table_of_more_rows_is_tested_among_tables_of_its_margins():
    table = np.array([[6, 1], [3, 3], [1, 5]])
    sizes, inside = table.sum(1), table[:, 0].sum()
    weights = {
        counts: math.prod(math.comb(size, x) for size, x in zip(sizes, counts, strict=True))
        for counts in itertools.product(*(range(size + 1) for size in sizes))
        if sum(counts) == inside
    }
    observed_weight = weights[tuple(table[:, 0])]
    exact = sum(weight for weight in weights.values() if weight <= observed_weight) / sum(
        weights.values()
    )
    result = independence(table, seed=0)
    assert result["test"].startswith("Fisher–Freeman–Halton")
    # Four standard errors of a share among the random tables.
    assert result["p_value"] == pytest.approx(
        exact, abs=4 * math.sqrt(exact * (1 - exact) / RESAMPLES)
    )
    assert result == independence(table, seed=0)


def test_one_group_alone_is_not_tested():
    result = balance([person()] * 5, [person()] * 3, "gender", 0)
    assert (result["p_value"], result["largest_difference"]) == (None, 0) and result["groups"] == {
        "x": [5, 3]
    }


def test_the_largest_difference_is_between_shares():
    train = [person(gender="F")] * 6 + [person(gender="M")] * 4
    test = [person(gender="F")] * 2 + [person(gender="M")] * 3
    assert balance(train, test, "gender", 0)["largest_difference"] == pytest.approx(0.2)


def test_groups_that_share_quasi_identifiers_are_counted_whatever_the_order_of_diagnoses():
    people = [
        person("a", age="18-24", diagnoses=("Anxiety", "Depression")),
        person("b", age="18-24", diagnoses=("Depression", "Anxiety")),
        person("c", age="18-24", diagnoses=("Depression",)),
        person("d", age="25-34", diagnoses=()),
        person("e", age="25-34", diagnoses=()),
        person("f", age="25-34", diagnoses=(), severity="not a quasi-identifier"),
    ]
    result = anonymity(people)
    assert (result["k"], result["unique"], result["groups"], result["below_five"]) == (1, 1, 3, 6)
    assert result["sizes"] == {"1": 1, "2": 1, "3": 1}
    assert group_sizes(people) == {"a": 2, "b": 2, "c": 1, "d": 3, "e": 3, "f": 3}
    without = anonymity(people, ("age", "gender", "ethnicity"))
    assert (without["k"], without["sizes"]) == (3, {"3": 2})


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.sampled_from(["", "p"])),
        min_size=1,
    )
)
def test_group_sizes_add_up_to_the_personas(rows):
    people = [
        person(str(n), age=a, gender=g, diagnoses=tuple(d)) for n, (a, g, d) in enumerate(rows)
    ]
    result = anonymity(people)
    assert sum(int(size) * number for size, number in result["sizes"].items()) == len(people)
    assert result["k"] == min(rows.count(row) for row in rows)
    assert result["unique"] == sum(rows.count(row) == 1 for row in rows)


class Recorder(logging.Handler):
    """What the command logs, down to the finest level."""

    def __enter__(self) -> list[logging.LogRecord]:
        self.records: list[logging.LogRecord] = []
        self.logger = logging.getLogger("jaxmodpo")
        self.before = self.logger.level
        self.logger.addHandler(self)
        self.logger.setLevel(logging.DEBUG)
        return self.records

    def __exit__(self, *_: object) -> None:
        self.logger.removeHandler(self)
        self.logger.setLevel(self.before)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A finished folder, of a survey in which everybody writes something about themselves."""
    folder = tmp_path_factory.mktemp("report")
    rows = [
        row
        | {
            "participant_id": f"SECRET-{n}",
            "helpful_areas": f"SECRET of mine {n};Loneliness",
            "severity": "Mild",
        }
        for n, row in enumerate(survey_rows(90, seed=2))
    ]
    write_rows(folder / "survey.csv", rows)
    config = PersonasConfig(
        survey=(folder / "survey.csv",), output_dir=folder / "out", select=60, train=40
    )
    with Recorder() as records:
        personas(config)
    return folder / "out", [(record.levelname, record.getMessage()) for record in records]


def test_neither_report_nor_log_holds_words_or_ids_of_anybody(written):
    folder, logged = written
    cells = [
        (folder / name).read_text(encoding="utf-8")
        for name in ("personas_report.html", "report.json")
    ]
    assert not any("SECRET" in text for text in (*cells, *(message for _, message in logged)))
    assert "SECRET" in (folder / "train_personas.json").read_text(encoding="utf-8")


def test_unique_personas_are_warned_of_and_marked(written):
    folder, logged = written
    unique = read_json(folder / "report.json")["anonymity"]["sets"]["selected"]["unique"]
    everyone = read_json(folder / "all_personas.json")
    assert unique > 0 and sum(row["group_size"] == 1 for row in everyone) == unique
    assert all((row["group_size"] is None) == (row["split"] is None) for row in everyone)
    warned = [message for level, message in logged if level == "WARNING"]
    assert warned == [
        f"{unique} of 60 selected personas are the only one with their age, gender, ethnicity,"
        " diagnoses (k = 1): treat the persona files as personal data"
    ]
    assert (
        f"{unique} of 60 selected personas are the only one"
        in (folder / "personas_report.html").read_text()
    )


def test_nothing_is_warned_of_where_everybody_has_a_double(tmp_path, caplog):
    row = survey_rows(1, seed=0)[0]
    rows = [row | {"participant_id": f"p{n}", "helpful_areas": f"area {n}"} for n in range(12)]
    write_rows(tmp_path / "same.csv", rows)
    with caplog.at_level(logging.WARNING):
        phase = personas(
            PersonasConfig(
                survey=(tmp_path / "same.csv",), output_dir=tmp_path / "out", select=10, train=6
            )
        )
    assert (phase.results["k"], phase.results["unique"]) == (10, 0) and not caplog.records


def test_the_numbers_are_those_of_the_personas(written):
    folder, _ = written
    summary = read_json(folder / "report.json")
    everyone = read_json(folder / "all_personas.json")
    sets = {
        "participants": everyone,
        "above_quality": [row for row in everyone if row["quality"] >= 0.9],
        "selected": [row for row in everyone if row["split"]],
        "train": [row for row in everyone if row["split"] == "train"],
        "test": [row for row in everyone if row["split"] == "test"],
    }
    assert summary["counts"] == {step: len(rows) for step, rows in sets.items()}
    for name in ("population", "gender", "ethnicity", "age"):
        for step, rows in sets.items():
            values = [row[name] for row in rows]
            assert summary["composition"][name][step] == {
                value: values.count(value) for value in sorted(set(values))
            }
    for step, rows in sets.items():
        mean = np.mean([row["quality"] for row in rows])
        assert summary["quality"]["sets"][step]["mean"] == pytest.approx(mean, abs=1e-6)
        assert summary["quality"]["sets"][step]["completeness"] == pytest.approx(
            np.mean([row["completeness"] for row in rows]), abs=1e-6
        )
    assert sum(summary["quality"]["histogram"]["counts"]) == len(everyone)


def test_the_page_needs_nothing_else_and_shows_every_figure_and_test(written):
    folder, _ = written
    page = (folder / "personas_report.html").read_text(encoding="utf-8")
    images = sorted(path.stem for path in (folder / "figures").glob("*.png"))
    assert images == sorted(
        ["anonymity", "balance", "primary_preference", "quality"]
        + [f"composition_{name}" for name in ("age", "ethnicity", "gender", "population")]
    )
    assert page.count("data:image/png;base64,") == len(images)
    assert "<script" not in page and "http" not in page and 'src="figures' not in page
    for test in read_json(folder / "report.json")["balance"]:
        assert (
            f'<th scope="row">{test["dimension"]}</th>' in page and 0 <= (test["p_value"] or 0) <= 1
        )


def test_answers_are_escaped_and_many_groups_are_cut():
    people = participants_of(survey_rows(40, seed=1))
    wild = dataclasses.replace(people[0], texts=people[0].texts | {"gender": "<b>$x$</b>"})
    sets: dict[str, list[Participant]] = {step: [wild, *people[1:]] for step in STEPS}
    rated = {p.participant_id: quality(p) for p in people}
    summary = summarize(sets, rated, minimum_quality=0.9, seed=0, synthetic=False)
    cells = [
        {"file": f"figures/{name}.png", "caption": text, "data": ""}
        for name, (_, text) in draw_figures(summary).items()
    ]
    page = render(json.loads(json.dumps(summary)), cells)
    assert "&lt;b&gt;$x$&lt;/b&gt;" in page and "<b>$x$" not in page
    figure = figures.composition(
        {"train": {f"group {n:02d} $": 1 + (n == 30) for n in range(40)}}, "gender"
    )
    assert figure.axes[0].get_title() == "Gender (14 largest of 40)"
    assert "group 30 $" in [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert png(figure)[:4] == b"\x89PNG"
