"""Evaluation: votes become results: win rates with intervals and tests, agreement of judges.

The statistics themselves are pure functions of arrays in :mod:`jaxmodpo.statistics`. Here files are
read, votes are counted, and figures are written and drawn.

- ``head_to_head.py`` is the command ``evaluate``: ``contest.py`` reads what is compared, and
  ``outcomes.py`` counts who won what. ``collected.py`` counts votes that others collected.
- ``judges.py`` is the command ``judges``: ``vote_reading.py`` reads ledgers, and
  ``judge_agreement.py``, ``position.py`` and ``repeats.py`` measure how far judges can be believed.

Votes that somebody else collected become rows of ``outcomes.csv``::

    import json
    from pathlib import Path
    from jaxmodpo.evaluation.collected import read_collected

    row = {"criterion": "empathy", "a": "dpo", "b": "base", "question_id": "q1"}
    Path("votes.json").write_text(json.dumps([row | {"votes_a": 2, "votes_b": 1}]))
    print(read_collected([Path("votes.json")]).rows[0]["outcome"])                  # 1.0
"""
