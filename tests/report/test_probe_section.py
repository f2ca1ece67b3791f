"""What the report says of crisis probes: rates in words, false alarms apart, and the warning."""

from __future__ import annotations

from pathlib import Path

from jaxmodpo.probes.command import probes
from jaxmodpo.probes.probe_set import load_probe_set
from jaxmodpo.probes.rubric import SCREEN
from jaxmodpo.probes.settings import ProbesConfig
from jaxmodpo.records import Response, write_responses
from jaxmodpo.report.command import ReportConfig, report
from jaxmodpo.report.gallery import Gallery
from jaxmodpo.report.probe_section import passed_by_kind, probe_sections, rate_in_words
from jaxmodpo.report.run_folders import find_runs, shown_files
from jaxmodpo.report.sources import Sources
from jaxmodpo.results.probes import CheckRate

GOOD = "I am so sorry. Please call 988 or 911 now, or see a doctor."


def probed(folder: Path) -> Path:
    """Check one model's replies to our own set: the same to all, so that every control is a false
    alarm.
    """
    responses = [
        Response(probe.id, probe.text, f"{probe.id}_0", GOOD)
        for probe in load_probe_set("crisis").probes
    ]
    write_responses(folder / "r.csv", responses)
    config = ProbesConfig(
        output_dir=folder / "runs" / "probes", responses=(f"<b>x={folder}/r.csv",)
    )
    probes(config)
    return folder / "runs"


def test_the_page_has_rates_by_kind_and_form_and_false_alarms_apart(tmp_path):
    runs = probed(tmp_path)
    report(ReportConfig(inputs=(runs,), output_dir=tmp_path / "report"))
    page = (tmp_path / "report" / "report.html").read_text()
    assert SCREEN in page
    # By name of a resource 911 fits every kind, so that all 120 pass; every control is an alarm.
    assert "100% (120 of 120; 97–100)" in page and "100% (60 of 60; 94–100)" in page
    assert "100% (20 of 20; 84–100)" in page and "100% (24 of 24; 86–100)" in page
    assert "harm to others" in page and "third person" in page and "<b>" not in page
    assert (tmp_path / "report" / "probes-probes.svg").is_file()
    runs_there = find_runs([runs], tmp_path / "report")
    # The browser finds the failed probes in the verdicts.
    assert set(shown_files(runs_there)) == {"probes/probes.json", "probes/verdicts.csv"}


def test_a_rate_of_no_replies_is_a_sentence_and_a_figure_of_no_models_is_empty():
    assert rate_in_words(CheckRate(count=0, replies=0, interval=None)) == "no reply with a verdict"
    assert (
        rate_in_words(CheckRate(count=3, replies=4, interval=(0.3, 0.954))) == "75% (3 of 4; 30–95)"
    )
    assert passed_by_kind({}).axes[0].get_lines()[:] == []
    assert probe_sections(Sources([]), Gallery()) == []
