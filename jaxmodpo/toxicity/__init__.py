"""Toxicity: how many of each model's replies a classifier, a judge or a service calls toxic.

Whatever scores replies is a judge of the ledger (:class:`jaxmodpo.judging.judge.Judge`) that also
says what its scores are called, so that scores are durable, shared and replayed like votes::

    from pathlib import Path
    from jaxmodpo.judging.collect import collect
    from jaxmodpo.toxicity.classifier import classifier_scorer

    scorer = classifier_scorer(Path("unbiased-toxic-roberta"), batch_size=16)
    collect(requests, scorer, ledger, label="toxicity")

Where to read on: :mod:`jaxmodpo.toxicity.command` is the flow, :mod:`jaxmodpo.toxicity.scorers`
what a scorer is, :mod:`jaxmodpo.toxicity.summary` how scores become Table 1.
"""
