"""The web application of a blinded study: what raters see, what is stored, and what its
administrator sees::

    store = open_store(Path("study/answers.sqlite"), study, fingerprint)
    link = store.raters.new_link()          # of a personal link only its hash is kept
    application = rater_application(Study(study, store), WebSettings())

``serve`` runs it. Models and sides stay on the server: pages are made of what ``viewing`` gives.
"""
