"""All that changes in the course of a run, and how a killed run goes on from it.

A run that goes on from a checkpoint arrives at the very parameters of one that was never stopped.
That holds because a run is a function of four things, and a checkpoint has all of them: the train
state (parameters, Adam's moments, counts), the random key, where the batches stand, and how the
evaluations went. Each update's batch and dropout are functions of the update's number and these;
nothing is drawn from a generator that runs along.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxmodpo.data.batches import Batches
from jaxmodpo.models.parameters import Parameters
from jaxmodpo.parsing import JsonObject
from jaxmodpo.policy.mesh import put
from jaxmodpo.training.checkpoints import Checkpoints
from jaxmodpo.training.evaluation import Evaluations
from jaxmodpo.training.problem import Problem
from jaxmodpo.training.recomputation import Choice
from jaxmodpo.training.step import OptimizerSettings, TrainState, initial_state


@dataclass
class RunState:
    """Everything of a run that an update changes.

    Attributes:
        state: parameters, the optimizer's moments and what was skipped, after ``done`` updates.
        key: of the run's dropout.
        evaluations: how they went so far.
        done: updates made so far.
        choice: of what the backward pass computes again; None where there is nothing to choose, or
            nothing is chosen yet.
    """

    state: TrainState
    key: jax.Array
    evaluations: Evaluations
    done: int = 0
    choice: Choice | None = None

    def save(self, checkpoints: Checkpoints, batches: Batches, score: float | None) -> None:
        """Begin to write a checkpoint; one with a score is kept until a better one comes."""
        key_data = np.asarray(jax.random.key_data(self.key).addressable_data(0))
        values: JsonObject = {
            "batches": batches.state,
            "evaluations": vars(self.evaluations).copy(),
            "random": key_data.tolist(),
            "recomputation": None if self.choice is None else dataclasses.asdict(self.choice),
        }
        checkpoints.save(self.done, self.state, values, score)


def begin_or_resume(
    problem: Problem,
    optimizer: OptimizerSettings,
    batches: Batches,
    seed: int,
    checkpoints: Checkpoints,
) -> RunState:
    """Return what a run goes on from: its last checkpoint, or the beginning where there is none.

    ``batches`` are set to go on from there.
    """
    everywhere = NamedSharding(problem.mesh, PartitionSpec())
    # The initial state says where each array belongs. A checkpoint is read straight into these
    # places, whatever mesh wrote it.
    state = initial_state(optimizer, _on_mesh(problem.trainable, everywhere))
    checkpoint = checkpoints.last(state)
    if checkpoint is None:
        key = jax.jit(lambda: jax.random.key(seed), out_shardings=everywhere)()
        return RunState(state, key, Evaluations())
    state, values, done = checkpoint
    batches.restore(values["batches"])
    # The key is read and not made of the seed again: another version of JAX may make another one.
    key_data = put(np.asarray(values["random"], np.uint32), everywhere)
    key = jax.jit(jax.random.wrap_key_data, out_shardings=everywhere)(key_data)
    recorded = values["recomputation"]
    choice = None if recorded is None else Choice(**recorded)
    return RunState(state, key, Evaluations(**values["evaluations"]), done, choice)


def _on_mesh(parameters: Parameters, everywhere: NamedSharding) -> Parameters:
    """Return parameters of which those without a place on a mesh are copied to all its devices."""
    on_mesh: Parameters = {}
    for name, array in parameters.items():
        if isinstance(array.sharding, NamedSharding):
            on_mesh[name] = array
        else:
            on_mesh[name] = jax.device_put(array, everywhere)
    return on_mesh
