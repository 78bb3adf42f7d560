"""The end of a restore job: its verdict, its record, and what happens to its file."""

from __future__ import annotations

from dataclasses import replace

from ...core.errors import AgentError, ArchiveError, Damaged, DestError, HashMismatch, HashUnpublished, NotUnpacked
from ...core.events import ArchiveFinished, Notice
from ...core.receipt import ArchiveRecord, Verdict
from ...dest.archive import Digest
from ...dest.journal import Identity
from ...dest.journal.facts import Unpacking
from ...dest.promotion import Candidate, Promoter
from ...dest.workspace import data_path_fields
from .state import JobState, Phase


class Finishing:
    """Finishes one restore job: each method sets its record and its last phase, and reports it."""

    def __init__(self, state: JobState, promoter: Promoter, *, unpack: bool) -> None:
        self._state = state
        self._context = state.context
        self._promoter = promoter
        self._unpack = unpack
        self._error: AgentError | None = None  # of an accepted archive that is still to be unpacked

    def skip(self, reason: str) -> None:
        """Finish a job that is not delivered over HTTP."""
        self._finish(self._state.record_as(Verdict.SKIPPED, reason=reason))

    def fail(self, error: AgentError) -> None:
        """Finish with an error; the files on disk stay."""
        state = self._state
        error = error.with_context(left=error.left or state.left(), spent=state.sent > 0)
        self._finish(state.record_as(Verdict.FAILED, exit_code=error.exit_code, reason=error.id), error)

    async def promote(self, candidate: Candidate) -> None:
        """Give a verified file its final name, and finish with it. Raises DestError."""
        await self._promoter.promote(self._state.job_id, self._state.named(), candidate)
        self._state.changed = True
        self.verified(candidate.digest)

    def verified(self, digest: Digest) -> None:
        """Finish with the archive at its final name."""
        state = self._state
        state.meter.start(digest.size, digest.size)
        if state.published and digest.sha1 not in state.published:
            now = ", ".join(state.published)
            text = f"Ops Manager now publishes {now}; {state.named()} was verified by the hash before that"
            self._context.reporter.report(Notice("warning", text, state.job_id))
        path = state.path(state.named())
        self._unpack_or_finish(state.record_as(Verdict.VERIFIED, digest, expected=digest.sha1, path=path))

    def discarded(self, sha1: str, promoted: Identity | None) -> None:
        """Finish with an archive that was verified, unpacked, and removed; `promoted` is the file that it was."""
        digest = Digest(sha1, promoted.size, promoted.inode) if promoted else None
        if digest:
            self._state.meter.start(digest.size, digest.size)
        record = self._state.record_as(Verdict.VERIFIED, digest, expected=sha1)
        self._unpack_or_finish(replace(record, sha1=sha1))

    async def quarantine(self, candidate: Candidate) -> None:
        """Quarantine a file that differs or is damaged, and finish with it. Raises DestError."""
        left = await self._promoter.quarantine(self._state.job_id, self._state.named(), candidate.name)
        self._state.changed = True
        self.mismatch(candidate.digest, left)

    def mismatch(self, digest: Digest, left: str) -> None:
        """Finish with a quarantined file of the name `left`."""
        error: ArchiveError = Damaged("no hash was published, and the archive is damaged by its own structure")
        if self._state.published:
            published = ", ".join(self._state.published)
            error = HashMismatch(f"SHA1 on disk is {digest.sha1}, Ops Manager published {published}")
        self._aside(Verdict.MISMATCH, digest, left, error)

    async def leave_unproven(self, candidate: Candidate) -> None:
        """Keep a complete file without a published hash, and finish with it. Raises DestError."""
        left = await self._promoter.set_aside(self._state.job_id, self._state.named(), candidate)
        self._state.changed = self._state.changed or left != candidate.name
        error = HashUnpublished("the archive is complete, but Ops Manager published no hash for it in time")
        code = 0 if self._context.limits.allow_unproven else error.exit_code
        self._aside(Verdict.UNPROVEN, candidate.digest, left, error.with_context(exit_code=code))

    def _aside(self, verdict: Verdict, digest: Digest, left: str, error: AgentError) -> None:
        """Finish with a file under another name than the final one."""
        state = self._state
        error = error.with_context(left=f"kept as {left}", spent=state.sent > 0)
        expected = state.published[0] if state.published else None
        record = state.record_as(
            verdict, digest, expected=expected, exit_code=error.exit_code, reason=error.id, path=state.path(left)
        )
        if verdict is Verdict.UNPROVEN and not error.exit_code:
            self._unpack_or_finish(record, error)
        else:
            self._finish(record, error)

    # ------------------------------------------------------------ unpacking

    def _unpack_or_finish(self, record: ArchiveRecord, error: AgentError | None = None) -> None:
        """Finish, or go on with unpacking an archive that is verified or accepted."""
        if not self._unpack:
            self._finish(record, error)
            return
        self._error = error
        self._state.record, self._state.phase, self._state.hashed = record, Phase.UNPACKING, None

    def unpacked(self, data_path: Unpacking, error: DestError | None = None) -> None:
        """Finish with the data path; `error` is why the archive could not be removed after it."""
        record = replace(self._record(), **data_path_fields(data_path))
        if error:
            error = error.with_context(left=f"{record.file_name} and {data_path.path}", spent=self._state.sent > 0)
            self._finish(replace(record, exit_code=error.exit_code, reason=error.id), error)
            return
        if not self._state.entry.archive_kept:
            record = replace(record, path=None, archive_kept=False)
        self._finish(record, self._error)

    def not_unpacked(self, error: NotUnpacked) -> None:
        """Finish an archive that is safe, although its data path is not there."""
        record = self._record()
        left = f"{record.file_name} is kept" if record.path else "the receipt is kept"
        problem = error.with_context(left=left, spent=self._state.sent > 0)
        self._finish(replace(record, exit_code=error.exit_code, reason=error.id), problem)

    def _record(self) -> ArchiveRecord:
        assert self._state.record is not None  # noqa: S101  # unpacking begins with one
        return self._state.record

    def _finish(self, record: ArchiveRecord, error: AgentError | None = None) -> None:
        state = self._state
        state.record, state.phase = record, Phase.FINISHED
        state.hashed = None
        problem = error.with_context(archive=state.name or state.job_id).fields() if error else None
        self._context.reporter.report(ArchiveFinished(state.job_id, record, problem))
