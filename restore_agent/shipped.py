"""What the package holds beside code: units, alert rules, manual pages. Read as well from inside a zip file."""

from __future__ import annotations

import os
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from .errors import UsageError
from .redaction import printable

_PACKAGE = "restore_agent"


def shipped_text(*path: str) -> str:
    """A text file below `restore_agent/share/`."""
    return resources.files(_PACKAGE).joinpath("share", *path).read_text(encoding="utf-8")


def shipped_names(*path: str) -> list[str]:
    """The names in a directory below `restore_agent/share/`, sorted."""
    return sorted(entry.name for entry in resources.files(_PACKAGE).joinpath("share", *path).iterdir())


def package_directory() -> Path | None:
    """Where the package lies as plain files, or None inside a zip file."""
    place = resources.files(_PACKAGE)
    return place if isinstance(place, Path) else None


def extract(name: str, directory: Path) -> None:
    """Copy a directory of the package to `directory`/`name`. Raises UsageError when that cannot be written."""
    source = resources.files(_PACKAGE).joinpath(name)
    if not source.is_dir():
        raise UsageError(f"this package holds no {name}", hint="Install the whole package, or the single file.")
    _copy(source, directory / name)


def _copy(source: Traversable, target: Path) -> None:
    if source.name == "__pycache__":
        return
    if source.is_dir():
        for entry in source.iterdir():
            _copy(entry, target / entry.name)
    else:
        write_file(target, source.read_bytes())


def write_file(path: Path, data: bytes) -> None:
    """Write a file for everybody to read, whole or not at all. Raises UsageError when it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data)
    except OSError as error:
        raise UsageError(f"{printable(str(path))} cannot be written: {error.strerror}") from None


def replace_file(path: Path, data: bytes) -> None:
    """Replace a file by one with mode 0644 that a reader sees whole, old or new. Raises OSError.

    It is not synced: what is written here can be had again, and a sync would wait for the archives' bytes.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # not *.prom, which node_exporter would read
    try:
        temporary.write_bytes(data)
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
