"""Votes become results: win rates with intervals and tests, agreement of judges, reports.

The statistics themselves are pure functions of arrays in :mod:`jaxmodpo.statistics`. Here files are
read, votes are counted, and figures are written and drawn.
"""
