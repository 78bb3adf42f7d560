"""What can go wrong, as one tree; each leaf has a stable id, an exit code and a hint.

    AgentError                         1   defect
    ├── UsageError                     2   usage
    ├── OpsManagerError                    the API
    │   ├── AccessRefused             30   api-access-refused
    │   ├── NotFound                  24   not-found
    │   ├── RedirectRefused           32   api-redirect
    │   ├── RequestRefused            32   api-request-refused
    │   ├── CreationUnconfirmed       32   creation-unconfirmed
    │   └── TransientApiError           32   (base of what polling again may mend)
    │       ├── Unreachable           32   ops-manager-unreachable
    │       └── AnswerUnusable        32   api-answer-unusable
    ├── TlsError                      31   tls
    ├── BatchError                    24   the jobs asked for
    │   ├── NothingListed             24   batch-empty
    │   ├── FewerJobs                 24   fewer-jobs-than-expected
    │   ├── NothingSelected           24   nothing-selected
    │   └── NothingDelivered          24   no-http-delivery
    ├── ArchiveError                       one archive
    │   ├── NotReady                  20   not-ready
    │   ├── JobFailed                     the job or its delivery was given up
    │   │   ├── JobBroken             21   job-broken
    │   │   ├── JobKilled             21   job-killed
    │   │   ├── DeliveryFailed        21   delivery-failed
    │   │   └── DeliveryInterrupted   21   delivery-interrupted
    │   ├── Expired                   22   delivery-expired
    │   ├── DownloadsUsedUp           23   downloads-used-up
    │   ├── DeliveryUrlUnusable              25   delivery-url-unusable
    │   ├── HashUnpublished           10   hash-not-published
    │   ├── HashMismatch              11   hash-mismatch
    │   ├── Damaged                   11   archive-damaged
    │   └── AttemptFailed             25   (base of what another attempt may mend)
    │       ├── ConnectFailed         25   delivery-unreachable
    │       ├── DeliveryRefused       25   delivery-refused
    │       ├── NotAnArchive          25   not-an-archive
    │       ├── ResumeRefused         25   resume-refused
    │       └── TransferCut           25   transfer-cut
    ├── DestError                          the target directory
    │   ├── NoSpace                   40   no-space
    │   ├── Unwritable                41   dest-unwritable
    │   ├── ResourcesExhausted        41   no-resources
    │   ├── InTheWay                  42   in-the-way
    │   │   ├── ForeignFile           42   foreign-file
    │   │   ├── OtherBatch            42   other-batch
    │   │   ├── RecordUnreadable      42   record-unreadable
    │   │   ├── ArchiveMissing        42   archive-missing
    │   │   └── NoRestoreHere         42   no-restore
    │   └── DestHeld                      50   dest-held
    └── Stopped                  130, 143  stopped

Exit codes are an interface of their own: `EXIT_CODES` is the table that the README shows.
"""

from __future__ import annotations

from typing import ClassVar, Self


class AgentError(Exception):
    """The root of all errors: what happened, to which archive, what is left on disk, what to do next.

    `message` is one sentence. `archive` is a file name or job id; `left` describes the files on disk; `spent` is
    True or False if a download was at stake, else None; `hint` replaces the hint of the class. An error is a value:
    it is complete when it is raised, or completed by `with_context`.
    """

    id: ClassVar[str] = "defect"
    exit_code: int = 1
    hint: str = "This is a defect of restore-agent: run again with --debug and report what it prints."

    def __init__(
        self,
        message: str,
        *,
        archive: str | None = None,
        left: str | None = None,
        spent: bool | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.archive = archive
        self.left = left
        self.spent = spent
        self.hint = hint or type(self).hint

    def with_context(
        self,
        *,
        message: str | None = None,
        archive: str | None = None,
        left: str | None = None,
        spent: bool | None = None,
        exit_code: int | None = None,
    ) -> Self:
        """Return a copy with the given fields; None leaves a field as it is."""
        copied = type(self).__new__(type(self))
        copied.__dict__.update(self.__dict__)
        copied.__cause__, copied.__traceback__ = self.__cause__, self.__traceback__
        given = {"message": message, "archive": archive, "left": left, "spent": spent, "exit_code": exit_code}
        for name, value in given.items():
            if value is not None:
                setattr(copied, name, value)
        copied.args = (copied.message,)
        return copied

    def fields(self) -> dict[str, object]:
        """Return the error as plain values, for a line of JSON."""
        return {
            "id": self.id,
            "exit_code": self.exit_code,
            "message": self.message,
            "file_name": self.archive,
            "on_disk": self.left,
            "download_spent": self.spent,
            "hint": self.hint,
        }


class UsageError(AgentError):
    """An option, variable, configuration key or key file cannot be used."""

    id = "usage"
    exit_code = 2
    hint = "See `restore-agent run --help`."


class OpsManagerError(AgentError):
    """Ops Manager's API answered in a way that stops the run."""


class AccessRefused(OpsManagerError):
    """401 or 403 from the API."""

    id = "api-access-refused"
    exit_code = 30
    hint = "Check the key pair, its project role (Project Read Only is enough) and the API access list."


class NotFound(OpsManagerError):
    """404 from the API: no such group, cluster, host, batch or job."""

    id = "not-found"
    exit_code = 24
    hint = "Check --group-id, --cluster-id or --host-id, and --batch-id or --job-id."


class RedirectRefused(OpsManagerError):
    """The API answered with a redirect; credentials are not carried anywhere else."""

    id = "api-redirect"
    exit_code = 32
    hint = "Give --url as the final address of Ops Manager (its central URL, scheme and port included)."


class RequestRefused(OpsManagerError):
    """A 4xx answer that is about the request itself, from Ops Manager or a proxy, or a port that expects TLS."""

    id = "api-request-refused"
    exit_code = 32
    hint = "Check that --url is the address of Ops Manager, and check the proxy variables."


class CreationUnconfirmed(OpsManagerError):
    """The answer to the request for a restore was lost, or is 429 or 5xx: a restore may have been created."""

    id = "creation-unconfirmed"
    exit_code = 32
    hint = "Check with `restore-agent jobs` whether a restore was created, before you request another one."


class TransientApiError(OpsManagerError):
    """An API fault that asking again may mend. `retry_after` is in seconds, when the server named it."""

    exit_code = 32
    hint = "Run again: what is on disk is kept and continued."

    def __init__(self, message: str, *, retry_after: float | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class Unreachable(TransientApiError):
    """No connection, reset, timeout, 429 or 5xx."""

    id = "ops-manager-unreachable"


class AnswerUnusable(TransientApiError):
    """The API answered 200 with something that is not the document it should be."""

    id = "api-answer-unusable"
    hint = "Check that --url is Ops Manager itself and not a proxy's or portal's page, then run again."


class TlsError(AgentError):
    """The peer's certificate is not trusted, is for another host, or ours was refused."""

    id = "tls"
    exit_code = 31
    hint = "Check --ca-file (the CA that signed the server's certificate), --client-cert and --client-key."


class BatchError(AgentError):
    """The restore jobs asked for are not there."""

    exit_code = 24


class NothingListed(BatchError):
    """The batch listed no job for three polls."""

    id = "batch-empty"
    hint = "Check --batch-id, and that --cluster-id is the sharded cluster it was created for."


class FewerJobs(BatchError):
    """The batch listed fewer jobs than --expect-jobs asked for."""

    id = "fewer-jobs-than-expected"
    hint = "Check --expect-jobs and --batch-id; a batch lists one job per shard and one for the config server."


class NothingSelected(BatchError):
    """No job of the batch matches --select."""

    id = "nothing-selected"
    hint = "Check --select: it is matched against job id, cluster id, host id and archive name."


class NothingDelivered(BatchError):
    """Every selected job is an automated restore, so there is nothing to download."""

    id = "no-http-delivery"
    hint = "Create the restore job with delivery method HTTP; automated restores are left to their agents."


class ArchiveError(AgentError):
    """One archive cannot be had, or cannot be proven."""


class NotReady(ArchiveError):
    """The delivery did not become READY within --wait-timeout."""

    id = "not-ready"
    exit_code = 20
    hint = "Run again to go on waiting, or give --wait-timeout more time."


class JobFailed(ArchiveError):
    """Ops Manager gave the restore job or its delivery up."""

    exit_code = 21
    hint = "Create a new restore job; see the snapshot and the backup log in Ops Manager."


class JobBroken(JobFailed):
    """Job status BROKEN."""

    id = "job-broken"


class JobKilled(JobFailed):
    """Job status KILLED."""

    id = "job-killed"


class DeliveryFailed(JobFailed):
    """Delivery status FAILED."""

    id = "delivery-failed"


class DeliveryInterrupted(JobFailed):
    """Delivery status INTERRUPTED."""

    id = "delivery-interrupted"


class Expired(ArchiveError):
    """The delivery expired before the archive was whole."""

    id = "delivery-expired"
    exit_code = 22
    hint = "Create a new restore job with a longer expiry (delivery.expirationHours)."


class DownloadsUsedUp(ArchiveError):
    """MAX_DOWNLOADS_EXCEEDED before the archive was whole."""

    id = "downloads-used-up"
    exit_code = 23
    hint = "Create a new restore job with more downloads (delivery.maxDownloads)."


class DeliveryUrlUnusable(ArchiveError):
    """The job is READY, but its URL cannot be used."""

    id = "delivery-url-unusable"
    exit_code = 25
    hint = "Look at the restore job in Ops Manager: its delivery URL is not one that can be fetched."


class HashUnpublished(ArchiveError):
    """Whole on disk, but Ops Manager published no hash within --hash-timeout."""

    id = "hash-not-published"
    exit_code = 10
    hint = "Run `restore-agent verify` later; if brs.restore.digest.method is NONE, use --allow-unproven."


class HashMismatch(ArchiveError):
    """The archive on disk differs from the hash that Ops Manager published for it."""

    id = "hash-mismatch"
    exit_code = 11
    hint = "Do not use the quarantined file. Create a new restore job."


class Damaged(ArchiveError):
    """No hash to hold it against, and its own structure shows damage."""

    id = "archive-damaged"
    exit_code = 11
    hint = "Do not use the quarantined file. Create a new restore job."


class AttemptFailed(ArchiveError):
    """One attempt at a delivery URL failed in a way that another attempt may mend.

    `retry_after` is in seconds when the server named it.
    """

    exit_code = 25
    hint = "Look at the restore job and the backup daemon in Ops Manager; then run again."

    def __init__(
        self, message: str, *, spent: bool | None = None, retry_after: float | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, spent=spent, hint=hint)
        self.retry_after = retry_after


class ConnectFailed(AttemptFailed):
    """No connection to the delivery host; the request never left, so no download was spent."""

    id = "delivery-unreachable"


class DeliveryRefused(AttemptFailed):
    """The delivery URL answered, but not with the archive."""

    id = "delivery-refused"


class NotAnArchive(AttemptFailed):
    """The delivery URL answered 200 with something that is no archive."""

    id = "not-an-archive"


class ResumeRefused(AttemptFailed):
    """The answer to a Range request cannot be used; the next attempt starts again.

    `complete` says that the server gave the archive exactly the length of the part file.
    """

    id = "resume-refused"

    def __init__(self, message: str, *, complete: bool = False, spent: bool | None = None) -> None:
        super().__init__(message, spent=spent)
        self.complete = complete


class TransferCut(AttemptFailed):
    """The transfer ended, stalled or broke before the archive was whole."""

    id = "transfer-cut"


class DestError(AgentError):
    """The target directory is in the way."""


class NoSpace(DestError):
    """ENOSPC or EDQUOT, or a size that will not fit."""

    id = "no-space"
    exit_code = 40
    hint = "Free space in DEST's file system, or choose another --dest, then run again."


class Unwritable(DestError):
    """DEST cannot be created, written, synced or locked."""

    id = "dest-unwritable"
    exit_code = 41
    hint = "Check owner, mode and mount of DEST, and the kernel log for I/O errors."


class ResourcesExhausted(DestError):
    """The host gives no thread, descriptor, or memory for another archive."""

    id = "no-resources"
    exit_code = 41
    hint = "Raise the limits of this process (ulimit -n, -u, -v), or lower --parallel, then run again."


class InTheWay(DestError):
    """Something that is not the agent's stands where it must write."""

    id = "in-the-way"
    exit_code = 42
    hint = "Look at DEST; move what is not the agent's out of the way, or choose an empty --dest."


class ForeignFile(InTheWay):
    """A file stands at an archive's final name that is not proven to be that archive."""

    id = "foreign-file"


class OtherBatch(InTheWay):
    """DEST holds the receipt of another restore."""

    id = "other-batch"
    hint = "Choose an empty --dest for each batch, or move the old restore away."


class RecordUnreadable(InTheWay):
    """receipt.json, the journal or the status file cannot be read as this version wrote it."""

    id = "record-unreadable"


class ArchiveMissing(InTheWay):
    """The receipt names an archive that is not in DEST any more."""

    id = "archive-missing"
    hint = "Look for who moved it; `restore-agent run` fetches it again while its delivery is READY."


class NoRestoreHere(InTheWay):
    """A command about an earlier run was called for a DEST that no run ever used."""

    id = "no-restore"
    hint = "Check --dest: `restore-agent run` uses it as the directory of the archives."


class DestHeld(DestError):
    """Another run holds the lock in DEST."""

    id = "dest-held"
    exit_code = 50
    hint = "Wait for it; `restore-agent status --dest DEST` shows how far it is."


class Stopped(AgentError):
    """SIGINT or SIGTERM: stopped cleanly, state kept. `exit_code` is 130 or 143."""

    id = "stopped"
    hint = "Run again: what is on disk is kept and continued."

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
