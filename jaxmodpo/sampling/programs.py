"""How many programs of the sampler this process has compiled.

JAX's own count of what a jitted function has in its cache is too high on a single device: arrays
that lie there in the same way under two descriptions have two places in the cache and one program.
So the compiler's events are counted::

    before = programs_compiled()
    ...
    programs_compiled() - before      # Counter({"prefill": 1, "round": 1})
"""

from __future__ import annotations

from collections import Counter

import jax

_COMPILED = "/jax/core/compile/backend_compile_duration"
_PROGRAMS = {"jit(prefill)": "prefill", "jit(advance)": "round"}

_compiled: Counter[str] = Counter()


def _note_compiled(event: str, duration_secs: float, **details: str | int) -> None:
    program = _PROGRAMS.get(str(details.get("fun_name")))
    if event == _COMPILED and program is not None:
        _compiled[program] += 1


jax.monitoring.register_event_duration_secs_listener(_note_compiled)


def programs_compiled() -> Counter[str]:
    """Return how many prefills and rounds have been compiled, or read from the compilation cache,
    since this module was imported.
    """
    return Counter(_compiled)
