"""The methods as commands, on one small world: what must coincide coincides, what is wrong is
refused.
"""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from sandbox_pairs import some_pairs

from jaxmodpo.data.held_out import held_out
from jaxmodpo.data.prompting import FILE as PROMPT_FILE
from jaxmodpo.data.replies import policy_pairs
from jaxmodpo.data.text import PolicyText, load_tokenizer
from jaxmodpo.errors import UserError
from jaxmodpo.files import write_json
from jaxmodpo.methods.dpo import DPOConfig, dpo
from jaxmodpo.methods.joint import JointConfig, JointDPO, align_pairs, joint
from jaxmodpo.methods.margins import Margins, describe
from jaxmodpo.methods.modpo import MODPO, MODPOConfig, modpo
from jaxmodpo.methods.reward_model import rewards_of_pairs
from jaxmodpo.methods.score import ScorePolicyConfig, score_policy
from jaxmodpo.methods.sft import SFTConfig, sft
from jaxmodpo.methods.soup import SoupConfig, soup
from jaxmodpo.policy.loaded import load_policy
from jaxmodpo.records import Candidate, Pair
from jaxmodpo.training.session import Session
from jaxmodpo.training.step import train_step
from jaxmodpo.training.trainer import Trained


def adapter_arrays(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "adapter_model.safetensors")


def assert_same_adapter(left: Path, right: Path, strays: float = 0.0) -> None:
    """Compare adapters to 1e-5; of all elements a share ``strays`` may differ by 1e-3, a fifth of a
    step of Adam, which a gradient near zero may turn either way.
    """
    ours, theirs = adapter_arrays(left), adapter_arrays(right)
    assert ours.keys() == theirs.keys()
    apart = 0
    for name, array in ours.items():
        np.testing.assert_allclose(
            array, theirs[name], rtol=1e-3, atol=1e-3 if strays else 1e-5, err_msg=name
        )
        apart += int((~np.isclose(array, theirs[name], rtol=1e-3, atol=1e-5)).sum())
    assert apart <= strays * sum(array.size for array in ours.values()), apart


def scores(
    settings, files: Path, tmp_path: Path, adapter: Path | None, name: str = "empathy"
) -> list[dict[str, Any]]:
    score_policy(
        ScorePolicyConfig(
            model=settings["model"],
            adapter=adapter,
            pairs=files / f"{name}.json",
            output=tmp_path / "scores.jsonl",
            base_dtype="float32",
            max_prompt_length=64,
            max_length=128,
        )
    )
    return [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]


def margin(rows: list[dict[str, Any]]) -> float:
    return float(np.mean([row["chosen_logp"] - row["rejected_logp"] for row in rows]))


def test_dpo_raises_the_chosen_over_the_rejected(settings, files, tmp_path, dpo_adapter):
    before, after = (scores(settings, files, tmp_path, adapter) for adapter in (None, dpo_adapter))
    assert margin(after) > margin(before) + 1
    logged = [
        json.loads(line) for line in (dpo_adapter.parent / "metrics.jsonl").read_text().splitlines()
    ]
    assert [row["loss"] for row in logged if "loss" in row][-1] < np.log(2)
    assert not (dpo_adapter.parent / "checkpoints").exists()


def test_sft_raises_the_chosen_responses_likelihood(settings, files, tmp_path):
    sft(SFTConfig(pairs=files / "empathy.json", output_dir=tmp_path / "sft", **settings))
    before = scores(settings, files, tmp_path, None)
    after = scores(settings, files, tmp_path, tmp_path / "sft" / "adapter")
    assert (
        np.mean([row["chosen_logp"] for row in after])
        > np.mean([row["chosen_logp"] for row in before]) + 2
    )


def test_policy_scores_count_every_token_of_the_response_and_its_end(settings, files, tmp_path):
    rows = scores(settings, files, tmp_path, None)
    tokenizer = load_tokenizer(settings["model"])
    for row, pair in zip(rows, some_pairs(1), strict=True):
        assert row["question_id"] == pair.question_id
        assert (
            row["chosen_tokens"]
            == len(tokenizer(pair.chosen.response_text, add_special_tokens=False).input_ids) + 1
        )
        tokens, start = PolicyText(tokenizer, "instruct", 64, 128).example(
            pair.question_text, pair.rejected.response_text
        )
        assert row["rejected_tokens"] == len(tokens) - start


def test_modpo_with_all_weight_on_the_primary_is_dpo(
    settings, files, tmp_path, dpo_adapter, reward_folder
):
    config = MODPOConfig(
        pairs=files / "empathy.json",
        margin=(f"safety={reward_folder}",),
        weights=(1.0, 0.0),
        beta=0.5,
        output_dir=tmp_path / "modpo",
        **settings,
    )
    phase = modpo(config)
    assert_same_adapter(tmp_path / "modpo" / "adapter", dpo_adapter)
    assert set(phase.results["margins"]) == {"safety"}


def test_modpos_margins_change_what_is_learned_and_are_recorded(
    settings, files, tmp_path, dpo_adapter, reward_folder
):
    config = MODPOConfig(
        pairs=files / "empathy.json",
        margin=(f"safety={reward_folder}",),
        weights=(0.5, 0.5),
        beta=0.5,
        margin_scale="std",
        margin_gain=2.0,
        output_dir=tmp_path / "modpo",
        **settings,
    )
    described = modpo(config).results["margins"]["safety"]
    assert described["scale"] == pytest.approx(2 / described["reward_std"])
    changed = adapter_arrays(tmp_path / "modpo" / "adapter")
    assert any(
        np.abs(changed[name] - array).max() > 1e-3
        for name, array in adapter_arrays(dpo_adapter).items()
    )


def test_a_batch_without_margins_is_no_modpo_batch():
    batch = {"reference_logps": jnp.zeros((2, 2)), "row_weights": jnp.ones(2)}
    with pytest.raises(KeyError, match="reward_margins"):
        MODPO(0.1, (0.5, 0.5))(jnp.zeros((2, 2, 3)), jnp.ones((2, 2, 3)), batch)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": (0.5, 0.6)}, "sum to 1"),
        ({"weights": (1.0,)}, "needs 2 numbers, for the primary, safety"),
        ({"weights": (0.0, 1.0)}, "must be positive"),
        ({"margin": ()}, "at least one --margin"),
        ({"margin": ("safety",)}, "NAME="),
        ({"margin": ("safety=nowhere",)}, "nowhere"),
    ],
)
def test_modpo_refuses_what_does_not_fit(
    settings, files, tmp_path, reward_folder, changes, message
):
    config = MODPOConfig(
        pairs=files / "empathy.json",
        margin=(f"safety={reward_folder}",),
        weights=(0.5, 0.5),
        output_dir=tmp_path / "modpo",
        **settings,
    )
    with pytest.raises(UserError, match=message):
        modpo(replace(config, **changes))


def test_joint_loss_over_twice_the_same_pairs_is_dpo(settings, files, tmp_path, dpo_adapter):
    pairs = (f"one={files / 'empathy.json'}", f"two={files / 'empathy.json'}")
    joint(
        JointConfig(
            pairs=pairs, weights=(0.5, 0.5), beta=0.5, output_dir=tmp_path / "joint", **settings
        )
    )
    # Other rows add in another order, and Adam makes a whole step of a gradient that is nothing but
    # rounding.
    assert_same_adapter(tmp_path / "joint" / "adapter", dpo_adapter, strays=1e-3)


def test_joint_pairs_meet_by_question_in_the_first_objectives_order():
    def pair(question: str, name: str) -> Pair:
        return Pair(question, "text", Candidate(f"{name}+", "good"), Candidate(f"{name}-", "bad"))

    first = [pair("q2", "a"), pair("q1", "b"), pair("q1", "c"), pair("q3", "d")]
    second = [pair("q1", "e"), pair("q2", "f"), pair("q4", "g")]
    aligned = align_pairs({"empathy": first, "safety": second})
    left_pairs, right = aligned.pair_sets
    assert [
        (a.chosen.response_id, b.chosen.response_id) for a, b in zip(left_pairs, right, strict=True)
    ] == [
        ("a+", "f+"),
        ("b+", "e+"),
    ]
    # q3 and q4 have no counterpart; of q1 there are two pairs of the one and one of the other.
    assert aligned.lacking == {"empathy": 1, "safety": 1}
    assert aligned.surplus == {"empathy": 1, "safety": 0}
    with pytest.raises(UserError, match="no question has a pair for each of empathy, safety"):
        align_pairs({"empathy": first[3:], "safety": second})


def test_a_soup_of_an_adapter_with_itself_scores_the_same(settings, files, tmp_path, dpo_adapter):
    soup(
        SoupConfig(
            adapters=(dpo_adapter, dpo_adapter), weights=(0.3, 0.7), output_dir=tmp_path / "soup"
        )
    )
    ours = scores(settings, files, tmp_path, tmp_path / "soup" / "adapter")
    theirs = scores(settings, files, tmp_path, dpo_adapter)
    for left_pairs, right in zip(ours, theirs, strict=True):
        assert left_pairs["chosen_logp"] == pytest.approx(right["chosen_logp"], abs=1e-3)


@pytest.mark.parametrize(
    ("count", "weights", "message"),
    [(1, (1.0,), "two"), (2, (0.5, 0.6), "sum to 1"), (2, (1.0,), "needs 2")],
)
def test_soup_refuses_too_few_adapters_and_weights_off_the_simplex(
    tmp_path, dpo_adapter, count, weights, message
):
    with pytest.raises(UserError, match=message):
        soup(
            SoupConfig(
                adapters=(dpo_adapter,) * count, weights=weights, output_dir=tmp_path / "soup"
            )
        )


def test_the_sft_term_is_the_chosen_responses_nll_per_token():
    generator = np.random.default_rng(0)
    logps = -generator.random((2, 4, 5)).astype("f")
    mask = np.tile(np.arange(5) < 3, (2, 4, 1)).astype("f")
    mask[1, 2] = [1, 0, 0, 0, 0]
    batch = {"reference_logps": jnp.zeros((2, 4)), "row_weights": jnp.array([1.0, 0.5])}
    plain, pulled = (
        JointDPO(0.1, (0.25, 0.75), sft_weight=weight)(
            jnp.asarray((logps * mask).sum(-1)), jnp.asarray(mask.sum(-1)), batch
        )
        for weight in (0.0, 2.0)
    )
    rows = [-0.25 * logps[r, 0, :3].mean() - 0.75 * logps[r, 2, : (3, 1)[r]].mean() for r in (0, 1)]
    expected = rows[0] + 0.5 * rows[1]
    assert float(pulled.total - plain.total) == pytest.approx(2 * expected, rel=1e-5)
    assert float(pulled.metrics["nll_loss"]) == pytest.approx(expected, rel=1e-5)
    assert "nll_loss" not in plain.metrics


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"beta": 0.0}, "--beta must be above 0, not 0"),
        ({"sft_weight": -1.0}, "--sft-weight must be at least 0, not -1"),
    ],
)
def test_constants_out_of_range_are_refused(settings, files, tmp_path, changes, said):
    config = DPOConfig(pairs=files / "empathy.json", output_dir=tmp_path / "dpo", **settings)
    with pytest.raises(UserError, match=said):
        dpo(replace(config, **changes))


# --------------------------------------------------------------------------- margins, rankings,
# links


def test_margins_come_from_adapters_and_columns_too(
    settings, files, tmp_path, dpo_adapter, reward_folder, caplog
):
    """One run over a reward model, an implicit reward and columns; columns that repeat a source are
    its twins.
    """
    pairs = some_pairs(1)
    rewards = rewards_of_pairs(reward_folder, pairs, batch_size=10, cache_dir=settings["cache_dir"])
    rows = [
        asdict(pair)
        | {
            "good": float(chosen_reward),
            "bad": float(rejected),
            "margin": float(chosen_reward - rejected),
        }
        for pair, (chosen_reward, rejected) in zip(pairs, rewards, strict=True)
    ]
    write_json(tmp_path / "pairs.json", rows)
    caplog.set_level(logging.INFO)
    phase = modpo(
        MODPOConfig(
            pairs=tmp_path / "pairs.json",
            margin=(
                f"model={reward_folder}",
                f"implicit=adapter:{dpo_adapter}",
                "both=column:good,bad",
                "lone=column:margin",
            ),
            weights=("model=0.2", "implicit=0.2", "both=0.2", "lone=0.2", "empathy=0.2"),
            margin_scale="std",
            output_dir=tmp_path / "modpo",
            **settings,
        )
    )
    margins = phase.results["margins"]
    assert list(margins) == ["model", "implicit", "both", "lone"]
    np.testing.assert_allclose(
        margins["both"]["margin_mean"], margins["model"]["margin_mean"], rtol=1e-4
    )
    # A scale is made of the training pairs alone.
    trained = ~held_out(
        [pair.question_id for pair in pairs], MODPOConfig.validation_fraction, MODPOConfig.seed
    )
    assert 0 < (~trained).sum() < 4
    known_rewards = rewards[trained]
    assert margins["model"]["reward_std"] == pytest.approx(float(known_rewards.std()), rel=1e-4)
    alone = float(np.sqrt(np.mean((known_rewards[:, 0] - known_rewards[:, 1]) ** 2) / 2))
    assert margins["lone"]["reward_std"] == pytest.approx(alone, rel=1e-4)
    assert margins["lone"]["scale"] == pytest.approx(1 / alone, rel=1e-4)
    assert margins["lone"]["correlation_with_primary"] == pytest.approx(
        margins["model"]["correlation_with_primary"], rel=1e-4
    )
    # The DPO adapter was trained on these very pairs with beta 0.5, which its manifest says.
    assert margins["implicit"]["agrees_with_primary"] > 0.9 and "beta 0.5" in caplog.text
    policy = load_policy(settings["model"], base_dtype="float32", adapter=dpo_adapter)
    text = PolicyText(load_tokenizer(settings["model"]), max_prompt_length=64, max_length=128)
    examples = policy_pairs([pairs], text).by_question().examples
    ratios = 0.5 * (policy.logps(examples, 10) - policy.logps(examples, 10, reference=True))
    assert margins["implicit"]["reward_std"] == pytest.approx(
        float(ratios[trained].std()), rel=1e-3
    )
    assert "repeats the primary" in caplog.text or "goes partly" in caplog.text


def test_a_margin_of_an_adapter_that_learned_another_prompt_is_warned_of(
    settings, files, tmp_path, dpo_adapter, caplog
):
    other_folder = tmp_path / "other"
    shutil.copytree(dpo_adapter, other_folder)
    write_json(other_folder / PROMPT_FILE, {"prompt_style": "chat"})
    config = MODPOConfig(
        pairs=files / "empathy.json",
        margin=("safety=column:nothing", f"implicit=adapter:{other_folder}"),
        weights=(0.4, 0.3, 0.3),
        output_dir=tmp_path / "modpo",
        **settings,
    )
    with pytest.raises(UserError, match="the column 'nothing' holds no finite number"):
        modpo(config)
    assert (
        f"{other_folder} was trained with --prompt-style chat and is used here with instruct"
        in caplog.text
    )


@pytest.mark.parametrize(
    ("margin", "said"),
    [
        ("safety=column:nothing", "the column 'nothing' holds no finite number"),
        ("safety=no/such/folder", "no such file or folder"),
        ("safety=adapter:no/such/folder", "no such file or folder"),
        ("safety=column:", "--margin"),
    ],
)
def test_margins_without_a_source_are_refused(settings, files, tmp_path, margin, said):
    config = MODPOConfig(
        pairs=files / "empathy.json",
        margin=(margin,),
        weights=(0.5, 0.5),
        output_dir=tmp_path / "modpo",
        **settings,
    )
    with pytest.raises(UserError, match=said):
        modpo(config)


def test_runs_that_differ_in_numbers_share_one_compiled_step_and_one_base(
    settings, files, tmp_path
):
    session = Session()
    shared = settings | {"validation_fraction": 0.0, "epochs": 1}
    sizes, bases = [], []
    for number, changes in enumerate(
        (
            {"beta": 0.1},
            {"beta": 0.7, "learning_rate": 1e-4, "weight_decay": 0.3},
            {"beta": 2.0, "lora_alpha": 1.0},
        )
    ):
        run = DPOConfig(
            pairs=files / "empathy.json", output_dir=tmp_path / str(number), **shared | changes
        )
        dpo(run, session)
        sizes.append(train_step._cache_size())  # type: ignore[attr-defined]
        bases.append(session.policy(run).base["embed"])
    assert sizes[0] == sizes[1] == sizes[2]
    assert bases[0] is bases[1] is bases[2]
    first, second = (adapter_arrays(tmp_path / str(number) / "adapter") for number in (0, 1))
    assert any(not np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (
            {"classifier.out_proj.bias": np.nan},
            r"holds NaN or infinity.*classifier\.out_proj\.bias",
        ),
        (
            {"classifier.out_proj.bias": 1.0, "classifier.out_proj.weight": 0.0},
            "the margin safety .* gives every response the same reward",
        ),
    ],
)
def test_rewards_that_are_not_finite_or_all_equal_are_no_margins(
    settings, files, tmp_path, reward_folder, broken, said
):
    folder = shutil.copytree(reward_folder, tmp_path / "broken")
    arrays = load_file(folder / "model.safetensors")
    arrays |= {name: np.full_like(arrays[name], value) for name, value in broken.items()}
    save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
    config = MODPOConfig(
        pairs=files / "empathy.json", margin=(f"safety={folder}",), weights=(0.5, 0.5), margin_scale="std",
        output_dir=tmp_path / "modpo", **settings | {"cache_dir": tmp_path / "cache"},
    )  # fmt: skip
    with pytest.raises(UserError, match=said):
        modpo(config)


@pytest.mark.parametrize("link", ["hinge", "ipo"])
def test_other_links_train(settings, files, tmp_path, link):
    config = DPOConfig(
        pairs=files / "empathy.json", link=link, output_dir=tmp_path / link, **settings
    )
    dpo(config)
    rows = [
        json.loads(line) for line in (tmp_path / link / "metrics.jsonl").read_text().splitlines()
    ]
    expected = {"hinge": 1.0, "ipo": (1 / (2 * config.beta)) ** 2}[link]
    evaluations = [row["eval_loss"] for row in rows if "eval_loss" in row]
    assert evaluations[-1] < expected
    with pytest.raises(UserError, match="--label-smoothing"):
        dpo(replace(config, label_smoothing=0.1))


@pytest.mark.parametrize("method", ["sft", "dpo", "modpo", "joint"])
def test_methods_record_the_ties_they_left_out(
    settings, reward_rankings, tmp_path, monkeypatch, caplog, method
):
    """What ties cost reaches the manifest; the training in between does not matter here."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(
        "jaxmodpo.methods.align.train",
        lambda problem, *_, **__: Trained(problem.trainable, {}),
    )
    monkeypatch.setattr(
        "jaxmodpo.methods.modpo.read_margins",
        lambda _sources, _file, data, *_, **__: Margins(
            ("m",), np.ones((len(data.pairs), 1)), {"m": describe(np.ones(9))}
        ),
    )
    path = reward_rankings.rankings / "safety_rankings.json"
    shared: dict[str, Any] = {"output_dir": tmp_path / "out", "reference": "in_step", **settings}
    if method == "sft":
        phase = sft(SFTConfig(pairs=path, **shared))
    elif method == "dpo":
        phase = dpo(DPOConfig(pairs=path, pairs_per_question="all", **shared))
    elif method == "modpo":
        phase = modpo(MODPOConfig(pairs=path, margin=("m=column:m",), weights=(0.5, 0.5), **shared))
    else:
        phase = joint(
            JointConfig(
                pairs=(f"a={path}", f"b={path}"),
                weights=(0.5, 0.5),
                pairs_per_question="all",
                **shared,
            )
        )
    # Of three replies two are tied, twice; of two replies both, once. Best and worst are tied in
    # the last alone.
    tied = {"sft": 1, "dpo": 3, "modpo": 3, "joint": 6}[method]
    recorded = phase.results
    assert recorded["tied_pairs_left_out"] == tied and recorded["identical_pairs_left_out"] == 0
    assert recorded["examples"] + recorded["held_out_examples"] <= 24
    comparisons = recorded["comparisons"] + recorded["held_out_comparisons"]
    assert comparisons + recorded.get("equal_once_cut_left_out", 0) == (
        23 if method == "sft" else 12 * 3 + 12 - 3
    )
    assert f"left out: {min(tied, 3)} of tied responses" in caplog.text
