"""Text of the report: counts, times, and characters from outside made visible."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime

UNKNOWN = "unknown"

_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")  # control, format (bidirectional, zero width), line breaks

_MARKS = re.compile("[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]{3,}")


def visible(text: str, limit: int = 400) -> str:
    """Return `text` on one line, at most `limit` characters of it, with invisible characters as `\\xNN`."""
    kept = text if len(text) <= limit else text[: limit - 1] + "…"
    kept = _MARKS.sub(lambda match: _escaped(match.group()), kept)  # stacked marks would cover other lines
    return "".join(_escaped(char) if unicodedata.category(char) in _HIDDEN else char for char in kept)


def _escaped(text: str) -> str:
    return text.encode("unicode_escape", "surrogatepass").decode()


def counted(number: int, noun: str) -> str:
    """Return `1 archive`, `2 archives`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def be(number: int) -> str:
    """Return `is` or `are`."""
    return "is" if number == 1 else "are"


def width_of(text: str) -> int:
    """Return the columns that a text takes in a terminal."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(unicodedata.combining(char) > 0 for char in text)


def cut(text: str, width: int) -> str:
    """Return `text` in `width` columns, its middle left out: the ends of archive names tell them apart."""
    if width_of(text) <= width:
        return text
    head, tail = "", ""
    while width_of(head + text[len(head)]) <= (width - 1) * 2 // 3:
        head += text[len(head)]
    while width_of(text[-len(tail) - 1] + tail) + width_of(head) + 1 <= width:
        tail = text[-len(tail) - 1] + tail
    return f"{head}…{tail}"


def moment(seconds: float | None, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """Return a time in UTC, or `unknown`."""
    return UNKNOWN if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime(form)


def epoch(text: str | None) -> float | None:
    """Return seconds since the epoch of an RFC 3339 time, or None if it is not one."""
    try:
        read = datetime.fromisoformat(text or "")
        return read.timestamp() if read.tzinfo else None
    except (ValueError, OverflowError):
        return None


def rewritten(text: str | None) -> str:
    """Return an RFC 3339 time as `moment` writes it, other text as it is, and `unknown` for None."""
    seconds = epoch(text)
    return text or UNKNOWN if seconds is None else moment(seconds)


def labels(names: Sequence[str]) -> list[str]:
    """Return short labels for archives: without extension, and without the words that all of them begin with."""
    bare = [re.sub(r"\.(tar\.gz|tgz|tar)$", "", visible(name)) for name in names]
    shared = re.sub(r"[^-_.]*$", "", _common_start(bare)) if len(set(bare)) > 1 else ""
    return [f"…{name[len(shared) :]}" if len(shared) > 3 else name for name in bare]


def _common_start(names: Sequence[str]) -> str:
    first, last = min(names), max(names)
    return first[: next((place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]
