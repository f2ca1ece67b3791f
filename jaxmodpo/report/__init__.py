"""The report about finished runs: one HTML file that a person reads and browses.

It stands apart from the evaluation, since it shows finished work of any kind and asks no judge.
:mod:`~jaxmodpo.report.command` is the command ``jaxmodpo report``, ``run_folders.py`` finds the
runs, ``sections.py`` is the table of sections, and ``gallery.py`` keeps their figures. A section is
made of blocks, and a page of sections::

    from jaxmodpo.report.blocks import Column, Paragraph, Section, Table
    from jaxmodpo.report.page import lay_out

    table = Table("lengths", (Column("model", is_word=True), Column("tokens")), [["base", "212"]])
    html = lay_out("Two models", [Section("Length", [Paragraph("Of 600 replies."), table])])
    print("212" in html)                                # True
"""
