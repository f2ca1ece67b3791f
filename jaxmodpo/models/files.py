"""Hugging Face folders in and out: ``config.json`` and safetensors, nothing else.

Each tensor goes from the file straight to the devices that hold it, as its sharding says. Missing,
unexpected, doubled and misshapen tensors are refused by name, all in one message. Pickle files and
remote code are never read.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec, Sharding
from safetensors import SafetensorError, safe_open

from jaxmodpo.errors import UserError
from jaxmodpo.files import atomic_directory, read_json
from jaxmodpo.hub import local_folder, refuse_missing
from jaxmodpo.models.decoder import BaseParam, Decoder, parameter_table
from jaxmodpo.models.decoder_config import DecoderConfig
from jaxmodpo.models.parameters import Spec, Table
from jaxmodpo.models.quantized import BaseDtype, is_quantized, quantize, stored_table
from jaxmodpo.models.tensors import save_tensors

logger = logging.getLogger(__name__)

# Buffers that older transformers releases saved and that are computed here.
_IGNORED = ("rotary_emb.inv_freq", "embeddings.position_ids")
_FLOATS = ("F32", "BF16", "F16")


def read_model_config(folder: Path) -> dict[str, Any]:
    """Read ``config.json`` of a model folder."""
    folder = local_folder(folder)
    if not (folder / "config.json").is_file():
        refuse_missing(folder)
        raise UserError(f"{folder} is not a model folder: it has no config.json")
    config = read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise UserError(f"{folder}/config.json must hold a mapping")
    return config


def read_end_tokens(folder: Path, tokenizer_end: int) -> tuple[int, ...]:
    """Return the tokens that end a reply: the tokenizer's, and those of the folder's
    ``generation_config.json``.

    Chat models list several there, and transformers' ``generate`` ends at any of them. In a folder
    without that file it takes those of ``config.json``.

    Raises:
        UserError: an ``eos_token_id`` that is neither an id nor a list of ids.
    """
    path = local_folder(folder) / "generation_config.json"
    if not path.is_file():
        path = path.with_name("config.json")
    content = read_json(path) if path.is_file() else {}
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a mapping of settings, not {type(content).__name__}")
    listed = content.get("eos_token_id")
    ids = listed if isinstance(listed, list) else [] if listed is None else [listed]
    for number in ids:
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise UserError(
                f"{path}: eos_token_id must be an id or a list of ids, not {json.dumps(listed)}"
            )
    return tuple(dict.fromkeys([tokenizer_end, *ids]))


def tensor_files(folder: Path, weights_name: str = "model") -> dict[str, Path]:
    """Map each tensor's name to the safetensors file that holds it, single or indexed.

    Raises:
        UserError: no safetensors file, a listed file missing, a corrupt file, an index that does
            not say where the tensors are, a tensor in two files.
    """
    folder = local_folder(folder)
    index = folder / f"{weights_name}.safetensors.index.json"
    single = folder / f"{weights_name}.safetensors"
    placed: dict[str, str] = {}
    if index.is_file() and single.is_file() and not _lists(index, single.name):
        # transformers reads the single file too, but which of the two somebody meant is not known.
        raise UserError(
            f"{folder} holds both {single.name} and {index.name}, which speaks of other files;"
            " remove one"
        )
    if index.is_file():
        content = read_json(index)
        listed = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(listed, dict) or not all(
            isinstance(name, str) for name in listed.values()
        ):
            raise UserError(f"{index} has no weight_map from tensors to files")
        placed = listed
        if elsewhere := sorted(
            name for name in placed.values() if Path(name).name != name or len(name) > 255
        ):
            raise UserError(f"{index} names a file outside its folder: {elsewhere[0][:80]}")
        paths = [folder / name for name in sorted(set(placed.values()))]
    else:
        paths = [single]
    found: dict[str, Path] = {}
    problems: list[str] = []
    for path in paths:
        if not path.is_file():
            pickled = (
                any(folder.glob("*.bin")) or any(folder.glob("*.pt")) or any(folder.glob("*.pth"))
            )
            hint = (
                "; pickle files are never loaded: convert to safetensors first" if pickled else ""
            )
            raise UserError(f"{folder} has no {path.name}{hint}")
        try:
            with safe_open(path, framework="numpy") as file:
                for name in file.keys():  # noqa: SIM118 (not a mapping)
                    if name in found:
                        problems.append(
                            f"the tensor {name} is in both {found[name].name} and {path.name}"
                        )
                    found[name] = path
        except SafetensorError as error:
            raise UserError(f"{path} is corrupt or truncated: {error}") from error
    problems += [
        f"the index places {name} in {file}, which does not hold it"
        for name, file in placed.items()
        if name not in found or found[name].name != file
    ]
    if problems:
        raise UserError(f"{folder}: {_some(problems)}")
    return found


def _lists(index: Path, name: str) -> bool:
    """Return whether an index places a tensor in this file."""
    content = read_json(index)
    listed = content.get("weight_map") if isinstance(content, dict) else None
    return isinstance(listed, dict) and name in listed.values()


class Located(NamedTuple):
    """Where a table's tensors are.

    Attributes:
        files: each tensor in the folder and the file that holds it.
        present: the table without optional parameters that the folder lacks.
        prefix: what the folder's names lack at their start.
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
        table: what is wanted.
        weights_name: the file's stem.
        optional: parameters that may be absent.
        ignored_prefixes: tensors in the file that may be left unread.

    Raises:
        UserError: missing, unexpected or misshapen tensors, all named in one message.
    """
    files = tensor_files(folder, weights_name)
    opened = {path: safe_open(path, framework="numpy") for path in sorted(set(files.values()))}
    # A bare RobertaModel saves its tensors without the "roberta." that its heads' folders have.
    prefix = "" if any(spec.tensor_names()[0] in files for spec in table.values()) else "roberta."
    found = Located(files, {}, prefix)
    problems: list[str] = []
    wanted: set[str] = set()
    for name, spec in table.items():
        keys = found.keys(spec)
        wanted.update(keys)
        missing = [key for key in keys if key not in files]
        if missing and name in optional:
            continue
        problems += [f"missing {key}" for key in missing]
        shape = _file_shape(spec)
        for key in (key for key in keys if key in files):
            tensor = opened[files[key]].get_slice(key)
            if (size := tuple(tensor.get_shape())) != shape:
                problems.append(f"{key} has shape {list(size)}, not {list(shape)}")
            elif tensor.get_dtype() not in _FLOATS:
                problems.append(
                    f"{key} has type {tensor.get_dtype()}, not one of {', '.join(_FLOATS)}"
                )
        found.present[name] = spec
    problems += [
        f"unexpected {key}"
        for key in sorted(files)
        if key not in wanted and not key.endswith(_IGNORED) and not key.startswith(ignored_prefixes)
    ]
    if problems:
        raise UserError(
            f"{folder} does not fit the model its config.json describes: {_some(problems)}"
        )
    return found


def load_parameters(
    folder: Path,
    table: Table,
    dtype: Any,
    *,
    weights_name: str = "model",
    base_dtype: BaseDtype | None = None,
    shardings: Mapping[str, Sharding] | None = None,
    optional: frozenset[str] = frozenset(),
    ignored_prefixes: tuple[str, ...] = (),
) -> dict[str, Array]:
    """Load every parameter of ``table`` from a folder's safetensors, tensor by tensor.

    Each tensor is read once, goes to the devices that hold it as its sharding says, is cast,
    transposed and perhaps quantized there, and set into the stack of its layers, in place: the host
    never holds more than one tensor's numbers, of which each process reads the part it needs.

    Args:
        folder: the model or adapter folder.
        table: what to load, from where, in which shape.
        dtype: of the arrays made.
        weights_name: the file's stem.
        base_dtype: ``int8`` or ``nf4`` quantize the projections; the result is that of
            ``stored_table``.
        shardings: a sharding per array of the result; without, the default device.
        optional: parameters that may be absent from the file (a fresh head) and are then left out.
        ignored_prefixes: tensors in the file that may be left unread.

    Raises:
        UserError: missing, unexpected or misshapen tensors, or some with NaN or infinity, all named
            in one message.
    """
    found = locate(
        folder,
        table,
        weights_name=weights_name,
        optional=optional,
        ignored_prefixes=ignored_prefixes,
    )
    opened = {
        path: safe_open(path, framework="numpy") for path in sorted(set(found.files.values()))
    }
    present = found.present
    stored = stored_table(present, base_dtype or "float32")
    default = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    loaded: dict[str, Array] = {}
    finite: dict[str, Array] = {}
    for name, spec in present.items():
        # The arrays this parameter is stored as: itself, or its quantized parts.
        parts = {
            n: s
            for n, s in stored.items()
            if n == name or (n.startswith(f"{name}.") and n not in present)
        }
        places = {n: (shardings or {}).get(n, default) for n in parts}
        encode = _encoder(
            spec, base_dtype if name not in parts else None, dtype, tuple(places.items())
        )
        source = _in_file(places[name if name in parts else f"{name}.codes"], spec)
        stacks = _stacks(
            tuple((n, s.shape, s.dtype or dtype) for n, s in parts.items()), tuple(places.items())
        )
        arrays = stacks() if spec.layers else {}
        for layer, key in enumerate(found.keys(spec)):
            # Waiting here is what bounds the host's memory: reading would run ahead of the devices.
            tensor = _read(opened[found.files[key]], key, spec, source)
            arrays, finite[key] = jax.block_until_ready(encode(arrays, tensor, layer))
        loaded |= arrays
    # The flags are fetched together at the end: each is the outcome of work that was waited for
    # already.
    if broken := [key for key, flag in finite.items() if not flag]:
        raise UserError(
            f"{folder} holds NaN or infinity, so that nothing computed from it has a meaning:"
            f" {_some(broken)}"
        )
    return loaded


def _some(problems: list[str]) -> str:
    more = f" and {len(problems) - 12} more" if len(problems) > 12 else ""
    return "; ".join(problems[:12]) + more


def _read(file: Any, key: str, spec: Spec, sharding: Sharding) -> Array:
    tensor = file.get_slice(key)
    return jax.make_array_from_callback(_file_shape(spec), sharding, lambda index: tensor[index])


def _in_file(sharding: Sharding, spec: Spec) -> Sharding:
    """Return how one tensor in the file's layout lies where its parameter will."""
    if not isinstance(sharding, NamedSharding):
        return sharding
    axes = [*sharding.spec, *[None] * (len(spec.shape) - len(sharding.spec))]
    inner = axes[1:] if spec.layers else axes
    return NamedSharding(sharding.mesh, PartitionSpec(*(inner[::-1] if spec.transposed else inner)))


@functools.lru_cache(maxsize=256)
def _stacks(
    shapes: tuple[tuple[str, tuple[int, ...], Any], ...], places: tuple[tuple[str, Sharding], ...]
) -> Any:
    """Return the jitted function that makes the stacks, of zeros, which nobody else holds."""
    return jax.jit(
        lambda: {name: jnp.zeros(shape, dtype) for name, shape, dtype in shapes},
        out_shardings=dict(places),
    )


@functools.lru_cache(maxsize=256)
def _encoder(
    spec: Spec, base_dtype: BaseDtype | None, dtype: Any, places: tuple[tuple[str, Sharding], ...]
) -> Any:
    """Return the jitted function that sets one tensor into its (donated) stack, or makes its array.

    It also says whether every number of the tensor is finite, since the tensor is at hand here and
    read only once.
    """
    name = places[0][0] if base_dtype is None else places[0][0].rsplit(".", 1)[0]

    def encode(
        arrays: dict[str, Array], tensor: Array, layer: Array
    ) -> tuple[dict[str, Array], Array]:
        finite = jnp.isfinite(tensor).all()
        tensor = tensor.T if spec.transposed else tensor
        if base_dtype is None:
            parts = {name: tensor.astype(dtype)}
        else:
            parts = {
                f"{name}.{part}": array for part, array in quantize(tensor, base_dtype).items()
            }
        if not spec.layers:
            return parts, finite
        stacks = {
            n: jax.lax.dynamic_update_index_in_dim(arrays[n], part, layer, 0)
            for n, part in parts.items()
        }
        return stacks, finite

    return jax.jit(encode, donate_argnums=0, out_shardings=(dict(places), None))


def _file_shape(spec: Spec) -> tuple[int, ...]:
    shape = spec.shape[1:] if spec.layers else spec.shape
    return shape[::-1] if spec.transposed else shape


def save_model(
    folder: Path,
    config: Mapping[str, Any],
    table: Table,
    parameters: Mapping[str, Array],
    tokenizer_from: Path | None = None,
) -> None:
    """Write a Hugging Face folder, atomically: ``config.json``, ``model.safetensors`` and a
    tokenizer's files.

    Args:
        folder: where to.
        config: what ``config.json`` will hold.
        table: names and layouts of the tensors.
        parameters: the arrays.
        tokenizer_from: a folder whose tokenizer files are copied.
    """
    tensors: dict[str, np.ndarray] = {}
    for name, spec in table.items():
        array = np.asarray(parameters[name])
        layers = list(array) if spec.layers else [array]
        for key, part in zip(spec.tensor_names(), layers, strict=True):
            tensors[key] = np.ascontiguousarray(part.T if spec.transposed else part)
    with atomic_directory(folder) as temporary:
        save_tensors(tensors, temporary / "model.safetensors")
        (temporary / "config.json").write_text(
            json.dumps(dict(config), indent=2, sort_keys=True) + "\n"
        )
        if tokenizer_from is not None:
            copy_tokenizer(tokenizer_from, temporary)


def copy_tokenizer(folder: Path, target: Path) -> None:
    """Copy a tokenizer's files, the chat templates that have names among them."""
    names = (
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizer.model",
        "special_tokens_map.json",
        "vocab.json",
        "merges.txt",
        "chat_template.jinja",
        "added_tokens.json",
    )
    folder = local_folder(folder)
    templates = [
        path.relative_to(folder)
        for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))
    ]
    for name in [*map(Path, names), *templates]:
        if (folder / name).is_file():
            (target / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(folder / name, target / name)


def dtype_named(name: str) -> Any:
    """Return ``float32`` or ``bfloat16`` as a NumPy dtype."""
    return {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}[name]


def read_decoder_config(folder: Path) -> DecoderConfig:
    """Read a Mistral's or Llama's ``config.json``, and see whether the folder has a head of its
    own.

    transformers keeps a head that is saved beside tied embeddings where the two differ, whatever
    ``config.json`` says.
    """
    config = DecoderConfig.from_mapping(read_model_config(folder), f"{folder}/config.json")
    if config.tie_word_embeddings and _has_own_head(folder):
        logger.warning(
            "%s/config.json says tie_word_embeddings, but lm_head.weight differs from the"
            " embeddings: it is used, as transformers does",
            folder,
        )
        return dataclasses.replace(config, tie_word_embeddings=False)
    return config


def _has_own_head(folder: Path) -> bool:
    """Return whether a folder's head differs from its embeddings."""
    try:
        files = tensor_files(folder)
    except UserError:
        return False  # a folder without weights, as for a compilation ahead of time; loading says what is missing
    names = ("lm_head.weight", "model.embed_tokens.weight")
    if any(name not in files for name in names):
        return False
    arrays = []
    for name in names:
        with safe_open(files[name], framework="numpy") as file:
            arrays.append(file.get_tensor(name))
    head, embeddings = arrays
    return (
        head.shape != embeddings.shape
        or head.dtype != embeddings.dtype
        or head.tobytes() != embeddings.tobytes()
    )


def load_decoder(
    folder: Path, base_dtype: BaseDtype = "bfloat16", shardings_for: Any | None = None
) -> Decoder:
    """Load a Mistral or Llama model from a Hugging Face folder, without an adapter.

    Args:
        folder: ``config.json`` and safetensors.
        base_dtype: of the weights; ``int8`` and ``nf4`` are for the projections, with bfloat16 for
            the rest.
        shardings_for: maps a parameter table to shardings (``policy.mesh.shardings`` with its
            mesh), or None.

    Raises:
        UserError: not a model folder, an unsupported architecture, or weights that do not fit it.
    """
    config = read_decoder_config(folder)
    table = parameter_table(config)
    shardings = shardings_for(stored_table(table, base_dtype)) if shardings_for else None
    base = load_parameters(
        folder,
        table,
        dtype_named("bfloat16" if is_quantized(base_dtype) else base_dtype),
        base_dtype=base_dtype if is_quantized(base_dtype) else None,
        shardings=shardings,
        ignored_prefixes=("lm_head.",) if config.tie_word_embeddings else (),
    )
    return Decoder(config, base)


def save_decoder(
    folder: Path, model: Decoder, config: Mapping[str, Any], tokenizer_from: Path | None = None
) -> None:
    """Write a model's base weights; ``config`` is the ``config.json`` to go with them."""
    arrays = {
        name: variable[...]
        for name, variable in model.base.items()
        if isinstance(variable, BaseParam)
    }
    save_model(folder, config, parameter_table(model.config), arrays, tokenizer_from)
