"""Samplers are timed in turns, and the fastest round of each counts."""

from __future__ import annotations

from collections.abc import Callable

from jaxmodpo.bench.timed_samplers import Speed, TimedSampler, fastest_rounds


def test_samplers_take_turns_and_the_fastest_round_of_each_counts():
    order: list[str] = []

    def sampler(name: str, *seconds: float) -> Callable[[], Speed]:
        coming = list(seconds)

        def sample() -> Speed:
            order.append(name)
            return Speed(name, coming.pop(0), tokens=120)

        return sample

    speeds = fastest_rounds(
        [
            TimedSampler("ours", sampler("ours", 0.5, 3.0, 2.0), compiles=True),
            TimedSampler("theirs", sampler("theirs", 4.0, 6.0), compiles=False),
        ],
        rounds=2,
    )
    # What was compiled in half a second does not count.
    assert order == ["ours", "ours", "theirs", "ours", "theirs"]
    assert [speed.tokens_per_second for speed in speeds] == [60.0, 30.0]
