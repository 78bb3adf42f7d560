"""The code of the executable: the standard library, the package, and its dependencies as a zip archive of byte code."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from zipapp import Wheel, package_files, wheel_files

from .debian import PYTHON, Package

PACKER, CHECK, START = (Path(__file__).with_name(name) for name in ("pack.py", "check.py", "start.py"))

# Directories and modules of the standard library that the program cannot use.
_UNUSED = {
    *("__pycache__", "lib-dynload", "config-3.11-x86_64-linux-gnu", "config-3.11-aarch64-linux-gnu", "site-packages"),
    *(
        "ctypes",
        "curses",
        "dbm",
        "distutils",
        "ensurepip",
        "idlelib",
        "lib2to3",
        "msilib",
        "pydoc_data",
        "sqlite3",
        "test",
    ),
    *(
        "tkinter",
        "turtledemo",
        "unittest",
        "venv",
        "xmlrpc",
        "antigravity.py",
        "sitecustomize.py",
        "pydoc.py",
        "this.py",
        "turtle.py",
    ),
    *(
        "bdb.py",
        "pdb.py",
        "doctest.py",
        "imaplib.py",
        "nntplib.py",
        "poplib.py",
        "telnetlib.py",
        "mailbox.py",
        "cgi.py",
    ),
}
_SOURCES = ("isal/src/isal",)  # packages that come as source archives


class Bundle:
    """Files by their name in the archive, collected in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir()

    def add(self, name: str, data: bytes) -> None:
        """Add a file. Raises SystemExit if there is one of that name."""
        path = self._directory / name
        if path.exists():
            raise SystemExit(f"{name} comes twice")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def add_all(self, root: Path, sources: Path, wheels: list[Wheel], packages: list[Package]) -> None:
        """Add everything that the program consists of."""
        self.add("_start.py", START.read_bytes())
        for name, data in package_files():
            self.add(name, data)
        for wheel in wheels:
            for name, data in wheel_files(wheel):
                self.add(name, data)
        for files in (_standard_library(root), _from_sources(sources), _licenses(root, sources, packages)):
            for name, path in files:
                self.add(name, path.read_bytes())

    def append_to(self, program: Path, interpreter: Path, root: Path, target: Path) -> None:
        """Write the program with the archive at its end."""
        target.unlink(missing_ok=True)  # it may be running
        shutil.copyfile(program, target)
        home = {"PYTHONHOME": str(root / "usr"), "PYTHONPATH": str(root / "usr/lib" / PYTHON), "PYTHONHASHSEED": "0"}
        command = [interpreter, "-S", "-B", "-W", "ignore", PACKER, self._directory, target]
        subprocess.run(command, check=True, env=home)
        alone = {"PYTHONHOME": str(target.absolute()), "PYTHONPATH": str(target.absolute())}
        subprocess.run([interpreter, "-S", "-B", "-W", "ignore", CHECK, target.absolute()], check=True, env=alone)
        target.chmod(0o755)


def _standard_library(root: Path) -> Iterator[tuple[str, Path]]:
    top = root / "usr/lib" / PYTHON
    for path in sorted(top.rglob("*.py")):
        name = path.relative_to(top)
        if not _UNUSED & set(name.parts) and not name.name.startswith("_sysconfigdata"):
            yield name.as_posix(), path


def _from_sources(sources: Path) -> Iterator[tuple[str, Path]]:
    for place in _SOURCES:
        top = sources / place
        for path in sorted(top.glob("*.py")):
            yield f"{top.name}/{path.name}", path


def _licenses(root: Path, sources: Path, packages: list[Package]) -> Iterator[tuple[str, Path]]:
    """Yield the licenses of the parts that are linked in; wheels have theirs in *.dist-info."""
    for package in packages:
        path = root / "usr/share/doc" / package.name / "copyright"
        if path.exists():
            yield f"licenses/{package.name}", path
    yield "licenses/isal", sources / "isal/LICENSE"
    yield "licenses/isa-l", sources / "isal/src/isal/isa-l/LICENSE"


def unpack_archives(archives: list[Path], directory: Path) -> None:
    """Unpack source archives of packages, each into a directory with the name of the package."""
    for archive in archives:
        shutil.unpack_archive(archive, directory, filter="data")
        top = directory / archive.name.removesuffix(".tar.gz")
        top.rename(directory / archive.name.split("-")[0])


def machine() -> str:
    """Return the architecture as in the name of the program."""
    return os.uname().machine
