"""Lists of snapshots and restore jobs, and results of checks, as text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from datetime import datetime

from ...core.events import CheckDone, JobListed, SnapshotListed
from ...core.untrusted import printable
from ..wording import size_text, time_text
from .columns import Column, table

_SNAPSHOTS = (
    Column("SNAPSHOT"),
    Column("CREATED (UTC)", "created"),
    Column("RESTORABLE", "restorable:"),
    Column("SIZE", "size", right=True),
    Column("MONGODB", "MongoDB"),
    Column("EXPIRES IN", "expires in", right=True),
    Column("WHY NOT"),
)

_JOBS = (
    Column("JOB"),
    Column("CREATED (UTC)", "created"),
    Column("STATUS", "status"),
    Column("DELIVERY", "delivery"),
    Column("EXPIRES IN", "expires in", right=True),
    Column("BATCH", "batch"),
    Column("CLUSTER", "cluster"),
    Column("SNAPSHOT", "snapshot"),
    Column("FILE"),
)

_REQUESTED = (Column("JOB"), Column("CLUSTER", "cluster"), Column("STATUS", "status"))

_MARKS = {True: "ok", False: "FAILED", None: "-"}


def snapshot_rows(snapshots: Sequence[SnapshotListed], width: int, now: float) -> list[str]:
    """Return the table of snapshots. `now` is the server's time in seconds since the epoch."""
    rows = [_snapshot_cells(snapshot, now) for snapshot in snapshots]
    return table(_SNAPSHOTS, rows, width) if rows else ["No snapshots."]


def _snapshot_cells(snapshot: SnapshotListed, now: float) -> tuple[str, ...]:
    return (
        _cell(snapshot.snapshot_id),
        _minute(snapshot.created),
        "yes" if snapshot.restorable else "no",
        size_text(snapshot.bytes) if snapshot.bytes is not None else "-",
        _cell(snapshot.mongodb_version),
        _left(snapshot.expires, now),
        ", ".join(_defects(snapshot)),
    )


def _defects(snapshot: SnapshotListed) -> Iterable[str]:
    if not snapshot.complete:
        yield "incomplete"
    if snapshot.possibly_inconsistent:
        yield "inconsistent"
    if snapshot.missing_shards:
        yield f"misses {_cell(', '.join(snapshot.missing_shards))}"


def job_rows(jobs: Sequence[JobListed], width: int, now: float) -> list[str]:
    """Return the table of restore jobs. `now` is the server's time in seconds since the epoch."""
    rows = [
        (
            _cell(job.job_id),
            _minute(job.created),
            _cell(job.status),
            _cell(job.delivery_status),
            _left(job.expires, now),
            _cell(job.batch_id, ""),
            _cell(job.cluster_id, ""),
            _cell(job.snapshot_id, ""),
            _cell(job.file_name, ""),
        )
        for job in jobs
    ]
    return table(_JOBS, rows, width) if rows else ["No restore jobs."]


def requested_rows(jobs: Sequence[JobListed], width: int) -> list[str]:
    """Return the table of the jobs that a request created."""
    return table(_REQUESTED, [(_cell(job.job_id), _cell(job.cluster_id), _cell(job.status)) for job in jobs], width)


def check_rows(done: CheckDone, width: int) -> list[str]:
    """Return the result of one check; only its first line is not indented."""
    first = f"{_MARKS[done.ok]:<7} {done.check:<8} "
    text = first + printable(done.detail, 10_000)
    indent = " " * len(first)
    return textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)


def _cell(text: str | None, none: str = "-") -> str:
    return printable(text, 120) if text else none


def _minute(moment: str | None) -> str:
    """Return a moment without its seconds: `2026-11-25 03:00`."""
    return f"{moment[:10]} {moment[11:16]}" if moment else "-"


def _left(moment: str | None, now: float) -> str:
    if moment is None:
        return "-"
    left = datetime.fromisoformat(moment).timestamp() - now
    return time_text(left) if left > 0 else "past"
