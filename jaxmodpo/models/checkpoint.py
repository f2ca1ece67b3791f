"""Which safetensors file holds which tensor, and whether a folder holds exactly a model's tensors.

Only the headers of the files are read here, so that a folder that does not fit is refused at once,
with all its faults in one message. Pickle files are never read.

The tensors of a Mistral, and the file of its token embeddings::

    table = parameter_table(read_decoder_config(folder))
    located = locate(folder, table)
    located.files["model.embed_tokens.weight"]      # folder/model-00001-of-00003.safetensors
    located.keys(table["layers.q_proj"])[0]         # model.layers.0.self_attn.q_proj.weight
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

from jaxmodpo.errors import UserError
from jaxmodpo.files import read_json
from jaxmodpo.hub import local_folder
from jaxmodpo.models.parameters import Spec, Table
from jaxmodpo.parsing import JsonObject

# Buffers that older transformers releases saved and that are computed here.
_IGNORED = ("rotary_emb.inv_freq", "embeddings.position_ids")
_FLOATS = ("F32", "BF16", "F16")
_PICKLES = ("*.bin", "*.pt", "*.pth")

_LONGEST_FILE_NAME = 255


def tensor_files(folder: Path, weights_name: str = "model") -> dict[str, Path]:
    """Map each tensor's name to the safetensors file that holds it, single or indexed.

    Raises:
        UserError: no safetensors file, a listed file missing, a corrupt file, an index that does
            not say where the tensors are, a tensor in two files.
    """
    folder = local_folder(folder)
    index = folder / f"{weights_name}.safetensors.index.json"
    single = folder / f"{weights_name}.safetensors"
    if index.is_file() and single.is_file() and single.name not in _listed_files(index):
        # transformers reads the single file too, but which of the two somebody meant is not known.
        raise UserError(
            f"{folder} holds both {single.name} and {index.name}, which speaks of other files;"
            " remove one"
        )
    if not index.is_file():
        files, problems = _open_all(folder, [single])
    else:
        weight_map = _read_index(index)
        shards = [folder / name for name in sorted(set(weight_map.values()))]
        files, problems = _open_all(folder, shards)
        # An index that is wrong about one tensor may be another model's, or the shards may be.
        for name, file in weight_map.items():
            if name not in files or files[name].name != file:
                problems.append(f"the index places {name} in {file}, which does not hold it")
    if problems:
        raise UserError(f"{folder}: {in_one_sentence(problems)}")
    return files


def _listed_files(index: Path) -> set[str]:
    """Return the files that an index speaks of; none where it has no map of tensors."""
    weight_map = _weight_map(index)
    if weight_map is None:
        return set()
    return {name for name in weight_map.values() if isinstance(name, str)}


def _read_index(index: Path) -> dict[str, str]:
    """Return an index's map from tensors to names of files beside it."""
    weight_map = _weight_map(index)
    if weight_map is None or not _are_texts(weight_map.values()):
        raise UserError(f"{index} has no weight_map from tensors to files")
    # An index comes with a download: a path in it must not lead to files anywhere else.
    outside = [name for name in weight_map.values() if not _is_file_name(name)]
    if outside:
        raise UserError(f"{index} names a file outside its folder: {min(outside)[:80]}")
    return weight_map


def _weight_map(index: Path) -> JsonObject | None:
    """Return what an index calls its map from tensors to files; None where there is no mapping."""
    content = read_json(index)
    if not isinstance(content, dict):
        return None
    weight_map = content.get("weight_map")
    return weight_map if isinstance(weight_map, dict) else None


def _are_texts(values: Any) -> bool:
    return all(isinstance(value, str) for value in values)


def _is_file_name(name: str) -> bool:
    return Path(name).name == name and len(name) <= _LONGEST_FILE_NAME


def _open_all(folder: Path, paths: Sequence[Path]) -> tuple[dict[str, Path], list[str]]:
    """Read the names of the tensors in safetensors files.

    Returns:
        The file of each tensor, and a sentence for each tensor that is in two files.
    """
    files: dict[str, Path] = {}
    problems: list[str] = []
    for path in paths:
        if not path.is_file():
            raise UserError(f"{folder} has no {path.name}{_pickle_hint(folder)}")
        for name in _tensor_names(path):
            if name in files:
                problems.append(f"the tensor {name} is in both {files[name].name} and {path.name}")
            files[name] = path
    return files, problems


def _tensor_names(path: Path) -> list[str]:
    try:
        with safe_open(path, framework="numpy") as file:
            return list(file.keys())
    except SafetensorError as error:
        raise UserError(f"{path} is corrupt or truncated: {error}") from error


def _pickle_hint(folder: Path) -> str:
    """Return what to add where weights are missing and pickled ones are there; else nothing."""
    for pattern in _PICKLES:
        if any(folder.glob(pattern)):
            return "; pickle files are never loaded: convert to safetensors first"
    return ""


class Located(NamedTuple):
    """Where a table's tensors are.

    Attributes:
        files: each tensor in the folder and the file that holds it.
        present: the table without optional parameters that the folder lacks.
        prefix: the start of the table's tensor names that is missing from the folder's.
    """

    files: dict[str, Path]
    present: dict[str, Spec]
    prefix: str

    def keys(self, spec: Spec) -> list[str]:
        """A parameter's tensors as the folder names them, in layer order."""
        return [key.removeprefix(self.prefix) for key in spec.tensor_names()]


def locate(
    folder: Path,
    table: Table,
    *,
    weights_name: str = "model",
    optional: frozenset[str] = frozenset(),
    ignored_prefixes: tuple[str, ...] = (),
) -> Located:
    """Find every tensor of a table, and refuse a folder that does not hold exactly those.

    Args:
        folder: the model or adapter folder.
        table: the parameters to find.
        weights_name: the file's stem.
        optional: parameters that may be absent.
        ignored_prefixes: tensors in the file that may be left unread.

    Raises:
        UserError: missing, unexpected or misshapen tensors, all named in one message.
    """
    files = tensor_files(folder, weights_name)
    opened = open_files(files)
    # A bare RobertaModel saves its tensors without the "roberta." that its heads' folders have.
    has_full_names = any(spec.tensor_names()[0] in files for spec in table.values())
    missing_prefix = "" if has_full_names else "roberta."
    located = Located(files, present={}, prefix=missing_prefix)
    problems: list[str] = []
    expected: set[str] = set()
    for name, spec in table.items():
        keys = located.keys(spec)
        expected.update(keys)
        missing = [key for key in keys if key not in files]
        if missing and name in optional:
            continue
        problems += [f"missing {key}" for key in missing]
        for key in keys:
            if key in files:
                # Of a slice that is never cut, only the header is read.
                tensor = opened[files[key]].get_slice(key)
                problems += _misfits(tensor, key, spec)
        located.present[name] = spec
    # A tensor that nobody reads is a part of another model: without it the numbers would be wrong.
    for key in sorted(set(files) - expected):
        if not key.endswith(_IGNORED) and not key.startswith(ignored_prefixes):
            problems.append(f"unexpected {key}")
    if problems:
        raise UserError(
            f"{folder} does not fit the model its config.json describes:"
            f" {in_one_sentence(problems)}"
        )
    return located


def _misfits(tensor: Any, key: str, spec: Spec) -> list[str]:
    """Return what is wrong with a tensor's shape or type, by its header alone."""
    shape = tuple(tensor.get_shape())
    expected_shape = file_shape(spec)
    if shape != expected_shape:
        return [f"{key} has shape {list(shape)}, not {list(expected_shape)}"]
    if tensor.get_dtype() not in _FLOATS:
        return [f"{key} has type {tensor.get_dtype()}, not one of {', '.join(_FLOATS)}"]
    return []


def open_files(files: dict[str, Path]) -> dict[Path, Any]:
    """Open each of the safetensors files in which tensors lie, once."""
    paths = sorted(set(files.values()))
    return {path: safe_open(path, framework="numpy") for path in paths}


def file_shape(spec: Spec) -> tuple[int, ...]:
    """Return the shape of one of a parameter's tensors as the file has it, without the stack."""
    shape = spec.shape[1:] if spec.layers else spec.shape
    return shape[::-1] if spec.transposed else shape


def in_one_sentence(problems: Sequence[str]) -> str:
    """Join problems, of which a model may have thousands: the first twelve, and how many more."""
    listed = "; ".join(problems[:12])
    unlisted = len(problems) - 12
    return f"{listed} and {unlisted} more" if unlisted > 0 else listed
