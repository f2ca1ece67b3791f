"""What an experiment costs before it runs: the paper's counts, and what cannot be known."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jaxmodpo.config import builtin
from jaxmodpo.errors import UserError
from jaxmodpo.estimate import Estimator, Unknown, chip_named
from jaxmodpo.experiment import RunConfig, dry_run, read_experiment, resolve, run, run_experiment, set_variables
from jaxmodpo.methods.dpo import DPOConfig

POSTS = "sp_id,seeker_post\n" + "".join(f"s{n},a post of some words {n}\n" for n in range(2979))


def costs(name: str, folder: Path) -> dict[str, tuple]:
    """Every phase's cost of one of our experiments, on as many posts as the paper's."""
    (folder / "posts.csv").write_text(POSTS)
    experiment = read_experiment(builtin(".", name))
    variables = set_variables(experiment, {"posts": str(folder / "posts.csv"), "judge": "m"})
    estimator = Estimator(chip_named("v5e"))
    found = {}
    for phase in experiment.phases:
        config = resolve(phase, folder / "out", 42, name, variables)
        found[phase.name] = (phase.command, config, estimator.phase(phase.command, config))
    return found


def test_phase_1_asks_what_the_paper_asked(tmp_path):
    found = costs("phase1", tmp_path)
    assert found["preferences"][2].judge_calls == 2 * 118_950
    assert found["evaluation_phase1"][2].judge_calls == 2 * 630_000
    assert found["test/gpt_4o"][2].endpoint_replies == 600
    models = found["evaluation_phase1"][1].responses
    assert [m.split("=")[0] for m in models] == [
        "base", "gpt_4o", "sft_empathy", "dpo_empathy", "modpo_empathy", "dpo_soup", "joint_loss_dpo",
    ]  # fmt: skip
    # Two sequences a pair and two pairs an example: about twice DPO's work.
    assert found["joint_loss_dpo"][2].chip_hours / found["dpo_empathy"][2].chip_hours == pytest.approx(2, rel=0.05)
    adapter = 4 * 64 * 32 * (3 * (4096 + 14336) + 2 * (4096 + 4096) + 2 * (4096 + 1024))
    assert found["dpo_empathy"][2].disk == adapter and found["dpo_soup"][2].disk == 2 * adapter


def test_phase_2_compares_four_models_and_leads_with_the_papers_primary(tmp_path):
    found = costs("phase2", tmp_path)
    assert found["evaluation_phase2"][2].judge_calls == 2 * 180_000
    assert found["modpo_survey"][1].pairs.name == "empathy_pairs.json" and len(found["modpo_survey"][1].margin) == 5
    assert len(found["modpo_survey4"][1].margin) == 4
    assert not any("active_listening" in margin for margin in found["modpo_survey4"][1].margin)
    assert found["modpo_maxim"][1].pairs.name == "manner_pairs.json"
    assert found["modpo_maxim"][1].margin[-1].startswith("safety=")


@pytest.mark.parametrize("name", ["phase1", "phase2"])
def test_the_papers_models_have_the_papers_settings(name, tmp_path):
    trained = [c for command, c, _ in costs(name, tmp_path).values() if command.startswith("align")]
    assert len(trained) in (3, 5)
    for config in trained:
        assert (config.lora_rank, config.lora_alpha, config.lora_dropout) == (64, 128, 0.05)
        assert len(config.lora_targets) == 7 and (config.epochs, config.warmup_ratio) == (3, 0.1)
        assert getattr(config, "beta", 0.1) == 0.1


def test_what_both_phases_share_is_the_same_phase(tmp_path):
    one, two = costs("phase1", tmp_path), costs("phase2", tmp_path)
    for name in ("questions", "personas", "responses", "preferences", "reward/safety", "test/base"):
        assert one[name][1] == two[name][1]


def test_a_dry_run_says_where_inputs_come_from_and_what_is_missing(tmp_path, capsys):
    (tmp_path / "posts.csv").write_text(POSTS)
    given = (f"posts={tmp_path}/posts.csv",)
    run(RunConfig(experiment="phase1", output_dir=tmp_path / "out", set=given, dry_run=True))
    said = capsys.readouterr().out
    assert "1,497,900 judge calls" in said and "in hours of one H100 SXM" in said
    assert "empathy_pairs.json  [from preferences]" in said and "survey: data/survey.csv  [missing]" in said
    assert "give --set judge=…" in said and not (tmp_path / "out").exists()
    run(RunConfig(experiment="phase1", output_dir=tmp_path / "out", dry_run=True))
    said = capsys.readouterr().out
    assert "cost not known yet" in said and "interpretations-reddit.csv is not there" in said


def test_a_run_is_refused_before_its_first_phase(tmp_path):
    (tmp_path / "posts.csv").write_text(POSTS)
    posts = {"posts": str(tmp_path / "posts.csv")}
    phase1 = builtin(".", "phase1")
    with pytest.raises(UserError, match=r"needs --set judge=…"):
        run_experiment(phase1, tmp_path / "out", given=posts)
    with pytest.raises(UserError, match=r"phase preferences: persona profiles would be sent to api.openai.com"):
        run_experiment(phase1, tmp_path / "out", given=posts | {"judge": "m"})
    local = {"judge": "m", "judge_url": "http://127.0.0.1:1/v1"}
    with pytest.raises(UserError, match=r"phase test/gpt_4o: people's posts would be sent to api.openai.com"):
        run_experiment(phase1, tmp_path / "out", given=posts | local)
    with pytest.raises(UserError, match="no variable 'jugde'; did you mean 'judge'"):
        run_experiment(phase1, tmp_path / "out", given={"jugde": "m"})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["demo", "fronts"])
def test_a_dry_run_goes_on_where_models_and_posts_are_not_made_yet(name, tmp_path, capsys):
    dry_run(builtin(".", name), tmp_path / "out", None, {}, "v5e")
    printed = capsys.readouterr().out
    last = printed.splitlines()[-1]
    assert f"questions ({tmp_path}/out/world/posts.csv is not there)" in last
    assert re.search(r"and \d+ phases that follow from them$", last)
    assert printed.count("is not there") == 2, "what follows from a missing file is not told again"


def test_counts_come_from_files_that_are_there_or_not_at_all(tmp_path):
    estimator = Estimator(chip_named("H100 SXM"))
    config = DPOConfig(model=Path("Mistral-7B-Instruct-v0.2"), pairs=tmp_path / "pairs.json", output_dir=tmp_path)
    with pytest.raises(Unknown, match="is not there"):
        estimator.phase("align dpo", config)
    (tmp_path / "pairs.json").write_text("[" + ",".join(["{}"] * 1000) + "]")
    cost = estimator.phase("align dpo", config)
    # About 2 x 360 tokens a pair, 14.5 billion multiplications forward and as many back, three epochs and a scoring.
    expected = 1000 * 2 * 375 * 14.5e9 * (2 * 3 + 1) / 989e12 / 0.5 / 3600
    assert cost.chip_hours == pytest.approx(expected, rel=0.15)
    with pytest.raises(UserError, match=r"no chip 'v5'; did you mean 'v5"):
        chip_named("v5")
