"""Sampling: replies to questions, from a policy on this machine's devices or from an endpoint.

- ``command.py`` is the command, ``settings.py`` what it can be told, and ``journal.py`` keeps every
  reply as it ends.
- ``local.py`` samples with a policy: ``engine.py`` runs the slots of ``slots.py``, and ``draw.py``
  says which token comes next.
- ``endpoint.py`` asks a server, by the calls of :mod:`jaxmodpo.endpoints`.
- ``shares.py`` divides the replies of a run among hosts.

Which of four tokens a row may draw from, with the two likeliest of them as its nucleus::

    import jax.numpy as jnp
    from jaxmodpo.sampling.draw import SamplingSettings, candidates

    settings = SamplingSettings(temperature=1.0, top_p=0.8, max_new_tokens=8, end_tokens=(0,))
    row = candidates(jnp.log(jnp.array([[0.5, 0.3, 0.1, 0.1]])), settings)
    print(row.weights_BV.round(1), row.nucleus_B)       # [[1.  0.6 0.2 0.2]] [1.6]
"""
