"""Build restore-agent.pyz and its CycloneDX list of contents; called by scripts/build-zipapp.

The wheels come from zipapp-requirements.txt, each held against its SHA-256. Everything in the file is sorted, has one
time (SOURCE_DATE_EPOCH, else 1980) and one mode, and is stored as it is: compressed bytes would differ from one
zlib to the next.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import time
import uuid
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "scripts" / "zipapp-requirements.txt"
PACKAGE = ROOT / "restore_agent"
OPTIONAL = frozenset({"jinja2", "markupsafe", "prometheus-client"})
"""Packages of the extras `metrics` and `report`."""

ACCELERATED = frozenset({"markupsafe"})
"""Packages with compiled wheels only, which work without their compiled module; it is left out."""

_STATED_ELSEWHERE = {"jinja2": "BSD-3-Clause"}
"""Licences of packages whose metadata name none as an SPDX expression; their LICENSE file states it."""

_FIRST_TIME = 315532800  # 1980-01-01, the earliest that a zip file can say
_COMPILED = (".so", ".pyd", ".dylib", ".dll", ".pyc")
_SOURCES_OF_COMPILED = (".c", ".pyi")
_MAIN = b"""\
import sys

if sys.version_info < (3, 11):
    sys.stderr.write("restore-agent needs Python 3.11 or newer; this is Python %s\\n" % sys.version.split()[0])
    sys.exit(2)

from restore_agent.__main__ import main

main()
"""


@dataclass(frozen=True)
class Pin:
    """One line of the requirements."""

    name: str
    version: str
    sha256: str

    @property
    def purl(self) -> str:
        """The package URL."""
        return f"pkg:pypi/{self.name}@{self.version}"


@dataclass(frozen=True)
class Wheel:
    """A wheel that was held against its pin."""

    pin: Pin
    path: Path
    metadata: Message


# ---------------------------------------------------------------- wheels


def pins(text: str) -> list[Pin]:
    """The pins of a requirements file; an unpinned or unhashed line is an error."""
    joined = re.sub(r"\\\n\s*", "", text)
    lines = [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]
    found = [re.fullmatch(r"([a-z0-9-]+)==(\S+)\s+--hash=sha256:([0-9a-f]{64})", line.strip()) for line in lines]
    if not all(found):
        raise SystemExit(f"each requirement needs one version and one hash: {lines[found.index(None)]}")
    return [Pin(match[1], match[2], match[3]) for match in found if match]


def fetch(wanted: list[Pin], directory: Path, requirements: Path = REQUIREMENTS) -> list[Wheel]:
    """The wheels of the pins, downloaded unless they are there already."""
    if any(_find(pin, directory) is None for pin in wanted):
        _download(directory, requirements)
    return [_wheel(pin, directory) for pin in wanted]


def _download(directory: Path, requirements: Path) -> None:
    """Download all wheels. The tags are those of one platform, so that the same wheels come on every host."""
    tags = ["--implementation=cp", "--abi=cp311", "--abi=none", "--platform=manylinux2014_x86_64", "--platform=any"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    command += ["--no-deps", "--only-binary=:all:", *tags, "--python-version=3.11"]
    subprocess.run([*command, f"--dest={directory}", f"--requirement={requirements}"], check=True, stdout=sys.stderr)


def _find(pin: Pin, directory: Path) -> Path | None:
    for path in sorted(directory.glob(f"{pin.name.replace('-', '_')}-{pin.version}-*.whl")):
        if hashlib.sha256(path.read_bytes()).hexdigest() == pin.sha256:
            return path
    return None


def _wheel(pin: Pin, directory: Path) -> Wheel:
    path = _find(pin, directory)
    if path is None:
        raise SystemExit(f"no wheel of {pin.name} {pin.version} with the pinned hash")
    if not path.name.endswith("-none-any.whl") and pin.name not in ACCELERATED:
        raise SystemExit(f"{path.name} is not pure Python")
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
        return Wheel(pin, path, HeaderParser().parsestr(archive.read(name).decode()))


# ---------------------------------------------------------------- the file


def contents(wheels: list[Wheel]) -> dict[str, bytes]:
    """Every file by its name inside; two of one name are an error."""
    found = {"__main__.py": _MAIN}
    for name, data in [*package_files(), *(entry for wheel in wheels for entry in wheel_files(wheel))]:
        if name in found:
            raise SystemExit(f"{name} comes twice")
        if name.endswith(_COMPILED):
            raise SystemExit(f"{name} is compiled")
        found[name] = data
    return found


def package_files() -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each file of restore_agent, and of its license."""
    yield "LICENSE", (ROOT / "LICENSE").read_bytes()
    for path in PACKAGE.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(ROOT).as_posix(), path.read_bytes()


def wheel_files(wheel: Wheel) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each file of a wheel, without its list of files."""
    with zipfile.ZipFile(wheel.path) as archive:
        for entry in archive.infolist():
            if not entry.is_dir() and not _is_left_out(wheel, entry.filename):
                yield entry.filename, archive.read(entry)


def _is_left_out(wheel: Wheel, name: str) -> bool:
    accelerator = wheel.pin.name in ACCELERATED and name.endswith(_COMPILED + _SOURCES_OF_COMPILED)
    return accelerator or name.endswith(".dist-info/RECORD")


def write(path: Path, files: dict[str, bytes]) -> None:
    """Write the single file: a line that names the interpreter, then a zip archive."""
    moment = time.gmtime(max(_FIRST_TIME, int(os.environ.get("SOURCE_DATE_EPOCH", _FIRST_TIME))))[:6]
    with path.open("wb") as file:
        file.write(b"#!/usr/bin/env python3\n")
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name in sorted(files):
                entry = zipfile.ZipInfo(name, moment)
                entry.create_system = 3  # Unix, whatever system builds it
                entry.external_attr = 0o100644 << 16
                archive.writestr(entry, files[name])
    path.chmod(0o755)


# ---------------------------------------------------------------- the list of contents


def bill_of_materials(wheels: list[Wheel], version: str, sha256: str) -> dict[str, Any]:
    """What is inside, as CycloneDX 1.6; it holds no time of the build, so that it is reproducible too."""
    ours = f"pkg:pypi/restore-agent@{version}"
    inside = {normalized(wheel.pin.name): wheel.pin.purl for wheel in wheels}
    needed = [{"ref": ours, "dependsOn": sorted(inside.values())}]
    needed += [{"ref": wheel.pin.purl, "dependsOn": needs(wheel, inside)} for wheel in wheels]
    application = {"type": "application", "bom-ref": ours, "name": "restore-agent", "version": version, "purl": ours}
    application |= {"hashes": hashes(sha256), "licenses": [{"expression": "Apache-2.0"}]}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, sha256)}",
        "version": 1,
        "metadata": {"component": application},
        "components": [component(wheel) for wheel in wheels],
        "dependencies": needed,
    }


def component(wheel: Wheel) -> dict[str, Any]:
    """Return the entry of a wheel in the list of contents."""
    pin = wheel.pin
    return {
        "type": "library",
        "bom-ref": pin.purl,
        "name": pin.name,
        "version": pin.version,
        "scope": "optional" if pin.name in OPTIONAL else "required",
        "description": wheel.metadata["Summary"] or "",
        "hashes": hashes(pin.sha256),
        "licenses": [{"expression": license_of(wheel)}],
        "purl": pin.purl,
    }


def license_of(wheel: Wheel) -> str:
    """Return the license as an SPDX expression. Raises SystemExit if the wheel states none."""
    stated = str(wheel.metadata["License-Expression"] or wheel.metadata["License"] or "")
    stated = stated or _STATED_ELSEWHERE.get(wheel.pin.name, "")
    if not re.fullmatch(r"[A-Za-z0-9.+-]+( (AND|OR|WITH) [A-Za-z0-9.+-]+)*", stated):
        raise SystemExit(f"{wheel.pin.name}: {stated[:60]!r} is no SPDX expression")
    return stated


def needs(wheel: Wheel, inside: dict[str, str]) -> list[str]:
    """Return the package URLs of the other parts that a wheel requires."""
    lines = [line for line in wheel.metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    names = {normalized(re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0]) for line in lines}
    return sorted(inside[name] for name in names & set(inside))


def normalized(name: str) -> str:
    """Return the normalized name of a Python package."""
    return re.sub(r"[-_.]+", "-", name).lower()


def hashes(sha256: str) -> list[dict[str, str]]:
    """Return a SHA-256 as CycloneDX writes it."""
    return [{"alg": "SHA-256", "content": sha256}]


def main() -> None:
    """Build both files and print their names and hashes."""
    parser = argparse.ArgumentParser(description="Build restore-agent.pyz and restore-agent.cdx.json.")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="where to; default dist/")
    parser.add_argument("--wheels", type=Path, default=ROOT / "build" / "wheels", help="where wheels are kept")
    given = parser.parse_args()
    for directory in (given.out, given.wheels):
        directory.mkdir(parents=True, exist_ok=True)
    wheels = fetch(pins(REQUIREMENTS.read_text()), given.wheels)
    single, listed = given.out / "restore-agent.pyz", given.out / "restore-agent.cdx.json"
    write(single, contents(wheels))
    found = re.search(r'__version__ = "(.+)"', (PACKAGE / "__init__.py").read_text())
    assert found
    sha256 = hashlib.sha256(single.read_bytes()).hexdigest()
    listed.write_text(json.dumps(bill_of_materials(wheels, found[1], sha256), indent=2) + "\n")
    for path in (single, listed):
        print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path}")


if __name__ == "__main__":
    main()
