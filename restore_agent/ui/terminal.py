"""Output streams and their width."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TextIO

WIDTH = 80


def terminal_size(stream: TextIO) -> tuple[int, int]:
    """Columns and lines to fill on a terminal, 80 by 24 where it does not say; three columns stay free, or the `^C`
    that the terminal echoes would wrap and push the bars out of place.
    """
    try:
        columns, lines = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        columns, lines = 0, 0
    return max(20, (columns or WIDTH) - 3), lines or 24


def say(text: str, file: TextIO) -> None:
    """Print a line. A reader that went away, or a full disk behind stdout, must not end a run or its exit code."""
    try:
        print(text, file=file, flush=True)
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())


def is_systemd_journal(stream: TextIO) -> bool:
    """Whether what is written here ends in systemd's journal: JOURNAL_STREAM names it by device and inode."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
