"""What several runs in one process share: a loaded base, and whoever is told of evaluations.

A single command makes an empty session. A search or a sweep makes one and hands it to each run, so
that weights are read once and, the arrays being the same, what was compiled for one run serves the
next::

    session = Session()
    for beta in (0.05, 0.1, 0.2):
        dpo(replace(config, beta=beta, output_dir=out / str(beta)), session)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp

from jaxmodpo.models.roberta import Roberta, load_roberta
from jaxmodpo.policy.loaded import Policy, fresh_adapter, load_policy
from jaxmodpo.policy.preemption import stop_if_asked
from jaxmodpo.training.evaluation import OnEvaluation
from jaxmodpo.training.settings import PolicyTrainingConfig


class Session:
    """Bases loaded so far.

    Args:
        on_evaluation: told of every held-out evaluation of every run; see ``trainer.train``.
    """

    def __init__(self, on_evaluation: OnEvaluation | None = None):
        self.on_evaluation = on_evaluation
        self._policies: dict[Any, Policy] = {}
        self._encoders: dict[Any, Roberta] = {}

    def policy(self, config: PolicyTrainingConfig) -> Policy:
        """Return the base model that the settings name, loaded at most once, with a fresh
        adapter.
        """
        # All that the loaded base depends on. The adapter is made anew for each run: it is small,
        # and runs of a search differ in its rank.
        key = (config.model, config.base_dtype, config.mesh, config.attention)
        if key not in self._policies:
            self._policies[key] = load_policy(
                config.model,
                base_dtype=config.base_dtype,
                mesh=config.mesh,
                fresh=config.lora,
                seed=config.seed,
                attention=config.attention,
            )
            stop_if_asked("when the model was loaded")
        return fresh_adapter(self._policies[key], config.lora, config.seed)

    def encoder(self, folder: Path, seed: int) -> Roberta:
        """Return a RoBERTa with a fresh head of one output, loaded at most once; the arrays are the
        caller's own.
        """
        key = (folder, seed)
        if key not in self._encoders:
            self._encoders[key] = load_roberta(folder, fresh_head_seed=seed)
            stop_if_asked("when the model was loaded")
        loaded = self._encoders[key]
        # A copy, since training donates its arrays to the first step, which writes the new
        # parameters into their memory.
        copies = {name: jnp.copy(array[...]) for name, array in loaded.parameters.items()}
        return Roberta(loaded.config, copies)
