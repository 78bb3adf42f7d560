"""Replacement of files that other programs read at the same time."""

from __future__ import annotations

import os
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
