"""The architecture as a rule: which folder may import which, where a library may be used, and how large things may be.

The rule in one line: cli → restore → {network, dest, unpack} → core; ui → core; only cli uses ui.
"""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import restore_agent

PACKAGE = Path(restore_agent.__file__).parent
NAME = PACKAGE.name

ARROWS: dict[str, set[str]] = {
    "__init__": set(),
    "__main__": {"cli"},
    "cli": {"restore", "network", "dest", "unpack", "ui", "core", "simulator", "__init__"},
    "restore": {"network", "dest", "unpack", "core", "__init__"},
    "network": {"core", "__init__"},
    "dest": {"core", "__init__"},
    "unpack": {"core", "__init__"},
    "ui": {"core", "__init__"},
    "core": {"__init__"},
    "simulator": set(),
}
"""Each folder, and the folders that its modules may import."""

LIBRARIES: dict[str, tuple[str, ...]] = {
    "httpx": ("network",),
    "aiofiles": ("dest", "unpack"),
    "click": ("cli",),
    "tqdm": ("ui.bars",),
    "prometheus_client": ("ui.prometheus",),
    "jinja2": ("ui.report",),
    "isal": ("unpack",),
    "_system_calls": ("dest.system",),  # built into the executable
}
"""Each library, and the only places that may import it, so that it can be replaced."""

MOST_MODULES = {"core": 10}
"""Modules that a folder may hold, where it is not nine."""


@dataclass(frozen=True)
class Import:
    """One import: its line, and a dotted name below the package (`ours`) or a library."""

    line: int
    ours: bool
    name: str


def imports_of(source: str, package: tuple[str, ...], modules: frozenset[str]) -> list[Import]:
    """Return every import of a source, also inside functions. `package` is the folder that holds the source."""
    found: list[Import] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first, _, rest = alias.name.partition(".")
                found.append(Import(node.lineno, first == NAME, rest if first == NAME else first))
        elif isinstance(node, ast.ImportFrom):
            path = node.module.split(".") if node.module else []
            if node.level:
                path = [*package[: len(package) - node.level + 1], *path]
            elif path[0] == NAME:
                path = path[1:]
            else:
                found.append(Import(node.lineno, False, path[0]))
                continue
            for alias in node.names:
                inside = ".".join([*path, alias.name])
                found.append(Import(node.lineno, True, inside if inside in modules else ".".join(path) or "__init__"))
    return found


def name_of(path: Path) -> str:
    """Return the dotted name of a file inside the package."""
    name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    return name.removesuffix(".__init__")


PATHS = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py")) if PACKAGE / "share" not in path.parents}
SOURCES = {name: path.read_text(encoding="utf-8") for name, path in PATHS.items()}
TREES = {name: ast.parse(source) for name, source in SOURCES.items()}
MODULES = frozenset(SOURCES)


def _package_of(name: str) -> tuple[str, ...]:
    parts = tuple(name.split("."))
    return parts if PATHS[name].name == "__init__.py" and name != "__init__" else parts[:-1]


IMPORTS = {name: imports_of(source, _package_of(name), MODULES) for name, source in SOURCES.items()}


def folder(name: str) -> str:
    """Return the top folder of a module."""
    return name.split(".")[0]


# ---------------------------------------------------------------- folders and arrows


def test_the_package_has_the_folders_of_the_architecture() -> None:
    assert {folder(name) for name in MODULES} <= set(ARROWS)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_imports_only_the_allowed_folders(name: str) -> None:
    allowed = ARROWS[folder(name)] | {folder(name)}
    wrong = [f"line {one.line}: {one.name}" for one in IMPORTS[name] if one.ours and folder(one.name) not in allowed]
    assert wrong == []


def test_only_rehearse_and_simulator_use_the_simulator() -> None:
    users = {name for name, found in IMPORTS.items() for one in found if one.ours and folder(one.name) == "simulator"}
    assert {name for name in users if folder(name) != "simulator"} == {
        "cli.commands.practice.rehearse",
        "cli.commands.practice.simulator",
    }


def test_there_is_no_import_circle() -> None:
    graph = {name: {one.name for one in found if one.ours and one.name in MODULES} for name, found in IMPORTS.items()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for other in sorted(graph[name] - {name}):
                visit(other, (*path, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_imported_only_where_it_can_be_replaced(library: str) -> None:
    users = {name for name, found in IMPORTS.items() if any(not one.ours and one.name == library for one in found)}
    places = LIBRARIES[library]
    assert [name for name in users if not any(f"{name}.".startswith(f"{place}.") for place in places)] == []


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_other_library_is_needed(name: str) -> None:
    allowed = {*sys.stdlib_module_names, *LIBRARIES}
    assert [one.name for one in IMPORTS[name] if not one.ours and one.name not in allowed] == []


@pytest.mark.parametrize("name", sorted(name for name in MODULES if folder(name) != "simulator"))
def test_only_the_terminal_module_prints_and_only_the_command_table_imports_by_name(name: str) -> None:
    called = {node.func.id for node in calls(TREES[name]) if isinstance(node.func, ast.Name)}
    assert name == "ui.terminal" or "print" not in called
    assert name == "cli.main" or "import_module" not in called
    assert not called & {"__import__", "exec", "eval"}


def calls(tree: ast.AST) -> list[ast.Call]:
    """Return all calls in a tree."""
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


# ---------------------------------------------------------------- sizes


def test_a_folder_holds_few_modules() -> None:
    held: dict[Path, int] = {}
    for name, path in PATHS.items():
        if path.name not in ("__init__.py", "__main__.py"):
            held[path.parent] = held.get(path.parent, 0) + 1
            assert name
    most = {path.name: count for path, count in held.items() if count > MOST_MODULES.get(path.name, 9)}
    assert most == {}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_a_function_and_a_class_are_small(name: str) -> None:
    too_large = [f"{name}: {SOURCES[name].count(chr(10))} lines"] if SOURCES[name].count("\n") > 400 else []
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and lines_of(node) > 40:
            too_large.append(f"{name}:{node.lineno} {node.name}: {lines_of(node)} lines")
        if isinstance(node, ast.ClassDef):
            methods = sum(isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) for one in node.body)
            if methods > 20 or len(attributes_of(node)) > 12:
                too_large.append(f"{name}:{node.lineno} {node.name}: {methods} methods, {sorted(attributes_of(node))}")
    assert too_large == []


def lines_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of a function without its docstring."""
    documented = ast.get_docstring(node)
    return (node.end_lineno or 0) - node.lineno + 1 - (documented.count("\n") + 1 if documented else 0)


def attributes_of(node: ast.ClassDef) -> set[str]:
    """Return the attributes that the methods of a class set on `self`."""
    stored = [one for one in ast.walk(node) if isinstance(one, ast.Attribute) and isinstance(one.ctx, ast.Store)]
    return {one.attr for one in stored if isinstance(one.value, ast.Name) and one.value.id == "self"}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_every_module_starts_with_a_docstring(name: str) -> None:
    documented = ast.get_docstring(TREES[name])
    assert documented is not None
    assert documented.splitlines()[0].endswith(".")


def test_no_test_module_is_above_600_lines() -> None:
    tests = Path(__file__).parent
    assert [str(path) for path in tests.rglob("*.py") if path.read_text().count("\n") > 600] == []


# ---------------------------------------------------------------- the reader of imports itself


@pytest.mark.parametrize(
    ("source", "package", "seen"),
    [
        ("import httpx", (), [("", "httpx")]),
        ("import httpx.auth as a, json", (), [("", "httpx"), ("", "json")]),
        ("from httpx import Client", (), [("", "httpx")]),
        ("from .jobs import Job", ("core",), [("ours", "core.jobs")]),
        ("from . import jobs, errors", ("core",), [("ours", "core.errors"), ("ours", "core.jobs")]),
        ("from ... import __version__", ("cli", "commands"), [("ours", "__init__")]),
        ("import restore_agent.core.jobs", (), [("ours", "core.jobs")]),
        ("from restore_agent.core.jobs import Job", (), [("ours", "core.jobs")]),
        ("from ..core.jobs import Job", ("simulator",), [("ours", "core.jobs")]),
        ("def f():\n    from .jobs import Job", ("core",), [("ours", "core.jobs")]),
        ("if TYPE_CHECKING:\n    from .jobs import Job", ("core",), [("ours", "core.jobs")]),
        ("try:\n    import click\nexcept ImportError:\n    pass", (), [("", "click")]),
    ],
)
def test_every_form_of_import_is_detected(source: str, package: tuple[str, ...], seen: list[tuple[str, str]]) -> None:
    found = imports_of(source, package, frozenset({"core.jobs", "core.errors", "simulator"}))
    assert sorted(("ours" if one.ours else "", one.name) for one in found) == seen


def test_every_module_of_the_package_was_read() -> None:
    assert len(MODULES) > 60
    assert sum(len(found) for found in IMPORTS.values()) > 300
