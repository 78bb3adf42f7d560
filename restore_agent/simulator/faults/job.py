"""Faults of restore jobs: timeline, counting of downloads, and published hashes."""

from __future__ import annotations

from dataclasses import dataclass

from .rows import fault, flag
from .syntax import COUNT, FIELD, HASH, READINGS, SECONDS, STATUS, TEXT, choice
from .values import ALWAYS, FieldOverride, HashRule, Span


@dataclass(frozen=True, kw_only=True)
class JobFaults:
    """Timeline of a restore job, counting of its downloads, and its hashes."""

    # Timeline of a job
    ready_after: float = fault(0.0, SECONDS, "deliveries become READY this long after creation")
    stagger: float = fault(0.0, SECONDS, "job N becomes READY N times this long after creation")
    never_ready: bool = flag("deliveries stay IN_PROGRESS")
    missing_delivery: bool = flag("no delivery object until it is READY, as on old servers")
    ready_without_url: float = fault(0.0, SECONDS.optional(ALWAYS), "READY is shown this long before the URL")
    unknown_status: float = fault(0.0, SECONDS.optional(ALWAYS), "undocumented statuses for this long")
    broken: float | None = fault(None, SECONDS.optional(0.0), "job BROKEN, this long after creation")
    killed: float | None = fault(None, SECONDS.optional(0.0), "job KILLED, this long after creation")
    delivery_failed: float | None = fault(None, SECONDS.optional(0.0), "delivery FAILED, this long after creation")
    interrupted: float | None = fault(None, SECONDS.optional(0.0), "delivery INTERRUPTED, this long after creation")
    expired: bool = flag("delivery EXPIRED from the start")
    expires_in: float | None = fault(
        None, SECONDS, "delivery EXPIRED this long after creation; an active transfer continues"
    )
    expires_cut: float | None = fault(
        None, SECONDS, "delivery EXPIRED this long after creation; an active transfer is interrupted"
    )
    url_gone: bool = flag("the document of an expired or used-up delivery has no URL")
    finished: str = fault(
        "ready",
        choice("ready", "downloaded", "never"),
        "when the job's statusName becomes FINISHED: when its delivery is READY, once it has been downloaded, or never",
    )
    appears_after: float = fault(0.0, SECONDS, "the job is unknown until this long after creation")
    automated: bool = flag("an automated restore reported as HTTP: delivery.targetClusterId is set")
    method: str = fault("HTTP", TEXT, "delivery.methodName")
    job_unlisted: tuple[Span, ...] = fault(
        (), READINGS, "the job is missing from the list at that reading (from 1), TIMES times", many=True
    )
    job_404: tuple[Span, ...] = fault(
        (), READINGS, "the job's document is answered with 404 at that reading (from 1), TIMES times", many=True
    )
    job_swapped: bool = flag("the job's document is that of the next job")
    stray_job: str | None = fault(
        None,
        choice("none", "other"),
        "the batch also lists a job without batchId, or of another batch",
        server=True,
    )
    no_batch: bool = flag("the batch lists no job", server=True)
    sccc: bool = flag("the config server is mirrored (SCCC): its job has a hostId", server=True)
    encrypted: bool = flag("encryptionEnabled with a masterKeyUUID")
    point_in_time: bool = flag("pointInTime is true")
    job_field: tuple[FieldOverride, ...] = fault(
        (), FIELD, "set or delete a field (dotted path) of the job's document", many=True
    )

    # Counting of downloads
    max_downloads: int = fault(1, COUNT, "allowed downloads per delivery")
    count: str = fault(
        "start", choice("start", "end"), "when a download is counted: at its GET, or once all bytes are sent"
    )
    head: str = fault("count", choice("count", "answer"), "HEAD: 405 and a download is counted, or 200 and none is")
    dead_status: int | None = fault(None, STATUS, "status of used-up and expired deliveries instead of 403 and 410")

    # Hashes
    hash: HashRule = fault(  # noqa: RUF009 - a dataclasses.field() behind a helper
        HashRule("ready"), HASH, "late:S, early, early-wrong:S, never, wrong, upper, other-name, null"
    )
    hash_after: str = fault(
        "sent",
        choice("sent", "complete", "start"),
        "when a hash is published: once all bytes are sent, only after a complete ending, or at the GET",
    )
    hash_entries: int = fault(1, COUNT, "entries for the archive in hashes; all but the last are other SHA1s")
    digest_none: bool = flag("the server setting NONE: hashes are never published")
