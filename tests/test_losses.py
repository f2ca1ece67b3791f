"""The losses against independent implementations, at extremes, and against their theory."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmodpo.losses import (
    bradley_terry_loss,
    dpo_loss,
    joint_dpo_loss,
    modpo_loss,
    plackett_luce_loss,
    sft_loss,
)

torch = pytest.importorskip("torch", reason="the reference implementation needs torch")
from torch.nn import functional as F  # noqa: E402

PAIRS, BETA = 7, 0.3


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(-40, 9, shape).astype(np.float32)


def assert_equal_to_torch(ours, theirs, arrays: list[np.ndarray], atol: float = 1e-7) -> None:
    """Assert equal values and gradients of a JAX and a torch function of the same arrays."""
    values = ours(*map(jnp.asarray, arrays))
    gradients = jax.jit(jax.grad(lambda *a: jnp.sum(ours(*a)), argnums=tuple(range(len(arrays)))))(
        *arrays
    )
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    expected = theirs(*tensors)
    expected.sum().backward()
    np.testing.assert_allclose(np.asarray(values), expected.detach().numpy(), rtol=1e-5, atol=1e-6)
    for ours_gradient, tensor in zip(gradients, tensors, strict=True):
        np.testing.assert_allclose(
            np.asarray(ours_gradient), tensor.grad.numpy(), rtol=1e-5, atol=atol
        )


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.49])
def test_dpo_is_the_formula_in_value_and_gradient(smoothing: float):
    def theirs(pw, pl, rw, rl):
        logits = BETA * ((pw - pl) - (rw - rl))
        return -F.logsigmoid(logits) * (1 - smoothing) - F.logsigmoid(-logits) * smoothing

    arrays = [draw(PAIRS, seed=n) for n in range(4)]
    assert_equal_to_torch(
        lambda *a: dpo_loss(*a, beta=BETA, label_smoothing=smoothing), theirs, arrays
    )


def test_the_hinge_and_ipo_links_are_trls_formulas_in_value_and_gradient():
    arrays = [draw(PAIRS, seed=n) / 8 for n in range(4)]

    def difference(pw, pl, rw, rl):
        return (pw - rw) - (pl - rl)

    assert_equal_to_torch(
        lambda *a: dpo_loss(*a, beta=BETA, link="hinge"),
        lambda *a: torch.relu(1 - BETA * difference(*a)),
        arrays,
    )
    assert_equal_to_torch(
        lambda *a: dpo_loss(*a, beta=BETA, link="ipo"),
        lambda *a: (difference(*a) - 1 / (2 * BETA)) ** 2,
        arrays,
    )


@pytest.mark.parametrize("others", [1, 2, 3, 4, 5])
def test_modpo_takes_two_to_six_objectives(others: int):
    generator = np.random.default_rng(others)
    weights = generator.dirichlet(np.ones(1 + others)).astype(np.float32)
    arrays = [draw(PAIRS, seed=n) / 8 for n in range(4)]
    margins = generator.normal(0, 1, (others, PAIRS)).astype(np.float32)

    def theirs(pw, pl, rw, rl, m):
        return -F.logsigmoid(
            (BETA * ((pw - rw) - (pl - rl)) - torch.tensor(weights[1:]) @ m) / float(weights[0])
        )

    assert_equal_to_torch(
        lambda *a: modpo_loss(*a, beta=BETA, weights=weights), theirs, [*arrays, margins]
    )


@pytest.mark.parametrize("places", [2, 3, 5])
def test_plackett_luce_is_drawing_the_best_from_what_is_left(places: int):
    def theirs(rewards):
        left = [torch.log_softmax(rewards[:, i:], dim=1)[:, 0] for i in range(places - 1)]
        return -torch.stack(left).sum(0)

    rewards = np.random.default_rng(places).normal(0, 3, (PAIRS, places)).astype("f")
    # A gradient is a sum of shares near 1 that cancel.
    assert_equal_to_torch(plackett_luce_loss, theirs, [rewards], atol=5e-7)


@pytest.mark.slow(seconds=2)
def test_plackett_luce_of_two_is_bradley_terry_and_empty_places_weigh_nothing():
    best, worst = draw(PAIRS, seed=1) / 9, draw(PAIRS, seed=2) / 9
    two = plackett_luce_loss(np.stack([best, worst], 1))
    np.testing.assert_allclose(two, bradley_terry_loss(best, worst), rtol=1e-6)
    padded = jnp.stack([best, worst, jnp.full(PAIRS, 50.0), jnp.full(PAIRS, jnp.nan)], 1)
    ranks = np.tile([1, 2, 0, 0], (PAIRS, 1))
    np.testing.assert_allclose(plackett_luce_loss(padded, ranks), two, rtol=1e-6)
    gradient = jax.grad(lambda r: jnp.sum(plackett_luce_loss(r, ranks)))(padded)
    assert np.isfinite(gradient).all() and not np.any(gradient[:, 2:])


def test_plackett_luce_draws_tied_candidates_from_themselves_and_what_is_below():
    r = np.random.default_rng(3).normal(0, 2, (1, 5)).astype("f")
    ranks = np.array([[1, 2, 2, 4, 0]])

    def drawn(best: int, *below: int) -> float:
        return float(np.log(np.exp(r[0, [best, *below]]).sum()) - r[0, best])

    expected = drawn(0, 1, 2, 3) + drawn(1, 3) + drawn(2, 3)
    assert float(plackett_luce_loss(r, ranks)[0]) == pytest.approx(expected, rel=1e-5)
    swapped, swapped_ranks = r[:, [0, 2, 1, 3, 4]], ranks[:, [0, 2, 1, 3, 4]]
    assert float(plackett_luce_loss(swapped, swapped_ranks)[0]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow(seconds=2)
def test_a_ranking_of_ties_alone_teaches_nothing_and_ties_at_both_ends_only_what_lies_between():
    rewards = jnp.array([[3.0, -1.0, 0.5, 2.0]])
    value, gradient = jax.value_and_grad(lambda r: jnp.sum(plackett_luce_loss(r, np.ones((1, 4)))))(
        rewards
    )
    assert float(value) == 0.0 and not np.any(gradient)
    # Two winners, two losers: a winner's odds against the losers, twice.
    ends = plackett_luce_loss(rewards, np.array([[1, 1, 3, 3]]))
    losers = np.exp(0.5) + np.exp(2.0)
    expected = np.log1p(losers / np.exp(3.0)) + np.log1p(losers / np.exp(-1.0))
    assert float(ends[0]) == pytest.approx(expected, rel=1e-6)


def test_modpo_is_the_papers_equation_in_value_and_gradient():
    weights = [0.5, 0.2, 0.3]

    def theirs(pw, pl, rw, rl, margins):
        first = BETA / weights[0] * (pw - rw) - BETA / weights[0] * (pl - rl)
        second = (torch.tensor(weights[1:]) @ margins) / weights[0]
        return -torch.log(torch.sigmoid(first.double() - second.double())).float()

    arrays = [draw(PAIRS, seed=n) / 4 for n in range(4)] + [
        np.random.default_rng(9).normal(0, 1, (2, PAIRS)).astype("f")
    ]
    assert_equal_to_torch(lambda *a: modpo_loss(*a, beta=BETA, weights=weights), theirs, arrays)


def test_joint_is_the_papers_formula_in_value_and_gradient():
    weights = [0.7, 0.3]

    def theirs(pw, pl, rw, rl):
        logits = BETA * torch.tensor(weights) @ ((pw - pl) - (rw - rl))
        return -F.logsigmoid(logits)

    assert_equal_to_torch(
        lambda *a: joint_dpo_loss(*a, beta=BETA, weights=weights),
        theirs,
        [draw(2, PAIRS, seed=n) for n in range(4)],
    )


def test_bradley_terry_is_the_formula_in_value_and_gradient():
    rewards = [draw(PAIRS, seed=1), draw(PAIRS, seed=2)]
    assert_equal_to_torch(
        bradley_terry_loss, lambda best, worst: -F.logsigmoid(best - worst), rewards
    )


def test_sft_is_cross_entropy_over_the_completion():
    logits = np.random.default_rng(0).normal(size=(3, 6, 11)).astype(np.float32)
    targets = np.random.default_rng(1).integers(0, 11, (3, 6))
    mask = np.array([[0, 0, 1, 1, 1, 0], [0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1]], np.float32)
    labels = torch.tensor(np.where(mask > 0, targets, -100))
    expected = F.cross_entropy(torch.tensor(logits).reshape(-1, 11), labels.reshape(-1))
    logps = np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), targets[..., None], -1)[
        ..., 0
    ]
    np.testing.assert_allclose(float(sft_loss(logps, mask)), float(expected), rtol=1e-6)


def test_equal_policies_lose_exactly_ln_2():
    logps = draw(PAIRS)
    assert np.all(
        np.asarray(dpo_loss(logps, logps - 3, logps, logps - 3, beta=0.1)) == np.float32(np.log(2))
    )


def test_modpo_without_other_objectives_weight_is_dpo():
    arrays = [draw(PAIRS, seed=n) for n in range(4)]
    margins = np.ones((1, PAIRS), np.float32)
    np.testing.assert_array_equal(
        modpo_loss(*[*arrays, margins], beta=BETA, weights=[1.0, 0.0]), dpo_loss(*arrays, beta=BETA)
    )


def test_joint_of_one_objective_is_dpo():
    arrays = [draw(PAIRS, seed=n) for n in range(4)]
    joint = joint_dpo_loss(*(a[None] for a in arrays), beta=BETA, weights=[1.0])
    np.testing.assert_allclose(
        np.asarray(joint), np.asarray(dpo_loss(*arrays, beta=BETA)), rtol=1e-6
    )


@pytest.mark.slow(seconds=2)
@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
@settings(max_examples=50, deadline=None)
def test_extreme_inputs_stay_finite_in_value_and_gradient(chosen: float, rejected: float):
    def total(x, y):
        losses = [
            dpo_loss(x, y, y, x, beta=5.0, label_smoothing=0.1),
            modpo_loss(x, y, y, x, jnp.stack([x]), beta=5.0, weights=[0.01, 0.99]),
            joint_dpo_loss(x[None], y[None], y[None], x[None], beta=5.0, weights=[1.0]),
            bradley_terry_loss(x, y),
        ]
        return sum(loss[0] for loss in losses)

    value, gradients = jax.value_and_grad(total, argnums=(0, 1))(
        jnp.float32([chosen]), jnp.float32([rejected])
    )
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in gradients)


def test_masked_minus_infinity_reaches_neither_value_nor_gradient_of_sft():
    logps = jnp.array([[-1.0, -jnp.inf], [-2.0, -3.0]])
    mask = jnp.array([[1.0, 0.0], [1.0, 1.0]])
    value, gradient = jax.value_and_grad(sft_loss)(logps, mask)
    assert float(value) == 2.0 and np.isfinite(gradient).all()


def test_losses_are_float32_from_bfloat16():
    x = jnp.zeros(3, jnp.bfloat16)
    assert dpo_loss(x, x, x, x, beta=0.1).dtype == jnp.float32
    assert bradley_terry_loss(x, x).dtype == jnp.float32


ONE, COLUMN, TWO = np.zeros(4, "f"), np.zeros((4, 1), "f"), np.zeros((2, 4), "f")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: dpo_loss(ONE, ONE, ONE, COLUMN, beta=0.1), "same shape"),
        (lambda: dpo_loss(COLUMN, COLUMN, COLUMN, COLUMN, beta=0.1), r"\[pairs\]"),
        (lambda: dpo_loss(ONE, ONE, ONE, ONE, beta=0.0), "beta"),
        (lambda: dpo_loss(ONE, ONE, ONE, ONE, beta=0.1, label_smoothing=0.5), "label_smoothing"),
        (
            lambda: dpo_loss(ONE, ONE, ONE, ONE, beta=0.1, label_smoothing=0.1, link="ipo"),
            "sigmoid link",
        ),
        (lambda: dpo_loss(ONE, ONE, ONE, ONE, beta=0.1, link="probit"), "probit"),  # type: ignore[arg-type]
        (lambda: plackett_luce_loss(ONE), "at least two places"),
        (lambda: plackett_luce_loss(TWO, ONE), r"ranks must be \[2, 4\]"),
        (
            lambda: modpo_loss(ONE, ONE, ONE, ONE, ONE, beta=0.1, weights=[0.5, 0.5]),
            r"\[margins, 4\]",
        ),
        (
            lambda: modpo_loss(ONE, ONE, ONE, ONE, COLUMN, beta=0.1, weights=[0.5, 0.5]),
            r"\[margins, 4\]",
        ),
        (lambda: modpo_loss(ONE, ONE, ONE, ONE, TWO, beta=0.1, weights=[0.5, 0.5]), r"\[3\]"),
        (
            lambda: modpo_loss(ONE, ONE, ONE, ONE, TWO[:1], beta=0.1, weights=[0.0, 1.0]),
            "first positive",
        ),
        (lambda: modpo_loss(ONE, ONE, ONE, ONE, TWO[:1], beta=0.1, weights=[0.7, 0.7]), "sum to 1"),
        (
            lambda: joint_dpo_loss(ONE, ONE, ONE, ONE, beta=0.1, weights=[1.0]),
            r"\[objectives, pairs\]",
        ),
        (lambda: joint_dpo_loss(TWO, TWO, TWO, TWO, beta=0.1, weights=[1.5, -0.5]), "non-negative"),
        (lambda: bradley_terry_loss(ONE, COLUMN), "same shape"),
        (lambda: sft_loss(ONE, COLUMN), "differ in shape"),
    ],
)
def test_what_would_broadcast_or_make_no_sense_is_refused(call, said: str):
    with pytest.raises(ValueError, match=said):
        call()


@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.7, 0.3), (0.5, 0.5), (0.2, 0.8)])
def test_modpo_on_a_tabular_policy_reaches_its_closed_form(weights: tuple[float, float]):
    """π ∝ π_ref exp(wᵀr / β), the optimum of the scalarised objective, for every w on the simplex.

    The data are all ordered pairs with Bradley–Terry probabilities of the primary reward: the
    population loss.
    """
    generator = np.random.default_rng(3)
    answers, beta = 6, 0.5
    reference = jax.nn.log_softmax(jnp.asarray(generator.normal(size=answers)))
    rewards = jnp.asarray(generator.normal(size=(2, answers)))
    first, second = (jnp.asarray(a) for a in np.where(~np.eye(answers, dtype=bool)))
    preferred = jax.nn.sigmoid(rewards[0, first] - rewards[0, second])

    def loss(logits):
        policy = jax.nn.log_softmax(logits)
        margins = (rewards[1, first] - rewards[1, second])[None]
        return jnp.sum(
            preferred
            * modpo_loss(
                policy[first],
                policy[second],
                reference[first],
                reference[second],
                margins,
                beta=beta,
                weights=weights,
            )
        )

    step = jax.jit(lambda logits: logits - 0.02 * jax.grad(loss)(logits))
    logits = reference
    for _ in range(4000):
        logits = step(logits)
    optimum = jax.nn.log_softmax(reference + jnp.asarray(weights) @ rewards / beta)
    policy = jax.nn.log_softmax(logits)
    assert float(jnp.sum(jnp.exp(policy) * (policy - optimum))) < 1e-3
    assert float(jnp.sum(jnp.exp(optimum) * (optimum - reference))) > 1e-2, (
        "the optimum must differ from the start"
    )
