"""A method applied to a policy: what the training step compiles for every method that trains an
adapter.

The methods differ only in what they do with log-probabilities; everything up to there is here.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Protocol

import jax
from jax import Array

from jaxmodpo.models.attention import Attention
from jaxmodpo.models.completions import completion_logps
from jaxmodpo.models.decoder import Decoder
from jaxmodpo.models.decoder_config import DecoderConfig
from jaxmodpo.models.lora import LoraConfig
from jaxmodpo.models.parameters import Parameters
from jaxmodpo.models.remat import Remat
from jaxmodpo.training.comparisons import compared, comparison_rows
from jaxmodpo.training.step import Batch, LossTerms


class Method(Protocol):
    """What a method does with log-probabilities: a pytree, as :class:`jaxmodpo.training.step.Loss`
    is.
    """

    def __call__(self, logps: Array, tokens: Array, batch: Batch) -> LossTerms:
        """Return the loss of comparisons.

        Args:
            logps: ``[rows, C]``, the log-probability of each completion of a comparison: chosen and
                rejected of a pair; a reply stands in as many rows as compare it.
            tokens: ``[rows, C]``, how many tokens it has.
            batch: ``row_weights`` ``[rows]``, ``reference_logps`` ``[rows, C]``, and the
                comparisons' other arrays, ``[rows, …]``.
        """
        ...


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["lora", "method"],
    meta_fields=["config", "attention", "remat", "reference_in_step", "has_dropout"],
)
@dataclass(frozen=True)
class PolicyLoss:
    """A method applied to a policy: the callable that the training step compiles.

    Attributes:
        config: the base model's shape.
        lora: the adapter's settings.
        method: what is done with log-probabilities.
        attention: which implementation, over which devices.
        remat: what the backward pass computes again.
        reference_in_step: compute the reference's log-probabilities here, with the adapter off,
            instead of reading them from the batch.
        has_dropout: whether there is dropout at all; how much, ``lora`` says.
    """

    config: DecoderConfig
    lora: LoraConfig
    method: Method
    attention: Attention
    remat: Remat
    reference_in_step: bool = False
    has_dropout: bool = True

    def __call__(
        self, trainable: Parameters, frozen: Parameters, batch: Batch, dropout_key: Array | None
    ) -> LossTerms:
        if self.reference_in_step:
            # Without an adapter the base is the reference, and its parameters are frozen: no
            # gradient goes through here.
            reference, _ = completion_logps(
                Decoder(self.config, frozen, attention=self.attention), batch, None
            )
            batch = {**batch, "reference_logps": reference}
        model = Decoder(self.config, frozen, self.lora, trainable, self.attention)
        # Whether there is dropout selects the compiled step; drawing masks that drop nothing would
        # cost time.
        key = dropout_key if self.has_dropout else None
        logps, tokens = completion_logps(model, batch, key, remat=self.remat)
        return self.method(compared(logps, batch), compared(tokens, batch), comparison_rows(batch))
