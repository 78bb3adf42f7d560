"""Sizes, times and shortened names as text."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from ..core.events import ArchiveProgress

UNFINISHED = ("waiting", "downloading", "hashing", "unpacking")
"""States of an archive that has no verdict yet."""

NARROW = 72  # columns: below this, a bar does not fit next to name, bytes, rate, and time left


def size_text(size: float | None) -> str:
    """Return bytes as text, in powers of 1024: `1.5 GiB`."""
    if size is None:
        return "?"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def with_sizes(text: str) -> str:
    """Return a message with each large number of bytes in a unit as well: `314572800 bytes (300.0 MiB)`."""
    return _LARGE.sub(lambda found: f"{found[0]} ({size_text(int(found[1]))})", text)


_LARGE = re.compile(r"\b([1-9]\d{5,17}) bytes\b(?!/)")


def time_text(seconds: float) -> str:
    """Return seconds as text: `45s`, `12m05s`, `3h10m`, `2d04h`."""
    whole = max(0, int(seconds))
    for unit, below, length in (("d", "h", 86400), ("h", "m", 3600), ("m", "s", 60)):
        if whole >= length:
            rest = (whole % length) // {"h": 3600, "m": 60, "s": 1}[below]
            return f"{whole // length}{unit}{rest:02d}{below}"
    return f"{whole}s"


def percent(done: int, total: int) -> str:
    """Return a share in whole percent, rounded down: `31%`."""
    return f"{min(100, 100 * done // total) if total else 0}%"


def unpacked_text(unpacked: int, total: int | None) -> str:
    """Return how much of an archive of `total` bytes is unpacked, as a share of it; as bytes if they are not known."""
    return f"unpacked {percent(unpacked, total)}" if total else f"unpacked {size_text(unpacked)}"


def shortened(text: str, width: int) -> str:
    """Return `text` in `width` columns without its middle, because archive names differ at their ends."""
    if len(text) <= width:
        return text
    head = (width - 1) * 2 // 3
    return text[:head] + "…" + text[len(text) - (width - 1 - head) :]


def folded(text: str, width: int) -> list[str]:
    """Return `text` in lines of `width` columns, the later ones indented below the first word after the time.

    A number stays with its unit. A longer word, such as a path, is not broken, so that it can be copied, unless the
    terminal is narrow; there, the indent is so small that the name of an archive fits.
    """
    narrow = width < NARROW
    wrapper = textwrap.TextWrapper(
        width,
        subsequent_indent="  " if narrow else " " * 9,
        break_on_hyphens=False,
        break_long_words=narrow,
    )
    return [line.replace(_NO_BREAK_SPACE, " ") for line in wrapper.wrap(_UNIT.sub(rf"\1{_NO_BREAK_SPACE}\2", text))]


_NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"

_UNIT = re.compile(r"(\d) (B\b|[KMGT]iB|bytes\b|s\b)")


def waiting_text(archives: tuple[ArchiveProgress, ...]) -> str | None:
    """Return one line about the waiting jobs: their number, statuses, and the first expiry; None without any."""
    waiting = [row for row in archives if row.state == "waiting"]
    if not waiting:
        return None
    statuses: dict[str, int] = {}
    for row in waiting:
        statuses[row.delivery_status or "not started"] = statuses.get(row.delivery_status or "not started", 0) + 1
    said = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))
    expiries = [row.expires_in for row in waiting if row.expires_in is not None]
    tightest = f"; first expires in {time_text(min(expiries))}" if expiries and min(expiries) > 0 else ""
    return f"waiting for {len(waiting)} {'job' if len(waiting) == 1 else 'jobs'}: {said}{tightest}"


def total_text(archives: Iterable[Mapping[str, Any]], *, running: bool = True) -> str:
    """Return one line about all archives: how many are finished, bytes, and, while it runs, rate and time left.

    Each mapping has `state`, `bytes`, `total_bytes`, and `bytes_per_second`.
    """
    rows = list(archives)
    if not running:
        return _final_total(rows)
    finished = sum(row["state"] not in UNFINISHED for row in rows)
    parts = [f"total: {finished} of {len(rows)} finished"]
    done = sum(row["bytes"] or 0 for row in rows)
    totals = [row["total_bytes"] if row["state"] in UNFINISHED else row["bytes"] for row in rows]
    known = all(total is not None for total in totals)
    total = sum(size or 0 for size in totals)
    if known and total:
        parts.append(f"{percent(done, total)} ({size_text(done)} of {size_text(total)})")
    elif done:
        parts.append(f"{size_text(done)} so far")
    rate = sum(row["bytes_per_second"] or 0 for row in rows if row["state"] == "downloading")
    if rate:
        parts.append(f"{size_text(rate)}/s")
        if known and total > done:
            parts.append(f"{time_text((total - done) / rate)} left")
    return ", ".join(parts)


def _final_total(rows: list[Mapping[str, Any]]) -> str:
    states: dict[str, int] = {}
    for row in rows:
        state = "stopped" if row["state"] in UNFINISHED else str(row["state"])
        states[state] = states.get(state, 0) + 1
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items(), key=lambda item: -item[1]))
    return f"total: {len(rows)} archives, {counts}, {size_text(sum(row['bytes'] or 0 for row in rows))} on disk"
