"""Benchmarks: how fast things are, how much memory they need, and whether they agree with others.

Each ``bench`` command has a file of its name, which is imported by nothing but the program. A
comparison with another library has a file for either side, such as ``our_step.py`` and
``trl_step.py``, and both take turns::

    from jaxmodpo.bench.turns import in_turns

    timings = in_turns({"ours": lambda: 2.0, "theirs": lambda: 3.0}, rounds=3)   # seconds of a run
    print(timings["theirs"].median / timings["ours"].median)                     # 1.5

``fit.py`` is here as well: it compiles training and sampling alike, without the devices.
docs/performance.md has the figures.
"""
