"""The text of ``jaxmodpo COMMAND --help``: a command's settings in short groups, required ones
first.

tyro gives every nested dataclass a box of its own, and prefixes its flags by the box's name unless
told not to. So the text is that of a dataclass that nests one dataclass for each group. It is made
for the help alone; a command is parsed by its own dataclass, which is flat.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from jaxmodpo.flags.field_texts import field_texts
from jaxmodpo.flags.help_groups import GROUP_NAMES, groups_of

REQUIRED = "required"
"""the first box, of whatever must be given"""

UNGROUPED = "other"
"""the last box, of settings that no class and no annotation puts into a group"""

# A field as dataclasses.make_dataclass takes it: name, type, default.
_FieldSpec = tuple[str, Any, Any]


def settings_by_box(settings: type) -> dict[str, list[str]]:
    """Return the names of a command's settings by the box that help shows them in, in its order.

    A positional setting is in the box of required ones, though tyro shows it above all boxes.
    """
    groups = groups_of(settings)
    all_boxes = (REQUIRED, *GROUP_NAMES, UNGROUPED)
    boxes: dict[str, list[str]] = {box: [] for box in all_boxes}
    for field in dataclasses.fields(settings):
        box = REQUIRED if is_required(field) else groups.get(field.name, UNGROUPED)
        boxes[box].append(field.name)
    return {box: names for box, names in boxes.items() if names}


def is_required(field: dataclasses.Field[Any]) -> bool:
    """Return whether a setting has no default, and must be given."""
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def print_help(settings: type, prog: str, description: Sequence[str]) -> None:
    """Print the help of a command.

    Args:
        settings: the command's dataclass.
        prog: how the command is called, as in ``jaxmodpo align dpo``.
        description: the paragraphs between the usage line and the boxes, a line each.

    Raises:
        SystemExit: always, with code 0.
    """
    import tyro

    tyro.cli(
        _nested_by_box(settings),
        args=["--help"],
        prog=prog,
        description="\n\n".join(description),
        config=(tyro.conf.OmitArgPrefixes,),
    )


def _nested_by_box(settings: type) -> type:
    """Return a dataclass with a nested dataclass for each box, which tyro shows as such."""
    specs = _field_specs(settings)
    boxes: list[tuple[str, type]] = []
    for box, names in settings_by_box(settings).items():
        box_class = _dataclass_of(box, [specs[name] for name in names])
        boxes.append((box, box_class))
    return _dataclass_of(settings.__name__, boxes)


def _dataclass_of(name: str, fields: Sequence[tuple[str, Any] | _FieldSpec]) -> type:
    return dataclasses.make_dataclass(name, fields, frozen=True, kw_only=True)


def _field_specs(settings: type) -> Mapping[str, _FieldSpec]:
    """Return each setting with its type, its help text and its default, by its name."""
    import tyro

    hints = typing.get_type_hints(settings, include_extras=True)
    texts = field_texts(settings)
    specs: dict[str, _FieldSpec] = {}
    for field in dataclasses.fields(settings):
        # tyro reads help texts from the source, which a class made here does not have.
        text = tyro.conf.arg(help=texts.get(field.name, ""))
        default = dataclasses.field(default=field.default, default_factory=field.default_factory)
        specs[field.name] = (field.name, Annotated[hints[field.name], text], default)
    return specs
