"""What ``bench losses`` times: a loss from last hidden states to their gradient, by us, by TRL, and
the two matrix products alone that neither can do without.

A contender is prepared once (inputs made, program compiled) and then run as often as it is timed::

    run = prepare("jaxmodpo", LossTask(loss="dpo", tokens=1024, vocabulary=32_000, width=1024))
    run()

Sequences have no prompt: every position counts, for all contenders.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmodpo.bench.machine import cores
from jaxmodpo.errors import UserError
from jaxmodpo.losses import dpo_loss, joint_dpo_loss, modpo_loss, sft_loss
from jaxmodpo.models.logps import chunked_token_logps

Loss = Literal["sft", "dpo", "modpo", "joint"]

Contender = Literal["products", "jaxmodpo", "trl"]

SEQUENCES: dict[Loss, int] = {"sft": 2, "dpo": 2, "modpo": 2, "joint": 4}
"""of a batch: two of SFT; a pair of DPO and of MODPO; a pair for each of Joint-Loss DPO's two
objectives"""

TRL_LOSSES: tuple[Loss, ...] = ("sft", "dpo")
"""those that TRL has"""

BETA = 0.1
"""how much the losses of pairs weigh a difference of log-probabilities"""


@dataclass(frozen=True, kw_only=True)
class LossTask:
    """One shape of one loss.

    Attributes:
        loss: which.
        tokens: of each sequence.
        vocabulary: columns of the unembedding.
        width: of the hidden states.
        chunk: positions of each sequence whose logits exist at a time; ours alone.
        seed: of the inputs.
    """

    loss: Loss
    tokens: int
    vocabulary: int
    width: int
    chunk: int = 128
    seed: int = 0

    @property
    def sequences(self) -> int:
        return SEQUENCES[self.loss]

    @property
    def operations(self) -> float:
        """Floating-point operations of the two products: logits, and their gradient's way back."""
        return 2 * 2.0 * self.sequences * self.tokens * self.width * self.vocabulary

    def inputs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return hidden states ``[sequences, tokens, width]``, unembedding ``[width, vocabulary]``,
        both float32, and targets ``[sequences, tokens]``.
        """
        generator = np.random.default_rng(self.seed)
        hidden = generator.standard_normal(
            (self.sequences, self.tokens, self.width), dtype=np.float32
        )
        unembedding = generator.standard_normal((self.width, self.vocabulary), dtype=np.float32)
        unembedding /= np.float32(np.sqrt(self.width))
        targets = generator.integers(0, self.vocabulary, (self.sequences, self.tokens))
        return hidden, unembedding, targets


def prepare(contender: Contender, task: LossTask) -> Callable[[], np.ndarray]:
    """Make a contender's inputs and compile its program.

    Returns:
        A function that computes loss and gradient once, waits for them, and returns the gradient
        of the hidden states; of ``products``, what the second product gives.
    """
    if contender == "trl":
        return _prepare_trl(task)
    compiled, arguments = _compiled(contender, task)

    def run() -> np.ndarray:
        *_, gradient = jax.tree.leaves(compiled(*arguments))
        return np.asarray(gradient)

    return run


def compiled_bytes(contender: Contender, task: LossTask) -> int:
    """Return the bytes that a program of ours needs besides its inputs, as the compiler counts
    them.
    """
    compiled, _ = _compiled(contender, task)
    memory = compiled.memory_analysis()
    return memory.temp_size_in_bytes + memory.output_size_in_bytes


def _compiled(contender: Contender, task: LossTask) -> tuple[Any, list[Array]]:
    """Return a program of ours, compiled, and its arguments; its last result is the gradient of
    the hidden states.
    """
    hidden, unembedding, targets = (jnp.asarray(array) for array in task.inputs())
    arguments = [hidden, unembedding, targets]
    return program(contender, task).lower(*arguments).compile(), arguments


def program(contender: Contender, task: LossTask) -> Any:
    """Return a program of ours, jitted and not compiled yet.

    It takes hidden states ``[sequences, tokens, width]``, the unembedding ``[width, vocabulary]``
    and targets ``[sequences, tokens]``, and its last result is the gradient of the hidden states.
    """

    def products(hidden_BTD: Array, unembedding_DV: Array, targets_BT: Array) -> Array:
        del targets_BT  # the products depend on no token
        return _products(hidden_BTD, unembedding_DV, task.chunk)

    def loss_of(hidden_BTD: Array, unembedding_DV: Array, targets_BT: Array) -> Array:
        logps_BT = chunked_token_logps(hidden_BTD, unembedding_DV, targets_BT, task.chunk)
        return _ours(task.loss, logps_BT)

    if contender == "products":
        # A program whose arguments are all kept can be given those that it does not read.
        return jax.jit(products, keep_unused=True)
    return jax.jit(jax.value_and_grad(loss_of))


def _ours(loss: Loss, logps_BT: Array) -> Array:
    """Return our loss of tokens' log-probabilities; the reference's are 0."""
    if loss == "sft":
        return sft_loss(logps_BT, jnp.ones_like(logps_BT)).mean()
    sums = logps_BT.sum(axis=-1)
    reference = jnp.zeros_like(sums)
    if loss == "dpo":
        return dpo_loss(sums[:1], sums[1:], reference[:1], reference[1:], beta=BETA).mean()
    if loss == "modpo":
        margins = jnp.ones((1, 1))
        return modpo_loss(
            sums[:1],
            sums[1:],
            reference[:1],
            reference[1:],
            margins,
            beta=BETA,
            weights=(0.5, 0.5),
        ).mean()
    # Two objectives, a pair each: [objectives, pairs].
    pairs = sums.reshape(2, 1, 2)
    references = reference.reshape(2, 1, 2)
    return joint_dpo_loss(
        pairs[..., 0],
        pairs[..., 1],
        references[..., 0],
        references[..., 1],
        beta=BETA,
        weights=(0.5, 0.5),
    ).mean()


def _products(hidden_BTD: Array, unembedding_DV: Array, chunk: int) -> Array:
    """Compute logits and send them back, chunk by chunk, with nothing in between."""
    batch, time, width = hidden_BTD.shape
    chunk = min(chunk, time)
    padded = jnp.pad(hidden_BTD, ((0, 0), (0, -time % chunk), (0, 0)))
    chunks = padded.reshape(batch, -1, chunk, width).swapaxes(0, 1)

    def step(_: None, hidden_BcD: Array) -> tuple[None, Array]:
        logits_BcV = jnp.matmul(hidden_BcD, unembedding_DV, preferred_element_type=jnp.float32)
        return None, jax.lax.dot_general(logits_BcV, unembedding_DV, (((2,), (1,)), ((), ())))

    _, slopes = jax.lax.scan(step, None, chunks)
    return slopes.swapaxes(0, 1).reshape(batch, -1, width)[:, :time]


def import_trl() -> tuple[Any, Callable[..., Any]]:
    """Return torch, and TRL's function of tokens' log-probabilities.

    Raises:
        UserError: one of them is not installed.
    """
    try:
        import torch
        from trl.trainer.utils import selective_log_softmax
    except ImportError as error:
        raise UserError(f"--against trl needs torch and trl: {error}") from error
    return torch, selective_log_softmax


def _prepare_trl(task: LossTask) -> Callable[[], np.ndarray]:
    """Prepare what TRL's trainers do between the model's last states and their loss."""
    torch, selective_log_softmax = import_trl()
    torch.set_num_threads(cores())
    hidden, unembedding, targets = (torch.from_numpy(array) for array in task.inputs())
    hidden.requires_grad_(True)

    def run() -> np.ndarray:
        hidden.grad = None
        # The unembedding is frozen, as under LoRA: it needs no gradient.
        logits = hidden @ unembedding
        if task.loss == "sft":
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        else:
            sums = selective_log_softmax(logits, targets).sum(-1)
            loss = -torch.nn.functional.logsigmoid(BETA * (sums[0] - sums[1]))
        loss.backward()
        gradient: Any = hidden.grad
        return gradient.numpy()

    return run
