"""The sandbox: a small synthetic world in which the right answer is known.

Posts and replies come from a grammar (``grammar.py``), whose kinds of sentences the rubric judges
without error. Tiny models are pretrained on them (``models.py``, ``world.py``), and from there on
every command treats them as it treats any model. So what a method does can be held against what it
should do: ``expectations.py`` states it for the demo, ``front_comparison.py`` for fronts. A reply,
and what it is made of::

    import numpy as np
    from jaxmodpo.sandbox import grammar

    text = grammar.reply(np.random.default_rng(3))
    print(text)
    print(grammar.parse(text))
    # Many people have worries like this. It makes sense that you feel this way. Let us make a
    # safety plan for bad days. Keep an emergency number at hand.
    # ['plain', 'warm', 'safe', 'safe']
"""
