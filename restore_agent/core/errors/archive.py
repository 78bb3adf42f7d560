"""Errors of one archive: its delivery, its verification, its data path."""

from __future__ import annotations

from enum import Enum
from typing import ClassVar

from .base import AgentError

_NEW_JOB = "Do not use the quarantined file. Create a new restore job."


class Finding(Enum):
    """Result of a structure check of an archive. TRUNCATED: valid, but ends too early. DAMAGED: invalid inside."""

    WHOLE = "whole"
    TRUNCATED = "truncated"
    DAMAGED = "damaged"


class ArchiveError(AgentError):
    """One archive cannot be downloaded or verified."""


class NotReady(ArchiveError, id="not-ready", exit_code=20):
    """The delivery did not become READY within --wait-timeout."""

    hint = "Run again to continue waiting, or set a longer --wait-timeout."


class JobFailed(ArchiveError, exit_code=21):
    """Ops Manager reports that the restore job or its delivery failed."""

    hint = "Create a new restore job; see the snapshot and the backup log in Ops Manager."


class JobBroken(JobFailed, id="job-broken"):
    """Job status BROKEN."""


class JobKilled(JobFailed, id="job-killed"):
    """Job status KILLED."""


class DeliveryFailed(JobFailed, id="delivery-failed"):
    """Delivery status FAILED."""


class DeliveryInterrupted(JobFailed, id="delivery-interrupted"):
    """Delivery status INTERRUPTED."""


class Expired(ArchiveError, id="delivery-expired", exit_code=22):
    """The delivery expired before the archive was complete."""

    hint = "Create a new restore job with a longer expiry (delivery.expirationHours)."


class DownloadsUsedUp(ArchiveError, id="downloads-used-up", exit_code=23):
    """MAX_DOWNLOADS_EXCEEDED before the archive was complete."""

    hint = "Create a new restore job with more downloads (delivery.maxDownloads)."


class DeliveryUrlUnusable(ArchiveError, id="delivery-url-unusable", exit_code=25):
    """The job is READY, but its URL cannot be used."""

    hint = "Check the restore job in Ops Manager: its delivery URL is invalid."


class HashUnpublished(ArchiveError, id="hash-not-published", exit_code=10):
    """The archive is complete on disk, but Ops Manager published no hash within --hash-timeout."""

    hint = "Run `restore-agent verify` later; if brs.restore.digest.method is NONE, use --allow-unproven."


class HashMismatch(ArchiveError, id="hash-mismatch", exit_code=11):
    """The archive on disk differs from the hash that Ops Manager published for it."""

    hint = _NEW_JOB


class Damaged(ArchiveError, id="archive-damaged", exit_code=11):
    """No hash is published, and the structure of the archive is damaged."""

    hint = _NEW_JOB


class AttemptFailed(ArchiveError, exit_code=25):
    """One attempt failed, and another one may succeed. `retry_after` is in seconds, if the server named it."""

    hint = "Check the restore job and the backup daemon in Ops Manager; then run again."

    def __init__(
        self, message: str, *, spent: bool | None = None, retry_after: float | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, spent=spent, hint=hint)
        self.retry_after = retry_after


class ConnectFailed(AttemptFailed, id="delivery-unreachable"):
    """No connection to the delivery host; the request was not sent, so no download was spent."""


class DeliveryRefused(AttemptFailed, id="delivery-refused"):
    """The delivery URL answered, but not with the archive."""


class NotAnArchive(AttemptFailed, id="not-an-archive"):
    """The delivery URL answered 200 with something that is not an archive."""


class ResumeRefused(AttemptFailed, id="resume-refused"):
    """The answer to a Range request cannot be used; the next attempt starts again.

    `complete` says that the server gave the archive exactly the length of the part file.
    """

    def __init__(self, message: str, *, complete: bool = False, spent: bool | None = None) -> None:
        super().__init__(message, spent=spent)
        self.complete = complete


class TransferCut(AttemptFailed, id="transfer-cut"):
    """The transfer ended, stalled, or failed before the archive was complete."""


class NotUnpacked(ArchiveError, exit_code=13):
    """The archive is safe, but its data path is not there.

    `about_archive` says that the bytes of the archive alone are the reason, so that other bytes can be better.
    """

    hint = "Remove the cause and run the command again: it unpacks from disk, without a download."
    about_archive: ClassVar[bool] = False


class NoSpaceToUnpack(NotUnpacked, id="no-space-to-unpack"):
    """The disk of the data path has no space left, or what is left is reserved."""

    hint = "Free space in the directory of --unpack and run the command again: it unpacks without a download."


class CannotUnpack(NotUnpacked, id="cannot-unpack"):
    """A file operation failed, or the file system cannot hold the content of the archive."""


class UnsafeArchive(NotUnpacked, id="unsafe-archive"):
    """The archive contains a member that is neither a file, a directory, nor a link to an earlier file inside."""

    hint = "Do not unpack the archive with another program before you know why it contains such an entry."
    about_archive = True


class DamagedArchive(NotUnpacked, id="damaged-archive"):
    """The archive is truncated or invalid; `finding` says which."""

    hint = "The archive is as Ops Manager published it, but its content is damaged. Restore another snapshot."
    about_archive = True

    def __init__(self, message: str, finding: Finding = Finding.DAMAGED) -> None:
        super().__init__(message)
        self.finding = finding


class DataPathInTheWay(NotUnpacked, id="data-path-in-the-way"):
    """Another file, another data path, or another active run uses the name."""

    hint = "Move away what has the name of the data path, or choose another --unpack, then run the command again."


class ArchiveDiscarded(NotUnpacked, id="archive-discarded"):
    """The archive was removed after it had been unpacked elsewhere, so that it cannot be unpacked here."""

    hint = "Use the data path that the receipt names, or create a new restore job."


class UnpackCancelled(NotUnpacked, id="unpack-cancelled"):
    """The caller stopped unpacking, or the transfer ended without a complete archive."""
