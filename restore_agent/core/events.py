"""Events of a run. Consoles decide how to show them.

Each event is a frozen dataclass whose `name` is the `event` field of its JSON line. Times are seconds since the
epoch, sizes bytes, rates bytes per second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from .receipt import ArchiveRecord, Receipt


@dataclass(frozen=True)
class Event:
    """Something that happened. `job_id` is set where it concerns one restore job."""

    name: ClassVar[str] = "event"


@dataclass(frozen=True)
class RunStarted(Event):
    """A run begins; `ops_manager` is its origin and `dest` the absolute path."""

    name: ClassVar[str] = "started"
    ops_manager: str | None
    dest: str


@dataclass(frozen=True)
class JobSeen(Event):
    """A job was listed for the first time, or its statuses changed."""

    name: ClassVar[str] = "job"
    job_id: str
    file_name: str | None
    status: str | None
    delivery_status: str | None
    step: str
    reason: str
    expires_at: str | None


@dataclass(frozen=True)
class DownloadStarted(Event):
    """A GET of the delivery URL is about to be sent; `offset` above 0 is a resume."""

    name: ClassVar[str] = "download-started"
    job_id: str
    file_name: str
    attempt: int
    offset: int
    url: str


@dataclass(frozen=True)
class ArchiveProgress:
    """Where one archive stands: part of `Progress` and of the status file."""

    job_id: str
    file_name: str | None
    state: str
    bytes: int
    total_bytes: int | None
    bytes_per_second: int
    expires_at: str | None
    downloads_spent: int
    unpacked_bytes: int | None = None
    delivery_status: str | None = None
    expires_in: float | None = None


@dataclass(frozen=True)
class Progress(Event):
    """Where every archive stands, a few times a second."""

    name: ClassVar[str] = "progress"
    archives: tuple[ArchiveProgress, ...]


@dataclass(frozen=True)
class RetryScheduled(Event):
    """An attempt failed and another follows after `wait` seconds."""

    name: ClassVar[str] = "attempt-failed"
    job_id: str
    file_name: str
    attempt: int
    reason: str
    message: str
    received: int
    download_spent: bool
    wait: float


@dataclass(frozen=True)
class Downloaded(Event):
    """All bytes are on disk and synced; the hash is awaited."""

    name: ClassVar[str] = "downloaded"
    job_id: str
    file_name: str
    bytes: int
    sha1: str
    seconds: float
    received: int


@dataclass(frozen=True)
class Trouble(Event):
    """Ops Manager cannot be reached or answers with errors, and is asked again; or it answers again (`over`).

    `since` and `until` are RFC 3339; `next_in` is in seconds. After `until` the run ends with the error `reason`.
    """

    name: ClassVar[str] = "trouble"
    reason: str
    message: str
    since: str
    until: str | None
    next_in: float | None = None
    over: bool = False

    def fields(self) -> dict[str, Any]:
        """Return plain values for the status file."""
        return {"reason": self.reason, "message": self.message, "since": self.since, "until": self.until}


@dataclass(frozen=True)
class ArchiveFinished(Event):
    """The verdict on one archive, with what an operator needs to go on when it is not `verified`."""

    name: ClassVar[str] = "archive"
    job_id: str
    record: ArchiveRecord
    problem: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Notice(Event):
    """Something worth a line in the log; `level` is `info` or `warning`."""

    name: ClassVar[str] = "notice"
    level: str
    message: str
    job_id: str | None = None


@dataclass(frozen=True)
class RunFailed(Event):
    """The run ends with an error of its own, not of one archive."""

    name: ClassVar[str] = "error"
    problem: Mapping[str, Any]


@dataclass(frozen=True)
class SnapshotListed(Event):
    """One snapshot of a cluster. Times are RFC 3339; `bytes` is the sum of its parts, uncompressed."""

    name: ClassVar[str] = "snapshot"
    snapshot_id: str
    created: str | None
    complete: bool
    possibly_inconsistent: bool
    missing_shards: tuple[str, ...]
    restorable: bool
    bytes: int | None
    mongodb_version: str | None
    expires: str | None


@dataclass(frozen=True)
class JobListed(Event):
    """One restore job of a cluster, whatever its batch. Times are RFC 3339."""

    name: ClassVar[str] = "restore-job"
    job_id: str
    batch_id: str | None
    cluster_id: str | None
    created: str | None
    status: str | None
    delivery_status: str | None
    expires: str | None
    file_name: str | None
    snapshot_id: str | None


@dataclass(frozen=True)
class CheckDone(Event):
    """One check of the connection. `ok` is None if an earlier failure kept it from being checked."""

    name: ClassVar[str] = "check"
    check: str
    ok: bool | None
    detail: str


@dataclass(frozen=True)
class RunFinished(Event):
    """The last event: the receipt's fields, after a plan the verdict per job, and `more` fields of other commands."""

    name: ClassVar[str] = "result"
    receipt: Receipt
    plan: tuple[Mapping[str, Any], ...] | None = None
    more: Mapping[str, Any] | None = None


class Reporter(Protocol):
    """Receiver of events. `report` must not raise or block."""

    def report(self, event: Event) -> None:
        """Take one event."""


class Display(Reporter, Protocol):
    """A reporter that must be closed: bars on a terminal, a socket, a file."""

    def close(self) -> None:
        """Release it; a second call does nothing."""


class DisplayGroup:
    """Several displays as one; each event is reported to them in their order."""

    def __init__(self, *displays: Display) -> None:
        self._displays = displays

    def report(self, event: Event) -> None:
        """Report the event to each."""
        for display in self._displays:
            display.report(event)

    def close(self) -> None:
        """Close each."""
        for display in self._displays:
            display.close()


class Silent:
    """The null reporter."""

    def report(self, event: Event) -> None:
        """Show nothing."""
