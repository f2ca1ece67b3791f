"""A run learns the same on every mesh and in any order of the devices: others' LoRA-DPO was found
to depend on both.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked_programs import ForkedPrograms
from tiny_models import tiny_mistral

PROGRAM = Path(__file__).with_name("curves.py")
SIZES = {
    "num_hidden_layers": 1,
    "hidden_size": 128,
    "intermediate_size": 128,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 16,
}
"""what eight devices divide, and two of them into whole blocks of 64 quantized inputs"""


@pytest.fixture
def curves(forked_programs: ForkedPrograms, tmp_path: Path) -> dict[str, Any]:
    """Train on all meshes in one process of eight devices."""
    model = tiny_mistral(tmp_path / "model", gain=2.0, **SIZES)
    written = tmp_path / "curves.json"
    printed = forked_programs.run(PROGRAM.read_text(), [str(model), str(written)], devices=8)
    # As XLA says where it finds no way from one sharding to the next.
    assert "Involuntary full rematerialization" not in printed
    return json.loads(written.read_text())


@pytest.mark.slow(seconds=40)
def test_every_mesh_and_order_of_devices_gives_one_devices_losses_from_equal_bits_on(curves):
    assert len(curves) == 10
    for name, curve in curves.items():
        assert curve["moved"] == [], f"{name}: XLA put these elsewhere, and compiles again"
        if name.startswith("encoder"):
            expected = curves["encoder, one device"]["losses"]
            assert len(expected) == 20 and np.ptp(expected) > 0.01, "losses follow what is learned"
            np.testing.assert_allclose(curve["losses"], expected, atol=1e-5, err_msg=name)
            continue
        base = "one device, quantized" if name.endswith("quantized") else "one device"
        expected = curves[base]["losses"]
        assert curve["equal_bits"], "policy and reference differ before the first update"
        assert expected[0] == pytest.approx(np.log(2), abs=1e-6)
        assert min(expected) < 0.65, "the policy has learned"
        difference = np.abs(np.subtract(curve["losses"], expected)).max()
        assert difference < 1e-5, (name, difference)
