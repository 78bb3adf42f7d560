"""Tables of many rows: aligned columns, as many as fit the width; the other cells are shown below their row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_GAP = "  "

_INDENT = " " * 4


@dataclass(frozen=True)
class Column:
    """One column: its heading, the words before a cell that stands below its row, and the alignment."""

    heading: str
    label: str = ""
    right: bool = False


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Return the lines of a table; none is longer than `width`, unless a single cell is.

    Columns from the first that does not fit are shown below each row as `label cell`, without empty cells and `-`.
    """
    widths = [max([len(column.heading), *(len(row[n]) for row in rows)]) for n, column in enumerate(columns)]
    beside = 1
    while beside < len(columns) and sum(widths[: beside + 1]) + len(_GAP) * beside <= width:
        beside += 1
    lines = [_line(columns[:beside], [column.heading for column in columns], widths)]
    for row in rows:
        lines.append(_line(columns[:beside], row, widths))
        lines += _below(columns[beside:], row[beside:], width)
    return lines


def _line(columns: Sequence[Column], cells: Sequence[str], widths: Sequence[int]) -> str:
    parts = [
        f"{cell:>{size}}" if column.right else f"{cell:<{size}}"
        for column, cell, size in zip(columns, cells, widths, strict=False)
    ]
    return _GAP.join(parts).rstrip()


def _below(columns: Sequence[Column], cells: Sequence[str], width: int) -> list[str]:
    """Return the cells that do not fit beside the others; a pair of label and cell is not broken."""
    pairs = [f"{column.label} {cell}".strip() for column, cell in zip(columns, cells, strict=True) if cell.strip("-")]
    lines: list[str] = []
    for pair in pairs:
        if lines and len(lines[-1]) + 2 + len(pair) <= width:
            lines[-1] += f", {pair}"
        else:
            lines.append(_INDENT + pair)
    return lines
