"""The time to the first update is told in its parts, each second once."""

from __future__ import annotations

import logging
import time

import jax
import jax.numpy as jnp
import pytest

from jaxmodpo.policy.compile_clock import Span, compiling_seconds, seconds_within, with_span
from jaxmodpo.training import startup as startup_module
from jaxmodpo.training.startup import Startup


class Clock:
    """A clock that goes on only when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 100.0
        self.compiled: list[Span] = []
        monkeypatch.setattr(startup_module.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(
            startup_module,
            "compiling_seconds",
            lambda begin, end: seconds_within(self.compiled, begin, end),
        )

    def work(self, seconds: float) -> None:
        self.now += seconds

    def compile(self, seconds: float) -> None:
        self.compiled.append(Span(self.now, self.now + seconds))
        self.now += seconds


def test_a_part_is_told_without_what_was_compiled_and_without_parts_within_it(monkeypatch, caplog):
    clock = Clock(monkeypatch)
    startup = Startup()
    clock.work(1)
    with startup.part("margins"):
        clock.work(2)
        with startup.part("model"):
            clock.work(4)
            clock.compile(8)
        clock.compile(16)
    with startup.part("model"):
        clock.work(32)
    clock.compile(64)
    with caplog.at_level(logging.INFO):
        startup.end()
    assert startup.seconds == {
        "margins": 2,
        "model": 36,
        "compiling": 88,
        "other": 1,
        "total": 127,
    }
    assert caplog.messages == [
        "first update after 127.0 s: margins 2.0, model 36.0, compiling 88.0, other 1.0"
    ]


def test_what_comes_after_the_end_does_not_count(monkeypatch):
    clock = Clock(monkeypatch)
    startup = Startup()
    with startup.part("first update"):
        clock.work(1)
    startup.end()
    with startup.part("first update"):
        clock.work(5)
    startup.end()
    assert startup.seconds["first update"] == startup.seconds["total"] == 1


def test_programs_traced_within_others_count_once():
    spans: list[Span] = []
    for span in [Span(1, 2), Span(3, 4), Span(0.5, 5), Span(6, 8), Span(7, 9)]:
        with_span(spans, span)
    assert spans == [Span(0.5, 5), Span(6, 9)]
    assert seconds_within(spans, 4, 7) == 2
    assert seconds_within(spans, 10, 11) == 0


def test_compiling_is_noticed_and_a_second_call_is_none():
    began = time.perf_counter()
    program = jax.jit(lambda x: jnp.sin(x) * 12345.0)
    program(jnp.ones(3)).block_until_ready()
    compiled = time.perf_counter()
    assert 0 < compiling_seconds(began, compiled) <= compiled - began
    program(jnp.ones(3)).block_until_ready()
    assert compiling_seconds(compiled, time.perf_counter()) == 0
