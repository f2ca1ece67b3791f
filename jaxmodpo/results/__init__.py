"""Results: the files in which commands say what came out, as dataclasses with a version.

``versioned.py`` writes and reads all of them, ``manifest.py`` is the file that every output folder
has, and each other file here holds the dataclasses of one command's results. Whoever shows or
compares results reads them here, and never by their keys::

    from pathlib import Path
    from jaxmodpo.results.measures import DIVERGENCE, Divergence
    from jaxmodpo.results.versioned import read_result, write_result

    path = Path(DIVERGENCE)
    write_result(path, Divergence(kl=3.1, standard_error=0.2, replies=64))
    print(read_result(path, Divergence).kl)             # 3.1
"""
