"""Build dist/restore-agent-linux-MACHINE, its list of contents, and its SHA-256; called by scripts/build-executable."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from zipapp import PACKAGE, REQUIREMENTS, ROOT, Pin, Wheel, fetch, pins

from .bill import bill, checksum_line
from .bundle import Bundle, machine, unpack_archives
from .debian import (
    ASSEMBLER,
    HEADERS,
    LIBRARIES,
    PYTHON,
    STANDARD_LIBRARY,
    Debian,
    Package,
    compare_with_pins,
    pin,
    require_release,
    unpack,
    unpack_source,
)
from .native import Native, compiler

_SOURCES = Path(__file__).with_name("sources.txt")


def main() -> None:
    """Build the files and print their names and hashes."""
    given = _parser().parse_args()
    require_release()
    for directory in (given.out, given.downloads):
        directory.mkdir(parents=True, exist_ok=True)
    packages = _packages(Debian(given.downloads), given.offline)
    if given.pin:
        pin(packages)
    compare_with_pins(packages, strict=given.strict)
    target = given.out / f"restore-agent-linux-{machine()}"
    wheels = fetch(pins(REQUIREMENTS.read_text()), given.downloads)
    with tempfile.TemporaryDirectory(prefix="restore-agent-build-") as work:
        _build(Path(work), target, wheels, packages, _archives(given.downloads))
    _describe(target, wheels, packages)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/build-executable", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="where to; default dist/")
    parser.add_argument(
        "--downloads", type=Path, default=ROOT / "build" / "executable", help="where downloads are kept"
    )
    parser.add_argument("--offline", action="store_true", help="use the lists of packages as they are")
    parser.add_argument("--strict", action="store_true", help="refuse packages other than the pinned ones")
    parser.add_argument("--pin", action="store_true", help="record the versions and hashes of the packages")
    return parser


def _packages(debian: Debian, offline: bool) -> list[Package]:
    if not offline:
        debian.update()
    packages = debian.packages((*LIBRARIES, *STANDARD_LIBRARY, *HEADERS, *(ASSEMBLER if machine() == "x86_64" else ())))
    version = next(package.version for package in packages if package.name == f"lib{PYTHON}-dev")
    source = debian.source(version)
    if source.version != version:
        print(f"modules from the source of {PYTHON} {source.version}, the library is {version}", file=sys.stderr)
    return [*packages, source]


def _archives(downloads: Path) -> list[Path]:
    """Download the source archives of packages with compiled modules, unless they are there already."""
    wanted = pins(_SOURCES.read_text())
    found = [_archive(one, downloads) for one in wanted]
    if None in found:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--no-binary=:all:", "--require-hashes", f"--dest={downloads}", f"--requirement={_SOURCES}"]
        subprocess.run(command, check=True, stdout=sys.stderr)
        found = [_archive(one, downloads) for one in wanted]
    return [path for path in found if path]


def _archive(wanted: Pin, downloads: Path) -> Path | None:
    path = downloads / f"{wanted.name}-{wanted.version}.tar.gz"
    if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == wanted.sha256:
        return path
    return None


def _build(work: Path, target: Path, wheels: list[Wheel], packages: list[Package], archives: list[Path]) -> None:
    root, python, sources = work / "root", work / "python", work / "sources"
    unpack(packages[:-1], root)
    unpack_source(packages[-1], python)
    unpack_archives(archives, sources)
    program, interpreter = Native(work, root, python, sources).build()
    bundle = Bundle(work / "bundle")
    bundle.add_all(root, sources, wheels, packages)
    bundle.append_to(program, interpreter, root, target)


def _describe(target: Path, wheels: list[Wheel], packages: list[Package]) -> None:
    found = re.search(r'__version__ = "(.+)"', (PACKAGE / "__init__.py").read_text())
    assert found
    sha256 = hashlib.sha256(target.read_bytes()).hexdigest()
    listed, sums = target.with_name(f"{target.name}.cdx.json"), target.with_name(f"{target.name}.sha256")
    document = bill(wheels, pins(_SOURCES.read_text()), packages, (found[1], sha256), compiler())
    listed.write_text(json.dumps(document, indent=2) + "\n")
    sums.write_text(checksum_line(target, sha256))
    for path in (target, listed):
        print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path}")


if __name__ == "__main__":
    main()
