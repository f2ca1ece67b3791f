"""The step that ``fit`` asks about, compiled for a mesh and held against its chips.

Under the policy of recomputation that a run would choose there::

    answer(FitConfig(batch_size=16, remat="auto"), topology_mesh("v5e:4x4")).remat      # "dots"
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh

from jaxmodpo.bench.fit_examples import batches_of
from jaxmodpo.bench.fit_settings import FitConfig
from jaxmodpo.data.batches import Batches
from jaxmodpo.methods.dpo import DPO
from jaxmodpo.methods.joint import JointDPO
from jaxmodpo.methods.modpo import MODPO
from jaxmodpo.methods.reward_model import RewardLoss
from jaxmodpo.methods.sft import SFT
from jaxmodpo.models.lora import LoraConfig
from jaxmodpo.models.remat import Remat
from jaxmodpo.models.roberta import parameter_table as encoder_table
from jaxmodpo.models.shapes import decoder_shape, encoder_shape
from jaxmodpo.policy.mesh import row_shards
from jaxmodpo.training.ahead import (
    Compiled,
    abstract,
    compile_policy_step,
    compile_scoring,
    compile_step,
)
from jaxmodpo.training.fit import GIB, Answer, Question, answer_of
from jaxmodpo.training.hardware import chip_of
from jaxmodpo.training.policy_loss import Method
from jaxmodpo.training.recomputation import DEVICE_SHARE, ladder
from jaxmodpo.training.roofline import Work, policy_training, reward_training, scoring


def answer(config: FitConfig, mesh: Mesh) -> Answer:
    """Compile the step for a mesh and say what it needs; of --remat auto, under the policy that a
    run would choose.
    """
    policies = policies_of(config, mesh)
    if len(policies) == 1:
        return answer_under(config, mesh, policies[0])
    answers: list[Answer] = []
    for remat in policies:
        answers.append(answer_under(config, mesh, remat, DEVICE_SHARE))
        say(answers[-1])
        if answers[-1].fits:
            return answers[-1]
    # None leaves enough free. A run takes the one that needs least, and so does this.
    least = min(answers, key=lambda answer: answer.peak_bytes)
    fits = not least.over_bytes and least.temporary_bytes > 0
    return dataclasses.replace(least, fits=fits, advice=() if fits else least.advice)


def policies_of(config: FitConfig, mesh: Mesh) -> tuple[Remat, ...]:
    """Return what may be computed again: the setting, or what a run would choose from."""
    if config.step == "score":
        return ("none",)
    return ladder(mesh) if config.remat == "auto" else (config.remat,)


def say(answer: Answer) -> None:
    """Say on standard error how an attempt went; each takes minutes."""
    print(
        f"mesh {' '.join(map(str, answer.mesh))}, batch {answer.batch_size}, remat {answer.remat}:"
        f" {'fits' if answer.fits else 'does not fit'}, {answer.peak_bytes / GIB:.2f} GiB",
        file=sys.stderr,
    )


def answer_under(config: FitConfig, mesh: Mesh, remat: Remat, share: float = 1.0) -> Answer:
    """Compile the step under a policy, and hold it against a share of a chip's memory."""
    batches = batches_of(config, mesh)
    compiled, work, scoring_work = _compiled_step(config, batches, mesh, remat)
    question = Question(
        model=config.model,
        step=config.step,
        method=config.method if config.step == "train" else config.step,
        topology=config.topology,
        batch_size=config.batch_size,
        remat=None if config.step == "score" else remat,
    )
    chip = chip_of(mesh.devices.flat[0].device_kind)
    advice = tuple(_advice(config, mesh))
    return answer_of(question, compiled, work, scoring_work, batches, mesh, chip, advice, share)


def _compiled_step(
    config: FitConfig, batches: Batches, mesh: Mesh, remat: Remat
) -> tuple[Compiled, Work, Work | None]:
    """Return the compiled step, its work, and the work of a batch that is scored before training,
    if any.
    """
    work = training_work(config, batches, mesh, remat)
    if config.step == "reward":
        encoder = encoder_shape(config.model)
        parameters = abstract(encoder_table(encoder), jnp.float32, mesh)
        loss = RewardLoss(encoder, remat, has_dropout=encoder.dropout > 0, mesh=mesh)
        return compile_step(loss, parameters, {}, batches, mesh), work, None
    decoder = decoder_shape(config.model)
    lora = lora_of(config)
    shared: dict[str, Any] = {"base_dtype": config.base_dtype, "attention": config.attention}
    scored = scoring(decoder, lora, batches, mesh, base_dtype=config.base_dtype)
    if config.step == "score":
        return compile_scoring(decoder, lora, batches, mesh, **shared), scored, None
    compiled = compile_policy_step(
        decoder,
        lora,
        _method(config),
        batches,
        mesh,
        remat=remat,
        reference_in_step=_has_reference_in_step(config),
        **shared,
    )
    has_scoring_before = config.method != "sft" and not _has_reference_in_step(config)
    return compiled, work, scored if has_scoring_before else None


def _has_reference_in_step(config: FitConfig) -> bool:
    # Supervised fine-tuning has no reference, whatever the setting says.
    return config.reference == "in_step" and config.method != "sft"


def lora_of(config: FitConfig) -> LoraConfig:
    """Return the adapter that trainings have by default, of the rank that the settings say."""
    return LoraConfig(config.lora_rank, 2.0 * config.lora_rank, 0.05)


def _method(config: FitConfig) -> Method:
    """Return the method that the settings name, with equal weights."""
    weights = (1 / config.objectives,) * config.objectives
    methods: dict[str, Method] = {
        "sft": SFT(),
        "dpo": DPO(0.1, 0.0),
        "modpo": MODPO(0.1, weights),
        "joint": JointDPO(0.1, weights),
    }
    return methods[config.method]


def _advice(config: FitConfig, mesh: Mesh) -> Iterator[str]:
    """Say what would make a step smaller, the cheapest first."""
    if config.step != "score" and config.remat not in ("auto", "offload"):
        yield "--remat auto"
    if config.batch_size > row_shards(mesh):
        yield "a smaller --batch-size, with a larger --gradient-accumulation"
    if mesh.shape["data"] > 1:
        yield "a --mesh with fewer copies (its first number) and more parts"
    if config.step != "reward" and config.base_dtype in ("float32", "bfloat16"):
        yield "--base-dtype int8 or nf4"
    yield "a topology of more chips"
    yield "a smaller --length"


def training_work(config: FitConfig, batches: Batches, mesh: Mesh, remat: Remat) -> Work:
    """Return what an update asks of a mesh, whatever the method."""
    if config.step == "reward":
        return reward_training(encoder_shape(config.model), batches, mesh, remat=remat)
    return policy_training(
        decoder_shape(config.model),
        lora_of(config),
        batches,
        mesh,
        base_dtype=config.base_dtype,
        remat=remat,
        reference_in_step=_has_reference_in_step(config),
    )
