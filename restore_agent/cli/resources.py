"""Files of `restore_agent/share/`: documents, manual pages, units, rules. They are readable inside a zip file."""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from ..core.errors import UsageError
from ..core.untrusted import printable
from ..ui.files import replace_file


def share() -> Traversable:
    """Return the directory `restore_agent/share/`."""
    return resources.files("restore_agent").joinpath("share")


def shipped_text(*path: str) -> str:
    """Return a text file below `restore_agent/share/`. Raises FileNotFoundError."""
    return share().joinpath(*path).read_text(encoding="utf-8")


def extract(name: str, directory: Path) -> None:
    """Copy `restore_agent/share/name` to `directory/name`. Raises UsageError if it cannot be written."""
    _copy(share().joinpath(name), directory / name)


def _copy(source: Traversable, target: Path) -> None:
    if source.name == "__pycache__":
        return
    if source.is_dir():
        for entry in source.iterdir():
            _copy(entry, target / entry.name)
    else:
        write_file(target, source.read_bytes())


def write_file(path: Path, data: bytes) -> None:
    """Write a file that every user can read, completely or not at all. Raises UsageError if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data)
    except OSError as error:
        raise UsageError(f"cannot write {printable(str(path))}: {error.strerror}") from None
