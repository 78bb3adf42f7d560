"""Settings of one run as parsed values: connection, restore jobs, limits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .clock import Clock
from .events import Reporter
from .receipt import RestoreId
from .redaction import Redactor, Secret


@dataclass(frozen=True)
class Connection:
    """How Ops Manager is reached. `url` has neither trailing slash nor API path."""

    url: str
    public_key: str
    private_key: Secret
    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None


@dataclass(frozen=True)
class Target:
    """Which restore jobs, by batch or by id; exactly one of `batch_id` and `job_ids` is set."""

    group_id: str
    cluster_id: str | None = None
    host_id: str | None = None
    batch_id: str | None = None
    job_ids: tuple[str, ...] = ()
    select: tuple[str, ...] = ()
    expect_jobs: int | None = None

    def restore(self, batch_id: str | None = None) -> RestoreId:
        """Return the restore that this is about; `batch_id` is that of the jobs, once it is known."""
        batch = self.batch_id or batch_id
        return RestoreId(self.group_id, self.cluster_id, self.host_id, batch, self.job_ids)


@dataclass(frozen=True)
class RunLimits:
    """Timeouts in seconds, attempts, width and rate (bytes per second)."""

    wait_timeout: float = 6 * 3600.0
    hash_timeout: float = 15 * 60.0
    poll_interval: float = 5.0
    stall_timeout: float = 60.0
    retries: int = 5
    parallel: int = 4
    limit_rate: int | None = None
    allow_unproven: bool = False


@dataclass(frozen=True)
class UnpackSettings:
    """Where to unpack, absolute; the owner as numbers (-1: as it is); whether to remove unpacked archives."""

    directory: Path
    uid: int = -1
    gid: int = -1
    discard_archive: bool = False


@dataclass(frozen=True)
class RunSettings:
    """All settings of one run; `dest` is absolute."""

    connection: Connection
    target: Target
    limits: RunLimits
    dest: Path
    unpack: UnpackSettings | None = None


@dataclass(frozen=True)
class Before:
    """A moment in seconds since the epoch, or a time (seconds) back from now; exactly one of them is set."""

    moment: float | None = None
    ago: float | None = None

    def on(self, now: float) -> float:
        """Return the moment in seconds since the epoch, for a clock that shows `now`."""
        return self.moment if self.moment is not None else now - (self.ago or 0.0)


LATEST = "latest"
"""The snapshot that `request` chooses itself: the newest one that can be restored."""


@dataclass(frozen=True)
class RestoreOrder:
    """A restore to request. `snapshot` is an ID or LATEST; `before` is only for LATEST."""

    snapshot: str
    before: Before | None = None
    max_downloads: int = 3
    expiration_hours: int = 12
    allow_inconsistent: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class Services:
    """What a command gets from outside: the receiver of events, the time, the redactor of secrets."""

    reporter: Reporter
    clock: Clock
    redactor: Redactor


API_PATH = "/api/public/v1.0"
