"""Output streams and their width."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TextIO

WIDTH = 80


def terminal_size(stream: TextIO) -> tuple[int, int]:
    """Return columns and lines to use on a terminal, 80 by 24 if its size is unknown.

    Three columns stay free, because the `^C` that the terminal echoes would wrap and displace the bars.
    """
    try:
        columns, lines = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        columns, lines = 0, 0
    return max(20, (columns or WIDTH) - 3), lines or 24


def write_lines(text: str, file: TextIO) -> Exception | None:
    """Print lines. A closed pipe or a full disk must not end a run or change its exit code: the error is returned."""
    try:
        print(text, file=file, flush=True)
    except (OSError, ValueError) as error:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())
        return error
    return None


def output_width(stream: TextIO) -> int:
    """Return the columns for results: those of the terminal, at least 80; 80 elsewhere."""
    return max(WIDTH, terminal_size(stream)[0]) if stream.isatty() else WIDTH


def is_systemd_journal(stream: TextIO) -> bool:
    """Return whether a stream is the journal of systemd: JOURNAL_STREAM contains its device and inode."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
