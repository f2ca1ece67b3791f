"""Searches for settings, and sweeps over the weights of objectives.

Both train many models from one base that is loaded once. ``tune`` asks Optuna which settings to try
and keeps every trial in a database that several processes may share; ``sweep`` trains a model for
each point of a grid of weights and compares their fronts. A search from Python::

    from pathlib import Path
    from jaxmodpo.search.settings import TuneDPOConfig
    from jaxmodpo.search.tune import tune_dpo

    tune_dpo(
        TuneDPOConfig(
            model="base", pairs=Path("pairs.jsonl"), output_dir=Path("search"), trials=20
        )
    )                                                     # search/best.yaml holds the best settings
"""
