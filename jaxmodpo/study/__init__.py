"""The blinded human study: which replies people compare, the web application in which they do so,
and what their answers say about models and judges. Nothing here imports JAX.

A study is sampled, answered and analyzed::

    jaxmodpo study sample --evaluation out/evaluation --models modpo base --output-dir out/study
    jaxmodpo study simulate --study out/study/study.json --output-dir out/rehearsal
    jaxmodpo study analyze --study out/study/study.json \\
        --annotations out/rehearsal/annotations.csv \\
        --outcomes out/evaluation/outcomes.csv --output-dir out/human_study
"""
