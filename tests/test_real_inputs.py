"""The whole way on real help-seeking posts, with models too small to mean anything."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from tiny_models import TINY_POLICY

from jaxmodpo.data.pairs import load_pairs
from jaxmodpo.data.questions import QuestionsConfig, questions
from jaxmodpo.data.scored import PairsConfig, pairs
from jaxmodpo.files import read_json
from jaxmodpo.judging.preferences import PreferencesConfig, preferences
from jaxmodpo.methods.modpo import MODPOConfig, modpo
from jaxmodpo.methods.reward import reward
from jaxmodpo.methods.reward_settings import RewardConfig
from jaxmodpo.personas.command import PersonasConfig, personas
from jaxmodpo.phase import Phase
from jaxmodpo.records import read_responses
from jaxmodpo.sampling.command import ResponsesConfig, responses


def test_upvotes_of_therapists_answers_become_pairs_within_a_question(real_data, tmp_path: Path):
    pairs(
        PairsConfig(input=real_data("counsel-chat/20200325_counsel_chat.csv"), output_dir=tmp_path)
    )
    upvoted = load_pairs(tmp_path / "upvotes_pairs.json")
    assert len(upvoted) == 565 and len({pair.question_id for pair in upvoted}) == 201
    texts = [answer.response_text for pair in upvoted for answer in (pair.chosen, pair.rejected)]
    assert not any(tag in text for text in texts for tag in ("<p>", "</p>", "<br", "&nbsp;"))


@pytest.mark.slow(seconds=40)
def test_forty_epitome_posts_go_from_questions_to_modpo(
    real_data, tiny_world: Path, tmp_path: Path
):
    posts = sixty_posts(real_data("epitome/interpretations-reddit.csv"), tmp_path / "posts.csv")
    questions(
        QuestionsConfig(
            input=(tmp_path / "posts.csv",), output_dir=tmp_path / "questions", test_size=20
        )
    )
    personas(PersonasConfig(survey=(tiny_world / "survey.csv",), output_dir=tmp_path / "personas"))
    sample_replies(tiny_world, tmp_path)
    assert len(read_responses(tmp_path / "responses" / "responses.csv")) == 160
    vote(tmp_path)
    for name in ("empathy", "safety"):
        preferred = load_pairs(tmp_path / "preferences" / f"{name}_pairs.json")
        assert len(preferred) >= 30
        assert {pair.question_text for pair in preferred} <= posts
    train_reward(tiny_world, tmp_path)
    phase = train_modpo(tiny_world, tmp_path)
    pair_count = len(load_pairs(tmp_path / "preferences" / "empathy_pairs.json"))
    assert phase.results["examples"] + phase.results["held_out_examples"] == pair_count
    assert np.isfinite(phase.results["margins"]["safety"]["margin_std"])
    assert (tmp_path / "modpo" / "adapter" / "adapter_model.safetensors").is_file()
    assert read_json(tmp_path / "questions" / "manifest.json")["results"]["train"] == 40


def sixty_posts(epitome: Path, path: Path) -> set[str]:
    """Write the rows of Epitome's first sixty posts to a file, and return the posts."""
    with epitome.open(encoding="utf-8", newline="") as file:
        row_of_post = {row["sp_id"]: row for row in csv.DictReader(file)}
    rows = list(row_of_post.values())[:60]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return {row["seeker_post"].strip() for row in rows}


def sample_replies(tiny_world: Path, folder: Path) -> None:
    responses(
        ResponsesConfig(
            model=tiny_world / "mistral",
            questions=folder / "questions" / "questions_train.csv",
            output_dir=folder / "responses",
            samples=4,
            max_new_tokens=24,
            max_prompt_length=512,
            batch_size=40,
            base_dtype="float32",
            temperature=0.8,
            top_p=0.95,
        )
    )


def vote(folder: Path) -> None:
    preferences(
        PreferencesConfig(
            responses=folder / "responses" / "responses.csv",
            personas=folder / "personas" / "train_personas.json",
            criteria="therapeutic",
            only=("empathy", "safety"),
            judge="rubric",
            personas_per_question=6,
            output_dir=folder / "preferences",
        )
    )


def train_reward(tiny_world: Path, folder: Path) -> None:
    reward(
        RewardConfig(
            pairs=folder / "preferences" / "safety_pairs.json",
            model=tiny_world / "roberta",
            output_dir=folder / "reward",
            learning_rate=1e-3,
            batch_size=8,
            gradient_accumulation=1,
            epochs=2,
            max_length=128,
        )
    )


def train_modpo(tiny_world: Path, folder: Path) -> Phase:
    return modpo(
        MODPOConfig(
            model=tiny_world / "mistral",
            pairs=folder / "preferences" / "empathy_pairs.json",
            margin=(f"safety={folder / 'reward' / 'model'}",),
            weights=(0.5, 0.5),
            margin_scale="std",
            output_dir=folder / "modpo",
            learning_rate=1e-3,
            batch_size=8,
            epochs=1,
            max_prompt_length=128,
            max_length=160,
            cache_dir=folder / "cache",
            **TINY_POLICY,
        )
    )
