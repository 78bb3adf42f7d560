"""The tree of errors: each leaf has a stable ID, an exit code, and a hint.

    AgentError                         1   defect
    ├── UsageError                     2   usage
    ├── OpsManagerError                    (base: the API)
    │   ├── AccessRefused             30   api-access-refused
    │   ├── NotFound                  24   not-found
    │   ├── RedirectRefused           32   api-redirect
    │   ├── RequestRefused            32   api-request-refused
    │   ├── CreationUnconfirmed       32   creation-unconfirmed
    │   └── TransientApiError         32   (base: another poll may succeed)
    │       ├── Unreachable           32   ops-manager-unreachable
    │       └── AnswerUnusable        32   api-answer-unusable
    ├── TlsError                      31   tls
    ├── BatchError                    24   (base: the restore jobs)
    │   ├── NothingListed             24   batch-empty
    │   ├── FewerJobs                 24   fewer-jobs-than-expected
    │   ├── NothingSelected           24   nothing-selected
    │   └── NothingDelivered          24   no-http-delivery
    ├── ArchiveError                       (base: one archive)
    │   ├── NotReady                  20   not-ready
    │   ├── JobFailed                 21   (base: the job or its delivery failed)
    │   │   ├── JobBroken             21   job-broken
    │   │   ├── JobKilled             21   job-killed
    │   │   ├── DeliveryFailed        21   delivery-failed
    │   │   └── DeliveryInterrupted   21   delivery-interrupted
    │   ├── Expired                   22   delivery-expired
    │   ├── DownloadsUsedUp           23   downloads-used-up
    │   ├── DeliveryUrlUnusable       25   delivery-url-unusable
    │   ├── HashUnpublished           10   hash-not-published
    │   ├── HashMismatch              11   hash-mismatch
    │   ├── Damaged                   11   archive-damaged
    │   └── AttemptFailed             25   (base: another attempt may succeed)
    │       ├── ConnectFailed         25   delivery-unreachable
    │       ├── DeliveryRefused       25   delivery-refused
    │       ├── NotAnArchive          25   not-an-archive
    │       ├── ResumeRefused         25   resume-refused
    │       └── TransferCut           25   transfer-cut
    ├── DestError                          (base: DEST)
    │   ├── NoSpace                   40   no-space
    │   ├── Unwritable                41   dest-unwritable
    │   ├── ResourcesExhausted        41   no-resources
    │   ├── InTheWay                  42   in-the-way
    │   │   ├── ForeignFile           42   foreign-file
    │   │   ├── OtherBatch            42   other-batch
    │   │   ├── RecordUnreadable      42   record-unreadable
    │   │   ├── ArchiveMissing        42   archive-missing
    │   │   └── NoRestoreHere         42   no-restore
    │   └── DestHeld                  50   dest-held
    └── Stopped             129, 130, 143  stopped

`core/exit_codes.py` has the table of exit codes.
"""

from __future__ import annotations

from typing import ClassVar, Self

_AGAIN = "Run the command again. It keeps the files on disk and resumes."

_NEW_JOB = "Do not use the quarantined file. Create a new restore job."


class AgentError(Exception):
    """The root of all errors: what happened, to which archive, what is left on disk, and the next step.

    `message` is one sentence. `archive` is a file name or job ID; `left` describes the files on disk; `spent` is
    True or False if a download was at stake, else None; `hint` replaces the hint of the class. An error is a value:
    it is complete when it is raised, or completed by `with_context`. A subclass gives its ID and exit code as keywords.
    """

    id: ClassVar[str] = "defect"
    exit_code: int = 1
    hint: str = "This is a defect of restore-agent: run again with --debug and report what it prints."

    def __init_subclass__(cls, *, id: str | None = None, exit_code: int | None = None) -> None:
        super().__init_subclass__()
        if id is not None:
            cls.id = id
        if exit_code is not None:
            cls.exit_code = exit_code

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
        known = {"id": self.id, "exit_code": self.exit_code, "message": self.message, "archive": self.archive}
        return known | {"on_disk": self.left, "download_spent": self.spent, "hint": self.hint}


class UsageError(AgentError, id="usage", exit_code=2):
    """An option, variable, configuration key, or key file cannot be used."""

    hint = "See `restore-agent run --help`."


class OpsManagerError(AgentError):
    """Ops Manager's API answered in a way that stops the run."""


class AccessRefused(OpsManagerError, id="api-access-refused", exit_code=30):
    """401 or 403 from the API."""

    hint = "Check the key pair, its project role (Project Read Only is enough), and the API access list."


class NotFound(OpsManagerError, id="not-found", exit_code=24):
    """404 from the API: no such group, cluster, host, batch, or job."""

    hint = "Check --group-id, --cluster-id or --host-id, and --batch-id or --job-id."


class RedirectRefused(OpsManagerError, id="api-redirect", exit_code=32):
    """The API answered with a redirect; credentials are sent to no other address."""

    hint = "Give --url as the final address of Ops Manager (its central URL, scheme and port included)."


class RequestRefused(OpsManagerError, id="api-request-refused", exit_code=32):
    """A 4xx answer that is about the request itself, from Ops Manager or a proxy, or a port that expects TLS."""

    hint = "Check that --url is the address of Ops Manager, and check the proxy variables."


class CreationUnconfirmed(OpsManagerError, id="creation-unconfirmed", exit_code=32):
    """The answer to the request for a restore was lost, or is 429 or 5xx: a restore may have been created."""

    hint = "Check with `restore-agent jobs` whether a restore was created, before you request another one."


class TransientApiError(OpsManagerError, exit_code=32):
    """An API error that another poll may not meet. `retry_after` is in seconds, if the server named it."""

    hint = _AGAIN

    def __init__(self, message: str, *, retry_after: float | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class Unreachable(TransientApiError, id="ops-manager-unreachable"):
    """No connection, a reset, a timeout, 429, or 5xx."""


class AnswerUnusable(TransientApiError, id="api-answer-unusable"):
    """The API answered 200, but not with the expected document."""

    hint = "Check that --url is Ops Manager itself, not the page of a proxy or portal; then run again."


class TlsError(AgentError, id="tls", exit_code=31):
    """The certificate of the server is not trusted or is for another host, or ours was refused."""

    hint = "Check --ca-file (the CA that signed the server's certificate), --client-cert, and --client-key."


class BatchError(AgentError, exit_code=24):
    """Ops Manager does not list the restore jobs that were asked for."""


class NothingListed(BatchError, id="batch-empty"):
    """The batch listed no job for three polls."""

    hint = "Check --batch-id, and that --cluster-id is the sharded cluster that it was created for."


class FewerJobs(BatchError, id="fewer-jobs-than-expected"):
    """The batch listed fewer jobs than --expect-jobs asked for."""

    hint = "Check --expect-jobs and --batch-id; a batch lists one job per shard and one for the config server."


class NothingSelected(BatchError, id="nothing-selected"):
    """No job of the batch matches --select."""

    hint = "Check --select: it is compared with job ID, cluster ID, host ID, and archive name."


class NothingDelivered(BatchError, id="no-http-delivery"):
    """Every selected job is an automated restore, so there is nothing to download."""

    hint = "Create the restore job with delivery method HTTP; MongoDB Agents perform automated restores."


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


class DestError(AgentError):
    """DEST cannot be used."""


class NoSpace(DestError, id="no-space", exit_code=40):
    """ENOSPC or EDQUOT, or a size that does not fit."""

    hint = "Free space in DEST's file system, or choose another --dest, then run again."


class Unwritable(DestError, id="dest-unwritable", exit_code=41):
    """DEST cannot be created, written, synced, or locked."""

    hint = "Check owner, mode, and mount of DEST, and the kernel log for I/O errors."


class ResourcesExhausted(DestError, id="no-resources", exit_code=41):
    """A limit of the host or process: threads, descriptors, memory, or file size."""

    hint = "Raise the limits of this process (ulimit -n, -u, -v, -f), or lower --parallel; then run again."


class InTheWay(DestError, id="in-the-way", exit_code=42):
    """A file that restore-agent did not create, or cannot use, has a name that it needs."""

    hint = "Check DEST: move away files that restore-agent did not create, or choose an empty --dest."


class ForeignFile(InTheWay, id="foreign-file"):
    """The file at the final name of an archive is not verified to be that archive."""


class OtherBatch(InTheWay, id="other-batch"):
    """DEST holds the receipt of another restore."""

    hint = "Choose an empty --dest for each batch, or move the old restore away."


class RecordUnreadable(InTheWay, id="record-unreadable"):
    """receipt.json, the journal, or the status file is damaged or of another version."""


class ArchiveMissing(InTheWay, id="archive-missing"):
    """The receipt names an archive that is no longer in DEST."""

    hint = "Find out why the file is missing. `restore-agent run` downloads it again while its delivery is READY."


class NoRestoreHere(InTheWay, id="no-restore"):
    """A command about an earlier run was called for a DEST that no run ever used."""

    hint = "Check --dest: `restore-agent run` uses it as the directory of the archives."


class DestHeld(DestError, id="dest-held", exit_code=50):
    """Another run holds the lock in DEST."""

    hint = "Wait for the other run to end. `restore-agent status --dest DEST` shows its progress."


class Stopped(AgentError, id="stopped"):
    """SIGHUP, SIGINT, or SIGTERM: stopped cleanly, state kept. `exit_code` is 129, 130, or 143."""

    hint = _AGAIN

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
