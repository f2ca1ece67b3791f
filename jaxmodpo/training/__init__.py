"""Training: one step and one loop for all methods, and what keeps a run safe and fast.

- ``settings.py`` is what a run can be told, ``problem.py`` what it minimizes, ``trainer.py`` the
  loop, ``step.py`` one update, and ``policy_loss.py`` the way from a batch to a method's loss.
- ``checkpoints.py`` and ``resume.py`` save a run and go on with it; ``evaluation.py`` measures it
  on held-out examples, and ``tracking.py`` writes its metrics.
- ``cache.py`` keeps tokens and log-probabilities between runs; ``recomputation.py`` chooses what
  the backward pass computes again; ``session.py`` shares a loaded base among runs.
- ``ahead.py``, ``fit.py``, ``roofline.py`` and ``hardware.py`` say beforehand what a step needs.

A policy is trained on batches of examples, whose log-probabilities of the reference are known::

    from pathlib import Path
    from jaxmodpo.data.batches import Batches
    from jaxmodpo.methods.dpo import DPO
    from jaxmodpo.training.problem import policy_problem
    from jaxmodpo.training.settings import LoopSettings
    from jaxmodpo.training.trainer import train

    batches = Batches(examples, batch_size=4, accumulation=4, epochs=3)
    settings = LoopSettings(output_dir=Path("run"), learning_rate=5e-6)
    trained = train(policy_problem(policy, DPO(beta=0.1)), batches, settings)
    trained.parameters                                  # the adapter's
"""
