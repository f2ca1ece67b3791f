"""Benchmarks run on small sizes and print what they promise."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from jaxmodpo.bench.resume import BenchResumeConfig, bench_resume
from jaxmodpo.bench.sample import bench_sample
from jaxmodpo.bench.sample_settings import BenchSampleConfig
from jaxmodpo.bench.step import BenchStepConfig, bench_step, compared_replies
from jaxmodpo.errors import UserError

SHAPE = {
    "model_type": "mistral",
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "sliding_window": None,
}
SMALL = {"updates": 2, "rounds": 1, "batch_size": 2, "length_share": 0.05, "lora_rank": 2}


@pytest.fixture
def model(tmp_path: Path) -> str:
    (tmp_path / "shape.json").write_text(json.dumps(SHAPE))
    return str(tmp_path / "shape.json")


@pytest.mark.slow(seconds=80)
def test_a_run_that_is_killed_often_ends_where_an_undisturbed_one_does(capsys):
    bench_resume(BenchResumeConfig(kills=3, epochs=6))
    printed = capsys.readouterr().out
    assert "66 updates, 3 kills by SIGKILL" in printed
    assert "equal the undisturbed run's to the bit" in printed


@pytest.mark.slow
def test_the_step_is_timed_packed_and_padded_and_with_either_reference(capsys, model):
    bench_step(BenchStepConfig(model=model, **SMALL))
    printed = capsys.readouterr().out
    for batching in ("packed", "padded"):
        for reference in ("precomputed", "in step"):
            assert f"| {batching}, reference {reference}" in printed
    assert "pairs/s" in printed and "peak MiB" in printed


@pytest.mark.slow
def test_the_step_is_timed_with_several_pairs_a_question_and_each_remat(model, tmp_path):
    bench_step(
        BenchStepConfig(
            model=model,
            **SMALL,
            replies=4,
            pairs_per_question=3,
            remat=("none", "full"),
            batchings=("packed",),
            references=("precomputed",),
            json=tmp_path / "step.json",
        )
    )
    record = json.loads((tmp_path / "step.json").read_text())
    none, full = record["measured"]
    assert none["name"].endswith("remat none") and full["settings"]["remat"] == "full"
    # Two updates of two questions, three pairs each.
    assert none["pairs"] == full["pairs"] == 2 * 2 * 3 and none["tokens"] == full["tokens"]
    assert len(none["seconds"]) == 1 and record["machine"]["cores"] >= 1


@pytest.mark.slow
def test_a_step_whose_rows_have_several_lengths_is_timed_beside_one_of_one(model, tmp_path):
    json_file = tmp_path / "step.json"
    bench_step(
        BenchStepConfig(
            model=model,
            **{**SMALL, "batch_size": 1, "updates": 12},
            batchings=("packed", "padded"),
            references=("precomputed",),
            row_lengths=(1, 3),
            json=json_file,
        )
    )
    one, several, padded = json.loads(json_file.read_text())["measured"]
    longest = one["settings"]["tokens of a row"]
    lengths = several["settings"]["tokens of a row"]
    assert len(longest) == 1 and 1 < len(lengths) <= 3 and max(lengths) <= longest[0]
    assert several["name"] == "packed (3), reference precomputed"
    assert padded["name"].startswith("padded,") and padded["settings"]["row_lengths"] == 1
    # Each makes the same updates.
    assert one["pairs"] == several["pairs"] == padded["pairs"] == 12


def test_replies_of_no_pair_are_left_out_and_pairs_are_a_rankings_widest():
    compared, places = compared_replies(5, "best-worst")
    assert compared.tolist() == [0, 4] and places.tolist() == [[0, 1]]
    compared, places = compared_replies(5, 3)
    assert compared[places].tolist() == [[0, 4], [0, 3], [1, 4]]
    compared, places = compared_replies(5, "all")
    assert len(places) == 10 and compared.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.slow
def test_the_step_is_timed_with_a_quantized_base_and_against_trl(capsys, model):
    pytest.importorskip("trl", reason="compares with TRL")
    bench_step(
        BenchStepConfig(
            model=model,
            **SMALL,
            base_dtype="int8",
            batchings=("packed",),
            references=("precomputed",),
            against="trl",
        )
    )
    printed = capsys.readouterr().out
    assert (
        "| TRL, defaults" in printed
        and "| TRL, references precomputed" in printed
        and "1.00×" in printed
    )


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (lambda _: bench_step(BenchStepConfig(updates=0)), "--updates must be at least 1"),
        (
            lambda _: bench_step(BenchStepConfig(length_share=2.0)),
            "--length-share must be above 0 and at most 1",
        ),
        (
            lambda _: bench_step(BenchStepConfig(model="nothing")),
            "no model shape, file or folder 'nothing'",
        ),
        (lambda _: bench_resume(BenchResumeConfig(kills=0)), "--kills must be at least 1"),
        (lambda folder: bench_resume(BenchResumeConfig(work_dir=folder)), "is not empty"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_sentence(tmp_path, command, said):
    (tmp_path / "something").touch()
    with pytest.raises(UserError, match=said):
        command(tmp_path)


@pytest.mark.slow(seconds=20)
def test_sampling_is_timed_with_what_the_sampler_was_given(capsys):
    small = BenchSampleConfig(
        replies=4, samples=2, batch_size=4, rounds=1, length_share=0.02, json=True
    )
    bench_sample(small)
    (row,) = json.loads(capsys.readouterr().out)
    settings = row["settings"]
    assert (settings["base"], settings["activations"]) == ("float32", "float32")
    assert (settings["adapter"], settings["batch size"]) == ("of rank 16, not merged", 4)
    assert (settings["temperature"], settings["top-p"]) == (0.8, 0.95)
    assert settings["threads"] == len(os.sched_getaffinity(0))
    assert row["programs"] == 2


@pytest.mark.slow(seconds=20)
def test_generate_is_timed_beside_the_sampler_which_has_no_adapter_then_either(capsys):
    pytest.importorskip("torch")
    small = BenchSampleConfig(
        replies=4,
        samples=2,
        batch_size=4,
        rounds=1,
        length_share=0.02,
        lora_rank=0,
        against="generate",
        generate_batches=(4,),
        json=True,
    )
    bench_sample(small)
    ours, generate = json.loads(capsys.readouterr().out)
    assert generate["name"] == "generate, batches of 4"
    for row in (ours, generate):
        assert row["settings"]["adapter"] == "none" and row["tokens"] > 0
        assert row["settings"]["threads"] == len(os.sched_getaffinity(0))
