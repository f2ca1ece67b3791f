"""Votes that somebody else collected, from their file to a page in a browser."""

from __future__ import annotations

import pytest
from chromium import Browser

from jaxmodpo.evaluation.collected import COLLECTED
from jaxmodpo.evaluation.head_to_head import EvaluateConfig, evaluate
from jaxmodpo.files import write_json
from jaxmodpo.report.command import ReportConfig, report


@pytest.mark.slow(seconds=8)
def test_a_page_of_collected_votes_opens_and_says_what_is_missing(tmp_path):
    rows = [
        {"question_id": n, "model1_votes": n, "model2_votes": 10 - n, "winner": "x"}
        for n in range(11)
    ]
    write_json(tmp_path / "x_vs_y" / "empathy_results.json", rows)
    out = tmp_path / "runs" / "collected"
    evaluate(EvaluateConfig(votes=(tmp_path / "x_vs_y",), output_dir=out, bootstrap=50))
    report(ReportConfig(inputs=(tmp_path / "runs",), output_dir=tmp_path / "report"))
    with Browser() as browser:
        page = browser.open(tmp_path / "report" / "report.html", width=375)
        text = page.value("document.body.innerText")
        questions = page.value("document.querySelectorAll('.question').length")
        assert page.messages == []
        controls = ".filters select[name=group], option[value=toxic], option[value=probe]"
        assert page.value(f"document.querySelectorAll({controls!r}).length") == 0
        assert page.value("document.documentElement.scrollWidth") <= 375
    assert questions == 11
    assert COLLECTED in text
    assert "the manifest of collected names no file of replies of x" in text
    for heading in ("Length", "Groups of personas", "Personas"):
        assert heading not in text, "what needs replies or personas is not there"
    assert "nan" not in text.lower().split() and "None" not in text.split()
