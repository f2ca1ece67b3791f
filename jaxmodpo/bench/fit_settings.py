"""What ``fit`` can be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from jaxmodpo.data.batches import Batching
from jaxmodpo.errors import UserError
from jaxmodpo.flags.help_groups import HelpGroup
from jaxmodpo.models.attention import Backend
from jaxmodpo.models.quantized import BaseDtype
from jaxmodpo.models.remat import RematSetting
from jaxmodpo.ranges import Count, Unestimated
from jaxmodpo.schema import Range

DEFAULT_TOPOLOGY = "v5e:4x4"


@dataclass(frozen=True, kw_only=True)
class FitConfig(Unestimated, help_group="model"):
    """Compile a step for a TPU or GPU topology, without the devices and without weights."""

    topology: Annotated[str, HelpGroup("devices")] = DEFAULT_TOPOLOGY
    """Devices that are compiled for: TPU chips, such as v5e:4x4 or v5p:2x2x4, which need libtpu
    (the tpu extra), or GPUs, such as cuda:1x1x8 for one host of 8, which need JAX's CUDA plugin
    (the cuda extra)."""
    target_config: Annotated[Path | None, HelpGroup("devices")] = None
    """File with XLA's description of the GPUs, a GpuTargetConfigProto as text; TPUs need none."""
    model: str = "mistral-7b-v0.1"
    """Shape of the model: a published model's name, a config.json, or a model folder."""
    step: Annotated[Literal["train", "score", "reward", "sample"], HelpGroup("objective")] = "train"
    """What is compiled: a step that trains an adapter, one that scores with it, one that trains a
    reward model, or the sampler's loop."""
    method: Annotated[Literal["sft", "dpo", "modpo", "joint"], HelpGroup("objective")] = "dpo"
    """Method that the adapter is trained by."""
    objectives: Annotated[Count, HelpGroup("objective")] = 2
    """Number of objectives of modpo and joint."""
    mesh: Annotated[tuple[Count, Count, Count] | None, HelpGroup("devices")] = None
    """Number of devices along the mesh axes data, fsdp and tensor; by default all are on fsdp, with
    a copy of the model for each GPU host."""
    batch_size: Annotated[Count, HelpGroup("batch")] = 16
    """Number of questions in memory at a time, over all devices; of the sampler, the replies under
    way."""
    replies: Annotated[Count | None, HelpGroup("batch")] = None
    """Number of a question's replies, each of which is computed once; every two of them are a pair.
    By default two, of sft one, of joint two for each objective."""
    gradient_accumulation: Annotated[Count, HelpGroup("batch")] = 1
    """Number of batches whose gradients are added up for one update."""
    length: Annotated[int, Range(least=8), HelpGroup("batch")] = 1024
    """Maximum number of tokens of a prompt and its response."""
    lengths: Annotated[Literal["full", "reference"], HelpGroup("batch")] = "full"
    """Lengths of the sequences: full makes every one as long as can be, reference as long as real
    posts and replies, some 360 tokens."""
    batching: Annotated[Batching, HelpGroup("computation")] = "packed"
    """Layout of a batch: packed puts several sequences into a row, padded one."""
    base_dtype: BaseDtype = "bfloat16"
    """Type of the frozen base weights; int8 and nf4 are quantized."""
    lora_rank: Count = 64
    """Rank of the adapter, which lies on all seven projections."""
    adapters: Count = 1
    """Number of adapters of this rank that the sampler has side by side."""
    remat: Annotated[RematSetting, HelpGroup("computation")] = "auto"
    """What the backward pass computes again to save memory: as little as leaves a tenth of the
    memory free (auto), nothing (none), everything but matrix products (dots) or attention
    (attention), whole layers (full), or whole layers whose inputs lie in the host's memory
    (offload)."""
    attention: Annotated[Backend, HelpGroup("computation")] = "auto"
    """Implementation of attention; auto takes splash on TPUs and cuDNN on GPUs where they can, and
    XLA otherwise."""
    reference: Annotated[Literal["precomputed", "in_step"], HelpGroup("computation")] = (
        "precomputed"
    )
    """Source of the reference's log-probabilities: precomputed takes them from the disk, in_step
    computes them in every update."""
    examples: Annotated[Count, HelpGroup("batch")] = 2379
    """Number of questions of the run whose cost is estimated."""
    epochs: Annotated[Count, HelpGroup("batch")] = 3
    """Number of passes over these examples."""
    search: Annotated[bool, HelpGroup("search")] = False
    """Search the largest batch that fits, on the meshes and, with --remat auto, for what is
    computed again that promise most questions a second."""
    search_meshes: Annotated[Count, HelpGroup("search")] = 3
    """Maximum number of meshes that a search tries."""
    json: Annotated[bool, HelpGroup("output")] = False
    """Print one JSON object instead of a table."""

    def check(self) -> None:
        super().check()
        if self.step == "sample" and self.search:
            raise UserError("--search is for steps that train; give --step sample a --batch-size")
        if self.step != "sample" and self.adapters > 1:
            raise UserError("--adapters is for --step sample; the other steps have one adapter")
        if self.replies == 1 and (self.method != "sft" or self.step == "reward"):
            raise UserError("--replies 1 makes no pair; only --method sft learns from one reply")
