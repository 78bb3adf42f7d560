"""Restore jobs as Ops Manager reports them, and the one table of what a status means."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import unquote, urlsplit

from .errors import (
    ArchiveError,
    DeliveryFailed,
    DeliveryInterrupted,
    DeliveryUrlUnusable,
    DownloadsUsedUp,
    Expired,
    JobBroken,
    JobKilled,
)
from .redaction import Secret
from .untrusted import printable

_HTTP_DELIVERIES = ("HTTP", "CLIENT_PIT_HTTP")


@dataclass(frozen=True)
class DeliveryUrl:
    """Where an archive can be fetched. Both the URL (its path holds a token) and the header value are secrets."""

    url: str = field(repr=False)
    file_name: str
    header: tuple[str, Secret] | None = None

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        host = parts.hostname or "?"
        host = f"[{host}]" if ":" in host else host
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{printable(host)}{port}/…/{printable(self.file_name)}"


@dataclass(frozen=True)
class Job:
    """One restore job as last read. Times are seconds since the epoch on the server's clock."""

    id: str
    batch_id: str | None = None
    cluster_id: str | None = None
    host_id: str | None = None
    snapshot_id: str | None = None
    snapshot_timestamp: str | None = None
    status: str | None = None
    delivery_status: str | None = None
    method: str | None = None
    automated: bool = False
    delivery_url: DeliveryUrl | None = None
    delivery_url_defect: str | None = None
    expires: float | None = None
    max_downloads: int | None = None
    hashes: tuple[tuple[str, str], ...] = ()
    encryption_enabled: bool | None = None
    master_key_uuid: str | None = None
    point_in_time: bool | None = None
    created: float | None = None
    oddities: tuple[str, ...] = ()

    def published_hashes(self, *file_names: str | None) -> tuple[str, ...]:
        """Return the SHA1s that Ops Manager published for a file of any of these names: 40 lower-case hex digits.

        A name that the URL percent-encodes may be given next to its hash either way.
        """
        wanted = {name for name in file_names if name}
        found = [
            digest
            for name, digest in self.hashes
            if last_segment(name) in wanted or last_segment(unquote(name)) in wanted
        ]
        return tuple(dict.fromkeys(found))


class Step(Enum):
    """What the document of a job allows."""

    WAIT = "wait"
    DOWNLOAD = "download"
    SKIP = "skip"
    FAIL = "fail"


@dataclass(frozen=True)
class Decision:
    """A step, its reason (a stable kebab-case ID) and, for a step FAIL, the error."""

    step: Step
    reason: str
    error: type[ArchiveError] | None = None


@dataclass(frozen=True)
class StatusRule:
    """A status with which Ops Manager gives a job up. `of` is `job` or `delivery`."""

    of: str
    status: str
    error: type[ArchiveError]


STATUS_RULES = (
    StatusRule("job", "BROKEN", JobBroken),
    StatusRule("job", "KILLED", JobKilled),
    StatusRule("delivery", "FAILED", DeliveryFailed),
    StatusRule("delivery", "INTERRUPTED", DeliveryInterrupted),
    StatusRule("delivery", "EXPIRED", Expired),
    StatusRule("delivery", "MAX_DOWNLOADS_EXCEEDED", DownloadsUsedUp),
)
"""Every status that ends a job, strongest first. READY allows a download; any other status means "not ready yet"."""

_MESSAGES: dict[type[ArchiveError], str] = {
    Expired: "the delivery expired before the archive was complete",
    DownloadsUsedUp: "the downloads are used up before the archive was complete",
}


def decide(job: Job) -> Decision:
    """Return what to do about a job by its own document.

    `expires` plays no part: a delivery that is READY can be requested. An unknown status means "not ready yet".
    """
    if job.automated:
        return Decision(Step.SKIP, "automated-restore")
    if job.method is not None and job.method not in _HTTP_DELIVERIES:
        return Decision(Step.SKIP, "not-delivered-over-http")
    for rule in STATUS_RULES:
        if rule.status == (job.status if rule.of == "job" else job.delivery_status):
            return Decision(Step.FAIL, rule.error.id, rule.error)
    if job.delivery_status != "READY":
        return Decision(Step.WAIT, "not-ready")
    if job.delivery_url_defect:
        return Decision(Step.FAIL, DeliveryUrlUnusable.id, DeliveryUrlUnusable)
    return Decision(Step.DOWNLOAD, "ready") if job.delivery_url else Decision(Step.WAIT, "no-url-yet")


def refusal(job: Job, decision: Decision, after: str = "") -> ArchiveError:
    """Return the error of a decision to fail; `after` adds what the last failed attempt reported."""
    assert decision.error is not None  # noqa: S101  # every decision to fail has one
    if decision.error is DeliveryUrlUnusable:
        return DeliveryUrlUnusable(f"the delivery URL cannot be used: {job.delivery_url_defect}")
    statuses = f"Ops Manager reports job status {job.status or 'none'}, delivery status {job.delivery_status or 'none'}"
    return decision.error(_MESSAGES.get(decision.error, statuses) + after)


def last_segment(name: str) -> str:
    """Return the file name in a URL's path or next to a hash, also where percent-encoding hid a path."""
    return name.rsplit("/", 1)[-1]
