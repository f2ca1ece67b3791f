"""How long this process has spent on compiling: tracing a function, lowering it, and XLA's work on
it or reading its result from the compilation cache.

JAX compiles a program where it is first called, in the middle of whatever that call is for. Its
events say when, so that compiling can be told apart from the work around it::

    began = time.perf_counter()
    ...
    seconds = compiling_seconds(began, time.perf_counter())
"""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

import jax

_EVENTS = frozenset(
    f"/jax/core/compile/{part}_duration"
    for part in ("jaxpr_trace", "jaxpr_to_mlir_module", "backend_compile")
)


class Span(NamedTuple):
    """Some time, in seconds of ``time.perf_counter``."""

    begin: float
    end: float


def with_span(spans: list[Span], span: Span) -> None:
    """Add a span to others, which lie apart and in order; what it overlaps becomes one with it.

    Programs are traced within the tracing of others, and an event comes when its span has ended:
    the outer one's after those of all inner ones.
    """
    begin = span.begin
    while spans and spans[-1].end > begin:
        begin = min(begin, spans.pop().begin)
    spans.append(Span(begin, span.end))


def seconds_within(spans: list[Span], begin: float, end: float) -> float:
    """Return how much of the time from ``begin`` to ``end`` some spans cover."""
    seconds = 0.0
    for span in reversed(spans):
        if span.end <= begin:
            break
        seconds += max(0.0, min(span.end, end) - max(span.begin, begin))
    return seconds


_spans: list[Span] = []
_lock = threading.Lock()


def _note(event: str, duration_secs: float, **_: str | int) -> None:
    if event not in _EVENTS:
        return
    # Other threads compile too, such as the one that writes checkpoints.
    with _lock:
        end = time.perf_counter()
        with_span(_spans, Span(end - duration_secs, end))


jax.monitoring.register_event_duration_secs_listener(_note)


def compiling_seconds(begin: float, end: float) -> float:
    """Return for how long this process was compiling between two times of ``time.perf_counter``;
    what was compiled before this module was imported is not known.
    """
    with _lock:
        return seconds_within(_spans, begin, end)
