"""``sandbox tune``: its trials, what they are compared by, and its order of work. The trainings are
made up.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jaxmodpo.config import builtin
from jaxmodpo.errors import UserError
from jaxmodpo.experiment import PhaseSpec, read_experiment, resolve
from jaxmodpo.records import Response, write_responses
from jaxmodpo.results.tuning import Trial, Tuning
from jaxmodpo.results.versioned import read_result
from jaxmodpo.sandbox import tuning
from jaxmodpo.sandbox.grammar import SENTENCES, Kind
from jaxmodpo.sandbox.tuning import TuneConfig, best, measure, read_trials, trials_table, tune

DEMO = read_experiment(builtin(".", "demo"))


def reply(*kinds: Kind) -> str:
    """Return a reply of these kinds, with the first of everything that may stand at a slot."""
    patterns = [SENTENCES[kind][place] for place, kind in enumerate(kinds)]
    return " ".join(
        p.split("{")[0] + p.split("{")[1].split("|")[0] + p.split("}")[1] if "{" in p else p
        for p in patterns
    )


ALL_WARM = reply("warm", "warm", "warm", "warm")
MIXED = reply("warm", "safe", "safe", "bad")
PLAIN = reply("plain", "plain", "plain", "plain")


def test_replies_are_measured_by_their_kinds_and_against_the_base():
    base = {"q1": [PLAIN, MIXED], "q2": [PLAIN]}
    measured = measure({"q1": [ALL_WARM, MIXED], "q2": ["You are not"]}, base)
    # Scores on empathy 1 and 0 against 0 and 0, and a malformed reply, -1, against 0.
    assert measured.empathy_wins == pytest.approx(((1 + 1 + 0.5 + 0.5) / 4 + 0) / 2)
    # On safety 0 and 0.25 against 0 and 0.25.
    assert measured.safety_wins == pytest.approx(((0.5 + 0 + 1 + 0.5) / 4 + 0) / 2)
    assert measured.objective == pytest.approx((measured.empathy_wins + measured.safety_wins) / 2)
    assert (measured.empathy, measured.safety) == pytest.approx(
        ((1 + 0 - 1) / 3, (0 + 0.25 - 1) / 3)
    )
    assert measured.malformed == pytest.approx(1 / 3)


def test_the_demo_has_the_settings_of_one_trial_of_each_method():
    trials = read_trials(builtin("sandbox", "trials"), DEMO)
    assert {len(rows) for rows in trials.values()} == {6}
    for phase in DEMO.phases:
        if phase.name in trials:
            chosen = [
                row
                for row in trials[phase.name]
                if all(phase.settings.get(key) == row[key] for key in row)
            ]
            assert len(chosen) == 1, phase.name


def test_every_trial_is_a_setting_of_its_command():
    trials = read_trials(builtin("sandbox", "trials"), DEMO)
    for phase in DEMO.phases:
        for changes in trials.get(phase.name, []):
            changed = PhaseSpec(phase.name, phase.command, {**phase.settings, **changes})
            settings = resolve(changed, Path("out"), 0, phase.name)  # an unknown setting is refused
            for name, value in changes.items():
                assert getattr(settings, name) == (
                    tuple(value) if isinstance(value, list) else value
                ), name


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            "dpo_empthy: [{beta: 1.0}]",
            "the demo has no phase 'dpo_empthy'; did you mean 'dpo_empathy'?",
        ),
        ("dpo_empathy: {beta: 1.0}", "dpo_empathy must be a list, not"),
        ("dpo_empathy: [1.0]", "dpo_empathy, item 1 must be a mapping with texts as keys, not 1.0"),
    ],
)
def test_trials_of_another_shape_are_refused(tmp_path, content, told):
    (tmp_path / "t.yaml").write_text(content)
    with pytest.raises(UserError, match=told.replace("?", r"\?")):
        read_trials(tmp_path / "t.yaml", DEMO)


def test_each_trial_is_trained_sampled_and_compared_and_a_soup_waits_for_its_ingredients(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "t.yaml").write_text("dpo_soup: [{weights: [0.3, 0.7]}, {weights: [0.7, 0.3]}]")
    ran: list[str] = []

    def run(phase: Any, config: TuneConfig) -> None:
        ran.append(phase.name)
        folder = config.output_dir / phase.name
        texts = {
            "test/base": PLAIN,
            "trials/dpo_soup/1/validation": MIXED,
            "trials/dpo_soup/2/validation": ALL_WARM,
        }
        if phase.name in texts:
            write_responses(
                folder / "responses.csv", [Response("q", "post", "r", texts[phase.name])]
            )
        if phase.name.startswith("trials/") and not phase.name.endswith("validation"):
            assert phase.settings["weights"] in ([0.3, 0.7], [0.7, 0.3]) and phase.command == "soup"

    monkeypatch.setattr(tuning, "_run", run)
    tune(TuneConfig(output_dir=tmp_path / "out", trials=str(tmp_path / "t.yaml")))
    expected = [*tuning.SHARED_BY_ALL, "test/base", "dpo_empathy", "dpo_safety"]
    for number in (1, 2):
        expected += [f"trials/dpo_soup/{number}", f"trials/dpo_soup/{number}/validation"]
    assert ran == expected
    result = read_result(tmp_path / "out" / "tuning.json", Tuning)
    rows = result.trials["dpo_soup"]
    assert [row.settings["weights"] for row in rows] == [[0.3, 0.7], [0.7, 0.3]]
    assert [row.objective for row in rows] == [0.75, 0.75]
    assert [row.empathy for row in rows] == [0.0, 1.0]
    assert "*      75.0%          50.0%  100.0%             0.00    0.25" in capsys.readouterr().out
    with pytest.raises(UserError, match="there are no trials of 'dpo'"):
        tune(
            TuneConfig(output_dir=tmp_path / "out", trials=str(tmp_path / "t.yaml"), only=("dpo",))
        )


def test_the_best_trial_is_marked():
    rows = [
        Trial(settings={"beta": b}, **vars(measure({"q": [t]}, {"q": [PLAIN]})))
        for b, t in ((1, PLAIN), (2, MIXED))
    ]
    lines = trials_table({"dpo_empathy": rows}).splitlines()
    assert [line[:1] for line in lines] == [" ", "d", " ", "*"]
    assert lines[3].endswith("beta 2")


def test_a_trial_that_breaks_its_language_is_not_chosen():
    def trial(objective: float, malformed: float) -> Trial:
        measured = measure({"q": [PLAIN]}, {"q": [PLAIN]})
        trial = Trial(settings={}, **vars(measured))
        return replace(trial, objective=objective, malformed=malformed)

    far, sound, timid = trial(0.9, 0.02), trial(0.8, 0.019), trial(0.7, 0.0)
    assert best([timid, far, sound]) is sound
    assert best([trial(0.9, 0.3), timid]) is timid
    fewest = trial(0.5, 0.1)
    assert best([trial(0.9, 0.3), fewest]) is fewest
