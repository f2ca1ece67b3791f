"""The ``personas`` command: survey rows in, personas for collecting preferences and for testing out."""

from __future__ import annotations

import collections
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxmodpo.artifacts import Phase, write_json
from jaxmodpo.errors import UserError
from jaxmodpo.personas.profile import profile_text, quality
from jaxmodpo.personas.selection import select_diverse, split_balanced
from jaxmodpo.personas.survey import Participant, read_surveys

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PersonasConfig:
    """Turn survey answers into patient personas: score, select for diversity, split."""

    survey: tuple[Path, ...]
    """survey CSV files; the columns are those of jaxmodpo.personas.survey"""
    output_dir: Path
    """train_personas.json, test_personas.json and all_personas.json are written here"""
    select: int = 150
    """personas kept"""
    train: int = 100
    """of these, for collecting preferences; the others are for testing"""
    min_quality: float = 0.9
    """least quality of a persona, from 0 to 1"""
    seed: int = 42
    """of the selection and the split"""


def personas(config: PersonasConfig) -> Phase:
    """Run ``personas``.

    Raises:
        UserError: unreadable surveys, or too few good profiles.
    """
    if not 0 < config.train < config.select:
        raise UserError(f"--train must lie between 0 and --select; got {config.train} and {config.select}")
    inputs = {f"survey {number}": path for number, path in enumerate(config.survey, 1)}
    phase = Phase.open("personas", config, config.output_dir, inputs)
    if phase.finished:
        logger.info("personas: %s is finished", config.output_dir)
        return phase
    participants = read_surveys(config.survey)
    rated = {p.participant_id: quality(p) for p in participants}
    good = [p for p in participants if rated[p.participant_id]["quality"] >= config.min_quality]
    if len(good) < config.select:
        raise UserError(
            f"{len(good)} of {len(participants)} participants have a quality of {config.min_quality} or more, but "
            f"--select asks for {config.select}"
        )
    texts = [profile_text(p) for p in good]
    selected = [good[n] for n in select_diverse(texts, config.select, config.seed)]
    train, test = split_balanced(selected, config.select - config.train, config.seed)
    split = {selected[n].participant_id: "train" for n in train} | {selected[n].participant_id: "test" for n in test}
    for name in ("train", "test"):
        write_json(
            config.output_dir / f"{name}_personas.json",
            {p.participant_id: profile_text(p) for p in selected if split[p.participant_id] == name},
        )
    write_json(
        config.output_dir / "all_personas.json",
        [_structured(p, rated[p.participant_id], split.get(p.participant_id)) for p in participants],
    )
    qualities = np.array([rated[p.participant_id]["quality"] for p in participants])
    logger.info(
        "%d participants, quality %.3f (SD %.3f); %d good enough, %d selected: %d to train, %d to test",
        len(participants),
        qualities.mean(),
        qualities.std(),
        len(good),
        len(selected),
        len(train),
        len(test),
    )
    phase.finish(
        participants=len(participants),
        good=len(good),
        quality_mean=round(float(qualities.mean()), 4),
        quality_std=round(float(qualities.std()), 4),
        train=_composition([selected[n] for n in train]),
        test=_composition([selected[n] for n in test]),
    )
    return phase


def _structured(participant: Participant, rating: dict[str, float], split: str | None) -> dict[str, Any]:
    return {
        "persona_id": participant.participant_id,
        **participant.texts,
        **{name: list(items) for name, items in participant.lists.items()},
        **participant.ratings,
        **rating,
        "split": split,
    }


def _composition(participants: list[Participant]) -> dict[str, Any]:
    counts: dict[str, Any] = {"personas": len(participants)}
    for dimension in ("population", "gender", "ethnicity", "age"):
        counts[dimension] = dict(sorted(collections.Counter(p.texts[dimension] for p in participants).items()))
    return counts
