"""Events as log lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...core.events import (
    ArchiveFinished,
    Downloaded,
    DownloadStarted,
    Event,
    JobSeen,
    Notice,
    RetryScheduled,
    RunFailed,
    RunStarted,
    Trouble,
)
from ...core.receipt import ArchiveRecord
from ..wording import size_text, time_text, with_sizes

ERROR, WARNING, INFO = 3, 4, 6
"""Priorities of sd-daemon(3)."""


def lines_of(event: Event, command: str) -> list[str]:
    """Return an event as log lines: several for an error, none if it is not worth one."""
    match event:
        case ArchiveFinished(problem=problem) if problem:
            return problem_lines(problem)
        case RunFailed():
            return problem_lines(event.problem)
        case RunStarted():
            return [_start(event, command)]
        case _:
            text = _sentence(event)
            return [text] if text else []


def priority_of(event: Event) -> int:
    """Return the priority of an event for the journal of systemd."""
    match event:
        case RunFailed():
            return ERROR
        case ArchiveFinished(problem=problem) if problem:
            return ERROR
        case RetryScheduled() | Trouble(over=False):
            return WARNING
        case Notice(level=level) if level != "info":
            return WARNING
        case _:
            return INFO


def problem_lines(problem: Mapping[str, Any]) -> list[str]:
    """Return an error as lines: what happened, files on disk, whether a download was spent, and the next step."""
    archive = f"{problem['file_name']}: " if problem["file_name"] else ""
    lines = [f"error: {archive}{with_sizes(problem['message'])} [{problem['id']}]"]
    if problem["on_disk"]:
        lines.append(f"  on disk: {with_sizes(problem['on_disk'])}")
    if problem["download_spent"] is not None:
        lines.append(f"  download spent: {'yes' if problem['download_spent'] else 'no'}")
    lines.append(f"  next: {problem['hint']}")
    return lines


def _start(event: RunStarted, command: str) -> str:
    if command == "verify":
        origin = f", which were downloaded from {event.ops_manager}" if event.ops_manager else ""
        return f"verifying the archives in {event.dest}{origin}"
    return f"Ops Manager {event.ops_manager or 'unknown'}, destination {event.dest}"


def _sentence(event: Event) -> str | None:
    match event:
        case JobSeen() if event.step != "download":  # a download has its own event
            name = event.file_name or f"job {event.job_id}"
            statuses = f"job {event.status or '-'}, delivery {event.delivery_status or '-'}"
            return f"{name}: {statuses}: {event.step} ({event.reason})"
        case DownloadStarted():
            begin = f"resuming at {size_text(event.offset)}" if event.offset else "downloading"
            return f"{event.file_name}: {begin} from {event.url.split('/…/')[0]}, attempt {event.attempt}"
        case RetryScheduled():
            spent = "a download may be spent" if event.download_spent else "no download was spent"
            after = f"{size_text(event.received)} on disk, {spent}, next attempt in {time_text(event.wait)}"
            return f"{event.file_name}: {with_sizes(event.message)} ({after})"
        case Downloaded():
            return _downloaded(event)
        case ArchiveFinished():
            return f"{name_of(event.record)}: {event.record.verdict}"
        case Trouble():
            return _trouble(event)
        case Notice():
            return event.message if event.level == "info" else f"warning: {with_sizes(event.message)}"
        case _:
            return None


def _downloaded(event: Downloaded) -> str:
    """Return the size and the rate, which counts the bytes of this transfer only."""
    resumed = f", of which {size_text(event.received)} now" if event.received != event.bytes else ""
    rate = f" ({size_text(event.received / event.seconds)}/s)" if event.seconds > 0 else ""
    return (
        f"{event.file_name}: {size_text(event.bytes)}{resumed} in {event.seconds:.1f} s{rate}, "
        "waiting for the published hash"
    )


def _trouble(event: Trouble) -> str:
    if event.over:
        return with_sizes(event.message)
    soon = f"; next attempt in {time_text(event.next_in)}" if event.next_in is not None else ""
    until = f"; retrying until {clock_text(event.until)}" if event.until else ""
    return f"warning: {with_sizes(event.message).rstrip('.')}{soon}{until}"


def clock_text(moment: str) -> str:
    """Return the time of day of an RFC 3339 moment in UTC: `23:10:05 UTC`."""
    return f"{moment[11:19]} UTC"


def name_of(record: ArchiveRecord) -> str:
    """Return the file name of an archive, or its job."""
    return record.file_name or f"job {record.job_id}"
