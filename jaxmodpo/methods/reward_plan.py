"""What ``reward --all`` trains: a model for each criterion, less those that are there already."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jaxmodpo.criteria import load_criteria
from jaxmodpo.results.manifest import find_manifest

if TYPE_CHECKING:
    from jaxmodpo.methods.reward import RewardConfig


def planned(config: RewardConfig) -> tuple[dict[str, Path], dict[str, str]]:
    """Return what ``--all`` is to train, and what it shares.

    A criterion that does not say what is better and worse (``overall``) is no objective to align
    to: only ``--only`` trains it. A criterion whose finished model in ``output_dir`` was trained on
    another file's preferences is shared, not trained again: safety, which every set of criteria
    has.

    Returns:
        The data by criterion, and what the shared models were trained on.

    Raises:
        UserError: no folder, or a criterion's data is missing.
    """
    folder = config.rankings or config.pairs
    assert folder is not None
    kind = "rankings" if config.rankings else "pairs"
    files: dict[str, Path] = {}
    shared: dict[str, str] = {}
    for criterion in load_criteria(config.criteria, config.only):
        name = criterion.name
        path = folder / f"{name}_{kind}.json"
        # Named by --only it is trained: whoever names it wants a model of it, not an objective.
        if not (config.only or criterion.better_when or criterion.worse_when):
            continue
        trained_on = _trained_on(config.output_dir / name)
        if trained_on is not None and Path(trained_on).absolute() != path.absolute():
            shared[name] = trained_on
        else:
            files[name] = path
    return files, shared


def _trained_on(folder: Path) -> str | None:
    """Return the data of a finished reward model's folder."""
    manifest = find_manifest(folder)
    if manifest is None or not manifest.is_finished:
        return None
    paths = manifest.input_paths
    return paths.get("rankings", paths.get("pairs"))


def plan_as_json(config: RewardConfig) -> dict[str, dict[str, str]]:
    """Return what :func:`planned` does, as it can be sent to other processes."""
    files, shared = planned(config)
    return {"files": {name: str(path) for name, path in files.items()}, "shared": shared}
