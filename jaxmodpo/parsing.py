"""Texts of JSON and YAML as values, read strictly: the one place where either becomes Python, and
where Python becomes YAML.

Python's own readers take much in silence: of two equal keys the second wins, YAML reads ``012`` as
ten and ``1:30`` as ninety, a few lines of aliases unfold into gigabytes. Here each of these is an
error in one sentence, a ValueError, to which the caller adds the file::

    parse_yaml("lr: 1e-4")              # {"lr": 0.0001}
    parse_yaml("start: 012")            # {"start": "012"}
    yaml_text({"lr": "1e-4"})           # "lr: '1e-4'\\n", a text as before
    parse_json('{"a": 1, "a": 2}')      # ValueError: the key 'a' stands twice in one object
"""

from __future__ import annotations

import collections
import json
import re
from collections.abc import Hashable
from typing import Any, ClassVar

import yaml

JsonObject = dict[str, Any]
"""a JSON object: values of any of JSON's types by their names"""

# Nobody nests settings deeper; Python's recursion ends at about a thousand.
_DEPTH = 64
# Of a YAML file once its aliases are unfolded; our largest file has some hundreds.
_NODES = 200_000

# YAML has longer escapes, too: \U0000d800.
_HALF_ESCAPED = re.compile(r"\\(?:u|U0000)[dD][89a-fA-F]")


def parse_json(text: str | bytes) -> Any:
    """Parse JSON.

    Raises:
        ValueError: no JSON, a key twice in one object, nesting beyond Python's recursion, or a text
            with half of a surrogate pair, which can be neither hashed nor written.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")
    try:
        value = json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _refuse_halves(text, value)
    return value


def _refuse_halves(text: str, value: Any) -> None:
    """Refuse half of a surrogate pair, which only an escape can bring into a text."""
    if not _HALF_ESCAPED.search(text):
        return
    try:
        json.dumps(value, ensure_ascii=False, default=str, skipkeys=True).encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"it holds half of a surrogate pair ({error.object[error.start]!a})"
        ) from None


def _object(pairs: list[tuple[str, Any]]) -> JsonObject:
    """Return an object's mapping; json.loads alone would keep the last of two equal keys."""
    value = dict(pairs)
    if len(value) < len(pairs):
        counts = collections.Counter(name for name, _ in pairs)
        repeated = [name for name, count in counts.items() if count > 1]
        raise ValueError(f"the key {_short(repeated[0])} stands twice in one object")
    return value


# How a list of chat messages, or of a message's parts, begins once it was written into a table's
# cell: as JSON, as Python's repr, as NumPy's.
_SERIALIZED = re.compile(
    r"""\s*(?:array\()?\s*\[?\s*\{\s*(['"])(?:role|content|from|value|type|text)\1\s*:"""
)


def serialized_messages(text: str) -> list[JsonObject] | None:
    """Return the chat messages that a text holds as JSON, or None where it holds none."""
    if not _SERIALIZED.match(text):
        return None
    try:
        value = parse_json(text)
    except ValueError:
        return None
    messages = value if isinstance(value, list) else [value]
    for message in messages:
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            return None
    return messages


def is_serialized(text: str) -> bool:
    """Return whether a text is no text but a list of messages or of their parts, in JSON's or
    Python's words.
    """
    return _SERIALIZED.match(text) is not None


def parse_yaml(text: str) -> Any:
    """Parse YAML of plain values: texts, numbers, switches, nothing, lists and mappings, with
    anchors and merges.

    A date stays the text that it is, and so do ``012``, ``1:30`` and ``1_000``, which YAML 1.1
    takes for numbers of other bases; ``1e-6`` is a number, as everybody means it.

    Raises:
        ValueError: no YAML, a key twice in one mapping, a value of another type, half of a
            surrogate pair, nesting deeper than 64, an alias inside of what it stands for, or
            aliases that unfold into more than 200,000 values.
    """
    try:
        _refuse_depth(text)
        loader = _Loader(text)
        try:
            # Nodes first: an alias is still one node there, however often it is used, so that its
            # size can be told before anything is built.
            node = loader.get_single_node()
            if node is None:
                return None
            _size(node, {}, set())
            value = loader.construct_document(node)
            _refuse_halves(text, value)
            return value
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        words = str(error).replace(' in "<unicode string>",', " at")
        raise ValueError(" ".join(words.split())) from None


def _refuse_depth(text: str) -> None:
    """Refuse deep nesting while the text is still a stream of events, which costs no recursion."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _DEPTH:
            raise ValueError(f"it is nested deeper than {_DEPTH}")


def _size(node: yaml.Node, sizes: dict[int, int], open_nodes: set[int]) -> int:
    """Return how many values a node unfolds into; an aliased node counts wherever it stands, and is
    measured once.
    """
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) in open_nodes:
        raise ValueError("an alias stands inside of what it stands for")
    if id(node) not in sizes:
        open_nodes.add(id(node))
        size = 1
        for child in _children(node):
            size += _size(child, sizes, open_nodes)
        sizes[id(node)] = size
        open_nodes.remove(id(node))
    if sizes[id(node)] > _NODES:
        raise ValueError(f"its aliases unfold into more than {_NODES:,} values")
    return sizes[id(node)]


def _children(node: yaml.CollectionNode) -> list[yaml.Node]:
    """Return the items of a list, and of a mapping its keys and values."""
    if not isinstance(node, yaml.MappingNode):
        return list(node.value)
    children: list[yaml.Node] = []
    for key, value in node.value:
        children += [key, value]
    return children


class _Loader(yaml.SafeLoader):
    """YAML's safe loader with fewer types and no forgiveness."""

    # Each class has its own table, or the changes below would be every loader's.
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012
    yaml_constructors: ClassVar[dict[str | None, Any]] = {}


def _mapping(loader: _Loader, node: yaml.Node) -> dict[Any, Any]:
    if not isinstance(node, yaml.MappingNode):
        raise yaml.constructor.ConstructorError(None, None, "expected a mapping", node.start_mark)
    # Before merges: what a mapping says itself goes before what it merges, as it should.
    names: set[str] = set()
    for key_node, _ in node.value:
        key = "<<"
        if key_node.tag != "tag:yaml.org,2002:merge":
            key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            raise yaml.constructor.ConstructorError(
                None, None, "a key is a list or a mapping", key_node.start_mark
            )
        # 1 and "1" are one name everywhere that we read names; True and 1 are even one key in
        # Python.
        if str(key) in names or (isinstance(key, bool) and str(int(key)) in names):
            line = key_node.start_mark.line + 1
            raise ValueError(
                f"the key {_short(str(key))} stands twice in one mapping (line {line})"
            )
        names.add(str(key))
        if isinstance(key, bool):
            names.add(str(int(key)))
    loader.flatten_mapping(node)
    value: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        value[key] = loader.construct_object(value_node, deep=True)
    return value


def _sequence(loader: _Loader, node: yaml.Node) -> list[Any]:
    if not isinstance(node, yaml.SequenceNode):
        raise yaml.constructor.ConstructorError(None, None, "expected a list", node.start_mark)
    return [loader.construct_object(item, deep=True) for item in node.value]


def _bool(loader: _Loader, node: yaml.Node) -> bool:
    text = str(loader.construct_scalar(node)).lower()  # type: ignore[arg-type]
    if text not in loader.bool_values:
        raise ValueError(
            f"{_short(text)} is neither true nor false (line {node.start_mark.line + 1})"
        )
    return loader.bool_values[text]


def _float(loader: _Loader, node: yaml.Node) -> float:
    text = str(loader.construct_scalar(node))  # type: ignore[arg-type]
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


def _int(loader: _Loader, node: yaml.Node) -> int:
    return int(str(loader.construct_scalar(node)))  # type: ignore[arg-type]


def _other(_: _Loader, node: yaml.Node) -> Any:
    tag = node.tag.removeprefix("tag:yaml.org,2002:")
    raise ValueError(
        f"values of the type {_short(tag)} are not read (line {node.start_mark.line + 1})"
    )


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:59]}…")


_TAG = "tag:yaml.org,2002:"

# What a text without quotes must look like to be another value, and the characters that it may
# begin with. Narrower than YAML 1.1: 012 and 1:30 are texts. Wider in one place: 1e-6 is a number.
_PATTERNS = {
    "bool": (
        r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF",
        "yYnNtTfFoO",
    ),
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "merge": (r"<<", "<"),
    "int": (r"-?(?:0|[1-9][0-9]*)", "-0123456789"),
    "float": (
        r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
}
_CONSTRUCTORS = {
    "bool": _bool,
    "null": yaml.SafeLoader.construct_yaml_null,
    "str": yaml.SafeLoader.construct_yaml_str,
    "int": _int,
    "float": _float,
    "seq": _sequence,
    "map": _mapping,
}
for _name, (_pattern, _first) in _PATTERNS.items():
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"^(?:{_pattern})$"), list(_first))
for _name, _constructor in _CONSTRUCTORS.items():
    _Loader.add_constructor(_TAG + _name, _constructor)
_Loader.add_constructor(None, _other)  # type: ignore[arg-type]

# Unicode's own line breaks, which YAML's reader folds into spaces unless they are escaped.
_BREAKS = re.compile("[\x85\u2028\u2029]")


class _Dumper(yaml.SafeDumper):
    """YAML's safe dumper, which puts quotes around what :func:`parse_yaml` would otherwise read as
    another value.
    """

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


def _quoted_text(dumper: _Dumper, text: str) -> yaml.Node:
    style = '"' if _BREAKS.search(text) else None
    return dumper.represent_scalar(f"{_TAG}str", text, style=style)


_Dumper.add_representer(str, _quoted_text)


def yaml_text(value: Any) -> str:
    """Return the YAML text from which :func:`parse_yaml` reads an equal value; letters of all
    scripts stay readable.
    """
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text
