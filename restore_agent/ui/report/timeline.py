"""Timeline of a batch: one lane an archive, with phases and a time axis as fractions of the whole span. No I/O."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..wording import time_text
from .rows import standing_text
from .values import Row, Standing
from .wording import UNKNOWN, labels, moment

PHASES = ("waited", "downloaded", "waited for the hash", "unpacked")

_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)

_MOST_TICKS = 4

_DAY = 86400

_ENDED = (Standing.VERIFIED, Standing.TWICE, Standing.NOT_UNPACKED)


@dataclass(frozen=True)
class Segment:
    """One phase of one archive; `start` and `width` are fractions of the span, `seconds` its length."""

    phase: str
    start: float
    width: float
    seconds: float


@dataclass(frozen=True)
class Lane:
    """One archive: its row, a short label, and its phases in order; none where the receipt has no moments."""

    row: Row
    label: str
    segments: tuple[Segment, ...]

    @property
    def length(self) -> str:
        """Length of all phases together, or why the lane ends early."""
        if self.row.standing not in _ENDED:
            return standing_text(self.row)
        return time_text(sum(segment.seconds for segment in self.segments)) if self.segments else UNKNOWN


@dataclass(frozen=True)
class Timeline:
    """Lanes and axis. `ticks` are (fraction, label); `start` and `seconds` describe the span."""

    lanes: tuple[Lane, ...]
    ticks: tuple[tuple[float, str], ...]
    start: float
    seconds: float

    @property
    def known(self) -> bool:
        """Whether any archive has moments."""
        return any(lane.segments for lane in self.lanes)


def timeline(rows: Sequence[Row]) -> Timeline:
    """Return the timeline of all rows but the skipped ones, in order of their first moment."""
    spans = [(row, _phases(row)) for row in rows if row.standing is not Standing.SKIPPED]
    edges = [edge for _, phases in spans for _, start, end in phases for edge in (start, end)]
    start, seconds = (min(edges), max(max(edges) - min(edges), 0.001)) if edges else (0.0, 0.001)
    ordered = sorted(spans, key=lambda span: (not span[1], span[1][0][1] if span[1] else 0.0, span[0].archive.name))
    names = labels([row.archive.name for row, _ in ordered])
    lanes = tuple(
        Lane(row, name, tuple(Segment(phase, (a - start) / seconds, (b - a) / seconds, b - a) for phase, a, b in found))
        for (row, found), name in zip(ordered, names, strict=True)
    )
    return Timeline(lanes, _ticks(start, seconds) if edges else (), start, seconds)


def _phases(row: Row) -> list[tuple[str, float, float]]:
    """Return (phase, start, end). A moment that is unknown, or before an earlier one, ends no phase."""
    moments, began = row.archive.moments, row.archive.host.started
    first = moments.download_started
    if first is not None and (began is None or began > first):  # an earlier run downloaded it
        began = moments.ready if moments.ready is not None and moments.ready < first else None
    points = [began, first, moments.downloaded, moments.verified, moments.unpacked]
    found: list[tuple[str, float, float]] = []
    latest = -math.inf
    for phase, (start, end) in zip(PHASES, pairwise(points), strict=True):
        if start is not None and end is not None and latest <= start <= end:
            found.append((phase, start, end))
            latest = end
    return [one for one in found if one[2] > one[1]] if any(end > start for _, start, end in found) else []


def _ticks(start: float, seconds: float) -> tuple[tuple[float, str], ...]:
    """Return at most five ticks at round times, each at a fraction of the span."""
    step = next(
        (step for step in _STEPS if seconds / step <= _MOST_TICKS), math.ceil(seconds / _MOST_TICKS / _DAY) * _DAY
    )
    form = "%H:%M:%S" if step < 60 else "%H:%M"
    if moment(start, "%j") != moment(start + seconds, "%j") or seconds > _DAY:
        form = "%m-%d %H:%M"
    first = math.ceil(start / step) * step
    marks = [first + number * step for number in range(int((start + seconds - first) // step) + 1)]
    return tuple(((mark - start) / seconds, moment(mark, form)) for mark in marks)
