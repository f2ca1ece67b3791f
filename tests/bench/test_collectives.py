"""What devices send each other, counted in compiled programs."""

from __future__ import annotations

import pytest

from jaxmodpo.bench.collectives import by_depth
from jaxmodpo.bench.fit_sampling import described_sampling, fit_sampling
from jaxmodpo.training.ahead import topology_devices

PROGRAM = """
HloModule jit_advance

%piece (p: f32[4]) -> f32[4] {
  %all-gather.1 = f32[8]{0} all-gather(%p), channel_id=3, dimensions={0}
}

%layer (p: f32[4]) -> f32[4] {
  %all-reduce.1 = (f32[4]{0}, f32[4]{0}) all-reduce(%p, %p), channel_id=1, to_apply=%add
  %all-reduce-start.2 = f32[4]{0} all-reduce-start(%p), channel_id=2, to_apply=%add
  %all-reduce-done.2 = f32[4]{0} all-reduce-done(%all-reduce-start.2)
  %fusion.1 = f32[4]{0} fusion(%p), kind=kLoop, calls=%piece
  %fusion.2 = f32[4]{0} fusion(%p), kind=kLoop, calls=%piece
}

%token (p: f32[4]) -> f32[4] {
  %while.1 = f32[4]{0} while(%p), condition=%going, body=%layer
  %all-to-all.1 = f32[4]{0} all-to-all(%p), channel_id=4, dimensions={0}
}

ENTRY %main (p: f32[4]) -> f32[4] {
  %all-gather.9 = f32[8]{0} all-gather(%p), channel_id=9, dimensions={0}
  %while.2 = f32[4]{0} while(%p), condition=%going, body=%token
}
"""


def test_collectives_are_counted_once_a_turn_of_their_loop():
    assert by_depth(PROGRAM) == [
        {"all-gather": 1},
        {"all-to-all": 1},
        {"all-reduce": 2, "all-gather": 1},
    ]


@pytest.mark.slow(seconds=40)
@pytest.mark.parametrize("adapters", [1, 3])
def test_sampling_on_a_pod_adds_up_twice_a_layer_and_gathers_nothing(adapters: int):
    pytest.importorskip("libtpu")
    answer = fit_sampling(
        "llama-3.2-1b",
        topology_devices("v5e:2x4"),
        topology="v5e:2x4",
        mesh_shape=None,
        slots=16,
        length=256,
        lora_rank=16,
        adapters=adapters,
        base_dtype="bfloat16",
    )
    assert answer.fits and answer.mesh == (1, 1, 8)
    # 1.24e9 parameters in bfloat16, of which the embeddings are the head too.
    assert 2.4e9 / 8 < answer.weight_bytes < 2.7e9 / 8
    _, a_token, a_layer, *blocks = answer.collectives
    assert a_layer == {"all-reduce": 2} and not any(blocks)
    assert "all-gather" not in a_token
    # Rows lie whole on each device: the prompts' cache needs no gathering.
    a_prefill, a_chunk, a_layer_of_a_chunk, *_ = answer.prefill_collectives
    assert "all-gather" not in a_prefill and "all-gather" not in a_chunk
    assert a_layer_of_a_chunk == {"all-reduce": 2}
    assert answer.prefill_peak_bytes > answer.weight_bytes + answer.cache_bytes
    text = described_sampling(answer)
    assert "| sent for each layer of it" in text and "fits" in text
