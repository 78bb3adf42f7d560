"""Output streams and their width."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO

from ..core.errors import OutputUnwritable

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


def write_lines(text: str, file: TextIO) -> None:
    """Print lines. sys.stdout has the product of a command: if it fails, OutputUnwritable is raised.

    Errors of other streams are ignored: a closed pipe must not end a run or change its exit code.
    """
    try:
        print(text, file=file, flush=True)
    except (OSError, ValueError) as error:
        with suppress(OSError, ValueError):  # what the stream still holds must not fail again at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())
        if file is sys.stdout and not isinstance(error, BrokenPipeError):  # `| head` has what it wants
            reason = getattr(error, "strerror", None) or "it is closed"
            raise OutputUnwritable(f"cannot write the output: {reason}") from None


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
