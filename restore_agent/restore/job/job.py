"""Lifecycle of one restore job: check existing files, download, resume, verify, finish.

    NAMING → INSPECTING → WAITING ⇄ DOWNLOADING → VERIFYING → [UNPACKING →] FINISHED
                             ↑________________________/   (a body that turned out to be incomplete)

`JobRestore` alone decides the order of the phases and the verdict; the batch asks it what can start now.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from ...core.errors import (
    AgentError,
    AttemptFailed,
    CannotUnpack,
    DestError,
    DownloadsUsedUp,
    Expired,
    Finding,
    ForeignFile,
    NotUnpacked,
    ResumeRefused,
    TransferCut,
)
from ...core.events import RetryScheduled
from ...core.jobs import Decision, Step, refusal
from ...core.names import MISMATCH
from ...core.receipt import Verdict
from ...core.untrusted import printable
from ...dest.archive import Digest
from ...dest.journal.facts import Answered, Cut, Discarded
from ...dest.lock import boot_id
from ...dest.promotion import Candidate, Promoter
from ..proof import Kind, Standing
from .attempt import Attempt
from .context import RunContext
from .finishing import Finishing
from .proving import Proving
from .retries import Retries
from .state import JobState, Phase
from .unpacking import JobUnpacking

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
        place = context.data_place
        self._unpacking = JobUnpacking(self.state, place) if place else None
        self._proving = Proving(self.state, self._unpacking)
        self._finishing = Finishing(self.state, self._promoter, unpack=place is not None)
        self._quarantined: Digest | None = None  # by an earlier run

    # ------------------------------------------------------------ what the batch may start

    def next_work(self) -> Work | None:
        """Return the work that can start now without a download slot, or None."""
        state = self.state
        if state.phase is Phase.INSPECTING:
            return self._guarded(self._inspect)
        if state.phase is Phase.WAITING and (found := self._proving.verified_now()):
            state.candidate, state.phase = found, Phase.VERIFYING
        works = {Phase.VERIFYING: self._verify, Phase.UNPACKING: self._unpack}
        return self._guarded(works[state.phase]) if state.phase in works else None

    def cleaning(self) -> Work | None:
        """Return the work that a finished job leaves to do, or None."""
        unpacking = self._unpacking
        return unpacking.clean() if unpacking and self.state.is_finished and not unpacking.is_clean else None

    def may_download(self) -> bool:
        """Return whether an attempt can start now."""
        return self.state.phase is Phase.WAITING and self.retries.allowed()

    def download(self) -> Work:
        """Take a download slot and return the work of one attempt."""
        self.state.phase = Phase.DOWNLOADING
        return self._guarded(self._download)

    async def _guarded(self, phase: Callable[[], Awaitable[None]]) -> None:
        """Run a phase. An AgentError finishes this archive and does not affect the others."""
        try:
            try:
                await phase()
            except AttemptFailed as failure:
                await self._after_failure(failure)
        except AgentError as error:  # also one of DEST while a failed attempt was journaled
            self._finishing.fail(error)
        finally:
            self.state.hashing = False
            if self.state.name:
                self._context.space.release(self.state.name)

    async def _inspect(self) -> None:
        """Check what DEST holds already."""
        state = self.state
        self._proving.require_regular_files()
        archive = self._context.directory.find(state.named())
        if state.entry.proven and not state.entry.archive_kept and archive is None:
            self._finishing.discarded(state.entry.proven, state.entry.promoted)
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
            await self._finishing.promote(Candidate(self.state.named() + MISMATCH, digest))
        elif standing is Standing.MISMATCH:
            self._quarantined = digest

    async def _finish_existing(self, standing: Standing, digest: Digest) -> None:
        """Finish with the file at the final name, or refuse it."""
        state = self.state
        if standing is not Standing.VERIFIED:
            published = ", ".join(state.published) or "none"
            why = f"SHA1 {digest.sha1}, published is {published}"
            text = f"{printable(state.named())} already exists and is not a verified archive: {why}"
            raise ForeignFile(text, spent=False)
        entry = state.entry
        if entry.promoted is None or entry.proven != digest.sha1 or not entry.archive_kept:
            await self._promoter.accept_existing(state.job_id, state.named(), digest)
        self._finishing.verified(digest)

    async def _download(self) -> None:
        """Run one attempt, and verify its file."""
        self.retries.begin()
        follower = await self._unpacking.follow() if self._unpacking else None
        if not await Attempt(self.state, self._promoter, follower).run():
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
            await self._finishing.promote(candidate)
        elif standing is Standing.AWAITS_HASH:
            await self._finishing.leave_unproven(candidate)
        elif standing is Standing.MISMATCH:
            await self._finishing.quarantine(candidate)
        elif standing is Standing.RESUMED_DIFFERS:
            await state.journal(Discarded())
            state.hashed = None
            raise TransferCut(
                "the resumed file does not match the archive on the server; downloading it again from the start",
                spent=True,
            )
        else:
            await self._withdraw()

    async def _unpack(self) -> None:
        """Publish the data path of a verified or accepted archive; whatever goes wrong, the archive stays as it is."""
        state, unpacking = self.state, self._unpacking
        record = state.record
        assert record is not None  # noqa: S101  # the phase begins with one
        assert unpacking is not None  # noqa: S101  # the phase exists only with --unpack
        verified = record.verdict is Verdict.VERIFIED
        name = os.path.basename(record.path) if record.path else state.named()
        digest = Digest(record.sha1 or "", record.bytes or 0, 0)
        try:
            found = await unpacking.publish(digest, name, verified=verified)
        except (NotUnpacked, DestError) as error:
            state.meter.unpacked = None
            not_unpacked = error if isinstance(error, NotUnpacked) else CannotUnpack(error.message)
            self._finishing.not_unpacked(not_unpacked)
            return
        try:
            if verified and unpacking.discards_archive and state.entry.archive_kept:
                await self._promoter.remove_archive(state.job_id, state.named())
                state.changed = True
        except DestError as error:
            self._finishing.unpacked(found, error)
        else:
            self._finishing.unpacked(found)

    async def close(self) -> None:
        """Stop unpacking; the next run removes the staging directory that is left."""
        if self._unpacking:
            await asyncio.to_thread(self._unpacking.close)

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

    def refuse(self, decision: Decision) -> None:
        """Finish by what Ops Manager says of the job: skipped, or failed for its reason."""
        state = self.state
        over = decision.reason in (Expired.id, DownloadsUsedUp.id)
        if decision.step is Step.SKIP:
            self._finishing.skip(decision.reason)
        elif over and not self.retries.made and self._quarantined:  # the verdict of an earlier run
            self._finishing.mismatch(self._quarantined, state.named() + MISMATCH)
        else:
            after = f"; the last attempt failed: {self.retries.last.message}" if self.retries.last else ""
            self._finishing.fail(refusal(state.job, decision, after))

    def fail(self, error: AgentError) -> None:
        """Finish with an error."""
        self._finishing.fail(error)

    def abandon(self) -> None:
        """Do no more work after a defect."""
        self.state.phase = Phase.FINISHED
