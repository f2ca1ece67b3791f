"""transformers' ``generate``, as ``bench sample`` times it beside ours."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxmodpo.bench.machine import cores
from jaxmodpo.bench.reply_lengths import END
from jaxmodpo.bench.sample_settings import BenchSampleConfig
from jaxmodpo.bench.timed_samplers import Speed, TimedSampler
from jaxmodpo.errors import UserError


def import_torch() -> tuple[Any, Any]:
    try:
        import torch
        import transformers
    except ImportError as error:
        raise UserError(
            f"--against generate needs torch; pip install torch==2.13.0 ({error})"
        ) from error
    return torch, transformers


def generates(
    config: BenchSampleConfig, folder: Path, prompts: Sequence[Sequence[int]], longest: int
) -> list[TimedSampler]:
    """Return transformers' ``generate`` at each batch size: prompts padded on the left, and as many
    samples of each as here.
    """
    torch, transformers = import_torch()
    torch.set_num_threads(cores())
    transformers.utils.logging.set_verbosity_error()
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def sample(name: str, batch: int) -> Speed:
        torch.manual_seed(config.seed)
        started = time.perf_counter()
        tokens = 0
        step = max(1, batch // config.samples)
        for start in range(0, len(prompts), step):
            tokens += _generate(config, model, prompts[start : start + step], longest)
        speed = Speed(name, time.perf_counter() - started, tokens)
        speed.settings = _settings_of_generate(config, model, batch, longest)
        return speed

    samplers: list[TimedSampler] = []
    for batch in config.generate_batches:
        name = f"generate, batches of {batch}"
        samplers.append(TimedSampler(name, functools.partial(sample, name, batch), compiles=False))
    return samplers


def _settings_of_generate(
    config: BenchSampleConfig, model: Any, batch: int, longest: int
) -> dict[str, str | int | float]:
    """Return what transformers' sampler is given."""
    torch, transformers = import_torch()
    dtype = str(model.dtype).removeprefix("torch.")
    return {
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "base": dtype,
        "activations": dtype,
        "adapter": "none",
        "attention": model.config._attn_implementation,
        "batch size": batch,
        "temperature": config.temperature,
        "top-p": config.top_p,
        "max new tokens": longest,
        "threads": torch.get_num_threads(),
        "device": str(model.device),
    }


def _generate(
    config: BenchSampleConfig, model: Any, prompts: Sequence[Sequence[int]], longest: int
) -> int:
    """Sample one batch; return its real tokens."""
    torch, _ = import_torch()
    width = max(map(len, prompts))
    padded = [[0] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    with torch.inference_mode():
        out = model.generate(
            torch.tensor(padded),
            attention_mask=torch.tensor(mask),
            do_sample=True,
            temperature=config.temperature,
            top_p=config.top_p,
            top_k=0,
            max_new_tokens=longest,
            num_return_sequences=config.samples,
            eos_token_id=END,
            pad_token_id=0,
        )
    replies = out[:, width:]
    # Behind an end stands padding.
    return int((replies != 0).sum())
