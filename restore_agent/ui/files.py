"""Replacement of files that other programs read at the same time."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def replace_file(path: Path, data: bytes) -> None:
    """Replace a file by one with mode 0644; a reader sees the old or the new one. Raises OSError.

    The file is not synced: its content can be produced again, and a sync would wait for the bytes of the archives.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # not *.prom, which node_exporter would read
    try:
        temporary.write_bytes(data)
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_page(path: Path, data: bytes) -> None:
    """Replace a file, completely or not at all, and sync it; write into a pipe or device. Raises OSError.

    A symbolic link is followed. The file gets the mode of any new file.
    """
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        with path.open("wb") as device:
            device.write(data)
        return
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name[:200]}.{os.getpid()}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
