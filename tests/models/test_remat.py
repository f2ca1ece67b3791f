"""Computing again what was not kept changes memory, not numbers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodpo.models.parameters import initialize
from jaxmodpo.models.remat import Remat
from jaxmodpo.models.roberta import Roberta, parameter_table
from jaxmodpo.models.roberta_config import RobertaConfig


@pytest.mark.slow(seconds=4)
@pytest.mark.parametrize("remat", ["full", "dots"])
def test_an_encoders_gradients_are_the_same(remat: Remat):
    config = RobertaConfig(32, 16, 24, 2, 2, 20, dropout=0.1)
    parameters = initialize(parameter_table(config), jax.random.key(0))
    tokens = jax.random.randint(jax.random.key(1), (3, 12), 0, 32)

    def loss(parameters, remat):
        rewards = Roberta(config, parameters).rewards(
            tokens, jnp.array([12, 7, 3]), jax.random.key(2), remat
        )
        return jnp.sum(rewards**2)

    kept, again = (
        jax.jit(jax.grad(loss), static_argnums=1)(parameters, policy) for policy in ("none", remat)
    )
    for name, gradient in kept.items():
        np.testing.assert_allclose(again[name], gradient, rtol=1e-5, atol=1e-8, err_msg=name)
