"""A policy: a model with an adapter in memory, on devices that may be many.

``loaded.py`` loads a base with an adapter and computes log-probabilities. ``mesh.py`` says which
device holds what, ``distributed.py`` joins several processes, and ``preemption.py`` lets them stop
together. ``prompts.py`` knows how questions are put to a model. ``compiled_programs.py`` keeps what
was compiled, and ``compile_clock.py`` counts the time that compiling takes.

The devices of a machine as a mesh, and a policy on it::

    from pathlib import Path
    from jaxmodpo.models.lora import LoraConfig
    from jaxmodpo.policy.loaded import load_policy
    from jaxmodpo.policy.mesh import make_mesh

    mesh = make_mesh()
    print(mesh.axis_names)                              # ('data', 'fsdp', 'tensor')
    fresh = LoraConfig(rank=64, alpha=128.0, dropout=0.05)
    policy = load_policy(Path("mistral"), base_dtype="bfloat16", fresh=fresh)
    logps = policy.logps(examples, rows=4)              # [examples, replies], in nats
"""
