"""Parameter soups: one adapter from several, without training.

The mean of what two adapters change::

    config = SoupConfig(adapters=(a, b), weights=(0.5, 0.5), output_dir=out)
    soup(config)   # out/adapter, whose rank is the sum of the two ranks
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jaxmodpo.costs import Cost, Estimates
from jaxmodpo.data.prompting import record_common_prompt
from jaxmodpo.errors import UserError
from jaxmodpo.methods.weights import check_weights
from jaxmodpo.models.adapter_config import read_adapter_settings
from jaxmodpo.models.adapters import load_adapter, save_adapter
from jaxmodpo.models.decoder_config import read_decoder_config
from jaxmodpo.models.lora import Averaging, average
from jaxmodpo.phase import Phase, in_phase
from jaxmodpo.ranges import CommandSettings, Incidental


@dataclass(frozen=True, kw_only=True)
class SoupConfig(CommandSettings, help_group="model"):
    """Average adapters of one base model: by default exactly, Σ w_i B_i A_i (α_i / r_i)."""

    spends = ()

    adapters: tuple[Path, ...]
    """PEFT folders of the adapters, two or more."""
    weights: tuple[float, ...]
    """Weights of the adapters, at least 0 and with the sum 1, in the same order."""
    output_dir: Incidental[Path]
    """Folder of the run. The averaged adapter is written to output_dir/adapter."""
    how: Averaging = "exact"
    """What is averaged. exact: what the adapters change in the weights; factors: their matrices A
    and B apart, which is another thing; slerp: two adapters' changes are turned into one
    another."""
    model: Path | None = None
    """Folder of the base model. By default it is the one that the first adapter names."""

    def check(self) -> None:
        """Refuse settings that average nothing.

        Raises:
            UserError: fewer than two adapters, or weights that do not fit them.
        """
        if len(self.adapters) < 2:
            raise UserError("soup needs at least two --adapters")
        check_weights(self.weights, [str(folder) for folder in self.adapters])

    def cost(self, estimator: Estimates) -> Cost:
        sizes = [estimator.adapter_bytes(folder) for folder in self.adapters]
        estimator.adapters[self.output_dir / "adapter"] = sum(sizes)
        # The mean of the factors has one adapter's rank; an exact mean has all ranks side by side.
        return Cost(disk=max(sizes) if self.how == "factors" else sum(sizes))


@in_phase("soup")
def soup(config: SoupConfig, phase: Phase) -> None:
    """Run ``soup``."""
    # Adapters of different bases can have the same shapes, and their average would be noise.
    base_names = {
        str(read_adapter_settings(folder).get("base_model_name_or_path"))
        for folder in config.adapters
    }
    if config.model is None and len(base_names) > 1:
        raise UserError(
            f"the adapters name different base models, {', '.join(sorted(base_names))}; --model says"
            " which it is"
        )
    if config.model is None and base_names == {"None"}:
        raise UserError("the adapters name no base model; --model says which it is")
    base = config.model or Path(base_names.pop())
    model = read_decoder_config(base)
    adapters = [load_adapter(folder, model, base) for folder in config.adapters]
    lora, merged = average(adapters, config.weights, config.how)
    save_adapter(config.output_dir / "adapter", merged, lora, model, str(base))
    record_common_prompt(config.output_dir / "adapter", config.adapters)
    phase.finish(rank=lora.rank)
