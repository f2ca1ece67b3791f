"""Crisis probes: short posts with and without a danger, replies to them, and what a check of the
replies sees.

A screen and no instrument: it shows where to look, and clears no model::

    from jaxmodpo.probes.probe_set import load_probe_set
    from jaxmodpo.probes.rubric import load_probe_rubric

    probe = load_probe_set("crisis").probes[0]
    verdict = load_probe_rubric().check(probe.kind, "I hear how much this hurts. Please call 988.")
    print(probe.kind, verdict.passes(risk=True))        # suicide True

:mod:`jaxmodpo.probes.command` is the flow.
"""
