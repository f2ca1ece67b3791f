"""What a training minimizes: a loss over some parameters, on some devices.

A policy's training by a method, and any other::

    problem = policy_problem(policy, DPO(beta=0.1))
    problem = Problem(loss, trainable, {}, mesh)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jax.sharding import Mesh

from jaxmodpo.models import flops
from jaxmodpo.models.parameters import Parameters
from jaxmodpo.models.remat import Remat, RematSetting
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
        remat: what the backward pass computes again; None of a loss that has no layers, and where
            the trainer is to choose.
        loss_under: the loss under a policy, of which the trainer chooses one; None where there is
            no choice.
    """

    loss: Loss
    trainable: Parameters
    frozen: Parameters
    mesh: Mesh
    flops: Callable[[np.ndarray], float] | None = None
    remat: Remat | None = None
    loss_under: Callable[[Remat], Loss] | None = None

    def under(self, remat: Remat) -> Problem:
        """Return the problem with a policy of recomputation, once it is chosen."""
        assert self.loss_under is not None
        return dataclasses.replace(self, loss=self.loss_under(remat), remat=remat, loss_under=None)


def with_remat(
    loss_under: Callable[[Remat], Loss],
    remat: RematSetting,
    trainable: Parameters,
    frozen: Parameters,
    mesh: Mesh,
    count_flops: Callable[[np.ndarray], float] | None = None,
) -> Problem:
    """Return the problem of a loss whose backward pass may compute layers again.

    Args:
        loss_under: the loss under a policy.
        remat: the policy, or auto: the trainer chooses one that fits.
        trainable: see :class:`Problem`.
        frozen: likewise.
        mesh: likewise.
        count_flops: likewise.
    """
    # Without a gradient all policies are one: until one is chosen, the first stands in its place.
    loss = loss_under("none")
    undecided = Problem(loss, trainable, frozen, mesh, count_flops, loss_under=loss_under)
    return undecided if remat == "auto" else undecided.under(remat)


def policy_problem(
    policy: Policy,
    method: Method,
    *,
    remat: RematSetting = "auto",
    reference_in_step: bool = False,
) -> Problem:
    """Return the problem of training a policy's adapter, with its base frozen.

    Args:
        policy: base and initial adapter.
        method: what is done with log-probabilities.
        remat: what the backward pass computes again to save memory; auto lets the trainer choose.
        reference_in_step: compute the reference's log-probabilities in every step instead of
            reading ``reference_logps`` from the batch.
    """

    def loss_under(remat: Remat) -> PolicyLoss:
        return PolicyLoss(
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

    return with_remat(loss_under, remat, policy.adapter, policy.base, policy.mesh, count_flops)
