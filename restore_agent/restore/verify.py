"""`verify`: proves what is in DEST again, and promotes what Ops Manager published a hash for since. No delivery URL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from ..core.clock import Clock, ServerClock, rfc3339
from ..core.errors import (
    AgentError,
    ArchiveMissing,
    Damaged,
    HashMismatch,
    HashUnpublished,
    InTheWay,
    NotFound,
    NothingSelected,
    OtherBatch,
    UsageError,
)
from ..core.events import ArchiveFinished, ArchiveProgress, Notice, Progress, Reporter, RunStarted
from ..core.jobs import Job
from ..core.names import MISMATCH, PART, RECEIPT, UNPROVEN
from ..core.receipt import ArchiveRecord, Receipt, Verdict, outcome_of, parse_receipt
from ..core.redaction import Redactor
from ..core.settings import Connection, Target
from ..core.untrusted import printable
from ..dest.archive import Digest, digest_of, structure_of
from ..dest.directory import Directory
from ..dest.journal import Journal
from ..dest.lock import STATE_DIRECTORY, Lock
from ..dest.publish import Candidate, Promoter, set_aside
from ..dest.structure import Finding
from ..dest.workspace import write_receipt, write_sums
from ..network.opsmanager import OpsManager
from .poller import first_reading
from .selection import matches


class Verification:
    """One verification of a DEST. `connection` None means offline: the receipt's hashes are all there is.

    `given` holds the ids that the operator named; the receipt knows the rest. With `job_ids` or `select` only the
    archives that they name are proven, and decide the exit code; the others stay in the receipt as they are.
    """

    def __init__(
        self,
        connection: Connection | None,
        given: Mapping[str, str | None],
        dest: Path,
        poll_interval: float,
        reporter: Reporter,
        clock: Clock,
        redactor: Redactor,
        job_ids: Sequence[str] = (),
        select: Sequence[str] = (),
    ) -> None:
        self._connection, self._given, self._dest, self._poll_interval = connection, given, dest, poll_interval
        self._job_ids, self._select = job_ids, select
        self._reporter, self._clock, self._redactor = reporter, clock, redactor
        self._started_at = rfc3339(clock.wall())
        self._jobs: Mapping[str, Job] = {}
        self._read: dict[str, Digest] = {}
        self._changed = False

    async def run(self) -> Receipt:
        """Prove every archive that the receipt or the journal names. Raises AgentError."""
        with ExitStack() as stack:
            where = self._directory = stack.enter_context(Directory.open(self._dest, create=False))
            state = where.subdirectory(STATE_DIRECTORY, create=False)
            if state is None:
                raise InTheWay(
                    f"{printable(str(self._dest))} holds no restore of this agent: there is nothing to verify"
                )
            stack.enter_context(state)
            stack.callback(Lock.take(state).release)
            self._journal = Journal.open(state)
            stack.callback(self._journal.close)
            self._publisher = Promoter(where, self._journal, self._clock)
            known = self._known()
            self._reporter.report(RunStarted(known.ops_manager, str(self._dest)))
            await self._ask(known)
            wanted = [record for record in known.archives if self._wanted(record)]
            if not wanted:
                raise NothingSelected(f"none of the {len(known.archives)} archives in DEST is asked for")
            return self._written(known, tuple([await self._prove(record) for record in wanted]))

    # ------------------------------------------------------------ what should be here

    def _known(self) -> Receipt:
        """The receipt, with the archives that only the journal knows (a run that was killed before its end)."""
        raw = self._directory.read(RECEIPT)
        receipt = parse_receipt(raw) if raw is not None else self._empty()
        for name in ("group_id", "cluster_id", "host_id", "batch_id"):
            asked = self._given.get(name)
            if raw is not None and asked and getattr(receipt, name) and asked != getattr(receipt, name):
                raise OtherBatch(f"DEST holds the receipt of {name} {getattr(receipt, name)!r}, not of {asked!r}")
        listed = {record.job_id for record in receipt.archives}
        extra = tuple(
            ArchiveRecord(
                job_id, file_name=entry.file_name, sha1=entry.proven or entry.whole, downloads_spent=entry.attempts
            )
            for job_id, entry in self._journal.entries().items()
            if job_id not in listed and entry.file_name
        )
        if not receipt.archives and not extra:
            raise InTheWay(f"{printable(str(self._dest))} holds no archive of this agent: there is nothing to verify")
        return replace(receipt, archives=receipt.archives + extra)

    def _empty(self) -> Receipt:
        given = self._given
        return Receipt(
            group_id=given.get("group_id"),
            cluster_id=given.get("cluster_id"),
            host_id=given.get("host_id"),
            batch_id=given.get("batch_id"),
            ops_manager=None,
            started_at=self._started_at,
            finished_at=self._started_at,
            outcome="failed",
            exit_code=0,
            changed=False,
        )

    async def _ask(self, known: Receipt) -> None:
        """One reading of the jobs, without waiting for anything. What Ops Manager forgot does not stop the proof."""
        if self._connection is None:
            return
        target = self._target(known)
        server_clock = ServerClock(self._clock)
        async with OpsManager(self._connection, server_clock, self._redactor) as api:
            try:
                watch = await first_reading(api, target, self._clock, self._poll_interval, empty_will_do=True)
                self._jobs, forgotten = watch.jobs, None if watch.jobs else "Ops Manager lists no job of the batch"
            except NotFound as error:
                forgotten = error.message
        if forgotten:
            self._reporter.report(Notice("warning", f"{forgotten}; proving by the receipt alone"))

    def _target(self, known: Receipt) -> Target:
        group = known.group_id or self._given.get("group_id")
        place = {name: getattr(known, name) or self._given.get(name) for name in ("cluster_id", "host_id")}
        if not group or not any(place.values()):
            raise UsageError("no receipt says which cluster this is: give --group-id and --cluster-id")
        batch = known.batch_id or self._given.get("batch_id")
        ids = () if batch else tuple(record.job_id for record in known.archives if self._wanted(record))
        return Target(group, place["cluster_id"], None if place["cluster_id"] else place["host_id"], batch, ids)

    # ------------------------------------------------------------ one archive

    def _wanted(self, record: ArchiveRecord) -> bool:
        if self._job_ids and record.job_id not in self._job_ids:
            return False
        texts = [record.job_id, record.cluster_id, record.host_id, record.file_name]
        return not self._select or matches(self._select, texts)

    async def _prove(self, record: ArchiveRecord) -> ArchiveRecord:
        """The record of one archive after its bytes were read again."""
        if record.verdict is Verdict.SKIPPED:
            return record
        error: AgentError | None = None
        try:
            proven = await self._judge(record)
        except AgentError as problem:
            error = problem
            error.archive = record.file_name or record.job_id
            proven = self._judged(record, error, self._read.get(record.job_id))
        self._reporter.report(ArchiveFinished(record.job_id, proven, error.fields() if error else None))
        return proven

    async def _judge(self, record: ArchiveRecord) -> ArchiveRecord:
        name, where = record.file_name, self._directory
        if name is None:
            return record
        if where.find_file(name):
            return await self._final(record, name)
        if record.verdict is Verdict.VERIFIED:
            raise ArchiveMissing(f"{printable(name)} was verified and is not in DEST any more", left="nothing of it")
        for suffix in (UNPROVEN, PART, MISMATCH):
            if where.find_file(name + suffix) and (settled := await self._companion(record, name, suffix)):
                return settled
        return (
            record if record.verdict else replace(record, verdict=Verdict.FAILED, reason="not-downloaded", exit_code=20)
        )

    async def _final(self, record: ArchiveRecord, name: str) -> ArchiveRecord:
        """A file at the final name must be what was proven, or what is published now."""
        digest = await self._digest(record, name)
        entry, expected = self._journal.entry(record.job_id), self._expected(record)
        if digest.sha1 in (entry.proven, expected) or (
            record.verdict is Verdict.VERIFIED and digest.sha1 == record.sha1
        ):
            await self._publisher.accept_existing(record.job_id, name, digest)
            return self._verified(record, name, digest, digest.sha1)
        if record.verdict is not Verdict.VERIFIED and not entry.proven:
            raise InTheWay(f"a file stands at {printable(name)} that this agent did not put there")
        wanted = record.sha1 or entry.proven
        raise await self._quarantine(
            record, name, name, HashMismatch(f"SHA1 on disk is {digest.sha1}, proven was {wanted}")
        )

    async def _companion(self, record: ArchiveRecord, name: str, suffix: str) -> ArchiveRecord | None:
        """An archive under another name: promoted, left as it is, or set aside."""
        entry, expected = self._journal.entry(record.job_id), self._expected(record)
        digest = await self._digest(record, name + suffix)
        if expected == digest.sha1:
            await self._publisher.publish(record.job_id, name, Candidate(name + suffix, digest))
            self._changed = True
            return self._verified(record, name, digest, expected)
        if suffix == MISMATCH:
            raise HashMismatch(f"quarantined before; SHA1 on disk is {digest.sha1}", left=f"kept as {name}{suffix}")
        if suffix == PART and digest.sha1 != entry.whole:
            return None
        if expected and expected != entry.hash_before:
            why = f"SHA1 on disk is {digest.sha1}, Ops Manager published {expected}"
            raise await self._quarantine(record, name, name + suffix, HashMismatch(why))
        if await structure_of(self._directory, name + suffix) is not Finding.WHOLE:
            why = "no hash is published, and the archive is damaged by its own structure"
            raise await self._quarantine(record, name, name + suffix, Damaged(why))
        left = await set_aside(self._directory, name + suffix, name, UNPROVEN)
        self._changed = self._changed or suffix != UNPROVEN
        raise HashUnpublished("the archive is whole, but no hash is published for it yet", left=f"kept as {left}")

    async def _quarantine(self, record: ArchiveRecord, name: str, found: str, error: AgentError) -> AgentError:
        error.left = f"quarantined as {await set_aside(self._directory, found, name, MISMATCH)}"
        await self._journal.record("discarded", record.job_id, self._clock.wall())
        self._changed = True
        return error

    def _expected(self, record: ArchiveRecord) -> str | None:
        job = self._jobs.get(record.job_id)
        served_as = self._journal.entry(record.job_id).served_as or record.file_name
        return job.published_hash(served_as) if job and served_as else None

    async def _digest(self, record: ArchiveRecord, name: str) -> Digest:
        found = self._directory.find(name)
        total = found.st_size if found else None

        def seen(size: int) -> None:
            row = ArchiveProgress(record.job_id, name, "hashing", size, total, 0, None, record.downloads_spent)
            self._reporter.report(Progress((row,)))

        digest = self._read[record.job_id] = await digest_of(self._directory, name, seen)
        return digest

    # ------------------------------------------------------------ writing it down

    def _verified(self, record: ArchiveRecord, name: str, digest: Digest, expected: str) -> ArchiveRecord:
        return replace(
            record,
            verdict=Verdict.VERIFIED,
            reason=None,
            exit_code=0,
            path=str(self._dest / name),
            bytes=digest.size,
            sha1=digest.sha1,
            expected_sha1=expected,
        )

    def _judged(self, record: ArchiveRecord, error: AgentError, digest: Digest | None) -> ArchiveRecord:
        verdicts = {10: Verdict.UNPROVEN, 11: Verdict.MISMATCH}
        suffix = {10: UNPROVEN, 11: MISMATCH}.get(error.exit_code)
        path = str(self._dest / f"{record.file_name}{suffix}") if suffix else None
        verdict = verdicts.get(error.exit_code, Verdict.FAILED)
        expected = self._expected(record) or record.expected_sha1
        judged = replace(record, verdict=verdict, reason=error.id, exit_code=error.exit_code, path=path)
        return replace(judged, sha1=digest.sha1, bytes=digest.size, expected_sha1=expected) if digest else judged

    def _written(self, known: Receipt, records: tuple[ArchiveRecord, ...]) -> Receipt:
        outcome, code = outcome_of(records)
        mine = {record.job_id: record for record in records}
        receipt = replace(
            known,
            outcome=outcome,
            exit_code=code,
            changed=self._changed,
            archives=tuple(mine.get(record.job_id, record) for record in known.archives),
            started_at=self._started_at,
            finished_at=rfc3339(self._clock.wall()),
        )
        write_sums(self._directory, receipt)
        write_receipt(self._directory, receipt)
        return receipt
