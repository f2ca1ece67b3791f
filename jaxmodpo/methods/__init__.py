"""Methods: a small file for each way of training, over one trainer.

- ``dpo.py``, ``modpo.py``, ``joint.py`` and ``sft.py`` each hold a command's settings, its loss and
  what it does. ``align.py`` is what they share, from settings to a finished adapter.
- ``terms.py`` reduces a method's losses, ``weights.py`` reads ``--weights``, and ``margins.py``
  gets the rewards of MODPO's other objectives.
- ``reward.py`` trains reward models: on what ``reward_data.py`` reads, as ``reward_model.py`` has
  them, measured by ``validation.py``.
- ``soup.py`` averages adapters; ``score.py`` and ``score_kl.py`` measure models.

A method is a function of log-probabilities ``[pairs, 2]``, chosen and rejected::

    import jax.numpy as jnp
    from jaxmodpo.methods.dpo import DPO

    batch = {"reference_logps": jnp.array([[-9.0, -9.0]]), "row_weights": jnp.ones(1)}
    tokens = jnp.array([[5.0, 5.0]])
    terms = DPO(beta=0.5)(jnp.array([[-8.0, -10.0]]), tokens, batch)
    print(terms.total, terms.metrics["rewards/margins"])    # 0.3132617 1.0
"""
