"""``--adapters NAME=FOLDER …``: several models over one base, each with a folder of its own in the
run's folder.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from jaxmodpo.config import named_values
from jaxmodpo.errors import UserError
from jaxmodpo.outputs import is_kept_apart

BASE = "base"
"""what stands in a folder's place for the base alone"""


def named_adapters(settings: Sequence[str], flag: str = "--adapters") -> dict[str, Path | None]:
    """Return each model's adapter by its name; None for the base alone.

    Args:
        settings: ``NAME=FOLDER`` each.
        flag: by which they are given, for errors.

    Raises:
        UserError: what is no ``NAME=FOLDER``, or a name that is given twice.
    """
    adapters: dict[str, Path | None] = {}
    for name, folder in named_values(settings, flag).items():
        adapters[name] = None if folder == BASE else Path(folder)
    return adapters


def adapter_inputs(
    adapters: Mapping[str, Path | None], setting: str = "adapters"
) -> dict[str, Path]:
    """Return the folders that a command reads, under the names by which its manifest has them."""
    folders: dict[str, Path] = {}
    for name, folder in adapters.items():
        if folder is not None:
            folders[f"{setting}.{name}"] = folder
    return folders


def check_names(
    names: Collection[str], own_files: Collection[str], flag: str = "--adapters"
) -> None:
    """Refuse names that cannot be those of folders in a run's folder.

    Args:
        names: of the models.
        own_files: what the run itself has in its folder.
        flag: by which they are given, for errors.

    Raises:
        UserError: naming the first.
    """
    for name in names:
        if not re.fullmatch(r"[\w.+-]+", name) or name in (".", ".."):
            raise UserError(
                f"{flag}: '{name}' becomes a folder's name; give it letters, digits and"
                " . _ + - alone"
            )
        # Locks, temporary files and other hosts' shares are hidden and come and go; a model's
        # replies in such a place would go with them.
        if name.startswith("."):
            raise UserError(
                f"{flag}: '{name}' would be a hidden folder, and those are the run's own; begin"
                " it with a letter or a digit"
            )
        if name in own_files:
            raise UserError(f"{flag}: the run itself has a file named {name}; rename the model")
        if is_kept_apart(Path(name)):
            raise UserError(
                f"{flag}: '{name}' is like the name of a database or of checkpoints, which the"
                " manifest does not record; rename the model"
            )
