"""The ``sandbox world`` command: posts, a survey and two tiny pretrained models, all from one
seed.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxmodpo.costs import Cost, Estimates
from jaxmodpo.errors import UserError
from jaxmodpo.files import write_table
from jaxmodpo.personas.synthetic import write_survey
from jaxmodpo.phase import Phase, in_phase
from jaxmodpo.ranges import CommandSettings, Count, Incidental, Positive, Seed
from jaxmodpo.sandbox import grammar
from jaxmodpo.sandbox.models import make_mistral, make_roberta
from jaxmodpo.training.settings import TrainingConfig

logger = logging.getLogger(__name__)

BATCH_SIZE = 32
"""texts in an update of the pretraining"""


@dataclass(frozen=True, kw_only=True)
class WorldConfig(CommandSettings, help_group="world"):
    """Make the sandbox: a synthetic world with known ground truth."""

    output_dir: Incidental[Path]
    """Folder that posts.csv, survey.csv, mistral/ and roberta/ are written to."""
    posts: Count = 650
    """Number of help-seeking posts that are made."""
    participants: Count = 335
    """Number of people who answer the survey."""
    mistral_steps: Count = 500
    """Number of pretraining updates of the decoder, of 32 texts each."""
    mistral_learning_rate: Positive = 3e-3
    """Peak of the decoder's learning rate."""
    roberta_steps: Count = 200
    """Number of pretraining updates of the encoder, of 32 texts each."""
    roberta_learning_rate: Positive = 2e-3
    """Peak of the encoder's learning rate."""
    seed: Seed = 0
    """Seed of the posts, the survey and the models."""

    def cost(self, estimator: Estimates) -> Cost:
        estimator.counts[self.output_dir / "posts.csv"] = self.posts
        return Cost.not_estimated("the sandbox's pretraining")


@in_phase("sandbox world")
def world(config: WorldConfig, phase: Phase) -> None:
    """Run ``sandbox world``; a killed run goes on with what is missing."""
    generator = np.random.default_rng(config.seed)
    posts = distinct_posts(config.posts, generator)
    rows: list[dict[str, str]] = []
    for number, text in enumerate(posts):
        rows.append({"sp_id": f"post{number:05d}", "seeker_post": text})
    # Under the names that the authors' file of posts has, so that 'questions' reads it as theirs.
    write_table(config.output_dir / "posts.csv", rows, ["sp_id", "seeker_post"])
    write_survey(
        config.output_dir / "survey.csv", participants=config.participants, seed=config.seed
    )
    _pretrain(config, "mistral", make_mistral, config.mistral_steps, config.mistral_learning_rate)
    _pretrain(config, "roberta", make_roberta, config.roberta_steps, config.roberta_learning_rate)
    phase.finish(posts=len(posts), participants=config.participants)


def _pretrain(
    config: WorldConfig, name: str, make: Callable[..., None], steps: int, learning_rate: float
) -> None:
    """Pretrain one model on posts and replies of its own into the folder of its name; nothing is
    done where that is there.

    Args:
        config: the settings.
        name: the folder's.
        make: pretrains the model and saves it.
        steps: updates.
        learning_rate: at its peak.
    """
    folder = config.output_dir / name
    # The folder appears under its name once it is whole, so that a killed run finds it or makes it.
    if folder.exists():
        return
    work = config.output_dir / f"pretraining_{name}"
    # A stream of its own for each model: how many texts the decoder takes is not to change which
    # ones the encoder gets.
    generator = np.random.default_rng([config.seed, len(name)])
    texts: list[tuple[str, str]] = []
    # Every text is seen once. The grammar has more texts than any model here could learn by heart,
    # so what the model learns is the grammar.
    for _ in range(BATCH_SIZE * steps):
        post = grammar.post(generator)
        texts.append((post, grammar.reply(generator)))
    logger.info("pretraining a tiny %s on %d texts", name, len(texts))
    settings = TrainingConfig(
        output_dir=work,
        seed=config.seed,
        learning_rate=learning_rate,
        batch_size=BATCH_SIZE,
        gradient_accumulation=1,
        epochs=1,
        weight_decay=0.01,
        warmup_ratio=0.05,
        log_every=50,
        save_every=100,
    )
    make(folder, texts, settings)
    (work / "metrics.jsonl").replace(config.output_dir / f"pretraining_{name}.jsonl")
    shutil.rmtree(work)


def distinct_posts(count: int, generator: np.random.Generator) -> list[str]:
    """Draw ``count`` different posts.

    Raises:
        UserError: the grammar has too few.
    """
    posts: dict[str, None] = {}
    # As long as posts are left most draws bring a new one. Fifty draws a post that bring too few
    # mean that hardly any are left.
    for _ in range(50 * count):
        posts.setdefault(grammar.post(generator))
        if len(posts) == count:
            return list(posts)
    raise UserError(f"the sandbox's grammar has no {count} different posts; ask for fewer --posts")
