"""``bench reward`` times both trainers on the same pairs and weights, and only where they agree."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from jaxmodpo.bench.reward import BenchRewardConfig, bench_reward, refuse_other_rewards
from jaxmodpo.errors import UserError

SHAPE = {
    "model_type": "roberta",
    "vocab_size": 200,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 130,
    "type_vocab_size": 1,
    "pad_token_id": 1,
}


@pytest.mark.slow(seconds=20)
def test_both_trainers_are_timed_in_turns_with_what_each_was_given(tmp_path: Path, capsys):
    pytest.importorskip("trl", reason="compares with TRL")
    (tmp_path / "shape.json").write_text(json.dumps(SHAPE))
    bench_reward(
        BenchRewardConfig(
            model=str(tmp_path / "shape.json"),
            batch_size=2,
            updates=2,
            rounds=2,
            against="trl",
            json=tmp_path / "reward.json",
        )
    )
    printed = capsys.readouterr().out
    assert "| against TRL, defaults |" in printed and "1.00×" in printed
    record = json.loads((tmp_path / "reward.json").read_text())
    ours, padded, defaults, keeping = record["measured"]
    assert {"jax", "torch", "trl"} <= record["machine"]["versions"].keys()
    assert ours["settings"]["remat"] == "none" and ours["peak_bytes"] > 0
    assert padded["settings"]["batching"] == "padded"
    assert defaults["settings"]["gradient_checkpointing"]
    assert not keeping["settings"]["gradient_checkpointing"]
    assert {row["tokens"] for row in record["measured"]} == {ours["tokens"]}
    assert all(len(row["seconds"]) == 2 for row in record["measured"])


def test_another_model_is_no_rival():
    rewards = np.array([[0.5, -1.0]])
    refuse_other_rewards(rewards, rewards + 1e-5)
    with pytest.raises(UserError, match=r"differ from those of TRL's model by 0\.01, where"):
        refuse_other_rewards(rewards, rewards + 0.01)
