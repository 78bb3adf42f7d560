"""`verify`: verify the archives in DEST again, and promote those whose hash was published since. No delivery URL."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ..core.clock import ServerClock, rfc3339
from ..core.errors import (
    AgentError,
    ArchiveMissing,
    Damaged,
    DestError,
    Finding,
    HashMismatch,
    HashUnpublished,
    InTheWay,
    NoRestoreHere,
    NotFound,
    NothingSelected,
    OtherBatch,
    UsageError,
)
from ..core.events import ArchiveFinished, ArchiveProgress, Notice, Progress, RunStarted
from ..core.jobs import Job
from ..core.names import path_text
from ..core.receipt import ArchiveRecord, Receipt, RestoreId, Verdict, receipt_of
from ..core.settings import Connection, Services, Target
from ..core.untrusted import printable
from ..dest.archive import Digest, digest_of, structure_of
from ..dest.directory import Directory, is_own
from ..dest.journal import Entry
from ..dest.lock import boot_id
from ..dest.promotion import Candidate, Promoter
from ..dest.status import update_status
from ..dest.workspace import Access, Workspace, data_path_fields, write_receipt, write_sums
from ..network.opsmanager import OpsManager
from .poller import JobPoller, first_poll
from .progress import TroubleReport
from .proof import Evidence, Kind, Standing, needs_structure, standing_of
from .selection import matches


@dataclass(frozen=True)
class VerifySettings:
    """What to verify. `connection` None means offline: the hashes of the journal and the receipt are all there is.

    `asked` holds the IDs that the operator gave; DEST knows the rest. With job IDs in it or `select`, only those
    archives are verified and decide the exit code; the others stay in the receipt as they are.
    """

    connection: Connection | None
    asked: RestoreId
    dest: Path
    poll_interval: float
    select: tuple[str, ...] = ()


class Verification:
    """One verification of a DEST."""

    def __init__(self, settings: VerifySettings, services: Services) -> None:
        self._settings, self._services = settings, services
        self._started_at = rfc3339(services.clock.wall())
        self._workspace = Workspace(settings.dest)
        self._jobs: Mapping[str, Job] = {}
        self._ops_manager: str | None = None
        self._read: dict[str, Digest] = {}
        self._changed = False

    async def run(self) -> Receipt:
        """Verify every archive that the receipt or the journal names. Raises AgentError."""
        with ExitStack() as stack:
            workspace = self._workspace = Workspace.open(stack, self._settings.dest, Access.VERIFY)
            self._require_asked()
            self._promoter = Promoter(self._directory, workspace.journal, self._services.clock)
            known = self._known_archives()
            report = self._services.reporter.report
            report(
                RunStarted(workspace.earlier.ops_manager if workspace.earlier else None, path_text(self._settings.dest))
            )
            for note in workspace.notes:
                report(Notice("warning", note))
            await self._ask(known)
            wanted = [record for record in known if self._is_wanted(record)]
            if not wanted:
                raise NothingSelected(f"none of the {len(known)} archives in DEST matches --job-id and --select")
            return self._write_records(known, tuple([await self._verify(record) for record in wanted]))

    @property
    def _directory(self) -> Directory:
        assert self._workspace.directory is not None  # noqa: S101  # Access.VERIFY opens one
        return self._workspace.directory

    @property
    def _restore(self) -> RestoreId:
        """The restore that DEST belongs to, completed by what the operator gave."""
        known, asked = self._workspace.restore or RestoreId(), self._settings.asked
        return RestoreId(
            known.group_id or asked.group_id,
            known.cluster_id or (None if known.host_id else asked.cluster_id),
            known.host_id or (None if known.cluster_id else asked.host_id),
            known.batch_id or asked.batch_id,
            known.job_ids,
        )

    # ------------------------------------------------------------ archives that should be here

    def _require_asked(self) -> None:
        """Raise OtherBatch if the operator named another restore than that of DEST."""
        known, asked = self._workspace.restore, self._settings.asked
        for name in ("group_id", "cluster_id", "host_id", "batch_id"):
            wanted, found = getattr(asked, name), getattr(known, name, None)
            if wanted and found and wanted != found:
                raise OtherBatch(f"DEST belongs to {name} {found!r}, not to {wanted!r}")

    def _known_archives(self) -> tuple[ArchiveRecord, ...]:
        """The archives of the receipt, and those that only the journal knows (a run that was killed)."""
        listed = self._workspace.earlier.archives if self._workspace.earlier else ()
        ids = {record.job_id for record in listed}
        extra = tuple(
            _record_of(job_id, entry)
            for job_id, entry in self._workspace.journal.entries().items()
            if job_id not in ids and entry.file_name and entry.is_ours
        )
        if not listed and not extra:
            raise NoRestoreHere(f"{printable(str(self._settings.dest))} has no archive to verify")
        return listed + extra

    async def _ask(self, known: tuple[ArchiveRecord, ...]) -> None:
        """Poll the jobs once. Jobs that Ops Manager does not know any more are verified by the journal alone."""
        settings, services = self._settings, self._services
        if settings.connection is None:
            return
        target = self._target(known)
        server_clock = ServerClock(services.clock)
        async with OpsManager(settings.connection, server_clock, services.redactor) as api:
            self._ops_manager = api.origin
            poller = JobPoller(api, target, services.clock, settings.poll_interval)
            report_trouble = TroubleReport(poller, services.reporter, services.clock).update
            try:
                await first_poll(poller, services.clock, empty_will_do=True, while_polling=report_trouble)
                self._jobs, unlisted = poller.jobs, None if poller.jobs else "Ops Manager lists no job of the batch"
            except NotFound as error:
                unlisted = error.message
        if unlisted:
            services.reporter.report(Notice("warning", f"{unlisted}; verifying by the records in DEST alone"))

    def _target(self, known: tuple[ArchiveRecord, ...]) -> Target:
        restore = self._restore
        if not restore.group_id or not (restore.cluster_id or restore.host_id):
            raise UsageError("DEST does not say which cluster this is: give --group-id and --cluster-id")
        ids = () if restore.batch_id else tuple(record.job_id for record in known if self._is_wanted(record))
        return Target(restore.group_id, restore.cluster_id, restore.host_id, restore.batch_id, ids)

    def _is_wanted(self, record: ArchiveRecord) -> bool:
        job_ids, select = self._settings.asked.job_ids, self._settings.select
        if job_ids and record.job_id not in job_ids:
            return False
        texts = [record.job_id, record.cluster_id, record.host_id, record.file_name]
        return not select or matches(select, texts)

    # ------------------------------------------------------------ one archive

    async def _verify(self, record: ArchiveRecord) -> ArchiveRecord:
        """Return the record of one archive after its bytes were read again."""
        if record.verdict is Verdict.SKIPPED:
            return record
        problem: AgentError | None = None
        try:
            verified = await self._judge(record)
        except AgentError as error:
            problem = error.with_context(archive=record.file_name or record.job_id)
            expected = next(iter(self._published(record)), record.expected_sha1)
            verified = _failed(self._settings.dest, record, problem, self._read.get(record.job_id), expected)
        fields = problem.fields() if problem else None
        self._services.reporter.report(ArchiveFinished(record.job_id, verified, fields))
        return verified

    async def _judge(self, record: ArchiveRecord) -> ArchiveRecord:
        name, entry = record.file_name, self._entry(record)
        if name is None:
            return record
        if self._directory.find_file(name):
            return await self._final(record, name)
        if entry.proven and not entry.archive_kept:
            record = replace(record, sha1=entry.proven, expected_sha1=entry.proven, verified_at=entry.verified_at)
            return replace(record, verdict=Verdict.VERIFIED, reason=None, exit_code=0, path=None, archive_kept=False)
        if record.verdict is Verdict.VERIFIED or entry.proven:
            text = f"{printable(name)} was verified and is not in DEST any more"
            raise ArchiveMissing(text, left="nothing of it")
        for kind in (Kind.UNPROVEN, Kind.PART, Kind.MISMATCH):
            if is_own(self._directory.find_file(name + kind.value)) and (
                found := await self._companion(record, name, kind)
            ):
                return found
        if record.verdict:
            return record
        return replace(record, verdict=Verdict.FAILED, reason="not-downloaded", exit_code=20)

    async def _final(self, record: ArchiveRecord, name: str) -> ArchiveRecord:
        """A file at the final name must be what was verified before, or what is published now."""
        digest = await self._digest(record, name)
        entry = self._entry(record)
        if entry.proven is None and record.verdict is Verdict.VERIFIED:  # the journal of this receipt is gone
            entry = replace(entry, proven=record.sha1)
        standing = standing_of(Evidence(Kind.FINAL, digest, self._published(record), entry))
        if standing is Standing.VERIFIED:
            await self._promoter.accept_existing(record.job_id, name, digest)
            return _verified(self._settings.dest, record, name, digest, self._entry(record).verified_at)
        if standing is Standing.FOREIGN:
            raise InTheWay(f"{printable(name)} already exists, and restore-agent did not put it there")
        why = f"SHA1 on disk is {digest.sha1}, verified was {entry.proven}"
        raise HashMismatch(why, left=await self._quarantine(record, name, name))

    async def _companion(self, record: ArchiveRecord, name: str, kind: Kind) -> ArchiveRecord | None:
        """Promote, keep, or quarantine a file that is not at the final name; None if it is not complete."""
        file, entry = name + kind.value, self._entry(record)
        digest = await self._digest(record, file)
        finding: Finding | None = None
        standing = self._standing(record, kind, digest, finding)
        undecided = standing is Standing.AWAITS_HASH or (standing is Standing.MISMATCH and kind is not Kind.MISMATCH)
        if undecided or (standing is Standing.INCOMPLETE and needs_structure(entry, digest.size, boot_id())):
            finding = await structure_of(self._directory, file)
            standing = self._standing(record, kind, digest, finding)
        if standing is Standing.VERIFIED:
            await self._promoter.promote(record.job_id, name, Candidate(file, digest))
            self._changed = True
            return _verified(self._settings.dest, record, name, digest, self._entry(record).verified_at)
        if standing is Standing.AWAITS_HASH:
            left = await self._promoter.set_aside(record.job_id, name, Candidate(file, digest))
            self._changed = self._changed or left != file
            raise HashUnpublished(
                "the archive is complete, but no hash is published for it yet", left=f"kept as {left}"
            )
        if standing in (Standing.MISMATCH, Standing.ALTERED):
            raise await self._mismatch(record, name, kind, digest)
        return None

    async def _mismatch(self, record: ArchiveRecord, name: str, kind: Kind, digest: Digest) -> AgentError:
        published = ", ".join(self._published(record))
        if kind is Kind.MISMATCH:
            left = f"kept as {name}{kind.value}"
            return HashMismatch(f"quarantined before; SHA1 on disk is {digest.sha1}", left=left)
        left = await self._quarantine(record, name, name + kind.value)
        if published:
            return HashMismatch(f"SHA1 on disk is {digest.sha1}, Ops Manager published {published}", left=left)
        return Damaged("no hash is published, and the archive is damaged or was changed on disk", left=left)

    async def _quarantine(self, record: ArchiveRecord, name: str, file: str) -> str:
        left = await self._promoter.quarantine(record.job_id, name, file)
        self._changed = True
        return f"quarantined as {left}"

    def _standing(self, record: ArchiveRecord, kind: Kind, digest: Digest, finding: Finding | None) -> Standing:
        over = finding is not None  # verify does not wait
        published = self._published(record)
        return standing_of(Evidence(kind, digest, published, self._entry(record), finding, hash_time_over=over))

    def _entry(self, record: ArchiveRecord) -> Entry:
        return self._workspace.journal.entry(record.job_id)

    def _published(self, record: ArchiveRecord) -> tuple[str, ...]:
        job = self._jobs.get(record.job_id)
        if job is None:
            return ()
        url = job.delivery_url
        return job.published_hashes(url.file_name if url else None, self._entry(record).served_as, record.file_name)

    async def _digest(self, record: ArchiveRecord, name: str) -> Digest:
        found = self._directory.find(name)
        total = found.st_size if found else None

        def seen(size: int) -> None:
            row = ArchiveProgress(record.job_id, name, "hashing", size, total, 0, None, record.downloads_spent)
            self._services.reporter.report(Progress((row,)))

        digest = self._read[record.job_id] = await digest_of(self._directory, name, seen)
        return digest

    # ------------------------------------------------------------ records

    def _write_records(self, known: tuple[ArchiveRecord, ...], records: tuple[ArchiveRecord, ...]) -> Receipt:
        earlier = self._workspace.earlier
        receipt = receipt_of(
            self._restore,
            records,
            ops_manager=(earlier.ops_manager if earlier else None) or self._ops_manager,
            times=(self._started_at, rfc3339(self._services.clock.wall())),
            changed=self._changed,
        )
        mine = {record.job_id: record for record in records}
        receipt = replace(receipt, archives=tuple(mine.get(record.job_id, record) for record in known))
        write_sums(self._directory, self._workspace.journal.entries(), receipt)
        write_receipt(self._directory, receipt)
        with suppress(DestError):  # the receipt is what counts
            update_status(self._workspace.state_directory, os.getpid(), receipt, self._services.clock.wall())
        return receipt


def _record_of(job_id: str, entry: Entry) -> ArchiveRecord:
    """Return the record of an archive that only the journal knows."""
    return ArchiveRecord(
        job_id,
        file_name=entry.file_name,
        sha1=entry.proven or entry.whole,
        bytes=entry.promoted.size if entry.promoted else None,
        downloads_spent=entry.attempts,
        archive_kept=entry.archive_kept,
        **data_path_fields(entry.unpacked[-1] if entry.unpacked else None),
    )


def _verified(dest: Path, record: ArchiveRecord, name: str, digest: Digest, verified_at: str | None) -> ArchiveRecord:
    return replace(
        record,
        verdict=Verdict.VERIFIED,
        reason=None,
        exit_code=0,
        path=path_text(dest, name),
        bytes=digest.size,
        sha1=digest.sha1,
        expected_sha1=digest.sha1,
        verified_at=verified_at,
    )


def _failed(
    dest: Path, record: ArchiveRecord, error: AgentError, digest: Digest | None, expected: str | None
) -> ArchiveRecord:
    kind = {10: Kind.UNPROVEN, 11: Kind.MISMATCH}.get(error.exit_code)
    verdict = {10: Verdict.UNPROVEN, 11: Verdict.MISMATCH}.get(error.exit_code, Verdict.FAILED)
    path = path_text(dest, f"{record.file_name}{kind.value}") if kind else None
    failed = replace(record, verdict=verdict, reason=error.id, exit_code=error.exit_code, path=path)
    return failed if digest is None else replace(failed, sha1=digest.sha1, bytes=digest.size, expected_sha1=expected)
