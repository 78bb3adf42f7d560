"""Progress bars and plain progress lines."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

from tqdm import tqdm

from ..core.events import ArchiveProgress
from ..core.untrusted import printable
from .terminal import terminal_size
from .wording import NARROW, percent, shortened, size_text, time_text, total_text, unpacked_text, waiting_text

_ACTIVE = ("downloading", "hashing", "unpacking")

_PLAIN_EVERY = 30.0  # seconds between two plain progress lines


class PlainLines:
    """Progress as a line every 30 seconds, for pipes and logs."""

    def __init__(self, log: Callable[[list[str]], None]) -> None:
        self._log = log
        self._due = time.monotonic() + _PLAIN_EVERY

    def show(self, archives: tuple[ArchiveProgress, ...]) -> None:
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + _PLAIN_EVERY
        for row in archives:
            if row.state in _ACTIVE:
                self._log([f"{row.file_name}: {row.state}, {_plain_facts(row)}"])
        if waiting := waiting_text(archives):
            self._log([waiting])
        if len(archives) > 1:
            self._log([_total(archives)])

    def close(self) -> None:
        pass


class Bars:
    """Rows at the bottom of a terminal: one for the waiting jobs, then one per archive in progress.

    A row is not bound to an archive: each shows the archive at its position, so that only the last rows are ever
    removed and no blank row remains between others. The last row is the total of several archives.
    """

    _SHOWN = 12  # bars at most, so that a large batch does not fill the terminal

    def __init__(self, err: TextIO) -> None:
        self._err = err
        self._rows: list[tqdm[Any]] = []
        self._shown_any = False

    def show(self, archives: tuple[ArchiveProgress, ...]) -> None:
        self._shown_any = True
        columns, lines = terminal_size(self._err)
        active = [row for row in archives if row.state in _ACTIVE]
        active.sort(key=lambda row: row.state)  # downloads first, then archives that wait for their hash
        most = max(1, min(self._SHOWN, lines // 2))
        shown = [(_bar_format(row, columns), row.bytes, row.total_bytes) for row in active[:most]]
        if waiting := waiting_text(archives):
            shown.insert(0, (_text_format(waiting, columns), 0, None))
        if len(active) > most:
            shown.append((_text_format(f"and {len(active) - most} more in progress", columns), 0, None))
        if len(archives) > 1:
            shown.append((_text_format(_total(archives), columns), 0, None))
        self._draw(shown, columns)

    def _draw(self, shown: list[tuple[str, int, int | None]], columns: int) -> None:
        """Show rows: format for tqdm, bytes, total bytes."""
        self._drop(len(shown))
        for layout, done, total in shown[len(self._rows) :]:
            fixed: dict[str, Any] = {"file": self._err, "leave": False}
            self._rows.append(tqdm(total=total, initial=done, bar_format=layout, ncols=columns, **fixed))
        for bar, (layout, done, total) in zip(self._rows, shown, strict=True):
            bar.ncols, bar.total, bar.n, bar.bar_format = columns, total, done, layout
            bar.refresh()

    def _drop(self, left: int) -> None:
        while len(self._rows) > left:
            self._rows.pop().close()

    def write(self, lines: list[str]) -> None:
        """Log lines above the bars."""
        for line in lines:
            with suppress(OSError, ValueError):
                tqdm.write(line, file=self._err)

    def close(self) -> None:
        if not self._shown_any:
            return
        self._drop(0)
        with suppress(OSError, ValueError):
            self._err.write("\r\x1b[J")  # the cursor is at the end of the last bar, perhaps after an echoed ^C
            self._err.flush()


def _total(archives: tuple[ArchiveProgress, ...]) -> str:
    return total_text([vars(row) for row in archives])


def _bar_format(row: ArchiveProgress, columns: int) -> str:
    """Return the row of one archive as a format for tqdm; without a bar if the terminal is narrow."""
    wide = columns >= NARROW
    width = 28 if wide else max(8, columns - 25)
    name = row.file_name or row.job_id
    name = _text_format(name if wide else name.removesuffix(".tar.gz"), width).ljust(width)
    done, speed = size_text(row.bytes), f"{size_text(row.bytes_per_second)}/s"
    if row.state == "hashing" and row.bytes == (row.total_bytes or row.bytes):
        details = f"{done:>10}  {'waiting for the published hash' if wide else 'awaits hash'}"
    elif row.state == "unpacking":
        share = f" {percent(row.unpacked_bytes, row.bytes)}" if row.unpacked_bytes and row.bytes else ""
        details = f"{done:>10}  unpacking{share}"
    elif not row.total_bytes:
        size = "size unknown" if row.bytes else "no byte yet"
        details = f"{done:>10} {speed:>12}{'  ' + size if wide else ''}"
    else:
        left = (row.total_bytes - row.bytes) / row.bytes_per_second if row.bytes_per_second else None
        eta = "--" if left is None else time_text(left)
        bar = f"|{{bar}}| {done:>9} {speed:>12} {eta:>7}" if wide else f" {speed:>12} {eta:>6}"
        details = f"{{percentage:3.0f}}%{bar}"
    return f"{name} {details}"


def _plain_facts(row: ArchiveProgress) -> str:
    if row.state == "unpacking":
        return f"{size_text(row.unpacked_bytes or 0)} of {size_text(row.bytes)}"
    of = f" of {size_text(row.total_bytes)}" if row.total_bytes else ""
    unpacked = "" if row.unpacked_bytes is None else f", {unpacked_text(row.unpacked_bytes, row.total_bytes)}"
    return f"{size_text(row.bytes)}{of}, {size_text(row.bytes_per_second)}/s{unpacked}"


def _text_format(text: str, columns: int) -> str:
    """Return `text` in at most `columns` columns, escaped for the format of tqdm."""
    return shortened(printable(text), columns).replace("{", "{{").replace("}", "}}")
