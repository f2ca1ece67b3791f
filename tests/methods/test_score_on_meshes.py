"""``score policy`` and ``score reward`` give the numbers of one device on a mesh of two."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jaxmodpo.methods.score import (
    ScorePolicyConfig,
    ScoreRewardConfig,
    score_policy,
    score_reward,
)

SCORE = """
import sys
from pathlib import Path
import jax
from jaxmodpo.methods.score import (
    ScorePolicyConfig, ScoreRewardConfig, score_policy, score_reward
)

model, reward, files, out = map(Path, sys.argv[1:])
assert jax.device_count() == 2
for mesh in ((2, 1, 1), (1, 2, 1), (1, 1, 2)):
    name = "".join(map(str, mesh))
    score_policy(
        ScorePolicyConfig(
            model=model, pairs=files / "empathy.json", output=out / f"policy{name}.jsonl",
            base_dtype="float32", max_prompt_length=64, max_length=128, mesh=mesh,
        )
    )
    # Each with a cache of its own: the second would else read what the first has computed.
    score_reward(
        ScoreRewardConfig(
            model=reward, pairs=files / "safety.json", output=out / f"reward{name}.jsonl",
            cache_dir=out / f"cache{name}", mesh=mesh,
        )
    )
"""


@pytest.mark.slow(seconds=60)
def test_a_mesh_of_two_scores_as_one_device_does(
    settings, files, tmp_path, reward_folder, forked_programs
):
    arguments = [str(path) for path in (settings["model"], reward_folder, files, tmp_path)]
    forked_programs.run(SCORE, arguments, devices=2)
    score_policy(
        ScorePolicyConfig(
            model=settings["model"],
            pairs=files / "empathy.json",
            output=tmp_path / "policy.jsonl",
            base_dtype="float32",
            max_prompt_length=64,
            max_length=128,
        )
    )
    score_reward(
        ScoreRewardConfig(
            model=reward_folder,
            pairs=files / "safety.json",
            output=tmp_path / "reward.jsonl",
            cache_dir=tmp_path / "cache",
        )
    )
    for kind, keys in {
        "policy": ("chosen_logp", "rejected_logp"),
        "reward": ("chosen_reward", "rejected_reward"),
    }.items():
        alone = rows_of(tmp_path / f"{kind}.jsonl")
        assert len({row[keys[0]] for row in alone}) > 1
        for mesh in ("211", "121", "112"):
            rows = rows_of(tmp_path / f"{kind}{mesh}.jsonl")
            assert [row["question_id"] for row in rows] == [row["question_id"] for row in alone]
            for key in keys:
                expected = [row[key] for row in alone]
                assert [row[key] for row in rows] == pytest.approx(expected, rel=1e-4), mesh


def rows_of(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
