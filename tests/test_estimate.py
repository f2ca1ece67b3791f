"""What an experiment costs before it runs: the paper's counts, and what cannot be known."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import datasets
import pytest

from jaxmodpo.artifacts import Question, write_json, write_jsonl, write_questions
from jaxmodpo.config import builtin
from jaxmodpo.errors import UserError
from jaxmodpo.estimate import Cost, Estimator, Unknown, chip_named
from jaxmodpo.evaluation.report import Run, find_runs
from jaxmodpo.experiment import RunConfig, dry_run, read_experiment, resolve, run, run_experiment, set_variables
from jaxmodpo.methods.dpo import DPOConfig
from jaxmodpo.methods.reward import RewardConfig
from jaxmodpo.search.sweep import SweepConfig

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


def test_each_phases_report_stays_as_it_is_beside_the_other_phase(tmp_path):
    """Both phases may have one folder: a report must take its own phase's runs, no more and no fewer."""
    made: dict[str, list[Run]] = {}
    for name in ("phase1", "phase2"):
        phases = costs(name, tmp_path)
        (_, config, _), others = phases.pop(f"report_{name}"), phases
        for command, other, _ in others.values():
            identity = {"command": command, "settings": {}, "inputs": {}}
            write_json(other.output_dir / "manifest.json", {"status": "finished", "identity": identity})
        made[name] = find_runs(config.inputs, config.output_dir)
        assert {run.folder for run in made[name]} == {other.output_dir for _, other, _ in others.values()}
    config = costs("phase1", tmp_path)["report_phase1"][1]
    assert find_runs(config.inputs, config.output_dir) == made["phase1"]


def test_a_dry_run_says_where_inputs_come_from_and_what_is_missing(tmp_path, capsys):
    (tmp_path / "posts.csv").write_text(POSTS)
    given = (f"posts={tmp_path}/posts.csv",)
    run(RunConfig(experiment="phase1", output_dir=tmp_path / "out", set=given, dry_run=True))
    said = capsys.readouterr().out
    assert "1,497,900 judge calls" in said and "in hours of one H100 SXM" in said
    assert "empathy_pairs.json  [from preferences]" in said and "survey: data/survey.csv  [missing]" in said
    (absent,) = (line for line in said.splitlines() if line.startswith("what it reads and is not there: "))
    assert "data/survey.csv" in absent and "posts.csv" not in absent
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


SETTINGS = {
    "align modpo": "model: m, pairs: p.json, margin: {safety: r}, weights: [0.5, 0.5]",
    "align joint": "model: m, pairs: {a: p.json, b: q.json}, weights: [0.5, 0.5]",
    "soup": "adapters: [a, b], weights: [0.5, 0.5]",
    "reward": "model: m, pairs: p.json",
}


@pytest.mark.parametrize(
    ("command", "old", "new", "said"),
    [
        ("align modpo", "0.5, 0.5", "0.5, 0.6", "--weights must be at least 0 and sum to 1"),
        ("align modpo", "0.5, 0.5", "0, 1", "must be positive"),
        ("align modpo", "safety: r", "safety: 'column:'", "--margin 'column:'"),
        ("align joint", "0.5, 0.5", "0.5, 0.6", "sum to 1"),
        ("align joint", ", b: q.json", "", "at least two --pairs"),
        ("soup", "0.5, 0.5", "0.5, 0.6", "sum to 1"),
        ("soup", "a, b", "a", "at least two --adapters"),
        ("reward", ", pairs: p.json", "", "either --pairs or --rankings"),
    ],
)
def test_a_later_phases_settings_are_refused_before_anything_runs(tmp_path, command, old, new, said):
    (tmp_path / "posts.csv").write_text(POSTS)
    first = "{name: first, command: questions, settings: {input: [$out/../posts.csv], test_size: 600}}"
    wrong = SETTINGS[command].replace(old, new)
    assert wrong != SETTINGS[command]
    (tmp_path / "e.yaml").write_text(
        f"phases:\n  - {first}\n  - {{name: last, command: {command}, settings: {{{wrong}}}}}\n"
    )
    for attempt in (
        lambda: run_experiment(tmp_path / "e.yaml", tmp_path / "out"),
        lambda: dry_run(tmp_path / "e.yaml", tmp_path / "out", None, {}, "v5e"),
    ):
        with pytest.raises(UserError, match=f"phase last: .*{said}"):
            attempt()
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


def test_pairs_of_every_kind_of_file_are_counted(tmp_path):
    rows = [{"prompt": f"p{n}", "chosen": "a", "rejected": "b"} for n in range(30)]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "folder"))
    estimator = Estimator(chip_named("v5e"))
    assert estimator.rows(tmp_path / "pairs.jsonl") == estimator.rows(tmp_path / "folder") == 30
    config = DPOConfig(model=Path("Mistral-7B-Instruct-v0.2"), pairs=tmp_path / "folder", output_dir=tmp_path / "out")
    assert estimator.phase("align dpo", config).chip_hours > 0


def test_reward_models_of_every_criterion_are_those_that_are_trained(tmp_path):
    for name in ("empathy", "active_listening", "self_motivated_change", "trust_rapport", "patient_autonomy", "safety"):
        write_json(tmp_path / f"{name}_pairs.json", [{}] * 10)
    config = RewardConfig(model=Path("roberta-large"), pairs=tmp_path, all=True, output_dir=tmp_path / "out")
    estimator = Estimator(chip_named("v5e"))
    one = estimator.phase("reward", replace(config, all=False, pairs=tmp_path / "safety_pairs.json"))
    assert estimator.phase("reward", config).disk == 6 * one.disk


def test_a_sweep_counts_what_it_measures_and_only_what_it_trains(tmp_path):
    write_json(tmp_path / "pairs.json", [{}] * 100)
    write_questions(tmp_path / "q.csv", [Question(f"q{n}", "post") for n in range(200)])
    config = SweepConfig(
        model=Path("Mistral-7B-Instruct-v0.2"), pairs=tmp_path / "pairs.json", margin=("safety=r",), weights="0.1..0.9",
        questions=tmp_path / "q.csv", score=("empathy=rubric", "safety=rubric"), output_dir=tmp_path / "out",
    )  # fmt: skip
    estimator = Estimator(chip_named("H100 SXM"))

    def cost(*soup: str, **changes) -> Cost:
        return estimator.phase("sweep", replace(config, soup=soup, **changes))

    alone, more = cost(), cost(samples=8)
    # Ten models of 800 replies more: 125 batches of 64, each of 512 tokens at half of 3.35 TB/s, for 14.5 GB of
    # weights and 4.3 of a half-full cache; and twice 14.5 billion operations for some 375 tokens of each.
    sampled = 125 * 512 * (14.5e9 + 4.3e9) / 3.35e12 / 0.5
    scored = 8000 * 375 * 2 * 14.5e9 / 989e12 / 0.5
    assert more.chip_hours - alone.chip_hours == pytest.approx((sampled + scored) / 3600, rel=0.1)
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "adapter_config.json").write_text("{}")
    pairs, given = f"a={tmp_path}/pairs.json", f"a={tmp_path}/given"
    trained, both = cost(pairs, "b" + pairs[1:]), cost(given, "b" + given[1:])
    one = cost(pairs, "b" + given[1:])
    assert trained.chip_hours - one.chip_hours == pytest.approx(one.chip_hours - both.chip_hours)
    adapter = alone.disk / 9
    assert both.disk == pytest.approx(9 * adapter + 9 * 2 * adapter) and trained.disk == both.disk + 2 * adapter
    # Nine soups more, and seven models more for each of nine pairs.
    measured = (more.chip_hours - alone.chip_hours) / 10
    assert both.chip_hours - alone.chip_hours == pytest.approx((9 + 63) * measured, rel=0.02)
    unmatched = cost(given, "b" + given[1:], match_kl=False)
    assert unmatched.chip_hours - alone.chip_hours == pytest.approx(9 * measured, rel=0.02)
