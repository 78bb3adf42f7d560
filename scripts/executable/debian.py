"""Packages of Debian for the executable: downloaded, compared with their pins, and unpacked into a directory.

apt verifies each package by Debian's signature. It uses lists and a cache of its own, so the host is not changed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PYTHON = "python3.11"
RELEASE = "bookworm"
PINS = Path(__file__).with_name("debian-packages.txt")
LIBRARIES = ("libc6-dev", "libssl-dev", "zlib1g-dev", "libexpat1-dev", f"lib{PYTHON}-dev")
STANDARD_LIBRARY = (f"lib{PYTHON}-minimal", f"lib{PYTHON}-stdlib")
HEADERS = ("linux-libc-dev", "libbluetooth-dev")  # the second one decides how large a socket object is
ASSEMBLER = ("nasm",)


@dataclass(frozen=True)
class Package:
    """A file from Debian: a binary package, or the source of the interpreter."""

    name: str
    version: str
    path: Path

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of the file."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


class Debian:
    """Debian's packages of this release, as apt offers them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory.absolute()
        self._files = self._directory / "debian"
        for path in ("sources", "lists/partial", "cache/archives/partial", "debian"):
            (self._directory / path).mkdir(parents=True, exist_ok=True)
        (self._directory / "sources" / "debian.sources").write_text("\n\n".join(_sources()) + "\n")

    def update(self) -> None:
        """Bring the lists of packages up to date."""
        self._apt("update")

    def packages(self, names: tuple[str, ...]) -> list[Package]:
        """Download packages unless they are there already."""
        return [self._package(name) for name in names]

    def _package(self, name: str) -> Package:
        for version in self._offered(name):  # a mirror may list a version before it has it
            if self._binary(name, version) is None:
                self._apt("download", f"{name}={version}", check=False)
            if path := self._binary(name, version):
                return Package(name, version, path)
        raise SystemExit(f"apt did not download {name}")

    def _binary(self, name: str, version: str) -> Path | None:
        found = self._files.glob(f"{name}_{version.replace(':', '%3a')}_*.deb")
        return next(iter(sorted(found)), None)

    def source(self, preferred: str) -> Package:
        """Download the source of the interpreter: the preferred version, else the newest that the archive has."""
        versions = self._offered(PYTHON, source=True)
        for version in sorted(versions, key=lambda version: version != preferred):
            description = self._files / f"{PYTHON}_{version}.dsc"
            if description.exists() or self._apt("source", "--download-only", f"{PYTHON}={version}", check=False):
                return Package(PYTHON, version, description)
        raise SystemExit(f"apt offers no source of {PYTHON}")

    def _offered(self, name: str, *, source: bool = False) -> list[str]:
        """Return the versions of a package, the newest first."""
        lines = self._output("apt-cache", "madison", name).splitlines()
        rows = [[part.strip() for part in line.split("|")] for line in lines]
        found = [row[1] for row in rows if row[0] == name and row[2].endswith("Sources") == source]
        if not found:
            raise SystemExit(f"apt offers no {'source' if source else 'package'} {name}")
        return sorted(set(found), key=found.index)

    def _apt(self, *words: str, check: bool = True) -> bool:
        command = ["apt-get", "-qq", *self._options, *words]
        errors = None if check else subprocess.DEVNULL
        done = subprocess.run(command, cwd=self._files, check=False, stdout=sys.stderr, stderr=errors)
        if check and done.returncode:
            raise SystemExit(f"{' '.join(words)}: apt-get ended with {done.returncode}")
        return done.returncode == 0

    def _output(self, program: str, *words: str) -> str:
        return subprocess.run([program, *self._options, *words], check=True, capture_output=True, text=True).stdout

    @property
    def _options(self) -> list[str]:
        own = {
            "Dir::Etc::sourcelist": "/dev/null",
            "Dir::Etc::sourceparts": self._directory / "sources",
            "Dir::State::lists": self._directory / "lists",
            "Dir::Cache": self._directory / "cache",
            "APT::Sandbox::User": "",
        }
        return [f"-o{name}={value}" for name, value in own.items()]


def require_release() -> None:
    """Check that this host is the release for which the build is written. Raises SystemExit."""
    found = re.search(r"^VERSION_CODENAME=(\S+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    if not found or found[1] != RELEASE or not shutil.which("apt-get"):
        raise SystemExit(f"the executable is built on Debian 12 ({RELEASE}), for example in a container")


def _sources() -> Iterator[str]:
    """Yield the host's sources of this release, with sources of packages in addition."""
    for path in sorted(Path("/etc/apt").rglob("*.sources")):
        for stanza in re.split(r"\n\s*\n", path.read_text()):
            if re.search(rf"^Suites:\s*{RELEASE}", stanza, re.MULTILINE):
                yield re.sub(r"^Types:.*$", "Types: deb deb-src", stanza.strip(), flags=re.MULTILINE)
    for path in sorted(Path("/etc/apt").rglob("*.list")):
        for line in path.read_text().splitlines():
            if match := re.fullmatch(rf"deb\s+(?:\[.*\]\s+)?(\S+)\s+({RELEASE}\S*)\s+(.+)", line.strip()):
                yield f"Types: deb deb-src\nURIs: {match[1]}\nSuites: {match[2]}\nComponents: {match[3]}"


def unpack(packages: list[Package], root: Path) -> None:
    """Unpack binary packages into a directory."""
    for package in packages:
        subprocess.run(["dpkg-deb", "--extract", package.path, root], check=True)


def unpack_source(source: Package, directory: Path) -> None:
    """Unpack a source with Debian's patches into a directory that does not exist yet."""
    command = ["dpkg-source", "--no-check", "--extract", source.path, directory]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


# ---------------------------------------------------------------- pins


def compare_with_pins(packages: list[Package], *, strict: bool) -> None:
    """Report each package that is not the pinned one. Raises SystemExit if one differs and `strict` is set."""
    pinned = dict(_pins())
    machine = os.uname().machine
    differing = []
    for package in packages:
        version, hashes = pinned.get(package.name, ("none", {}))
        if (package.version, package.sha256) != (version, hashes.get(machine, package.sha256)):
            differing.append(f"{package.name} {package.version} differs from its pin, {version}")
    for line in differing:
        print(line, file=sys.stderr)
    if strict and differing:
        raise SystemExit("other packages than the pinned ones, and --strict was given")


def _pins() -> Iterator[tuple[str, tuple[str, dict[str, str]]]]:
    for line in PINS.read_text().splitlines():
        if line and not line.startswith("#"):
            name, version, *hashes = line.split()
            yield name, (version, dict(word.split("=", 1) for word in hashes))


def pin(packages: list[Package]) -> None:
    """Record versions and hashes. Hashes of other machines are kept where the version is the same."""
    comment = "".join(f"{line}\n" for line in PINS.read_text().splitlines() if line.startswith("#"))
    pinned, lines = dict(_pins()), []
    for package in sorted(packages, key=lambda package: package.name):
        version, hashes = pinned.get(package.name, ("", {}))
        hashes = {**(hashes if version == package.version else {}), os.uname().machine: package.sha256}
        words = [f"{machine}={sha256}" for machine, sha256 in sorted(hashes.items())]
        lines.append(" ".join([package.name, package.version, *words]))
    PINS.write_text(comment + "".join(f"{line}\n" for line in lines))
