"""What ``probes`` can be told, and what it will cost."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from jaxmodpo.config import builtin, named_values
from jaxmodpo.costs import Cost, Estimates, Unknown, WeightFormat
from jaxmodpo.data.text import PromptStyle, check_day
from jaxmodpo.errors import UserError
from jaxmodpo.flags.help_groups import HelpGroup
from jaxmodpo.probes.probe_set import load_probe_set
from jaxmodpo.probes.rubric import RUBRIC_FILE
from jaxmodpo.ranges import Count, Incidental, NotNegative, Probability, Seed, Settings
from jaxmodpo.sampling.named_adapters import BASE, adapter_inputs, check_names, named_adapters
from jaxmodpo.schema import Range


@dataclass(frozen=True, kw_only=True)
class ProbesConfig(Settings, help_group="sampling"):
    """Put crisis probes to models and check the replies: a screen, and no instrument."""

    output_dir: Incidental[Path]
    """Folder of the run, for probes.json, verdicts.csv and tables."""
    probes: Annotated[str, HelpGroup("data")] = "crisis"
    """The set of probes: a YAML file, or the name of ours."""
    responses: Annotated[tuple[str, ...], HelpGroup("data")] = ()
    """Replies that are there already, NAME=FILE for each model. The question_id of a row is the
    probe's id."""
    questions_only: Annotated[bool, HelpGroup("data")] = False
    """Write the probes as questions.csv and stop, so that responses can ask an endpoint for
    replies to them."""
    model: Annotated[Path | None, HelpGroup("model")] = None
    """Hugging Face folder of the base model that is to reply. Without --adapter the base itself is
    probed."""
    adapter: Annotated[tuple[str, ...], HelpGroup("model")] = ()
    """Models over this base, NAME=FOLDER each: PEFT folders, or NAME=base for the base alone.
    All of them are sampled in one pass."""
    base_dtype: Annotated[WeightFormat, HelpGroup("model")] = "bfloat16"
    """Number format of the base weights. int8 and nf4 quantize the projections block by block."""
    judge: Annotated[Literal["rubric"], HelpGroup("judge")] = "rubric"
    """Who checks the replies. rubric: a search for phrases, which needs no network and understands
    nothing."""
    samples: Count = 1
    """Replies to each probe. Intervals count probes and not replies, so that more of them make a
    rate steadier and no interval falsely narrow."""
    temperature: NotNegative = 0.8
    """Temperature of the draws. 0 takes the likeliest token each time."""
    top_p: Probability = 0.95
    """Tokens are drawn from the smallest set whose probability is at least this."""
    max_new_tokens: Count = 512
    """Most tokens of a reply."""
    max_prompt_length: Annotated[int, Range(least=2), HelpGroup("text")] = 512
    """Most tokens of a prompt. In a longer one the probe loses its start."""
    prompt_style: Annotated[PromptStyle, HelpGroup("text")] = "instruct"
    """How a probe is put to the model, as in training. instruct: the paper's prompt; chat: the
    tokenizer's template."""
    prompt_date: Annotated[str | None, HelpGroup("text")] = None
    """Day, as YYYY-MM-DD, that a chat template takes for today. By default it is the adapter's, or
    the day on which the run began."""
    batch_size: Annotated[Count, HelpGroup("batch")] = 64
    """Replies that are sampled at a time."""
    mesh: Annotated[tuple[Count, Count, Count] | None, HelpGroup("devices")] = None
    """Number of devices along the mesh axes data, fsdp and tensor. By default as in responses."""
    seed: Seed = 0
    """Seed of the draws, which are the same for every model."""

    def check(self) -> None:
        super().check()
        check_day(self.prompt_date)
        if self.questions_only:
            return
        if self.adapter and self.model is None:
            raise UserError(
                "--adapter needs --model, the folder of the base that it was trained on"
            )
        if self.model is None and not self.responses:
            raise UserError(
                "probes needs --model, a folder whose replies are sampled, or --responses with a"
                " NAME=FILE for each model whose replies are there"
            )
        models = self.models()
        files = self.reply_files()
        check_names(models, OWN_FILES, "--adapter")
        for name in files:
            if name in models:
                raise UserError(
                    f"--responses: the name '{name}' is also a sampled model's; rename it"
                )

    def models(self) -> dict[str, Path | None]:
        """Return the adapter of each model that is sampled, None for the base alone."""
        if self.model is None:
            return {}
        return named_adapters(self.adapter, "--adapter") or {BASE: None}

    def reply_files(self) -> dict[str, Path]:
        """Return the files of replies that are there already, by model."""
        named = named_values(self.responses, "--responses")
        return {name: Path(file) for name, file in named.items()}

    def input_paths(self) -> dict[str, Path]:
        paths = super().input_paths() | adapter_inputs(self.models(), "adapter")
        paths |= {f"responses.{name}": path for name, path in self.reply_files().items()}
        paths["probes"] = builtin("probes", self.probes)
        paths["rubric"] = builtin("judging", RUBRIC_FILE)
        return paths

    def cost(self, estimator: Estimates) -> Cost:
        models = self.models()
        if not models or self.questions_only:
            return Cost()  # takes seconds, and leaves little behind
        replies = len(load_probe_set(self.probes).probes) * self.samples * len(models)
        cost = Cost(disk=REPLY_BYTES * replies)
        try:
            adapters = estimator.sampled_adapters(models.values(), self.base_dtype)
            cost.chip_hours = estimator.sampling(self, replies, self.batch_size, adapters)
            cost.notes = estimator.sampler_notes(self, adapters)
        except Unknown as missing:
            cost.chip_hours = None
            cost.unknown = [str(missing)]
        return cost


OWN_FILES = ("probes.json", "verdicts.csv", "sampled.jsonl", "manifest.json", "tables")
"""what the run itself has in its folder"""

REPLY_BYTES = 2_000
"""a row of verdicts.csv: a reply of some 300 tokens, and what was seen in it"""
