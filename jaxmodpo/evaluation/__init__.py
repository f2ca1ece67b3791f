"""Votes become results: win rates with intervals and tests, agreement of judges, reports.

The statistics are pure functions of arrays, apart from files and judges, so that every number can
be computed again from what a run has written. An outcome is 1 where the first model won, 0 where it
lost, 0.5 for a tie and NaN where nobody voted; the last two axes are questions and replies::

    import numpy as np
    from jaxmodpo.evaluation.statistics import estimate_win_rate, mcnemar

    outcomes = np.array([[1.0], [1.0], [0.0], [0.5]])     # four questions, one reply each
    estimate = estimate_win_rate(outcomes)                 # 0.625, its interval over questions
    mcnemar(outcomes).p_value_exact                        # 1.0: two won and one lost say little
"""
