"""The house: who may know whom. Each rule stands beside its reason, and a breach is answered with that reason."""

import ast
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import restore_agent

PACKAGE = Path(restore_agent.__file__).parent
NAME = "restore_agent"

# A module imports only from lower floors. Halves are mezzanines: rooms that need one neighbour of their own floor.
FLOORS: dict[str, float] = {
    # what everything may lean on
    "errors": 0,
    "redaction": 0,
    "documents": 0,
    "names": 0,  # also the receipt, which refuses a name that would lead out of DEST
    # rules and values without the network
    "values": 1,
    "jobs": 1,
    "pacing": 1,
    "receipt": 1,
    "structure": 1,
    "files": 1,
    "streams": 1,
    "signals": 1,
    "flow": 1,
    "framing": 1.5,  # bodies come out of `streams`
    "wire": 1.75,  # and exchanges are made of heads and bodies
    "settings": 1.5,  # parses its options with `values`
    "events": 1.5,  # tells of records and receipts, which `receipt` shapes
    "tls": 1.75,  # loads the certificates that `settings` names
    # the borders: the API, delivery URLs, DEST
    "opsmanager": 2,
    "archive": 2,
    "journal": 2,
    "room": 2,
    "delivery": 2,
    "refusals": 1.5,  # which error a decision of `jobs` stands for
    "records": 2.5,  # tells by the `journal` whether a SHA1SUMS is ours
    # what several readings, or several files, have in common
    "watch": 3,
    "roster": 3,
    "proof": 3,
    "transfer": 3,
    # one job, then all of them
    "surroundings": 3.5,  # holds what those below make
    "download": 4,
    "batch": 4.5,  # makes one `download` per job
    # one command each
    "agent": 5,
    "plan": 5,
    "verify": 5,
    # the way out, and the door
    "shipped": 5,
    "console": 6,
    "metrics": 6,
    "options": 6,
    "manual": 6,
    "advice": 6,
    "notify": 6.5,  # says it in the words of the `console`
    "session": 6.5,  # what a command runs in, its `console` included
    "commands": 7,
    "drill": 7,
    "handbook": 7,
    "install": 7,
    "cli": 8,
    "__main__": 9,
}
WHY_FLOORS = "a room that leans on one above it, or beside it, can be neither understood nor replaced alone"

# library: (the modules that may import it, why)
LIBRARIES: dict[str, tuple[set[str], str]] = {
    "httpx": ({"opsmanager", "delivery", "wire"}, "its errors become ours at these borders, and only there"),
    "tqdm": ({"console"}, "progress is told by events; how it looks is one file's business"),
    "click": (
        {"cli", "options", "commands", "drill", "handbook", "install", "manual"},
        "the agent is a library first; the command line can be replaced without it",
    ),
    "prometheus_client": ({"metrics"}, "it is optional: without it all but one option must work"),
    "aiofiles": ({"archive"}, "blocks of data go to disk in one place, where hash and write keep step"),
}
PRINTERS = ({"console"}, "stdout belongs to results; only the last door, which hides secrets, may write to it")
WHY_SIMULATOR = "a wrong field name in the agent must not cancel itself out in the server it is tried against"


@dataclass(frozen=True)
class Import:
    """One import: a module of the package by its dotted name inside it ("" is the package), or a library."""

    line: int
    ours: bool
    name: str


def imports_of(source: str, package: tuple[str, ...] = (), modules: frozenset[str] = frozenset()) -> list[Import]:
    """Every import in a source, also inside functions and under TYPE_CHECKING.

    `package` is where the source stands inside the package; `modules` are the names that are modules and not values.
    """
    found: list[Import] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first, _, rest = alias.name.partition(".")
                found.append(Import(node.lineno, first == NAME, rest if first == NAME else first))
        elif isinstance(node, ast.ImportFrom):
            path = (node.module or "").split(".") if node.module else []
            if node.level:
                path = [*package[: len(package) - node.level + 1], *path]
            elif path[0] == NAME:
                path = path[1:]
            else:
                found.append(Import(node.lineno, False, path[0]))
                continue
            inside = {".".join([*path, alias.name]) for alias in node.names}
            known = inside & modules
            found += [Import(node.lineno, True, name) for name in sorted(known)]
            if known != inside:
                found.append(Import(node.lineno, True, ".".join(path)))
    return found


def name_of(path: Path) -> str:
    """The dotted name of a file inside the package; that of `simulator/__init__.py` is `simulator`."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


COLLECTIONS = PACKAGE / "ansible_collections"  # runs on the hosts under ansible-core and knows the command line only
SOURCES = {
    name_of(path): path.read_text(encoding="utf-8")
    for path in sorted(PACKAGE.rglob("*.py"))
    if COLLECTIONS not in path.parents
}
MODULES = frozenset(SOURCES) - {"__init__"}
IS_PACKAGE = {name_of(path) for path in PACKAGE.rglob("*/__init__.py")}
IMPORTS = {
    name: imports_of(source, tuple(name.split(".") if name in IS_PACKAGE else name.split(".")[:-1]), MODULES)
    for name, source in SOURCES.items()
}
ROOMS = sorted(name for name in MODULES if name.partition(".")[0] != "simulator")
SIMULATOR = sorted(MODULES - set(ROOMS))


# ---------------------------------------------------------------- floors


def test_every_room_has_a_floor_and_every_floor_its_room() -> None:
    assert set(ROOMS) == set(FLOORS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_leans_only_on_lower_floors(room: str) -> None:
    known = [one for one in IMPORTS[room] if one.ours and one.name and one.name.partition(".")[0] != "simulator"]
    wrong = [f"{room}.py:{one.line} imports {one.name}" for one in known if FLOORS[one.name] >= FLOORS[room]]
    assert wrong == [], WHY_FLOORS


@pytest.mark.parametrize("room", [room for room, floor in FLOORS.items() if floor % 1])
def test_a_mezzanine_is_there_because_it_is_needed(room: str) -> None:
    floor = int(FLOORS[room])
    neighbours = {one.name for one in IMPORTS[room] if one.ours and FLOORS.get(one.name, -1) >= floor}
    assert neighbours, f"{room} leans on nobody of floor {floor}, so that is where it belongs"


def test_the_package_itself_knows_nobody() -> None:
    assert IMPORTS["__init__"] == [], "who asks for the version must not load the agent"


@pytest.mark.parametrize("room", [room for room, floor in FLOORS.items() if floor == 0])
def test_the_ground_floor_knows_the_standard_library_only(room: str) -> None:
    outside = [one.name for one in IMPORTS[room] if one.ours or one.name not in sys.stdlib_module_names]
    assert outside == [], "an error must be raised, a secret hidden and a name made safe anywhere"


# ---------------------------------------------------------------- the simulator


@pytest.mark.parametrize("module", SIMULATOR)
def test_the_simulator_knows_nothing_of_the_agent(module: str) -> None:
    known = [one for one in IMPORTS[module] if one.ours and one.name.partition(".")[0] != "simulator"]
    wrong = [f"{module}:{one.line} imports {one.name or NAME}" for one in known]
    assert wrong == [], WHY_SIMULATOR


@pytest.mark.parametrize("room", ROOMS)
def test_only_the_drill_knows_the_simulator(room: str) -> None:
    known = [one.line for one in IMPORTS[room] if one.ours and one.name.partition(".")[0] == "simulator"]
    assert known == [] or room == "drill", "the agent cannot tell a drill from a restore"


# ---------------------------------------------------------------- libraries and output


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_known_only_where_it_can_be_replaced(library: str) -> None:
    users, why = LIBRARIES[library]
    assert {name for name, all_of_it in IMPORTS.items() if uses(all_of_it, library)} == users, why


def uses(imports: list[Import], library: str) -> bool:
    return any(not one.ours and one.name == library for one in imports)


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_no_other_library_is_needed(module: str) -> None:
    allowed = {*sys.stdlib_module_names, *LIBRARIES}
    foreign = [f"{module}:{one.line} imports {one.name}" for one in IMPORTS[module] if not one.ours]
    assert [line for line in foreign if line.rpartition(" ")[2] not in allowed] == [], (
        "each dependency must be had on hosts without a way to the internet"
    )


def calls(source: str, *names: str) -> list[int]:
    """The lines on which one of these functions is called by its bare name."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names
    ]


@pytest.mark.parametrize("room", ROOMS)
def test_only_the_last_door_prints(room: str) -> None:
    printers, why = PRINTERS
    assert room in printers or calls(SOURCES[room], "print") == [], why


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_no_import_hides_from_these_rules(module: str) -> None:
    assert not uses(IMPORTS[module], "importlib") or module == "shipped", "it reads files of the package, also in a zip"
    assert "import_module" not in SOURCES[module]
    assert calls(SOURCES[module], "__import__", "exec", "eval") == []


# ---------------------------------------------------------------- the walker itself


@pytest.mark.parametrize(
    ("source", "package", "seen"),
    [
        ("import httpx", (), [("", "httpx")]),
        ("import httpx.auth as a, json", (), [("", "httpx"), ("", "json")]),
        ("from httpx import Client", (), [("", "httpx")]),
        ("from aiofiles.threadpool import wrap", (), [("", "aiofiles")]),
        ("from .jobs import Job", (), [("ours", "jobs")]),
        ("from . import jobs, errors", (), [("ours", "errors"), ("ours", "jobs")]),
        ("from . import __version__", (), [("ours", "")]),
        ("from . import jobs, __version__", (), [("ours", ""), ("ours", "jobs")]),
        ("import restore_agent.jobs", (), [("ours", "jobs")]),
        ("from restore_agent import jobs", (), [("ours", "jobs")]),
        ("from restore_agent.jobs import Job", (), [("ours", "jobs")]),
        ("from .faults import Faults", ("simulator",), [("ours", "simulator.faults")]),
        ("from . import faults", ("simulator",), [("ours", "simulator.faults")]),
        ("from ..jobs import Job", ("simulator",), [("ours", "jobs")]),
        ("from .. import jobs", ("simulator",), [("ours", "jobs")]),
        ("def f():\n    from .jobs import Job", (), [("ours", "jobs")]),
        ("if TYPE_CHECKING:\n    from .jobs import Job", (), [("ours", "jobs")]),
        ("try:\n    import click\nexcept ImportError:\n    pass", (), [("", "click")]),
    ],
)
def test_the_walker_sees_every_way_to_import(
    source: str, package: tuple[str, ...], seen: list[tuple[str, str]]
) -> None:
    found = imports_of(source, package, frozenset({"jobs", "errors", "simulator", "simulator.faults"}))
    assert sorted(("ours" if one.ours else "", one.name) for one in found) == seen


def test_the_walker_has_seen_the_house() -> None:
    assert len(ROOMS) > 20
    assert len(SIMULATOR) > 5
    assert sum(len(all_of_it) for all_of_it in IMPORTS.values()) > 200


def test_the_readme_names_every_room() -> None:
    table = (PACKAGE.parent / "README.md").read_text().partition("| floor | modules |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", table)) == set(FLOORS) - {"__main__"}
