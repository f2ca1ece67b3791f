"""Crisis probes: short posts with and without a danger, replies to them, and what a check of the
replies sees.

A screen and no instrument: it shows where to look, and clears no model::

    probes = load_probe_set("crisis").probes
    verdict = load_probe_rubric().check(probes[0], "Please call 988 now.")
"""
