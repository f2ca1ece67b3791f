"""What a trained policy or reward model gives for pairs: ``score policy`` writes log-probabilities,
``score reward`` rewards.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from jaxmodpo.costs import Cost, Estimates
from jaxmodpo.data.pairs import load_pairs
from jaxmodpo.data.replies import policy_pairs
from jaxmodpo.data.text import SHORTEST_REWARD_TEXT, PromptStyle, check_day, check_lengths
from jaxmodpo.files import Row, check_writable, write_jsonl
from jaxmodpo.flags.help_groups import HelpGroup
from jaxmodpo.methods.reward_model import rewards_of_pairs
from jaxmodpo.models.quantized import BaseDtype
from jaxmodpo.policy.loaded import load_policy
from jaxmodpo.policy.mesh import make_mesh
from jaxmodpo.policy.prompts import load_policy_text
from jaxmodpo.ranges import CommandSettings, Count, Incidental
from jaxmodpo.records import Pair
from jaxmodpo.schema import Range

logger = logging.getLogger(__name__)

ROW_BYTES = 250
"""of what is written about a pair: three ids and four numbers"""
LONGEST_REWARD_TEXT = 512
"""tokens that a reward model reads, for estimates, where the settings leave it to the model"""


@dataclass(frozen=True, kw_only=True)
class ScorePolicyConfig(CommandSettings, help_group="model"):
    """Write the log-probability of each pair's responses, in nats, summed over their tokens."""

    model: Path
    """Hugging Face folder of the base model."""
    pairs: Path
    """File of preference pairs, in any layout that other commands read."""
    output: Incidental[Path]
    """JSON Lines file to write, with a row for each pair."""
    adapter: Path | None = None
    """PEFT folder of an adapter. Without one the base model is scored."""
    base_dtype: BaseDtype = "bfloat16"
    """Number format of the base weights. int8 and nf4 quantize the projections block by block."""
    batch_size: Annotated[Count, HelpGroup("batch")] = 4
    """Pairs that are scored at a time."""
    mesh: Annotated[tuple[Count, Count, Count] | None, HelpGroup("devices")] = None
    """Number of devices along the mesh axes data, fsdp and tensor. By default as in training."""
    prompt_style: Annotated[PromptStyle, HelpGroup("text")] = "instruct"
    """How a question is put to the model, as in training. instruct: the paper's prompt; chat: the
    tokenizer's template."""
    prompt_date: Annotated[str | None, HelpGroup("text")] = None
    """Day, as YYYY-MM-DD, that a chat template takes for today. By default it is the adapter's, or
    today."""
    max_prompt_length: Annotated[int, Range(least=2), HelpGroup("text")] = 512
    """Most tokens of a prompt."""
    max_length: Annotated[Count, HelpGroup("text")] = 1024
    """Most tokens of prompt and response together."""

    def check(self) -> None:
        super().check()
        check_day(self.prompt_date)
        check_lengths(self.max_prompt_length, self.max_length)

    def cost(self, estimator: Estimates) -> Cost:
        pairs = estimator.rows(self.pairs)
        return Cost(chip_hours=estimator.scoring(self.model, 2 * pairs), disk=ROW_BYTES * pairs)


def score_policy(config: ScorePolicyConfig) -> None:
    """Run ``score policy``: a row for each pair, with its ids, ``chosen_logp``, ``chosen_tokens``
    and so on.
    """
    config.check()
    check_writable(config.output)
    pairs = load_pairs(config.pairs)
    text = load_policy_text(
        config.model,
        config.prompt_style,
        config.max_prompt_length,
        config.max_length,
        day=config.prompt_date,
        adapters=[config.adapter],
    )
    policy = load_policy(
        config.model, base_dtype=config.base_dtype, mesh=config.mesh, adapter=config.adapter
    )
    questions = policy_pairs([pairs], text).by_question()
    examples = questions.examples
    text.cut.warn()
    logps = questions.of_comparisons(policy.logps(examples, config.batch_size))
    tokens = questions.of_comparisons(examples.lengths - examples.prompt_lengths)
    rows: list[Row] = []
    for pair, logps_of_pair, tokens_of_pair in zip(pairs, logps, tokens, strict=True):
        chosen_logp, rejected_logp = logps_of_pair.tolist()
        chosen_tokens, rejected_tokens = tokens_of_pair.tolist()
        rows.append(
            {
                **_ids(pair),
                "chosen_logp": chosen_logp,
                "rejected_logp": rejected_logp,
                "chosen_tokens": chosen_tokens,
                "rejected_tokens": rejected_tokens,
            }
        )
    write_jsonl(config.output, rows)
    logger.info("%d pairs scored: %s", len(pairs), config.output)


def _ids(pair: Pair) -> dict[str, str]:
    """Return what tells a pair from the others of its question."""
    return {
        "question_id": pair.question_id,
        "chosen_response_id": pair.chosen.response_id,
        "rejected_response_id": pair.rejected.response_id,
    }


@dataclass(frozen=True, kw_only=True)
class ScoreRewardConfig(CommandSettings, help_group="model"):
    """Write the reward of each pair's responses."""

    model: Path
    """Folder of a reward model."""
    pairs: Path
    """File of preference pairs, in any layout that other commands read."""
    output: Incidental[Path]
    """JSON Lines file to write, with a row for each pair."""
    batch_size: Annotated[Count, HelpGroup("batch")] = 8
    """Pairs that are scored at a time."""
    mesh: Annotated[tuple[Count, Count, Count] | None, HelpGroup("devices")] = None
    """Number of devices along the mesh axes data, fsdp and tensor. By default as in training."""
    max_length: Annotated[
        Annotated[int, Range(least=SHORTEST_REWARD_TEXT)] | None, HelpGroup("text")
    ] = None
    """Most tokens of question and response together. By default it is as in training."""
    cache_dir: Annotated[Incidental[Path | None], HelpGroup("computation")] = None
    """Folder that keeps rewards. By default it is $JAXMODPO_CACHE or ~/.cache/jaxmodpo."""

    def cost(self, estimator: Estimates) -> Cost:
        pairs = estimator.rows(self.pairs)
        hours = estimator.rewarding(self.model, 2 * pairs, self.max_length or LONGEST_REWARD_TEXT)
        return Cost(chip_hours=hours, disk=ROW_BYTES * pairs)


def score_reward(config: ScoreRewardConfig) -> None:
    """Run ``score reward``: a row for each pair, with its ids, ``chosen_reward`` and
    ``rejected_reward``.
    """
    config.check()
    check_writable(config.output)
    pairs = load_pairs(config.pairs)
    rewards = rewards_of_pairs(
        config.model,
        pairs,
        batch_size=config.batch_size,
        max_length=config.max_length,
        cache_dir=config.cache_dir,
        mesh=make_mesh(config.mesh),
    )
    rows: list[Row] = []
    for pair, (chosen, rejected) in zip(pairs, rewards.tolist(), strict=True):
        rows.append({**_ids(pair), "chosen_reward": chosen, "rejected_reward": rejected})
    write_jsonl(config.output, rows)
    chosen_rewards, rejected_rewards = rewards.T
    equal = int((chosen_rewards == rejected_rewards).sum())
    higher = int((chosen_rewards > rejected_rewards).sum())
    logger.info(
        "%d pairs scored: the chosen reply is higher in %d, lower in %d, and %d have equal rewards"
        " (as replies have that are the same once cut): %s",
        len(pairs),
        higher,
        len(pairs) - higher - equal,
        equal,
        config.output,
    )
