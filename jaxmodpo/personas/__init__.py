"""Surveys become patient personas.

The rows of a survey are read through a mapping (:mod:`jaxmodpo.personas.mapping`), those who took
part are told from everybody else (:mod:`jaxmodpo.personas.rows`), each participant is rated and
written as a profile (:mod:`jaxmodpo.personas.profile`), and the personas are selected and split
(:mod:`jaxmodpo.personas.selection`). The command ``personas`` does all of it; the steps can be
taken alone as well::

    from jaxmodpo.personas.profile import profile_text, quality
    from jaxmodpo.personas.survey import participants_of
    from jaxmodpo.personas.synthetic import survey_rows

    participants = participants_of(survey_rows(335, seed=42))
    print(profile_text(participants[0]))          # You are roleplaying as a patient with …
    print(quality(participants[0])["quality"])    # between 0 and 1
"""
