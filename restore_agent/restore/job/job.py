"""Lifecycle of one restore job: check existing files, download, resume, verify, finish.

    NAMING → INSPECTING → WAITING ⇄ DOWNLOADING → VERIFYING → FINISHED
                             ↑________________________/   (a body that turned out to be incomplete)

`JobRestore` alone decides the order of the phases and the verdict; the batch asks it what can start now.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from ...core.errors import (
    AgentError,
    ArchiveError,
    AttemptFailed,
    Damaged,
    ForeignFile,
    HashMismatch,
    HashUnpublished,
    ResumeRefused,
    TransferCut,
)
from ...core.events import ArchiveFinished, Notice, RetryScheduled
from ...core.jobs import Decision, Step, refusal
from ...core.names import MISMATCH
from ...core.receipt import ArchiveRecord, Verdict
from ...core.untrusted import printable
from ...dest.archive import Digest
from ...dest.journal.facts import Answered, Cut, Discarded
from ...dest.lock import boot_id
from ...dest.promotion import Candidate, Promoter
from ...dest.structure import Finding
from ..proof import Kind, Standing
from .attempt import Attempt
from .context import RunContext
from .proving import Proving
from .retries import Retries
from .state import JobState, Phase

Work = Coroutine[Any, Any, None]

_DECIDABLE = (Standing.VERIFIED, Standing.AWAITS_HASH, Standing.MISMATCH, Standing.RESUMED_DIFFERS)
"""What a file can be for which a hash is awaited, or already decides."""


class JobRestore:
    """One restore job, from its first poll to its verdict."""

    def __init__(self, job_id: str, context: RunContext) -> None:
        self.state = JobState(job_id, context)
        self.retries = Retries(job_id, context)
        self._context = context
        self._promoter = Promoter(context.directory, context.journal, context.clock)
        self._proving = Proving(self.state)
        self._quarantined: Digest | None = None  # by an earlier run

    # ------------------------------------------------------------ what the batch may start

    def assign_name(self, name: str) -> None:
        """Set the name of the archive in DEST; then its files can be inspected."""
        if self.state.phase is Phase.NAMING:
            self.state.name, self.state.phase = name, Phase.INSPECTING

    def next_work(self) -> Work | None:
        """Return the work that can start now without a download slot, or None."""
        state = self.state
        if state.phase is Phase.INSPECTING:
            return self._guarded(self._inspect)
        if state.phase is Phase.WAITING and (found := self._proving.verified_now()):
            state.candidate, state.phase = found, Phase.VERIFYING
        if state.phase is Phase.VERIFYING:
            return self._guarded(self._verify)
        return None

    def may_download(self) -> bool:
        """Return whether an attempt can start now."""
        return self.state.phase is Phase.WAITING and self.retries.allowed()

    def download(self) -> Work:
        """Take a download slot and return the work of one attempt."""
        self.state.phase = Phase.DOWNLOADING
        return self._guarded(self._download)

    @property
    def may_still_download(self) -> bool:
        """Whether a download may follow."""
        return self.state.phase in (Phase.NAMING, Phase.INSPECTING, Phase.WAITING, Phase.DOWNLOADING)

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for Ops Manager: for its delivery, or for a poll after a failure."""
        return self.state.phase in (Phase.NAMING, Phase.WAITING)

    @property
    def is_retrying(self) -> bool:
        """Whether an attempt has failed and another follows."""
        return self.state.phase is Phase.WAITING and self.retries.made > 0

    @property
    def is_finished(self) -> bool:
        """Whether it has its verdict, and nothing is left to do."""
        return self.state.phase is Phase.FINISHED

    # ------------------------------------------------------------ phases

    async def _guarded(self, phase: Callable[[], Awaitable[None]]) -> None:
        """Run a phase. An AgentError finishes this archive and does not affect the others."""
        try:
            try:
                await phase()
            except AttemptFailed as failure:
                await self._after_failure(failure)
        except AgentError as error:  # also one of DEST while a failed attempt was journaled
            await self.fail(error)
        finally:
            self.state.hashing = False
            if self.state.name:
                self._context.space.release(self.state.name)

    async def _inspect(self) -> None:
        """Check what DEST holds already."""
        state = self.state
        if not state.entry.archive_kept and state.entry.proven and not self._final_exists():
            self._finish_discarded(state.entry.proven)
            return
        if final := await self._proving.final():
            await self._finish_existing(*final)
            return
        for standing in (self._proving.unproven, self._proving.part):
            if await standing() in _DECIDABLE:
                state.phase = Phase.VERIFYING
                return
        await self._inspect_quarantined()

    async def _inspect_quarantined(self) -> None:
        self.state.phase = Phase.WAITING
        if (found := await self._proving.quarantined()) is None:
            return
        standing, digest = found
        if standing is Standing.VERIFIED:
            await self._promote(self.state.named() + MISMATCH, digest)
        elif standing is Standing.MISMATCH:
            self._quarantined = digest

    def _final_exists(self) -> bool:
        return self._context.directory.find(self.state.named()) is not None

    async def _finish_existing(self, standing: Standing, digest: Digest) -> None:
        """Finish with the file at the final name, or refuse it."""
        state = self.state
        if standing is not Standing.VERIFIED:
            published = ", ".join(state.published) or "none"
            why = f"SHA1 {digest.sha1}, published is {published}"
            text = f"{printable(state.named())} already exists and is not a verified archive: {why}"
            raise ForeignFile(text, spent=False)
        if state.entry.promoted is None or state.entry.proven != digest.sha1:
            await self._promoter.accept_existing(state.job_id, state.named(), digest)
        self._finish_verified(digest)

    async def _download(self) -> None:
        """Run one attempt, and verify its file."""
        self.retries.begin()
        if not await Attempt(self.state, self._promoter).run():
            self.retries.take_back()
            self.state.phase = Phase.WAITING
            return
        self._proving.finding = None
        self.state.phase = Phase.VERIFYING

    async def _verify(self) -> None:
        """Wait for the hash of the candidate, and finish or try again."""
        state = self.state
        standing = await self._proving.wait_for_hash()
        candidate = state.candidate
        assert candidate is not None  # noqa: S101  # the phase begins with one
        if standing is Standing.VERIFIED:
            await self._promote(candidate.name, candidate.digest)
        elif standing is Standing.AWAITS_HASH:
            await self._leave_unproven()
        elif standing is Standing.MISMATCH:
            await self._quarantine()
        elif standing is Standing.RESUMED_DIFFERS:
            await state.journal(Discarded())
            state.hashed = None
            raise TransferCut(
                "the resumed file does not match the archive on the server; downloading it again from the start",
                spent=True,
            )
        else:
            await self._withdraw()

    async def _withdraw(self) -> None:
        """The candidate is not complete after all: keep its bytes if they could still be verified, and try again."""
        state = self.state
        candidate, state.candidate = state.candidate, None
        if candidate and self._proving.finding is Finding.WHOLE:
            await self._promoter.set_aside(state.job_id, state.named(), candidate)
            state.set_aside, state.hashed = candidate, None
            raise TransferCut("more bytes were announced, and no hash was published for those that came", spent=True)
        raise TransferCut("the archive is truncated, although the connection closed normally", spent=True)

    async def _after_failure(self, failure: AttemptFailed) -> None:
        """Journal a failed attempt, check whether its bytes are complete all the same, and plan the next one."""
        state = self.state
        from_transfer = state.phase is Phase.DOWNLOADING
        state.phase, state.candidate = Phase.WAITING, None
        await self._journal_failure(failure)
        if from_transfer and await self._complete_all_the_same():
            return
        wait = self.retries.failed(failure)
        if wait is None:
            return
        received = state.hashed.size if state.hashed else state.size_on_disk(Kind.PART)
        made, spent = self.retries.made, bool(failure.spent)
        self._context.reporter.report(
            RetryScheduled(state.job_id, state.named(), made, failure.id, failure.message, received, spent, wait)
        )

    async def _journal_failure(self, failure: AttemptFailed) -> None:
        state, entry = self.state, self.state.entry
        if isinstance(failure, ResumeRefused):
            if failure.complete:  # the server says that the archive is exactly as long as the part file
                size = state.size_on_disk(Kind.PART)
                await state.journal(Answered(entry.validator, size, entry.resumed, boot_id()))
                return
            await state.journal(Discarded())
            state.hashed = None
        elif entry.whole:
            await state.journal(Cut())

    async def _complete_all_the_same(self) -> bool:
        """Whether the bytes of a failed attempt are complete; then they are verified like any others."""
        self._proving.finding = None
        if await self._proving.part() not in _DECIDABLE:
            return False
        self.state.phase = Phase.VERIFYING
        return True

    # ------------------------------------------------------------ the end

    async def give_up(self) -> None:
        """Finish with the failure of the last attempt."""
        await self.fail(self.retries.final_failure())

    async def refuse(self, decision: Decision) -> None:
        """Finish by what Ops Manager says of the job: skipped, or failed for its reason."""
        state = self.state
        if decision.step is Step.SKIP:
            self._finish(state.record_as(Verdict.SKIPPED, reason=decision.reason))
            return
        over = decision.reason in ("delivery-expired", "downloads-used-up")
        if over and not self.retries.made and (digest := self._quarantined):  # the verdict of an earlier run
            self._finish_mismatch(digest, state.named() + MISMATCH)
            return
        after = f" after: {self.retries.last.message}" if self.retries.last else ""
        await self.fail(refusal(state.job, decision, after))

    async def fail(self, error: AgentError) -> None:
        """Finish with an error; the files on disk stay."""
        state = self.state
        error = error.with_context(left=error.left or state.left(), spent=state.sent > 0)
        self._finish(state.record_as(Verdict.FAILED, exit_code=error.exit_code, reason=error.id), error)

    def abandon(self) -> None:
        """Do no more work after a defect."""
        self.state.phase = Phase.FINISHED

    async def _promote(self, name: str, digest: Digest) -> None:
        await self._promoter.promote(self.state.job_id, self.state.named(), Candidate(name, digest))
        self.state.changed = True
        self._finish_verified(digest)

    def _finish_verified(self, digest: Digest) -> None:
        state = self.state
        state.meter.start(digest.size, digest.size)
        if state.published and digest.sha1 not in state.published:
            now = ", ".join(state.published)
            text = f"Ops Manager now publishes {now}; {state.named()} was verified by the hash before that"
            self._context.reporter.report(Notice("warning", text, state.job_id))
        path = state.path(state.named())
        self._finish(state.record_as(Verdict.VERIFIED, digest, expected=digest.sha1, path=path))

    def _finish_discarded(self, sha1: str) -> None:
        """Finish with an archive that was verified, unpacked, and removed."""
        self._finish(self.state.record_as(Verdict.VERIFIED, Digest(sha1, 0, 0), expected=sha1))

    async def _quarantine(self) -> None:
        state, candidate = self.state, self.state.candidate
        assert candidate is not None  # noqa: S101  # it was judged
        left = await self._promoter.quarantine(state.job_id, state.named(), candidate.name)
        state.changed = True
        self._finish_mismatch(candidate.digest, left)

    def _finish_mismatch(self, digest: Digest, left: str) -> None:
        error: ArchiveError = Damaged("no hash was published, and the archive is damaged by its own structure")
        if self.state.published:
            published = ", ".join(self.state.published)
            error = HashMismatch(f"SHA1 on disk is {digest.sha1}, Ops Manager published {published}")
        self._finish_aside(Verdict.MISMATCH, digest, left, error)

    async def _leave_unproven(self) -> None:
        state, candidate = self.state, self.state.candidate
        assert candidate is not None  # noqa: S101  # it was judged
        left = await self._promoter.set_aside(state.job_id, state.named(), candidate)
        state.changed = state.changed or left != candidate.name
        error = HashUnpublished("the archive is complete, but Ops Manager published no hash for it in time")
        code = 0 if self._context.limits.allow_unproven else error.exit_code
        self._finish_aside(Verdict.UNPROVEN, candidate.digest, left, error.with_context(exit_code=code))

    def _finish_aside(self, verdict: Verdict, digest: Digest, left: str, error: AgentError) -> None:
        """Finish with a file under another name than the final one."""
        state = self.state
        error = error.with_context(left=f"kept as {left}", spent=state.sent > 0)
        expected = state.published[0] if state.published else None
        record = state.record_as(
            verdict, digest, expected=expected, exit_code=error.exit_code, reason=error.id, path=state.path(left)
        )
        self._finish(record, error)

    def _finish(self, record: ArchiveRecord, error: AgentError | None = None) -> None:
        state = self.state
        state.record, state.phase = record, Phase.FINISHED
        state.hashed = None
        problem = error.with_context(archive=state.name or state.job_id).fields() if error else None
        self._context.reporter.report(ArchiveFinished(state.job_id, record, problem))
