"""``bench load``: what loading a checkpoint costs the host, measured on one made for the
purpose.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from jaxmodpo.bench.table import text_table
from jaxmodpo.errors import UserError
from jaxmodpo.models.checkpoint import tensor_files
from jaxmodpo.models.decoder import load_decoder, parameter_table
from jaxmodpo.models.decoder_config import DecoderConfig
from jaxmodpo.models.parameters import count
from jaxmodpo.models.quantized import BaseDtype
from jaxmodpo.models.shapes import SHAPES
from jaxmodpo.ranges import Count, Unestimated


@dataclass(frozen=True, kw_only=True)
class BenchLoadConfig(Unestimated, help_group="measurement"):
    """Write a checkpoint of random bfloat16 numbers, load it, and measure the host's memory
    meanwhile.
    """

    base_dtypes: tuple[BaseDtype, ...] = ("bfloat16", "float32", "int8", "nf4")
    """Types that the checkpoint is loaded as, each in a process of its own."""
    layers: Count = 16
    """Number of layers of Llama 3.2 1B's shape; 16 make 1.24 billion parameters."""
    vocab_size: Count = 128_256
    """Number of rows of the embedding, which is the largest tensor."""
    model: Path | None = None
    """Hugging Face folder that is loaded; by default a checkpoint is made for the purpose."""


def bench_load(config: BenchLoadConfig) -> None:
    """Run ``bench load``."""
    config.check()
    if not Path("/proc/self/status").exists():
        raise UserError("bench load reads the process's memory from /proc, which this system lacks")
    if config.model is not None:
        tensor_files(config.model)
    with tempfile.TemporaryDirectory() as temporary:
        folder = config.model or fake_checkpoint(Path(temporary), config.layers, config.vocab_size)
        rows = [_row(measure(folder, base_dtype)) for base_dtype in config.base_dtypes]
    heads = [
        "base dtype",
        "arrays MiB",
        "largest tensor MiB",
        "host peak beyond arrays MiB",
        "in tensors",
        "seconds",
        "against a plain read",
    ]
    print(text_table(heads, rows))


def _row(loading: Mapping[str, Any]) -> list[str]:
    """Return the table's row of one loading."""
    mib = 2**20
    # Loading should hold a tensor or two beside what it has loaded, never the checkpoint twice.
    # Hence the peak is told in tensors too.
    return [
        loading["base_dtype"],
        f"{loading['arrays'] / mib:.0f}",
        f"{loading['largest'] / mib:.0f}",
        f"{loading['beyond'] / mib:.0f}",
        f"{loading['beyond'] / loading['largest']:.2f}",
        f"{loading['seconds']:.1f}",
        f"{loading['seconds'] / loading['read_seconds']:.1f}×",
    ]


def fake_checkpoint(
    folder: Path, layers: int, vocab_size: int, shard_bytes: int = 512 * 2**20
) -> Path:
    """Write ``config.json`` and indexed safetensors of random bfloat16 numbers, 512 MiB or a tensor
    a file.
    """
    settings = SHAPES["llama-3.2-1b"] | {"num_hidden_layers": layers, "vocab_size": vocab_size}
    specs = parameter_table(DecoderConfig.from_mapping(settings, "the benchmark's shape"))
    print(f"writing {count(specs) / 1e9:.2f} billion parameters to {folder}", file=sys.stderr)
    random = np.random.default_rng(0)
    shard: dict[str, np.ndarray] = {}
    files: dict[str, str] = {}

    def flush() -> None:
        name = f"model-{len(set(files.values())) + 1:05d}.safetensors"
        save_file(shard, folder / name)
        files.update(dict.fromkeys(shard, name))
        shard.clear()

    for spec in specs.values():
        # Our arrays hold all layers in one, [layers, inputs, outputs]. A checkpoint has a tensor
        # for each layer, and PyTorch's linear maps are [outputs, inputs].
        shape = spec.shape[1:] if spec.layers else spec.shape
        if spec.transposed:
            shape = shape[::-1]
        for key in spec.tensor_names():
            numbers = random.standard_normal(shape, np.float32)
            shard[key] = (0.02 * numbers).astype(ml_dtypes.bfloat16)
            if sum(array.nbytes for array in shard.values()) >= shard_bytes:
                flush()
    if shard:
        flush()
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    return folder


def measure(folder: Path, base_dtype: BaseDtype) -> dict[str, Any]:
    """Load in a fresh process; return bytes and seconds."""
    # Memory that a process has given back may stay with it: only a fresh one has a peak of its own.
    command = [sys.executable, "-m", "jaxmodpo.bench.load", str(folder), base_dtype]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        raise UserError(
            f"loading as {base_dtype} failed: {process.stderr.strip().splitlines()[-1]}"
        )
    return json.loads(process.stdout)


class PeakMemory:
    """The largest anonymous memory of this process within a ``with`` block, sampled every
    millisecond.

    Pages of a mapped file, which the kernel may drop at any time, are not counted.
    """

    def __enter__(self) -> PeakMemory:
        self.start = self.peak = anonymous_memory()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        # The kernel keeps a peak of its own, but of all resident pages, those of mapped files too.
        while not self._done.wait(0.001):
            self.peak = max(self.peak, anonymous_memory())


def anonymous_memory() -> int:
    """Bytes of memory of this process that no file backs."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise UserError("this kernel does not report RssAnon in /proc/self/status")


def main() -> None:
    """Load the folder named on the command line and print what it took, as JSON."""
    folder = Path(sys.argv[1])
    base_dtype = sys.argv[2]
    files = tensor_files(folder)
    largest = 0
    # What just reading the bytes takes on this machine. It also brings the files into the page
    # cache, so that the loading below is not measured by the disk.
    started = time.perf_counter()
    for path in sorted(set(files.values())):
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                largest = max(largest, file.get_tensor(name).nbytes)
    read_seconds = time.perf_counter() - started
    # JAX's own start takes memory that is not the loading's.
    jax.block_until_ready(jax.jit(lambda: jax.numpy.zeros(8))())
    with PeakMemory() as memory:
        started = time.perf_counter()
        model = load_decoder(folder, base_dtype)  # type: ignore[arg-type]
        arrays = [variable[...] for variable in model.base.values()]
        jax.block_until_ready(arrays)
        seconds = time.perf_counter() - started
    # What a computation counts, which for 4-bit codes is half of what NumPy would need.
    compiled: Any = jax.jit(lambda arrays: arrays).lower(arrays).compile().memory_analysis()
    array_bytes = compiled.argument_size_in_bytes
    result = {
        "base_dtype": base_dtype,
        "arrays": array_bytes,
        "largest": largest,
        "read_seconds": read_seconds,
        "beyond": memory.peak - memory.start - array_bytes,
        "seconds": seconds,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
