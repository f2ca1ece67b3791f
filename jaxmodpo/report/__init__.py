"""The report about finished runs: one HTML file that a person reads and browses.

It stands apart from the evaluation, since it shows finished work of any kind and asks no judge.
:mod:`~jaxmodpo.report.command` is the command ``jaxmodpo report``.
"""
