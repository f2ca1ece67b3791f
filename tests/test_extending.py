"""The method that docs/extending.md adds, in one file and one row, as the page has them."""

from __future__ import annotations

import json
import re
import sys
import types
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from jaxmodpo.cli import main
from jaxmodpo.commands import COMMANDS, Command
from jaxmodpo.dry_run import dry_run

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"


@pytest.fixture
def method(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    file, row = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    module = types.ModuleType("jaxmodpo.methods.normalized")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(file, "normalized.py", "exec"), module.__dict__)
    rows = eval(f"{{{row}}}", {"Command": Command})
    for name, command in rows.items():
        monkeypatch.setitem(COMMANDS, name, command)  # type: ignore[arg-type]
    return module


def test_its_loss_is_dpo_of_averages_over_tokens(method):
    logps = np.array([[-12.0, -30.0], [-9.0, -8.0]])
    reference = np.array([[-13.0, -27.0], [-9.5, -8.5]])
    tokens = np.array([[4.0, 10.0], [3.0, 2.0]])
    batch = {"reference_logps": jnp.array(reference), "row_weights": jnp.array([1.0, 1.0])}
    terms = method.NormalizedDPO(0.5)(jnp.array(logps), jnp.array(tokens), batch)
    ratios = (logps - reference) / tokens
    expected = np.log1p(np.exp(-0.5 * (ratios[:, 0] - ratios[:, 1])))
    np.testing.assert_allclose(float(terms.total), expected.sum(), rtol=1e-6)


@pytest.mark.slow(seconds=15)
def test_it_trains_is_priced_and_refuses_as_every_other_command(
    method, tiny_world, tmp_path, capsys
):
    settings: dict[str, Any] = {
        "model": str(tiny_world / "mistral"),
        "pairs": str(tmp_path / "pairs.jsonl"),
    }
    rows = [{"prompt": f"{n} why", "chosen": "you matter", "rejected": "no"} for n in range(8)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    small = {
        "epochs": 2,
        "batch_size": 4,
        "gradient_accumulation": 1,
        "lora_rank": 2,
        "lora_dropout": 0.0,
        "learning_rate": 1e-2,
    }
    small |= {"base_dtype": "float32", "log_every": 1}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in (settings | small).items()]
    main(["align", "normalized", *flags, "--output-dir", str(tmp_path / "run")])
    rows = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[0] == pytest.approx(np.log(2), abs=1e-4) and losses[-1] < losses[0]
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()

    def experiment(**changes: Any) -> Path:
        phases = [
            {"name": "last", "command": "align normalized", "settings": settings | small | changes}
        ]
        (tmp_path / "e.yaml").write_text(yaml.safe_dump({"phases": phases}))
        return tmp_path / "e.yaml"

    capsys.readouterr()
    dry_run(experiment(), tmp_path / "out", None, {}, "v5e")
    printed = capsys.readouterr().out
    assert "chip-hours" in printed and "unknown" not in printed
    with pytest.raises(SystemExit) as end:
        main(["run", str(experiment(epochs=0)), "--output-dir", str(tmp_path / "out")])
    assert (
        end.value.code == 2 and "phase last: --epochs must be at least 1" in capsys.readouterr().err
    )
