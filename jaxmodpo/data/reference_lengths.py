"""Examples without a meaning whose lengths are like those of real posts and replies, for
benchmarks.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from jaxmodpo.data.examples import LENGTH_MULTIPLE, Examples


def reference_examples(
    count: int, *, replies: int = 2, share: float = 1.0, vocab_size: int = 1000, seed: int = 0
) -> Examples:
    """Return questions whose prompts have 20 + log-normal (median 40, σ 0.8) tokens, at most 512,
    and whose completions log-normal (median 300, σ 0.35), clipped to 60–512.

    Args:
        count: questions.
        replies: to each of them; two make a pair.
        share: of every length; benchmarks on a CPU take a quarter.
        vocab_size: tokens are drawn from 3 up to here, evenly.
        seed: of lengths and tokens.
    """
    generator = np.random.default_rng(seed)
    prompts, lengths = reference_lengths(count, generator, share, replies)
    multiples = math.ceil(lengths.max() / LENGTH_MULTIPLE)
    longest = multiples * LENGTH_MULTIPLE
    tokens = generator.integers(3, vocab_size, (count, replies, longest), dtype=np.int32)
    positions = np.arange(longest)
    # All replies to a question have the first one's prompt.
    in_prompt = positions < prompts[..., None]
    tokens = np.where(in_prompt, tokens[:, :1], tokens)
    is_padding = positions >= lengths[..., None]
    tokens[is_padding] = 0
    return Examples(tokens, prompts, lengths, {})


def reference_lengths(
    count: int, generator: np.random.Generator, share: float = 1.0, replies: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the tokens of prompts and of whole sequences, ``[count, replies]`` int32 each; see
    :func:`reference_examples`.
    """
    posts = generator.lognormal(np.log(40), 0.8, count)
    prompts = np.minimum(20 + posts, 512)
    completions = generator.lognormal(np.log(300), 0.35, (count, replies))
    completions = np.clip(completions, 60, 512)
    prompt_tokens = _scaled(prompts, share)
    completion_tokens = _scaled(completions, share)
    # All replies to a question answer one prompt.
    prompt_tokens = np.repeat(prompt_tokens[:, None], replies, axis=1)
    return prompt_tokens, prompt_tokens + completion_tokens


def _scaled(lengths: np.ndarray, share: float) -> np.ndarray:
    """Return a share of every length, in whole tokens, at least one."""
    return np.maximum(1, (lengths * share).astype(np.int32))


def full_examples(count: int, length: int, sequences: int = 2) -> Examples:
    """Return examples whose every sequence has ``length`` tokens, a quarter of them prompt."""
    lengths = np.full((count, sequences), length, np.int32)
    tokens = np.zeros((count, sequences, length), np.int32)
    prompts = lengths // 4
    return Examples(tokens, prompts, lengths, {})


def every_pair(replies: int) -> np.ndarray:
    """Return the places of every two of a question's replies, ``[pairs, 2]``."""
    return np.array(list(itertools.combinations(range(replies), 2)))


def comparing(examples: Examples, comparisons: np.ndarray) -> Examples:
    """Return examples that all make these comparisons of their replies, ``[K, C]``; see
    :mod:`jaxmodpo.data.comparisons`.
    """
    count = len(examples)
    return examples.with_fields(
        comparisons=np.tile(comparisons.astype(np.int32), (count, 1, 1)),
        comparison_weights=np.ones((count, len(comparisons)), np.float32),
    )
