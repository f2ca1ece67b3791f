"""How fast a run trains: tokens, examples and comparisons a second, and the share of the chips'
arithmetic that it uses. A token is counted once, in however many pairs its reply stands::

    throughput = Throughput(batches, flops, mesh)
    throughput.count(step, metrics)     # after every update
    throughput.rates()                  # {"tokens_per_second": 41000.0, "mfu": 0.43, ...}
"""

from __future__ import annotations

import time
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh

from jaxmodpo.data.batches import Batches
from jaxmodpo.training.hardware import peak_flops


class Throughput:
    """Counts what was trained since the last row of metrics, and how long that took."""

    def __init__(self, batches: Batches, flops: Callable[[np.ndarray], float] | None, mesh: Mesh):
        self._batches = batches
        self._flops = flops
        self._devices = mesh.size
        self._peak = peak_flops(mesh.devices.flat[0].device_kind)
        self._compiled: set[int] = set()
        self.restart()

    def restart(self) -> None:
        """Count from here."""
        self._since = time.perf_counter()
        self._tokens = 0
        self._examples = 0
        self._comparisons = 0.0
        self._operations = 0.0

    def count(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Count an update; the first one of each shape is waited for and does not count, since it
        is compiled.

        Args:
            step: the update's number, from 0.
            metrics: what it computes; waiting for them is waiting for the update.
        """
        # The first call of a shape compiles, for seconds or minutes. Without waiting for it, the
        # next calls would be counted while it still runs.
        row_length = int(self._batches.row_lengths[step])
        if row_length not in self._compiled:
            jax.block_until_ready(metrics)
            self._compiled.add(row_length)
            self.restart()
            return
        members = self._batches.members(step)
        members = members[members >= 0]
        examples = self._batches.examples
        lengths = examples.lengths[members]
        # Where nothing is compared, an example is its own comparison.
        weights = examples.fields.get("comparison_weights")
        self._comparisons += len(members) if weights is None else float(weights[members].sum())
        self._tokens += int(lengths.sum())
        self._examples += len(lengths)
        self._operations += self._flops(lengths) if self._flops else 0.0

    def rates(self) -> dict[str, float]:
        """Return tokens, examples and comparisons a second and the share of peak, of real tokens
        alone; and start anew.
        """
        seconds = time.perf_counter() - self._since
        rates: dict[str, float] = {}
        if self._examples:
            rates["tokens_per_second"] = round(self._tokens / seconds, 1)
            rates["examples_per_second"] = round(self._examples / seconds, 3)
            rates["comparisons_per_second"] = round(self._comparisons / seconds, 3)
            if self._peak and self._operations:
                rates["mfu"] = round(self._operations / seconds / self._peak / self._devices, 4)
        self.restart()
        return rates
