"""What a training minimizes: a loss over some parameters, on some devices.

A policy's training by a method, and any other::

    problem = policy_problem(policy, DPO(beta=0.1))
    problem = Problem(loss, trainable, {}, mesh)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jax.sharding import Mesh

from jaxmodpo.models import flops
from jaxmodpo.models.parameters import Parameters
from jaxmodpo.models.remat import Remat
from jaxmodpo.policy.loaded import Policy
from jaxmodpo.training.policy_loss import Method, PolicyLoss
from jaxmodpo.training.step import Loss


@dataclass(frozen=True)
class Problem:
    """A loss and the parameters that it is a function of.

    Attributes:
        loss: what to minimize.
        trainable: initial values of the parameters that change; those without a place on ``mesh``
            go to all its devices.
        frozen: parameters without gradients, placed on ``mesh``.
        mesh: the devices.
        flops: operations of an update whose sequences have these lengths, for the utilization that
            is logged; None where nobody counts them.
    """

    loss: Loss
    trainable: Parameters
    frozen: Parameters
    mesh: Mesh
    flops: Callable[[np.ndarray], float] | None = None


def policy_problem(
    policy: Policy, method: Method, *, remat: Remat = "full", reference_in_step: bool = False
) -> Problem:
    """Return the problem of training a policy's adapter, with its base frozen.

    Args:
        policy: base and initial adapter.
        method: what is done with log-probabilities.
        remat: what the backward pass computes again to save memory.
        reference_in_step: compute the reference's log-probabilities in every step instead of
            reading ``reference_logps`` from the batch.
    """
    loss = PolicyLoss(
        policy.config,
        policy.lora,
        method,
        policy.attention,
        remat,
        reference_in_step,
        has_dropout=policy.lora.dropout > 0,
    )

    def count_flops(lengths: np.ndarray) -> float:
        return flops.training(policy.config, policy.lora, lengths, reference_in_step)

    return Problem(loss, policy.adapter, policy.base, policy.mesh, count_flops)
