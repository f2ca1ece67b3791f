"""The cards: what was trained on what, judged by whom, with which results, and what is unknown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, metadata_load
from right_results import EVALUATION, PROBES, TOXICITY

from jaxmodpo.files import write_json
from jaxmodpo.phase import Phase
from jaxmodpo.report.card_facts import gather_facts, license_of
from jaxmodpo.report.cards import escaped, render_card, write_cards
from jaxmodpo.report.command import ReportConfig, report
from jaxmodpo.report.run_folders import find_runs
from jaxmodpo.results.versioned import Result, write_result


@dataclass(frozen=True, kw_only=True)
class SomeSettings:
    model: str = ""
    seed: int = 3
    beta: float = 0.1
    judge: str = "rubric"
    scorer: str = ""
    judge_model: str = ""
    engine: str = "local"
    base_url: str = "https://api.openai.com/v1"


def finished(
    folder: Path,
    command: str,
    inputs: dict[str, Path],
    files: dict[str, Any] | None = None,
    figures: dict[str, Any] | None = None,
    **settings: Any,
) -> Path:
    """Write the folder of a finished run."""
    phase = Phase.open(command, SomeSettings(**settings), folder, inputs)
    for name, content in (files or {}).items():
        if isinstance(content, Result):
            write_result(folder / name, content)
        else:
            write_json(folder / name, content)
    phase.finish(**(figures or {}))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A base with a license, preferences of an endpoint, a training on them, an evaluation and
    probes.
    """
    base = tmp_path / "tiny|base"
    base.mkdir()
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\nA model.\n")
    posts = tmp_path / "posts.csv"
    posts.write_text("x")
    out = tmp_path / "runs"
    finished(
        out / "prefs",
        "preferences",
        {"responses": posts},
        {"pairs.json": [1]},
        {"judge": "endpoint x; model gpt", "questions": 8},
        judge="batch",
        judge_model="gpt",
    )
    finished(
        out / "dpo_1",
        "align dpo",
        {"model": base, "pairs": out / "prefs" / "pairs.json"},
        figures={"examples": 7, "updates": 9},
        model=str(base),
    )
    finished(out / "eval", "evaluate", {}, {"results.json": EVALUATION})
    finished(out / "probes", "probes", {}, {"probes.json": PROBES})
    finished(out / "toxicity", "toxicity", {}, {"toxicity.json": TOXICITY})
    return out


def facts_of(folder: Path) -> Any:
    return gather_facts(find_runs([folder], folder / "report"))


def test_a_model_card_says_what_was_trained_on_what_and_which_run_made_it(runs):
    facts = facts_of(runs)
    (model,) = facts.trained
    assert (model.name, model.method, model.base) == ("dpo_1", "align dpo", "tiny|base")
    assert model.settings == {"beta": 0.1, "seed": 3} | {}
    assert model.figures == {"examples": 7, "updates": 9}
    assert {given.name: given.made_by for given in model.inputs} == {"model": "", "pairs": "prefs"}
    card = render_card("MODEL_CARD.md", "Title", facts)
    assert "| dpo\\_1 | align dpo | tiny\\|base | beta: 0.1; seed: 3 |" in card
    assert "| dpo\\_1 | pairs | prefs |" in card
    interval = EVALUATION.intervals["x"]["safety"]
    rate = f"{100 * EVALUATION.models['x']['safety']:.1f}%"
    assert rate in card and (interval is None or f"{100 * interval[0]:.1f}–" in card)
    assert "**A screen.** Checked by rubric" in card and "100% (1 of 1; 20–100)" in card
    assert "no reply with a verdict" in card
    assert "**Read this first.** Scored by classifier. A reply is toxic by toxicity of 0.5" in card
    assert "| a | 1 of 3 (33.3%; 5.0–80.0) | 0.2500 (0.1000–0.4000) |" in card
    assert "## Excluded use" in card and "crisis support" in card


def test_what_left_the_machine_is_said_by_run_and_nothing_else_is_claimed(runs):
    facts = facts_of(runs)
    assert facts.departures == [
        "prefs (preferences) sent questions, replies and the profiles of the personas to gpt at"
        " https://api.openai.com/v1."
    ]
    for name in ("MODEL_CARD.md", "DATASHEET.md"):
        assert "sent questions, replies and the profiles" in render_card(name, "T", facts)
    finished(runs / "local", "evaluate", {}, judge="endpoint", base_url="http://localhost:8000/v1")
    finished(runs / "asked", "responses", {}, engine="endpoint", base_url="no address")
    finished(
        runs / "tox", "toxicity", {}, scorer="moderation", base_url="https://api.openai.com/v1"
    )
    finished(runs / "tox_here", "toxicity", {}, scorer="classifier", base_url="")
    later = facts_of(runs).departures
    assert [sentence.split()[0] for sentence in later] == ["asked", "prefs", "tox"]
    assert later[2].endswith("sent replies to moderation at https://api.openai.com/v1.")


def test_licenses_are_those_of_readme_files_and_else_unknown(runs, tmp_path):
    licenses = {Path(item.name).name: item.license for item in facts_of(runs).licenses}
    assert licenses == {"tiny|base": "apache-2.0", "posts.csv": "unknown"}
    for text in ("", "no block", "---\nlicense: [mit]\n---\n", "---\n: [\n---\n", "---\nx\n---\n"):
        folder = tmp_path / "other"
        folder.mkdir(exist_ok=True)
        (folder / "README.md").write_text(text)
        assert license_of(folder) == "unknown", text


def test_hugging_face_reads_the_metadata_block(runs, tmp_path):
    write_cards(tmp_path, 'A "title": {x} | <b>', find_runs([runs], tmp_path / "r"))
    metadata = metadata_load(tmp_path / "MODEL_CARD.md")
    assert metadata is not None
    assert metadata["base_model"] == ["tiny|base"] and metadata["license"] == "unknown"
    assert metadata["tags"] == ["jaxmodpo", "lora", "dpo"]
    names = [entry["name"] for entry in metadata["model-index"]]
    assert names == list(EVALUATION.models)
    (metric,) = metadata["model-index"][0]["results"][0]["metrics"][:1]
    assert metric["type"] == "win_rate" and metric["args"]["judge"] == EVALUATION.judge
    card = ModelCard.load(tmp_path / "MODEL_CARD.md")
    assert card.data.to_dict()["library_name"] == "peft"
    assert "# A &quot;" not in card.text and '# A "title": {x} \\| &lt;b&gt;' in card.text


def test_what_is_not_there_is_said(tmp_path):
    finished(tmp_path / "runs" / "x", "questions", {})
    Phase.open("evaluate", SomeSettings(), tmp_path / "runs" / "begun", {})
    facts = facts_of(tmp_path / "runs")
    card = render_card("MODEL_CARD.md", "T", facts)
    for sentence in (
        "**Not finished, and left out:** begun.",
        "No trained model is among these runs.",
        "No finished evaluation is among these runs: nothing is known of how good",
        "No crisis probes were put to these models: how they reply to somebody in danger",
        "No replies of these models were scored for toxicity: how often they insult",
        "Nothing that these manifests record: every judge and every sampler was on the machine",
    ):
        assert sentence in card
    assert "model-index" not in card and "nan" not in card.lower().split()
    assert "none recorded" in render_card("DATASHEET.md", "T", facts)


def test_report_writes_both_cards_and_equal_runs_give_equal_bytes(tmp_path):
    finished(tmp_path / "runs" / "x", "questions", {}, figures={"train": 5})
    cards: list[bytes] = []
    for name in ("one", "two"):
        report(ReportConfig(inputs=(tmp_path / "runs",), output_dir=tmp_path / name))
        for card in ("MODEL_CARD.md", "DATASHEET.md"):
            cards.append((tmp_path / name / card).read_bytes())
    assert cards[:2] == cards[2:] and b"train: 5" in cards[1]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a|b\n# c", r"a\|b \# c"),
        ("<script>*x*</script>", r"&lt;script&gt;\*x\*&lt;/script&gt;"),
        ("[link](http://x) `code` \\", r"\[link\](http://x) \`code\` \\"),
        (None, "None"),
    ],
)
def test_hostile_names_are_shown_as_they_are(value, shown):
    assert escaped(value) == shown
