"""``score kl``: how far policies moved from their base, over their own replies."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from jaxmodpo.costs import Cost, Estimates
from jaxmodpo.data.text import PromptStyle, check_day
from jaxmodpo.errors import UserError
from jaxmodpo.flags.help_groups import HelpGroup
from jaxmodpo.journals import Journal
from jaxmodpo.methods.divergence import OwnSampling, divergence
from jaxmodpo.models.quantized import BaseDtype
from jaxmodpo.phase import Phase, in_phase
from jaxmodpo.policy.loaded import ScaledAdapter, load_policy, with_adapter
from jaxmodpo.policy.prompts import replying_text
from jaxmodpo.ranges import CommandSettings, Count, Incidental, Seed
from jaxmodpo.records import Question, read_questions
from jaxmodpo.results.measures import DIVERGENCE, Divergence
from jaxmodpo.results.versioned import write_result
from jaxmodpo.sampling.named_adapters import adapter_inputs, check_names, named_adapters
from jaxmodpo.schema import Range

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ScoreKLConfig(CommandSettings, help_group="model"):
    """Estimate policies' divergence from their base: the mean of log π − log π_ref over a policy's
    own samples.
    """

    model: Path
    """Hugging Face folder of the base model."""
    adapter: Path | None = None
    """PEFT folder of an adapter that was trained on this base."""
    adapters: tuple[str, ...] = ()
    """Several models at once over one base, NAME=FOLDER each: PEFT folders, or NAME=base for the
    base alone. Each one's result goes to NAME/kl.json in the run's folder."""
    questions: Path
    """File of the questions to sample replies to."""
    output_dir: Incidental[Path]
    """Folder of the run, for kl.json."""
    max_questions: Annotated[Count | None, HelpGroup("sampling")] = None
    """Most questions of the file that are replied to, drawn at random; by default all. The standard
    error falls with the root of their number: a hundred are enough to tell small divergences from
    large ones."""
    samples: Annotated[Count, HelpGroup("sampling")] = 1
    """Replies to each question, drawn at temperature 1 from the whole vocabulary."""
    max_new_tokens: Annotated[Count, HelpGroup("sampling")] = 512
    """Most tokens of a reply."""
    max_prompt_length: Annotated[int, Range(least=2), HelpGroup("text")] = 512
    """Most tokens of a prompt."""
    prompt_style: Annotated[PromptStyle, HelpGroup("text")] = "instruct"
    """How a question is put to the model, as in training. instruct: the paper's prompt; chat: the
    tokenizer's template."""
    prompt_date: Annotated[str | None, HelpGroup("text")] = None
    """Day, as YYYY-MM-DD, that a chat template takes for today. By default it is the adapter's, the
    first one's of several, or today."""
    batch_size: Annotated[Count, HelpGroup("batch")] = 64
    """Replies that are sampled and scored at a time."""
    mesh: Annotated[tuple[Count, Count, Count] | None, HelpGroup("devices")] = None
    """Number of devices along the mesh axes data, fsdp and tensor. By default as
    in responses."""
    base_dtype: BaseDtype = "bfloat16"
    """Number format of the base weights. int8 and nf4 quantize the projections block by block."""
    seed: Annotated[Seed, HelpGroup("sampling")] = 0
    """Seed of the samples that are drawn, which is the same for every model."""

    def check(self) -> None:
        super().check()
        check_day(self.prompt_date)
        if (self.adapter is None) == (not self.adapters):
            raise UserError(
                "score kl needs either --adapter, one model's folder, or --adapters with a"
                " NAME=FOLDER for each of several"
            )
        check_names(named_adapters(self.adapters), (DIVERGENCE, "sampled.jsonl", "manifest.json"))

    def input_paths(self) -> dict[str, Path]:
        return super().input_paths() | adapter_inputs(named_adapters(self.adapters))

    def models(self) -> dict[str, Path | None]:
        """Return each model's adapter, None for the base alone; a single model has no name here."""
        return named_adapters(self.adapters) if self.adapters else {"": self.adapter}

    def cost(self, estimator: Estimates) -> Cost:
        questions = estimator.rows(self.questions)
        if self.max_questions is not None:
            questions = min(questions, self.max_questions)
        replies = questions * self.samples * len(self.models())
        adapters = estimator.sampled_adapters(self.models().values(), self.base_dtype)
        hours = estimator.sampling(self, replies, self.batch_size, adapters)
        # Then the policies and the base go over every reply once.
        hours += estimator.scoring(self.model, replies, models=2)
        return Cost(chip_hours=hours)


@in_phase("score kl")
def score_kl(config: ScoreKLConfig, phase: Phase) -> None:
    """Run ``score kl``: KL(π ‖ π_ref) in nats per reply, with its standard error."""
    models = config.models()
    text = replying_text(config, phase)
    base = load_policy(
        config.model, base_dtype=config.base_dtype, mesh=config.mesh, for_sampling=True
    )
    prompts: list[list[int]] = []
    for question in _chosen(read_questions(config.questions), config):
        # Once for each reply: what is cut is counted by replies.
        for _ in range(config.samples):
            prompts.append(text.prompt(question.question_text))
    text.cut.warn()
    sampling = OwnSampling(prompts, text.eos, config.max_new_tokens, config.batch_size, config.seed)
    journal = Journal(config.output_dir / "sampled.jsonl")
    adapters = [ScaledAdapter(folder) for folder in models.values()]
    replies_of_models = sampling.replies(base, adapters, journal)
    journal.close()
    results: dict[str, Divergence] = {}
    for (name, folder), replies in zip(models.items(), replies_of_models, strict=True):
        # The base does not differ from itself, and need not be scored to say so.
        ratios = np.zeros(len(replies))
        if folder is not None:
            # One adapter after the other: a score is of one, and rounds as it does alone.
            policy = with_adapter(base, folder)
            ratios = divergence(policy, prompts, replies, config.batch_size)
        result = _divergence_of(ratios)
        results[name] = result
        model_folder = config.output_dir / name
        model_folder.mkdir(exist_ok=True)
        write_result(model_folder / DIVERGENCE, result)
        logger.info("%sKL from the base: %.2f nats per reply", name and f"{name}: ", result.kl)
    phase.finish(work=[journal.path], replies=len(prompts), **_figures(results))


def _chosen(questions: Sequence[Question], config: ScoreKLConfig) -> list[Question]:
    """Draw as many questions as are wanted, in the file's order."""
    if config.max_questions is None or config.max_questions >= len(questions):
        return list(questions)
    generator = np.random.default_rng(config.seed)
    drawn = generator.choice(len(questions), config.max_questions, replace=False)
    return [questions[number] for number in sorted(drawn)]


def _divergence_of(ratios: np.ndarray) -> Divergence:
    """Return the estimate that log-ratios give, one of each reply."""
    replies = len(ratios)
    error = None
    if replies > 1:
        error = float(ratios.std(ddof=1) / np.sqrt(replies))
    return Divergence(kl=float(ratios.mean()), standard_error=error, replies=replies)


def _figures(results: Mapping[str, Divergence]) -> dict[str, object]:
    """Return the manifest's figures: numbers of one model, and of several by their names."""
    if list(results) == [""]:
        result = results[""]
        return {"kl": result.kl, "standard_error": result.standard_error}
    return {
        "kl": {name: result.kl for name, result in results.items()},
        "standard_error": {name: result.standard_error for name, result in results.items()},
    }
