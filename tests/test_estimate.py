"""What an experiment costs before it runs: the paper's counts, and what cannot be known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import datasets
import pytest

from jaxmodpo.config import builtin
from jaxmodpo.costs import Cost
from jaxmodpo.dry_run import dry_run
from jaxmodpo.errors import UserError
from jaxmodpo.estimate import Estimator, chip_named
from jaxmodpo.experiment import read_experiment, resolve, run_experiment, set_variables
from jaxmodpo.files import write_json, write_jsonl
from jaxmodpo.methods.dpo import DPOConfig
from jaxmodpo.methods.reward_settings import RewardConfig
from jaxmodpo.models.shapes import SHAPES
from jaxmodpo.phase import Phase
from jaxmodpo.records import Question, write_questions
from jaxmodpo.report.run_folders import Run, find_runs
from jaxmodpo.run import RunConfig, run
from jaxmodpo.sampling.settings import ResponsesConfig
from jaxmodpo.search.sweep_settings import SweepConfig

POSTS = "sp_id,seeker_post\n" + "".join(f"s{n},a post of some words {n}\n" for n in range(2979))


class Known(NamedTuple):
    """What of a cost is known."""

    chip_hours: float
    disk: float


def known(cost: Cost) -> Known:
    assert cost.chip_hours is not None and cost.disk is not None
    return Known(cost.chip_hours, cost.disk)


def costs(name: str, folder: Path, given: Mapping[str, str] | None = None) -> dict[str, tuple]:
    """Every phase's cost of one of our experiments, on as many posts as the paper's."""
    (folder / "posts.csv").write_text(POSTS)
    experiment = read_experiment(builtin(".", name))
    variables = set_variables(
        experiment, {"posts": str(folder / "posts.csv"), "judge": "m"} | {**(given or {})}
    )
    estimator = Estimator(chip_named("v5e"))
    cost_of = {}
    for phase in experiment.phases:
        config = resolve(phase, folder / "out", 42, name, variables)
        cost_of[phase.name] = (phase.command, config, estimator.phase(config))
    return cost_of


def test_phase_1_asks_what_the_paper_asked(tmp_path):
    cost_of = costs("phase1", tmp_path)
    assert cost_of["preferences"][2].judge_calls == 2 * 118_950
    assert cost_of["evaluation_phase1"][2].judge_calls == 2 * 630_000
    assert cost_of["test/gpt_4o"][2].endpoint_replies == 600
    models = cost_of["evaluation_phase1"][1].responses
    assert [m.split("=")[0] for m in models] == [
        "base", "gpt_4o", "sft_empathy", "dpo_empathy", "modpo_empathy", "dpo_soup", "joint_loss_dpo",
    ]  # fmt: skip
    # Two sequences a pair and two pairs an example: about twice DPO's work.
    assert cost_of["joint_loss_dpo"][2].chip_hours / cost_of["dpo_empathy"][
        2
    ].chip_hours == pytest.approx(2, rel=0.05)
    adapter = 4 * 64 * 32 * (3 * (4096 + 14336) + 2 * (4096 + 4096) + 2 * (4096 + 1024))
    assert cost_of["dpo_empathy"][2].disk == adapter and cost_of["dpo_soup"][2].disk == 2 * adapter


def test_phase_2_compares_four_models_and_leads_with_the_papers_primary(tmp_path):
    cost_of = costs("phase2", tmp_path)
    assert cost_of["evaluation_phase2"][2].judge_calls == 2 * 180_000
    assert (
        cost_of["modpo_survey"][1].pairs.name == "empathy_pairs.json"
        and len(cost_of["modpo_survey"][1].margin) == 5
    )
    assert len(cost_of["modpo_survey4"][1].margin) == 4
    assert not any("active_listening" in margin for margin in cost_of["modpo_survey4"][1].margin)
    assert cost_of["modpo_maxim"][1].pairs.name == "manner_pairs.json"
    assert cost_of["modpo_maxim"][1].margin[-1].startswith("safety=")


@pytest.mark.parametrize("name", ["phase1", "phase2"])
def test_the_papers_models_have_the_papers_settings(name, tmp_path):
    trained = [c for command, c, _ in costs(name, tmp_path).values() if command.startswith("align")]
    assert len(trained) in (3, 5)
    for config in trained:
        assert (config.lora_rank, config.lora_alpha, config.lora_dropout) == (64, 128, 0.05)
        assert len(config.lora_targets) == 7 and (config.epochs, config.warmup_ratio) == (3, 0.1)
        assert getattr(config, "beta", 0.1) == 0.1


def test_what_both_phases_share_is_the_same_phase(tmp_path):
    phase1_costs, two = costs("phase1", tmp_path), costs("phase2", tmp_path)
    for name in ("questions", "personas", "responses", "preferences", "reward/safety", "test/base"):
        assert phase1_costs[name][1] == two[name][1]


def test_the_better_variant_of_phase_2_shares_all_but_what_it_betters(tmp_path):
    """It may run in phase2's folder: no vote and no reward model is made twice."""
    paper, better = costs("phase2", tmp_path), costs("phase2_all_pairs", tmp_path)
    shared = [name for name in paper if name in better]
    assert len(shared) == 10 and all(paper[name][1] == better[name][1] for name in shared)
    for name in ("modpo_survey", "modpo_survey4", "modpo_maxim"):
        (_, paper_command, cost), (_, other_command, more) = paper[name], better[f"{name}_all"]
        assert (
            paper_command.weights[0] == pytest.approx(1 / len(paper_command.weights), abs=1e-6)
            and other_command.weights[0] == 0.5
        )
        assert (
            other_command.pairs_per_question,
            other_command.margin_scale,
            other_command.epochs,
        ) == ("all", "std", 1)
        assert other_command.margin == paper_command.margin and other_command.pairs.name.endswith(
            "_rankings.json"
        )
        # Ten times the pairs are of five replies instead of two; a third of the epochs; references
        # are computed once for each.
        assert more.chip_hours / cost.chip_hours == pytest.approx(
            5 / 2 * (2 * 1 + 1) / (2 * 3 + 1), rel=0.1
        )


@dataclass(frozen=True)
class NoSettings:
    """A command that has none."""


def test_each_phases_report_stays_as_it_is_beside_the_other_phase(tmp_path):
    """Both phases may have one folder: a report must take its own phase's runs, no more and no
    fewer.
    """
    runs_by_phase: dict[str, list[Run]] = {}
    for name in ("phase1", "phase2"):
        phases = costs(name, tmp_path)
        (_, config, _), others = phases.pop(f"report_{name}"), phases
        for command, settings, _ in others.values():
            phase = Phase.open(command, NoSettings(), settings.output_dir, {})
            if not phase.finished:  # both experiments may have it
                phase.finish()
        runs_by_phase[name] = find_runs(config.inputs, config.output_dir)
        assert {run.folder for run in runs_by_phase[name]} == {
            settings.output_dir for _, settings, _ in others.values()
        }
    config = costs("phase1", tmp_path)["report_phase1"][1]
    assert find_runs(config.inputs, config.output_dir) == runs_by_phase["phase1"]


def test_a_dry_run_says_where_inputs_come_from_and_what_is_missing(tmp_path, capsys):
    (tmp_path / "posts.csv").write_text(POSTS)
    variables = (f"posts={tmp_path}/posts.csv",)
    run(RunConfig(experiment="phase1", output_dir=tmp_path / "out", set=variables, dry_run=True))
    printed = capsys.readouterr().out
    assert "1,497,900 judge calls" in printed and "in hours of one H100 SXM" in printed
    assert (
        "empathy_pairs.json  [from preferences]" in printed
        and "survey: data/survey.csv  [missing]" in printed
    )
    (absent,) = (
        line for line in printed.splitlines() if line.startswith("what it reads and is not there: ")
    )
    assert "data/survey.csv" in absent and "posts.csv" not in absent
    assert "give --set judge=…" in printed and not (tmp_path / "out").exists()


def dry(
    name: str, out: Path, capsys: pytest.CaptureFixture[str], chip: str = "v5e", **given: str
) -> list[str]:
    """The lines of a dry run."""
    set_ = tuple(f"{key}={value}" for key, value in given.items())
    run(RunConfig(experiment=name, output_dir=out, dry_run=True, chip=chip, set=set_))
    return capsys.readouterr().out.splitlines()


def test_a_dry_run_of_some_phases_counts_those_alone_with_what_the_others_make(tmp_path, capsys):
    settings = {
        "experiment": "phase1",
        "output_dir": tmp_path / "out",
        "dry_run": True,
        "set": ("judge=gpt-4.1-mini",),
    }
    run(RunConfig(**settings, only=("evaluation_phase1",)))
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("[")] == [
        "[15/16] evaluation_phase1 (evaluate)"
    ]
    (total,) = (line for line in lines if line.startswith("in all"))
    assert "1,260,000 judge calls, $" in total and "chip-hours" not in total
    assert any(line.endswith("test_personas.json  [from personas]") for line in lines)
    with pytest.raises(UserError, match=r"--only: phase1\.yaml has no phase 'dpoo'"):
        run(RunConfig(**settings, only=("dpoo",)))


def test_before_the_data_are_there_the_papers_counts_are_assumed_and_said(tmp_path, capsys):
    printed = dry("phase1", tmp_path / "out", capsys, judge="gpt-4.1-mini")
    (total,) = (line for line in printed if line.startswith("in all"))
    assert (
        "1,497,900 judge calls, 600 replies of an endpoint, $" in total and "unknown" not in total
    )
    assert printed[printed.index("[16/16] report_phase1 (report)") + 1] == "    next to nothing"
    assert (
        "assumed: data/interpretations-reddit.csv is not there: taken for the paper's 2,979 posts"
        in printed
    )
    mistral = (
        "models/Mistral-7B-Instruct-v0.2 is not there: taken to be as large as mistral-7b-v0.2"
    )
    assert f"assumed: {mistral}, after which it is named" in printed


def test_dollars_follow_the_price_table_and_the_batch_apis_discount(tmp_path):
    def dollars(**given: str) -> float:
        costs_of = costs("phase1", tmp_path, {"judge": "gpt-4.1-mini"} | given)
        judge_dollars = costs_of["preferences"][2].dollars
        assert judge_dollars is not None
        return judge_dollars

    # 237,900 calls of five replies of 320 tokens, a profile of 330, a post of 55 and some 500 of
    # instructions, at 0.40 dollars a million, and 27 tokens of answers at 1.60.
    assert dollars() == pytest.approx(
        237_900 * ((5 * 320 + 330 + 55 + 500) * 0.4 + 27 * 1.6) / 1e6, rel=0.1
    )
    assert dollars(ask_by="batch") == pytest.approx(dollars() / 2)
    assert dollars(judge="o3") == pytest.approx(5 * dollars(), rel=1e-6)


@pytest.mark.parametrize(
    ("judge", "why"),
    [
        (
            "llama-3.1-70b",
            "unknown: the table 'models' has no price of llama-3.1-70b (preferences and 1 more)",
        ),
        ("", "unknown: no model is named for the endpoint (preferences and 1 more)"),
    ],
)
def test_a_price_that_is_not_known_makes_the_sum_unknown(tmp_path, capsys, judge, why):
    printed = dry("phase1", tmp_path / "out", capsys, **({"judge": judge} if judge else {}))
    (total,) = (line for line in printed if line.startswith("in all"))
    assert (
        "1,497,900 judge calls, 600 replies of an endpoint, dollars unknown, " in total
        and why in printed
    )


def test_what_cannot_be_on_one_chip_is_said_so(tmp_path, capsys):
    printed = dry("phase1", tmp_path / "out", capsys, judge="m")
    assert sum("does not fit on one TPU v5e" in line for line in printed) == 8
    memory_use = "bfloat16 weights, the adapter, its gradients and moments"
    sentence = (
        f"{memory_use} alone are 16.0 GiB of 15.75; set base_dtype: nf4, or take several chips"
    )
    assert f"    does not fit on one TPU v5e: {sentence}" in printed
    for chip, base_dtype in (("v5e", "nf4"), ("H100 SXM", "bfloat16")):
        printed = dry("phase1", tmp_path / "out", capsys, chip, judge="m", base_dtype=base_dtype)
        assert not any("does not fit" in line for line in printed)


def test_a_dry_run_counts_replies_by_the_tokens_a_second_that_fit_counts(tmp_path, capsys):
    printed = dry("phase1", tmp_path / "out", capsys, "H100 SXM", judge="m")
    start = next(n for n, line in enumerate(printed) if line.endswith("responses (responses)"))
    # 2,379 x 5 replies of 320 tokens, 64 at a time, with 4.3 GB of a half-full cache.
    speed = 64 * 3.35e12 / (14.22e9 + 4.29e9)
    hours = 2379 * 5 * 320 / speed / 0.5 / 3600
    assert printed[start + 1].startswith(f"    {hours:.2g} chip-hours, ")
    sentence = (
        "tokens/s at the memory's bandwidth of one H100 SXM, half of which is counted with;"
        " bfloat16 weights, 64 rows of cache and their prompts' are 22.5 GiB of a chip's 80"
    )
    figure, _, rest = printed[start + 2].strip().partition(" ")
    assert rest == sentence
    assert float(figure.replace(",", "")) == pytest.approx(speed, rel=1e-3)


def test_several_chips_sample_faster_and_hold_less(tmp_path):
    write_questions(tmp_path / "q.csv", [Question(f"q{n}", "post") for n in range(200)])
    config = ResponsesConfig(
        model=Path("Mistral-7B-Instruct-v0.2"),
        questions=tmp_path / "q.csv",
        output_dir=tmp_path / "out",
    )
    estimator = Estimator(chip_named("v5e"))
    one_chip, eight = (estimator.phase(replace(config, mesh=mesh)) for mesh in (None, (1, 1, 8)))
    memory_use = "bfloat16 weights, 64 rows of cache and their prompts'"
    assert one_chip.notes[0].startswith(
        f"does not fit on one TPU v5e: {memory_use} alone are 22.5 GiB of 15.75;"
    )
    assert (
        f"of 8 × TPU v5e, half of which is counted with; {memory_use} are 2.8 GiB" in eight.notes[0]
    )
    # Each chip reads an eighth: as many chip-hours, in an eighth of the time.
    assert eight.chip_hours == pytest.approx(one_chip.chip_hours)


def test_a_model_folder_is_as_large_as_its_own_config_says(tmp_path):
    folder = tmp_path / "Mistral-7B-Instruct-v0.2"
    write_json(folder / "config.json", SHAPES["tiny-mistral"])
    write_json(tmp_path / "pairs.json", [{}] * 10)
    config = DPOConfig(
        model=folder, pairs=tmp_path / "pairs.json", lora_rank=8, output_dir=tmp_path / "out"
    )
    cost = Estimator(chip_named("v5e")).phase(config)
    assert cost.disk == 4 * 8 * 4 * (3 * (256 + 704) + 2 * (256 + 256) + 2 * (256 + 128))


def test_fewer_posts_than_the_test_set_are_refused_and_never_counted_below_zero(tmp_path):
    (tmp_path / "posts.csv").write_text("\n".join(POSTS.splitlines()[:31]))
    variables = {"posts": str(tmp_path / "posts.csv"), "judge": "m"}
    sentence = (
        r"^phase1.yaml, phase questions: --test-size 600 does not fit 30 posts: test and training"
        r" set need"
    )
    with pytest.raises(UserError, match=sentence):
        dry_run(builtin(".", "phase1"), tmp_path / "out", None, variables, "v5e")


def test_a_run_is_refused_before_its_first_phase(tmp_path):
    (tmp_path / "posts.csv").write_text(POSTS)
    posts = {"posts": str(tmp_path / "posts.csv")}
    phase1 = builtin(".", "phase1")
    with pytest.raises(UserError, match=r"needs --set judge=…"):
        run_experiment(phase1, tmp_path / "out", overrides=posts)
    with pytest.raises(
        UserError, match=r"phase preferences: persona profiles would be sent to api.openai.com"
    ):
        run_experiment(phase1, tmp_path / "out", overrides=posts | {"judge": "m"})
    local = {"judge": "m", "judge_url": "http://127.0.0.1:1/v1"}
    with pytest.raises(
        UserError, match=r"phase test/gpt_4o: people's posts would be sent to api.openai.com"
    ):
        run_experiment(phase1, tmp_path / "out", overrides=posts | local)
    with pytest.raises(UserError, match="no variable 'jugde'; did you mean 'judge'"):
        run_experiment(phase1, tmp_path / "out", overrides={"jugde": "m"})
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
def test_a_later_phases_settings_are_refused_before_anything_runs(
    tmp_path, command, old, new, said
):
    (tmp_path / "posts.csv").write_text(POSTS)
    first = (
        "{name: first, command: questions, settings: {input: [$out/../posts.csv], test_size: 600}}"
    )
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
def test_a_dry_run_goes_on_where_models_are_not_made_yet(name, tmp_path, capsys):
    """The sandbox's posts are as many as it is told to make; what depends on its models is unknown,
    not nothing.
    """
    printed = dry(name, tmp_path / "out", capsys)
    (total,) = (line for line in printed if line.startswith("in all"))
    assert "chip-hours unknown, disk unknown" in total and not any(
        "posts.csv is not there" in line for line in printed
    )
    why = f"unknown: {tmp_path}/out/world/mistral is not there ("
    assert sum(line.startswith(why) for line in printed) == 1, "what is missing is told once"


def test_counts_come_from_files_that_are_there_or_not_at_all(tmp_path):
    estimator = Estimator(chip_named("H100 SXM"))
    config = DPOConfig(
        model=Path("Mistral-7B-Instruct-v0.2"), pairs=tmp_path / "pairs.json", output_dir=tmp_path
    )
    unknown = estimator.phase(config)
    assert unknown.unknown == [f"{tmp_path}/pairs.json is not there"]
    assert (unknown.chip_hours, unknown.disk, unknown.judge_calls, unknown.dollars) == (
        None,
        None,
        0,
        0.0,
    )
    (tmp_path / "pairs.json").write_text("[" + ",".join(["{}"] * 1000) + "]")
    cost = estimator.phase(config)
    # About 2 x 360 tokens a pair, 14.5 billion multiplications forward and as many back, three
    # epochs and a scoring.
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
    config = DPOConfig(
        model=Path("Mistral-7B-Instruct-v0.2"),
        pairs=tmp_path / "folder",
        output_dir=tmp_path / "out",
    )
    assert known(estimator.phase(config)).chip_hours > 0


def test_reward_models_of_every_criterion_are_those_that_are_trained(tmp_path):
    for name in (
        "empathy",
        "active_listening",
        "self_motivated_change",
        "trust_rapport",
        "patient_autonomy",
        "safety",
    ):
        write_json(tmp_path / f"{name}_pairs.json", [{}] * 10)
    config = RewardConfig(
        model=Path("roberta-large"), pairs=tmp_path, all=True, output_dir=tmp_path / "out"
    )
    estimator = Estimator(chip_named("v5e"))
    safety_only = estimator.phase(replace(config, all=False, pairs=tmp_path / "safety_pairs.json"))
    assert estimator.phase(config).disk == 6 * known(safety_only).disk


def test_a_sweep_counts_what_it_measures_and_only_what_it_trains(tmp_path):
    write_json(tmp_path / "pairs.json", [{}] * 100)
    write_questions(tmp_path / "q.csv", [Question(f"q{n}", "post") for n in range(200)])
    config = SweepConfig(
        model=Path("Mistral-7B-Instruct-v0.2"), pairs=tmp_path / "pairs.json", margin=("safety=r",), weights="0.1..0.9",
        questions=tmp_path / "q.csv", score=("empathy=rubric", "safety=rubric"), output_dir=tmp_path / "out",
    )  # fmt: skip
    estimator = Estimator(chip_named("H100 SXM"))

    def cost(*soup: str, **changes) -> Known:
        return known(estimator.phase(replace(config, soup=soup, **changes)))

    alone, more = cost(), cost(samples=8)
    # Ten models of 800 replies more, of 320 tokens each, 64 of them at a time at half of 3.35 TB/s:
    # 14.2 GB of weights without the embeddings, four adapters in two bytes, and 4.3 GB of a
    # half-full cache; and twice 14.5 billion operations for some 375 tokens of each.
    adapters = 4 * alone.disk / 9 / 2
    sampled = 8000 * 320 / 64 * (14.2e9 + adapters + 4.3e9) / 3.35e12 / 0.5
    scored = 8000 * 375 * 2 * 14.5e9 / 989e12 / 0.5
    assert more.chip_hours - alone.chip_hours == pytest.approx((sampled + scored) / 3600, rel=0.02)
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "adapter_config.json").write_text("{}")
    pairs, other_objective = f"a={tmp_path}/pairs.json", f"a={tmp_path}/given"
    trained, both = cost(pairs, "b" + pairs[1:]), cost(other_objective, "b" + other_objective[1:])
    single_soup = cost(pairs, "b" + other_objective[1:])
    assert trained.chip_hours - single_soup.chip_hours == pytest.approx(
        single_soup.chip_hours - both.chip_hours
    )
    adapter = alone.disk / 9
    assert (
        both.disk == pytest.approx(9 * adapter + 9 * 2 * adapter)
        and trained.disk == both.disk + 2 * adapter
    )
    # Nine soups more, and seven models more for each of nine pairs.
    measured = (more.chip_hours - alone.chip_hours) / 10
    assert both.chip_hours - alone.chip_hours == pytest.approx((9 + 63) * measured, rel=0.02)
    unmatched = cost(other_objective, "b" + other_objective[1:], match_kl=False)
    assert unmatched.chip_hours - alone.chip_hours == pytest.approx(9 * measured, rel=0.02)
