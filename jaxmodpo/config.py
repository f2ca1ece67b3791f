"""Settings: the same frozen dataclass from a YAML file, from flags, or from both.

Every command is a dataclass. :func:`parse` makes one from the command line, with the values of
``--config FILE.yaml`` as defaults; :func:`from_mapping` makes one from a mapping alone, as an
experiment file holds it. An unknown key is an error that names the nearest known one.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from jaxmodpo.errors import UserError, nearest
from jaxmodpo.parsing import parse_yaml
from jaxmodpo.ranges import check_ranges
from jaxmodpo.schema import read_as, shown

Config = TypeVar("Config")


def builtin(kind: str, name: str | Path) -> Path:
    """Resolve ``name`` to a file: a path as it is, or a name of ours below ``configs/``.

    ``builtin("criteria", "therapeutic")`` finds ``configs/criteria/therapeutic.yaml``, both in a
    checkout and in an installed package.

    Raises:
        UserError: neither a file nor one of ours.
    """
    path = Path(name)
    if path.is_file():
        return path
    package = Path(__file__).parent
    root = next((r for r in (package / "configs", package.parent / "configs") if r.is_dir()), None)
    if root is None:
        raise UserError(f"no file {path}, and this installation has no configs folder")
    ours = {p.stem: p for p in (root / kind).glob("*.yaml")}
    if str(name) in ours:
        return ours[str(name)]
    raise UserError(f"no {kind} file '{name}' here{nearest(str(name), ours)}")


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping; :func:`~jaxmodpo.parsing.parse_yaml` says what it
    takes.
    """
    try:
        value = parse_yaml(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from error
    except ValueError as error:
        raise UserError(f"{path} is not YAML that can be read: {error}") from error
    if value is None:
        raise UserError(f"{path} is empty, and must hold settings, as in 'seed: 1'")
    if not isinstance(value, dict):
        raise UserError(
            f"{path} must hold a mapping of settings, as in 'seed: 1', but is {shown(value)}"
        )
    return value


OTHER_NAMES = {
    "lr": "learning_rate",
    "lora_r": "lora_rank",
    "r": "lora_rank",
    "per_device_train_batch_size": "batch_size",
    "train_batch_size": "batch_size",
    "gradient_accumulation_steps": "gradient_accumulation",
    "num_train_epochs": "epochs",
    "num_epochs": "epochs",
    "max_seq_length": "max_length",
    "max_completion_length": "max_new_tokens",
    "max_tokens": "max_new_tokens",
    "output": "output_dir",
    "out": "output_dir",
    "model_name_or_path": "model",
    "logging_steps": "log_every",
    "save_steps": "save_every",
    "eval_steps": "eval_every",
}
"""what other trainers call a setting of ours"""


def _suggestion(name: str, known: Mapping[str, Any], flag: bool) -> str:
    """Name the setting that an unknown one stands for: by what other trainers call it, or by its
    spelling.
    """
    ours = OTHER_NAMES.get(name.removeprefix("--").replace("-", "_"), "")
    shown = f"--{ours.replace('_', '-')}" if flag else ours
    if shown not in known and not difflib.get_close_matches(name, known, n=1, cutoff=0.8):
        # A last word alone, as rank of lora_rank, looks more like other short names to difflib.
        ending = "-_"[not flag] + name.removeprefix("--")
        shown = min((one for one in known if one.endswith(ending)), key=len, default="")
    return f"; did you mean '{shown}'?" if shown in known else nearest(name, known)


def _values(cls: type, settings: Mapping[str, Any], source: str) -> dict[str, Any]:
    fields = {f.name: f for f in dataclasses.fields(cls)}
    values = {}
    for key, value in settings.items():
        name = str(key).replace("-", "_")
        if name not in fields:
            raise UserError(
                f"{source}: unknown setting '{key}'{_suggestion(name, fields, flag=False)}"
            )
        if name in values:
            raise UserError(
                f"{source}: the setting '{name}' stands there twice, with a dash and with an"
                " underscore"
            )
        values[name] = value
    return values


def _arguments(cls: type, values: Mapping[str, Any], source: str) -> list[str]:
    """Turn settings into flags, so that YAML values are checked and converted as flags are.

    Raises:
        UserError: a value that no flag could give.
    """
    hints = typing.get_type_hints(cls)
    arguments: list[str] = []
    for name, value in values.items():
        flag = "--" + name.replace("_", "-")
        if value is None:
            if not _takes(hints[name], types.NoneType):
                raise UserError(f"{source}: {name} is empty; give a value, or leave it out")
            arguments += [flag, "None"]
        elif isinstance(value, bool):
            if not _takes(hints[name], bool):
                raise UserError(f"{source}: {name} is no switch, and takes no {shown(value)}")
            arguments.append(flag if value else "--no-" + flag[2:])
        else:
            arguments += [flag, *_words(value, hints[name], source, name)]
    return arguments


def _words(value: Any, hint: Any, source: str, name: str) -> list[str]:
    """Return a setting's value as the words that follow its flag."""
    if isinstance(value, Mapping):
        if not any(_takes(part, str) for part in _parts(hint)):
            raise UserError(f"{source}: {name} takes no mapping, but is {shown(value)}")
        for key, part in value.items():
            read_as(part, _Scalar, source, name, str(key))
        words = [f"{key}={part}" for key, part in value.items()]
    elif isinstance(value, list | tuple):
        if not _parts(hint):
            raise UserError(f"{source}: {name} takes one value, but is {shown(value)}")
        for number, part in enumerate(value, 1):
            read_as(part, _Scalar, source, name, f"item {number}")
        words = [str(part) for part in value]
    else:
        words = [str(value)]
    for word in words:
        # It would be read as a flag of its own.
        if word.startswith("--"):
            raise UserError(
                f"{source}: {name} is {shown(word)}, and no value may begin with two dashes"
            )
    return words


_Scalar: Any = str | int | float


def _parts(hint: Any) -> tuple[Any, ...]:
    """Return what a setting takes several of; nothing where it takes one value."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(part for alternative in typing.get_args(hint) for part in _parts(alternative))
    if typing.get_origin(hint) is not tuple:
        return ()
    return tuple(part for part in typing.get_args(hint) if part is not Ellipsis)


def _takes(hint: Any, kind: type) -> bool:
    """Return whether a setting's type is a kind, or has it among its alternatives."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(_takes(part, kind) for part in typing.get_args(hint))
    return hint is kind


def from_mapping(
    cls: type[Config],
    settings: Mapping[str, Any],
    source: str,
    defaults: Mapping[str, Any] | None = None,
) -> Config:
    """Make a settings dataclass from a mapping, as ``--config`` or an experiment file gives it.

    Args:
        cls: the dataclass.
        settings: names to values; a dash in a name counts as an underscore.
        source: what to call the mapping in an error ("demo.yaml, phase dpo").
        defaults: for settings that it leaves out.

    Raises:
        UserError: an unknown, missing or ill-typed setting.
    """
    values = {**_values(cls, defaults or {}, source), **_values(cls, settings, source)}
    return _settings(cls, _arguments(cls, values, source), source)


def _collected(cls: type, arguments: Sequence[str], source: str) -> list[str]:
    """Put the values of a flag that was given several times behind its first occurrence.

    ``--set a=1 --set b=2`` means both, as ``--set a=1 b=2`` does; tyro alone would keep the last.

    Raises:
        UserError: a flag that takes one value, or a fixed number of them, is given twice.
    """
    hints = typing.get_type_hints(cls)
    parts: list[list[str]] = [[]]
    first: dict[str, list[str]] = {}
    for argument in arguments:
        if not argument.startswith("--"):
            parts[-1].append(argument)
            continue
        flag, attached, value = argument.partition("=")
        name = flag[2:].replace("-", "_")
        setting = name if name in hints else name.removeprefix("no_")
        if setting not in hints:
            # tyro's error names it.
            parts.append([argument])
        elif setting not in first:
            first[setting] = [flag, value] if attached and _is_list(hints[setting]) else [argument]
            parts.append(first[setting])
        elif _is_list(hints[setting]):
            # What follows belongs to the first occurrence, attached or apart.
            first[setting].extend([value] if attached else [])
            parts.append(first[setting])
        else:
            raise UserError(f"{source}: {flag} is given twice; it takes one value")
    done: set[int] = set()
    collected = []
    for part in parts:
        if id(part) not in done:
            collected += part
            done.add(id(part))
    return collected


def _is_list(hint: Any) -> bool:
    """Return whether a setting takes any number of values: ``tuple[X, ...]``."""
    return typing.get_origin(hint) is tuple and typing.get_args(hint)[-1:] == (Ellipsis,)


def _settings(cls: type[Config], arguments: list[str], source: str) -> Config:
    """Let tyro make the dataclass, and say in one sentence why it cannot."""
    import io
    from contextlib import redirect_stderr, redirect_stdout

    import tyro

    hints = typing.get_type_hints(cls, include_extras=True)
    named = [
        f
        for f in dataclasses.fields(cls)
        if tyro.conf.Positional not in typing.get_args(hints[f.name])
    ]  # type: ignore[arg-type]
    flags = {f"--{f.name.replace('_', '-')}": f for f in named}
    known = [*flags, *(f"--no-{flag[2:]}" for flag in flags)]
    given = {
        argument.partition("=")[0].replace("_", "-")
        for argument in arguments
        if argument.startswith("--")
    }
    for flag in sorted(given - set(known)):
        raise UserError(
            f"{source}: unknown flag '{flag}'{_suggestion(flag, dict.fromkeys(known), flag=True)}"
        )
    none = dataclasses.MISSING
    needed = [flag for flag, f in flags.items() if f.default is none and f.default_factory is none]
    if missing := [flag for flag in needed if flag not in given]:
        raise UserError(f"{source}: {' and '.join(missing)} must be given")
    _refuse_empty_paths(arguments, hints, source)
    said = io.StringIO()
    try:
        with redirect_stderr(said), redirect_stdout(said):
            made = tyro.cli(cls, args=arguments, prog=source)
    except SystemExit:
        raise UserError(f"{source}: {_in_words(_first_paragraph(said.getvalue()))}") from None
    for field in dataclasses.fields(made):  # type: ignore[arg-type]
        if field.name != "base_url":  # which is remote, and says itself how it must begin
            _refuse_remote(getattr(made, field.name), f"--{field.name.replace('_', '-')}", source)
    check_ranges(made, source)
    return made


def _refuse_empty_paths(arguments: Sequence[str], hints: Mapping[str, Any], source: str) -> None:
    """Refuse an empty path, as ``"$OUT"`` is in a shell that knows no OUT: Python takes it for the
    current folder.
    """
    hint: Any = Path  # before the first flag stand only files' and folders' names
    flag = "a path"
    for argument in arguments:
        value = argument
        if argument.startswith("--"):
            flag, attached, value = argument.partition("=")
            hint = hints.get(flag[2:].replace("-", "_"))
            if not attached:
                continue
        if not value and _holds_path(hint):
            raise UserError(f"{source}: {flag} is empty; give a path, or . for the current folder")


def _holds_path(hint: Any) -> bool:
    """Return whether a setting's type is a path, an optional one, or several."""
    return hint is Path or any(_holds_path(part) for part in typing.get_args(hint))


_REMOTE = re.compile(r"(?:^|=)([A-Za-z][A-Za-z0-9+.-]+):/")
_STORES = frozenset(
    [
        "gs",
        "gcs",
        "s3",
        "s3a",
        "az",
        "abfs",
        "abfss",
        "adl",
        "wasb",
        "wasbs",
        "hdfs",
        "r2",
        "oss",
        "cos",
        "obs",
        "hf",
        "dbfs",
        "file",
        "ftp",
        "sftp",
        "ssh",
    ]
)
"""schemes that no setting takes; others may be a database's or an endpoint's, in a setting that is
no path"""


def _refuse_remote(value: Any, flag: str, source: str) -> None:
    """Refuse ``gs://…`` and the like where a path belongs: they would become folders of that name
    here.
    """
    for part in value if isinstance(value, list | tuple) else (value,):
        if not isinstance(part, str | Path):
            continue
        if "\0" in str(part):
            raise UserError(f"{source}: {flag} holds a zero byte, which no path and no name can")
        scheme = _REMOTE.search(str(part))
        if scheme and (isinstance(part, Path) or scheme[1].lower() in _STORES):
            raise UserError(
                f"{source}: {flag} is {part}, and {scheme[1]}:// is not supported; copy it here or"
                " mount it, and give a local path"
            )


_PYTHONS = (
    (
        r"Error parsing (\S+): invalid literal for int\(\) with base 10: (.*)",
        r"\1 must be a whole number, not \2",
    ),
    (
        r"Error parsing (\S+): could not convert string to float: (.*)",
        r"\1 must be a number, not \2",
    ),
    (
        r"Error parsing (\S+): no type matching (.*) could be instantiated from \[(.*)\]\.?",
        r"\1 must be \2, not \3",
    ),
    (r"Missing value for argument '(\S+)'\. Expected 1 values\.", r"\1 needs a value"),
    (r"Missing from \S+: \S+ (.*) \(required\)", r"it needs \1"),
    (
        r"Unrecognized options: (.*)",
        r"\1 belongs to no flag; leave it out, or put its flag before it",
    ),
)
"""what tyro passes on of Python's own errors, and the same as a sentence about the flag"""


def _in_words(told: str) -> str:
    """Return what tyro says of a flag as a sentence."""
    for pattern, sentence in _PYTHONS:
        told = re.sub(pattern, sentence, told)
    return told


def _first_paragraph(box: str) -> str:
    """Return what a tyro error says under its title, up to the first rule, on one line."""
    lines = [line.strip("│╭╮╰╯─- ") for line in box.splitlines()]
    start = next((n for n, line in enumerate(lines[1:], 1) if line), 0)
    end = next((n for n, line in enumerate(lines[start:], start) if not line), len(lines))
    return " ".join(lines[start:end])


def parse(cls: type[Config], arguments: Sequence[str], prog: str) -> Config:
    """Make a settings dataclass from command-line arguments.

    ``--config FILE.yaml`` (anywhere among them) gives values that flags override. A flag that takes
    any number of values may be given several times; any other once.

    Raises:
        UserError: an unknown, missing or ill-typed setting; a flag twice; two files that give the
            same setting.
    """
    arguments = list(arguments)
    if {"-h", "--help"} & set(arguments):
        import tyro

        note = "--config FILE.yaml gives the same settings from a file."
        return tyro.cli(
            cls, args=["--help"], prog=prog, description=f"{(cls.__doc__ or '').strip()}\n\n{note}"
        )
    from_file: dict[str, Any] = {}
    while (
        at := next((n for n, a in enumerate(arguments) if a.partition("=")[0] == "--config"), None)
    ) is not None:
        _, attached, name = arguments[at].partition("=")
        if not attached:
            name = arguments[at + 1] if at + 1 < len(arguments) else ""
        if not name:
            raise UserError("--config needs a YAML file")
        _refuse_remote(name, "--config", prog.removeprefix("jaxmodpo "))
        added = _values(cls, load_yaml(Path(name)), name)
        _arguments(cls, added, name)
        if twice := [setting for setting in added if setting in from_file]:
            raise UserError(
                f"{name}: an earlier --config gives the setting '{twice[0]}' as well; leave one out"
            )
        from_file |= added
        del arguments[at : at + (1 if attached else 2)]
    source = prog.removeprefix("jaxmodpo ")
    arguments = _collected(cls, arguments, source)
    flags = (a.partition("=")[0] for a in arguments if a.startswith("--"))
    given = {flag.removeprefix("--").removeprefix("no-").replace("-", "_") for flag in flags}
    defaults = {name: value for name, value in from_file.items() if name not in given}
    return _settings(cls, _arguments(cls, defaults, source) + arguments, source)


_PASSWORD = re.compile(r"(?<=://)([^/?#@\s]*?):[^/?#\s]*@(?=[^@]*$)")
_SECRET_QUERY = re.compile(r"([?&][^=&]*(?:pass|pwd|secret|token|key)[^=&]*=)[^&]*", re.IGNORECASE)


def without_password(text: str) -> str:
    """Return a setting without the passwords of the URL that it may be, before the host or in the
    query.
    """
    if "://" not in text:
        return text
    return _SECRET_QUERY.sub(r"\1***", _PASSWORD.sub(r"\1:***@", text))


def as_mapping(config: Any) -> dict[str, Any]:
    """Return a settings dataclass as plain JSON values, for manifests."""

    def plain(value: Any) -> Any:
        if isinstance(value, Path):
            return str(value)
        if isinstance(value, Mapping):
            return {str(k): plain(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [plain(v) for v in value]
        return without_password(value) if isinstance(value, str) else value

    return {f.name: plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def named_values(values: Sequence[str], setting: str) -> dict[str, str]:
    """Split ``NAME=VALUE`` settings, as in ``--margin safety=FOLDER``, keeping their order.

    Raises:
        UserError: no ``=``, or one name twice.
    """
    named: dict[str, str] = {}
    for item in values:
        name, separator, value = item.partition("=")
        if not (separator and name and value):
            raise UserError(f"{setting}: '{item}' must be NAME=VALUE, as in safety=path/to/it")
        if name in named:
            raise UserError(f"{setting}: the name '{name}' is given twice")
        named[name] = value
    return named
