"""What Ops Manager says of a restore job, and the one table of what that means.

`parse_job` turns a document of the API page into a `Job`; it is tolerant (numbers as strings, missing or unknown
fields, unknown statuses), because a run must not break on a field nobody needs. `decide` is pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import unquote, urlsplit

from .errors import ArchiveError, DeliveryUrlUnusable, DownloadsUsedUp, Expired, JobBroken
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
    oddities: tuple[str, ...] = ()

    def published_hash(self, file_name: str) -> str | None:
        """The SHA1 that Ops Manager published for this file, 40 lower-case hex digits, or None.

        A name that the URL percent-encodes may stand beside its hash either way.
        """
        for spell in (str, unquote):
            for name, digest in self.hashes:
                if last_segment(spell(name)) == file_name:
                    return digest
        return None


class Step(Enum):
    """What a job's own words allow."""

    WAIT = "wait"
    DOWNLOAD = "download"
    SKIP = "skip"
    FAIL = "fail"


@dataclass(frozen=True)
class Decision:
    """A step and its reason, a stable kebab-case id."""

    step: Step
    reason: str


_BY_JOB_STATUS = {
    "BROKEN": Decision(Step.FAIL, "job-broken"),
    "KILLED": Decision(Step.FAIL, "job-killed"),
}

_BY_DELIVERY_STATUS = {
    "FAILED": Decision(Step.FAIL, "delivery-failed"),
    "INTERRUPTED": Decision(Step.FAIL, "delivery-interrupted"),
    "EXPIRED": Decision(Step.FAIL, "delivery-expired"),
    "MAX_DOWNLOADS_EXCEEDED": Decision(Step.FAIL, "downloads-used-up"),
}


def decide(job: Job) -> Decision:
    """What to do about a job: every rule of the contract's 5.1 and 5.2, in order of weight.

    `expires` plays no part: while Ops Manager says READY, its word stands. An unknown status means "not ready yet".
    """
    if job.automated:
        return Decision(Step.SKIP, "automated-restore")
    if job.method is not None and job.method not in _HTTP_DELIVERIES:
        return Decision(Step.SKIP, "not-delivered-over-http")
    verdict = _BY_JOB_STATUS.get(job.status or "") or _BY_DELIVERY_STATUS.get(job.delivery_status or "")
    if verdict:
        return verdict
    if job.delivery_status != "READY":
        return Decision(Step.WAIT, "not-ready")
    if job.delivery_url_defect:
        return Decision(Step.FAIL, "delivery-url-unusable")
    return Decision(Step.DOWNLOAD, "ready") if job.delivery_url else Decision(Step.WAIT, "no-url-yet")


def last_segment(name: str) -> str:
    """What both a URL and a hash call the file, also where its percent-encoding hid a path."""
    return name.rsplit("/", 1)[-1]


def refusal(job: Job, decision: Decision, after: str = "") -> ArchiveError:
    """The error that a decision to fail stands for; `after` says what went wrong before, as the end of a sentence."""
    match decision.reason:
        case "delivery-expired":
            return Expired("the delivery expired before the archive was whole" + after)
        case "downloads-used-up":
            return DownloadsUsedUp("the downloads are used up before the archive was whole" + after)
        case "delivery-url-unusable":
            return DeliveryUrlUnusable(f"the delivery URL cannot be used: {job.delivery_url_defect}")
        case _:
            said = f"the job {job.status or 'nothing'}, its delivery {job.delivery_status or 'nothing'}"
            return JobBroken(f"Ops Manager calls {said}")
