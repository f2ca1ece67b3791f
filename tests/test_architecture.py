"""Which rooms may import which: the design's arrows, as a table that the code is held to.

A room is a folder of ``jaxmodpo``. Modules outside rooms are the foundation, which everybody may
import and which imports no room, or the program, which may import everything and which only the
sandbox and the benchmarks import.
"""

from __future__ import annotations

import ast
import functools
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "jaxmodpo"

ROOMS: Mapping[str, set[str]] = {
    "losses": set(),
    "statistics": set(),
    "personas": set(),
    "judging": set(),
    "data": set(),
    "models": set(),
    "policy": {"data", "models"},
    "sampling": {"data", "models", "policy"},
    "training": {"losses", "data", "models", "policy"},
    "evaluation": {"statistics", "judging"},
    "report": {"statistics", "personas", "judging", "evaluation"},
    "study": {"statistics", "judging", "evaluation", "report"},
    "probes": {"statistics", "judging", "data", "models", "policy", "sampling"},
    "toxicity": {"statistics", "judging", "data", "models", "policy"},
    "methods": {"losses", "statistics", "data", "models", "policy", "sampling", "training"},
    "search": {
        "statistics",
        "data",
        "models",
        "policy",
        "training",
        "methods",
        "sampling",
        "evaluation",
    },
}
"""what a room may import besides the foundation: rooms that stand above it, so that no two import
each other"""

TOOLS = {"sandbox", "bench"}
"""rooms that may import everything, and that no other room imports"""

FOUNDATION = {"endpoints", "flags", "results"}
"""folders that are no rooms but part of the foundation"""

PROGRAM = {
    "commands",
    "cli",
    "experiment",
    "estimate",
    "dry_run",
    "run",
    "verify",
    "json_schemas",
}
"""modules outside rooms that may import everything; the others are the foundation"""

WITHOUT_DEVICE = {
    "statistics",
    "judging",
    "personas",
    "evaluation",
    "report",
    "study",
    "cli",
    "commands",
    "experiment",
    "run",
    "verify",
}
"""rooms and modules whose import brings no array library, so that they start at once and run
anywhere"""

ARRAY_LIBRARIES = {"jax", "flax", "optax", "orbax", "torch"}


def module_files() -> dict[str, Path]:
    """Return every module's file by its full name; a package's is its ``__init__.py``."""
    files: dict[str, Path] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        files[".".join(part for part in parts if part != "__init__")] = path
    return files


FILES = module_files()


def is_for_types(statement: ast.AST) -> bool:
    """Return whether a statement is ``if TYPE_CHECKING:``, which does not run."""
    return isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test)


def statements(tree: ast.AST, everywhere: bool) -> Iterator[ast.AST]:
    """Yield the statements of a module: all of them, or those that run when it is imported."""
    for child in ast.iter_child_nodes(tree):
        inside_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if everywhere or not (inside_function or is_for_types(child)):
            yield child
            yield from statements(child, everywhere)


def imported_names(source: str, *, everywhere: bool) -> set[str]:
    """Return the modules that a source imports; ``from package import module`` names the module."""
    names: set[str] = set()
    for statement in statements(ast.parse(source), everywhere):
        if isinstance(statement, ast.Import):
            names.update(alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            assert statement.module is not None and statement.level == 0, "imports are absolute"
            for alias in statement.names:
                full_name = f"{statement.module}.{alias.name}"
                names.add(full_name if full_name in FILES else statement.module)
    return names


@functools.cache
def imports(*, everywhere: bool) -> dict[str, set[str]]:
    """Return every module's imports: all of them, or those that run when it is imported."""
    return {
        name: imported_names(path.read_text(), everywhere=everywhere)
        for name, path in FILES.items()
    }


def room_of(module: str) -> str:
    """Return a module's room, or its own name where it stands outside rooms; empty for the package
    itself.
    """
    return module.partition("jaxmodpo.")[2].partition(".")[0]


def may_import(importer: str, imported: str) -> bool:
    """Return whether the design has an arrow between two rooms or modules outside rooms."""
    if importer == imported or not imported or importer in PROGRAM | TOOLS:
        return True
    is_foundation = imported not in {*ROOMS, *TOOLS, *PROGRAM}
    return is_foundation or imported in ROOMS.get(importer, set())


def arrows(graph: Mapping[str, set[str]]) -> dict[tuple[str, str], list[str]]:
    """Return the arrows between rooms that the design does not have, each with the imports that
    make it.
    """
    unwanted: dict[tuple[str, str], list[str]] = defaultdict(list)
    for module, imported_modules in graph.items():
        for imported in imported_modules:
            is_ours = imported.split(".")[0] == "jaxmodpo"
            if is_ours and not may_import(room_of(module), room_of(imported)):
                unwanted[room_of(module), room_of(imported)].append(f"{module} imports {imported}")
    return unwanted


def reached(module: str, graph: Mapping[str, set[str]]) -> dict[str, str]:
    """Return all modules that importing one brings along, each with the module that imports it."""
    imported_by: dict[str, str] = {}
    waiting = [module]
    while waiting:
        importer = waiting.pop()
        for imported in graph.get(importer, set()):
            if imported not in imported_by:
                imported_by[imported] = importer
                waiting.append(imported)
    return imported_by


def test_rooms_import_only_what_the_table_lets_them():
    unwanted = arrows(imports(everywhere=True))
    assert not unwanted, "\n".join(line for reasons in unwanted.values() for line in reasons)


def test_the_table_has_every_room_and_its_arrows_point_one_way():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == (set(ROOMS) - {"losses"}) | TOOLS | FOUNDATION
    above: set[str] = set()
    for room, allowed in ROOMS.items():
        assert allowed <= above, f"{room} may import what stands below it"
        above.add(room)
    assert all((PACKAGE / f"{name}.py").is_file() for name in PROGRAM)


def test_no_import_circle():
    """Nor one that closes only in a function, or for types."""
    graph = imports(everywhere=True)
    assert [module for module in graph if module in reached(module, graph)] == []


@pytest.mark.parametrize("place", sorted(WITHOUT_DEVICE))
def test_what_needs_no_device_imports_no_array_library(place: str):
    graph = imports(everywhere=False)
    modules = [module for module in graph if room_of(module) == place]
    assert modules
    for module in modules:
        imported_by = reached(module, graph)
        heavy = {
            name: by for name, by in imported_by.items() if name.split(".")[0] in ARRAY_LIBRARIES
        }
        assert not heavy, f"importing {module} brings {heavy}"


def test_the_foundation_imports_no_array_library():
    graph = imports(everywhere=False)
    outside = {module for module in graph if room_of(module) in FOUNDATION} | {
        module for module in graph if module.count(".") == 1 and FILES[module].name != "__init__.py"
    }
    for module in outside - {f"jaxmodpo.{name}" for name in PROGRAM | {"losses"}}:
        assert not {name.split(".")[0] for name in reached(module, graph)} & ARRAY_LIBRARIES, module


def test_losses_import_jax_and_numpy_alone():
    names = imports(everywhere=True)["jaxmodpo.losses"]
    others = {name.split(".")[0] for name in names if name != "jaxmodpo.errors"}
    assert others - set(sys.stdlib_module_names) == {"jax", "numpy"}


def test_statistics_import_numpy_and_scipy_alone():
    for module, names in imports(everywhere=True).items():
        if room_of(module) == "statistics":
            others = {name for name in names if room_of(name) != "statistics"}
            libraries = {name.split(".")[0] for name in others} - set(sys.stdlib_module_names)
            assert libraries <= {"numpy", "scipy"}, module


def test_an_arrow_that_the_design_lacks_is_found():
    source = (
        "from jaxmodpo.errors import UserError\n"
        "def late():\n"
        "    from jaxmodpo.training import step\n"
    )
    everything = imported_names(source, everywhere=True)
    assert everything == {"jaxmodpo.errors", "jaxmodpo.training.step"}
    assert imported_names(source, everywhere=False) == {"jaxmodpo.errors"}
    assert arrows({"jaxmodpo.judging.ledger": everything}) == {
        ("judging", "training"): ["jaxmodpo.judging.ledger imports jaxmodpo.training.step"]
    }
    assert arrows({"jaxmodpo.files": {"jaxmodpo.data.pairs", "jaxmodpo.schema"}}) == {
        ("files", "data"): ["jaxmodpo.files imports jaxmodpo.data.pairs"]
    }
    assert arrows(
        {"jaxmodpo.data.pairs": {"jaxmodpo.cli"}, "jaxmodpo.bench.fit": {"jaxmodpo.cli"}}
    ).keys() == {("data", "cli")}
