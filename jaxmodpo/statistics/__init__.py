"""Statistics: pure functions of arrays, which read no files and know no settings.

Every figure of an evaluation, of a judge or of a sweep can be computed again from what a run has
written. An outcome is 1 where the first model won, 0 where it lost, 0.5 for a tie and NaN where
nobody voted; the last two axes are questions and replies::

    import numpy as np
    from jaxmodpo.statistics.mcnemar import mcnemar
    from jaxmodpo.statistics.win_rates import estimate_win_rate

    outcomes = np.array([[1.0], [1.0], [0.0], [0.5]])     # four questions, one reply each
    print(estimate_win_rate(outcomes).value)              # 0.625
    print(mcnemar(outcomes).p_value_exact)                # 1.0
"""
