"""Data: from files of questions and preferences to batches of tokens.

In the order in which a pair goes through it:

- ``rows.py`` reads the rows of any kind of file, ``layouts.py`` says what a row means, and
  ``pairs.py`` puts the two together.
- ``text.py`` turns texts into tokens; ``chat_template.py`` finds out what stands around a question,
  and ``controls.py`` keeps what a person wrote from being read as a control token.
- ``replies.py`` tokenizes every reply once and numbers what is compared; ``comparisons.py`` makes
  an example of each question, and ``examples.py`` holds them as arrays.
- ``grouping.py`` and ``exchanges.py`` decide which examples meet, ``packing.py`` and
  ``row_lengths.py`` where their tokens lie, and ``batches.py`` hands out the batches.

The first batch of a file of pairs::

    from pathlib import Path
    from jaxmodpo.data.batches import Batches
    from jaxmodpo.data.pairs import load_pairs
    from jaxmodpo.data.replies import policy_pairs
    from jaxmodpo.data.text import PolicyText, load_tokenizer

    pairs = load_pairs(Path("empathy_pairs.json"))
    text = PolicyText(load_tokenizer(model_folder))
    examples = policy_pairs([pairs], text).by_question().examples
    batch = next(Batches(examples, batch_size=8, accumulation=2, batching="packed"))
    batch["tokens"].shape               # (2 microbatches, rows, tokens of a row)
"""
