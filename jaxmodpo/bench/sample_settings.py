"""What ``bench sample`` can be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from jaxmodpo.errors import UserError
from jaxmodpo.flags.help_groups import HelpGroup
from jaxmodpo.models.quantized import BaseDtype
from jaxmodpo.ranges import Count, NotNegative, Probability, Range, Seed, Unestimated


@dataclass(frozen=True, kw_only=True)
class BenchSampleConfig(Unestimated, help_group="measurement"):
    """Sample replies as long as real ones from random weights of a model's shape, and print the
    speed.
    """

    model: Annotated[str, HelpGroup("model")] = "tiny-mistral"
    """Shape of the model: a published model's name, a config.json, or a model folder."""
    base_dtype: Annotated[BaseDtype | None, HelpGroup("model")] = None
    """Type of the base weights; by default float32 on a CPU and bfloat16 elsewhere."""
    lora_rank: Annotated[int, Range(least=0), HelpGroup("model")] = 16
    """Rank of the adapter, which lies on all seven projections and is not merged; 0 for the base
    alone, which is what transformers' generate has."""
    replies: Count = 256
    """Number of replies that are sampled."""
    samples: Count = 4
    """Number of replies to each prompt."""
    batch_size: Annotated[Count, HelpGroup("batch")] = 64
    """Number of replies under way at a time, over all devices."""
    length_share: Annotated[Probability | None, HelpGroup("batch")] = None
    """Share of the reference lengths that prompts and replies have; by default a quarter on a CPU
    and the whole elsewhere."""
    temperature: Annotated[NotNegative, HelpGroup("sampling")] = 0.8
    """Temperature of the draws."""
    top_p: Annotated[Probability, HelpGroup("sampling")] = 0.95
    """Tokens are drawn from the smallest set whose probability is at least this."""
    mesh: Annotated[tuple[Count, Count, Count] | None, HelpGroup("devices")] = None
    """Number of devices along the mesh axes data, fsdp and tensor."""
    rounds: Count = 2
    """Number of times that everything is sampled; the fastest round counts."""
    against: Literal["generate"] | None = None
    """Other sampler that is timed as well: generate is that of transformers in float32, at several
    batch sizes, without an adapter, and needs torch."""
    generate_batches: tuple[Count, ...] = (16, 32, 64, 128, 256)
    """Batch sizes at which the other sampler is timed."""
    seed: Annotated[Seed, HelpGroup("sampling")] = 0
    """Seed of lengths, weights and draws."""
    json: Annotated[bool, HelpGroup("output")] = False
    """Print one line of JSON instead of a table."""

    def check(self) -> None:
        super().check()
        if self.temperature == 0:
            raise UserError(
                "bench sample draws its replies' lengths and so needs a --temperature above 0"
            )
