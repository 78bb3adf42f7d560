"""The CycloneDX list of what is in the executable."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any
from zipapp import Pin, Wheel, bill_of_materials, hashes

from .debian import PYTHON, Package

# What Debian's packages bring into the program, and its license as an SPDX expression.
_LINKED = {
    "libc6-dev": "LGPL-2.1-or-later",
    "libexpat1-dev": "MIT",
    f"lib{PYTHON}-dev": "PSF-2.0",
    f"lib{PYTHON}-minimal": "PSF-2.0",
    f"lib{PYTHON}-stdlib": "PSF-2.0",
    "libssl-dev": "Apache-2.0",
    "zlib1g-dev": "Zlib",
    PYTHON: "PSF-2.0",
    "libgcc-12-dev": "GPL-3.0-or-later WITH GCC-exception-3.1",
}
_ARCHIVES = {"isal": "PSF-2.0 AND BSD-3-Clause"}
_BUILT_WITH = "restore-agent:builtWith"


def bill(
    wheels: list[Wheel], archives: list[Pin], packages: list[Package], program: tuple[str, str], compiler: str
) -> dict[str, Any]:
    """Return the list of contents. `program` is its version and its SHA-256. There is no time in it."""
    version, sha256 = program
    listed = bill_of_materials(wheels, version, sha256)
    listed["components"] += [_archive(pin) for pin in archives]
    listed["components"] += [_package(package) for package in packages if package.name in _LINKED]
    ours = listed["metadata"]["component"]
    listed["dependencies"][0]["dependsOn"] = sorted(entry["bom-ref"] for entry in listed["components"])
    listed["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, sha256)}"
    ours["properties"] = [{"name": _BUILT_WITH, "value": compiler}]
    ours["properties"] += [
        {"name": _BUILT_WITH, "value": _purl(package)} for package in packages if package.name not in _LINKED
    ]
    return listed


def _archive(pin: Pin) -> dict[str, Any]:
    entry = {"type": "library", "bom-ref": pin.purl, "name": pin.name, "version": pin.version, "scope": "required"}
    return entry | {
        "hashes": hashes(pin.sha256),
        "licenses": [{"expression": _ARCHIVES[pin.name]}],
        "purl": pin.purl,
    }


def _package(package: Package) -> dict[str, Any]:
    entry = {"type": "library", "bom-ref": _purl(package), "name": package.name, "version": package.version}
    return entry | {
        "scope": "required",
        "hashes": hashes(package.sha256),
        "licenses": [{"expression": _LINKED[package.name]}],
        "purl": _purl(package),
    }


def _purl(package: Package) -> str:
    arch = "source" if package.path.suffix == ".dsc" else package.path.stem.rpartition("_")[2]
    return f"pkg:deb/debian/{package.name}@{package.version.replace('+', '%2B').replace(':', '%3A')}?arch={arch}"


def checksum_line(path: Path, sha256: str) -> str:
    """Return the line that `sha256sum -c` reads."""
    return f"{sha256}  {path.name}\n"
