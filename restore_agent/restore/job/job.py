"""One restore job's way: look at what is on disk, attempt, resume, prove, settle.

A `JobRestore` moves through phases; each phase is one coroutine that the agent starts, and ends in another phase:

    NAMING → LOOKING → WAITING ⇄ FETCHING → PROVING → SETTLED
                          ↑_________________________/   (a body that was cut by its own structure)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

from ...core.clock import Backoff, Deadline
from ...core.errors import (
    AgentError,
    ArchiveError,
    AttemptFailed,
    Damaged,
    DestError,
    ForeignFile,
    HashMismatch,
    HashUnpublished,
    NoSpace,
    ResumeRefused,
    TransferCut,
)
from ...core.events import ArchiveFinished, Downloaded, DownloadStarted, Notice, RetryScheduled
from ...core.jobs import Decision, Job, Step, decide, refusal
from ...core.names import MISMATCH, PART, UNPROVEN
from ...core.receipt import ArchiveRecord, Verdict, record_of
from ...core.untrusted import printable
from ...dest.archive import Digest, Part, digest_of, structure_of
from ...dest.journal import Entry, Identity
from ...dest.lock import boot_id
from ...dest.publish import Candidate, Promoter, set_aside
from ...dest.space import DiskSpace
from ...dest.structure import Finding
from ...network.delivery import Body, Resume
from ..poller import PATIENCE
from .context import RunContext
from .rate import Meter
from .transfer import Transfer, finished

NOTHING_LEFT = "nothing of it"

"""What is on disk of an archive that never came."""


class Phase(Enum):
    """Where a job is on its way."""

    NAMING = "naming"
    LOOKING = "looking"
    WAITING = "waiting"
    FETCHING = "fetching"
    PROVING = "proving"
    SETTLED = "settled"


class JobRestore:
    """One restore job, from first sight to verdict."""

    def __init__(self, job_id: str, context: RunContext) -> None:
        self.job_id = job_id
        self._context = context
        self._publisher = Promoter(context.directory, context.journal, context.clock)
        self.name: str | None = None
        self._served_as: str | None = None
        self.phase = Phase.NAMING
        self.record: ArchiveRecord | None = None
        self.meter = Meter(context.clock)
        self.hashing = False
        self.changed = False
        self._part: Part | None = None
        self._candidate: Candidate | None = None
        self._tries = 0  # attempts of this run, and how many of them were sent
        self.sent = 0
        self._last_failure: AttemptFailed | None = None
        self._backoff = Backoff(min(1.0, context.limits.poll_interval))
        self._not_before = 0.0
        self._reading_wanted: int | None = -1  # none: to be asked for when the backoff is over
        self._last_word: Deadline | None = None  # set once all attempts are made: until when to wait for that reading
        self._quarantined: Digest | None = None  # of an earlier run

    @property
    def job(self) -> Job:
        """The latest reading."""
        return self._context.poller.jobs[self.job_id]

    @property
    def entry(self) -> Entry:
        """What the journal knows."""
        return self._context.journal.entry(self.job_id)

    @property
    def shown_state(self) -> str:
        """`waiting`, `downloading`, `hashing` or the verdict, as the status file says it."""
        if self.record and self.record.verdict:
            return self.record.verdict.value
        if self.hashing or self.phase is Phase.PROVING:
            return "hashing"
        return "downloading" if self.phase is Phase.FETCHING else "waiting"

    def assign_name(self, name: str, served_as: str) -> None:
        """Give the archive its name in DEST and the one that hashes call it by."""
        self.name, self._served_as = name, served_as
        self.phase = Phase.LOOKING

    def may_fetch(self) -> bool:
        """Whether an attempt may begin now: READY, after a failure by a reading that began when the backoff was over.

        A URL that was renewed during the backoff is so the one that is used.
        """
        if self.phase is not Phase.WAITING or self._last_word or decide(self.job).step is not Step.DOWNLOAD:
            return False
        if self._context.clock.monotonic() < self._not_before:
            return False
        if self._reading_wanted is None:
            self._reading_wanted = self._context.poller.poll_number()
            self._context.poller.poll_now()
        return self._context.poller.newer_than(self._reading_wanted, self.job_id)

    @property
    def retrying(self) -> bool:
        """Whether an attempt has failed and another is to come."""
        return self.phase is Phase.WAITING and self._tries > 0

    @property
    def given_up(self) -> bool:
        """Whether all attempts are made, and Ops Manager, asked again or silent, has no reason to tell for it."""
        if self.phase is not Phase.WAITING or self._last_word is None or self._reading_wanted is None:
            return False
        return self._context.poller.newer_than(self._reading_wanted, self.job_id) or self._last_word.passed()

    async def give_up(self) -> None:
        """Settle with the last attempt's failure."""
        failure = self._last_failure
        assert failure is not None  # noqa: S101  # there is no giving up without one
        made = "1 attempt" if self._tries == 1 else f"{self._tries} attempts"
        failure.message = f"{failure.message}; given up after {made}"
        await self.fail(failure)

    def may_still_fetch(self) -> bool:
        """Whether a download may still come."""
        return self.phase in (Phase.NAMING, Phase.LOOKING, Phase.WAITING, Phase.FETCHING)

    # ------------------------------------------------------------ phases

    async def guarded(self, phase: Callable[[], Any]) -> None:
        """Run a phase; an error of ours settles the archive, whatever the others do."""
        try:
            try:
                await phase()
            except AttemptFailed as failure:
                await self._after_failure(failure)
        except AgentError as error:  # also one of DEST while a failed attempt was written down
            await self.fail(error)
        finally:
            self.hashing = False
            if self.name:
                self._context.space.release(self.name)

    async def look(self) -> None:
        """What DEST holds already: a verified archive, a whole one that wants proof, or nothing of use."""
        name, where = self._named(), self._context.directory
        if found := where.find_file(name):
            await self._look_at_final(name, Identity.of(found))
            return
        for suffix in (UNPROVEN, PART, MISMATCH):
            if where.find_file(name + suffix) and await self._look_at(name + suffix, suffix):
                return
        self.phase = Phase.WAITING

    async def _look_at_final(self, name: str, identity: Identity) -> None:
        entry, expected = self.entry, self._expected()
        if entry.proven and entry.published == identity and expected in (None, entry.proven):
            self._verified(Digest(entry.proven, identity.size, identity.inode), expected)
            return
        digest = await self._hash_again(name)
        if digest.sha1 not in (entry.proven, expected):
            why = f"SHA1 {digest.sha1}, published is {expected or 'none'}"
            raise ForeignFile(f"a file stands at {printable(name)} that is not proven: {why}", spent=False)
        await self._publisher.accept_existing(self.job_id, name, digest)
        self._verified(digest, expected)

    async def _look_at(self, name: str, suffix: str) -> bool:
        """Whether a companion file settles the matter or only wants proof."""
        entry, expected = self.entry, self._expected()
        if expected is None and not (suffix == UNPROVEN or (suffix == PART and entry.whole)):
            return False
        digest = await self._hash_again(name)
        if digest.sha1 == expected:
            await self._publish(Candidate(name, digest), expected)
            return True
        if suffix == MISMATCH:
            self._quarantined = digest
        if suffix == UNPROVEN or (suffix == PART and digest.sha1 == entry.whole):
            self._candidate, self.phase = Candidate(name, digest), Phase.PROVING
            return True
        return False

    async def fetch(self) -> None:
        """One attempt: journal first, then one GET, then its bytes into the part file. Ends in PROVING."""
        name, where = self._named(), self._context.directory
        known = self.entry.total
        self._context.space.book(name, None if known is None else max(0, known - self._on_disk(PART)))
        part = self._part = self._part or await Part.open(where, name)
        self.changed = True
        resume = await self._resume(part)
        if (link := self.job.delivery_url) is None or decide(
            self.job
        ).step is not Step.DOWNLOAD:  # hashing takes a while
            self.phase = Phase.WAITING
            return
        self._tries += 1
        await self._journal("attempt", file_name=name, served_as=self._served_as, hash_before=self._expected())
        self.sent += 1
        link = self.job.delivery_url or link  # the latest: syncing the journal may have taken a while, too
        attempt, offset = self.entry.attempts, resume.offset if resume else 0
        self._context.reporter.report(DownloadStarted(self.job_id, name, attempt, offset, str(link)))
        began = self._context.clock.monotonic()
        try:
            async with self._context.deliveries.open(link, resume, self._context.server_clock.now()) as body:
                received = await self._receive(body, part)
        except AgentError as error:
            if error.spent is False and not isinstance(error, DestError):  # the request never left
                self.sent -= 1
                await self._journal("unsent")
            raise
        digest = await self._synced(part)
        await self.close()
        seconds = self._context.clock.monotonic() - began
        await self._journal("whole", sha1=digest.sha1, seconds=round(seconds, 3), received=received)
        self._candidate, self.phase = Candidate(part.name, digest), Phase.PROVING
        self._context.reporter.report(Downloaded(self.job_id, name, digest.size, digest.sha1, seconds))

    async def _synced(self, part: Part) -> Digest:
        """Sync the part file; when that fails, what the kernel still shows of it proves nothing, and it goes."""
        try:
            return await part.sync()
        except DestError:
            await self._publisher.discard_unsynced(self.job_id, part.name)
            raise

    async def _keep(self, part: Part) -> None:
        """Sync what came so far, in the background of the transfer, and note it: from there a resume can be trusted."""
        await self._journal("synced", offset=await part.flush())

    async def _resume(self, part: Part) -> Resume | None:
        """Where an earlier attempt can be taken up, once its bytes are hashed; None starts over."""
        entry = self.entry
        have = part.size or self._on_disk(PART)
        if not part.size and (entry.boot is None or entry.boot != boot_id()):
            have = min(have, entry.synced)  # after a reboot only what was synced is known to be there
        if not entry.validator or not have or (entry.total is not None and have >= entry.total):
            return None
        if not part.size:
            self.hashing = True
            self.meter.start(0, have)
            await part.take_over(have, self._count)
            self.hashing = False
        return Resume(part.size, entry.validator, entry.total)

    async def _receive(self, body: Body, part: Part) -> int:
        """Stream a checked answer into the part file; the number of bytes it brought."""
        transfer = Transfer(body, part, self._context.limits.parallel, self._context.limit, self._book)
        await transfer.begin()
        if body.offset == 0:
            await part.restart()
        begun = part.size
        facts = {"validator": body.validator, "total": body.total, "resumed": body.offset > 0, "boot": boot_id()}
        await self._journal("answered", **facts)
        self.meter.start(begun, body.total)
        try:
            await transfer.run(partial(self._keep, part))
        finally:
            self.meter.bytes = part.size
        self._context.space.release(self._named())
        return part.size - begun

    def _book(self, size: int, to_come: int | None) -> None:
        """How far the transfer is, and what is still to come of it. Raises NoSpace."""
        self.meter.bytes = size
        self._context.space.book(self._named(), to_come)

    async def prove(self) -> None:
        """Hold the whole file against the published hash, until there is one or --hash-timeout is over."""
        candidate = self._candidate
        assert candidate is not None  # noqa: S101  # every way into PROVING sets it
        before = self.entry.hash_before
        self._context.poller.poll_now()
        check: asyncio.Task[Finding] | None = None
        try:
            while True:
                expected = self._expected()
                if expected == candidate.digest.sha1:
                    await self._publish(candidate, expected)
                    return
                # a hash from before this download may be that of an earlier one: it proves, but does not condemn
                if (expected and expected != before) or self._context.hash_time_over.is_set():
                    break
                if check and check.done() and check.result() is Finding.TRUNCATED:
                    break
                await self._context.poller.wait_for_poll()
                check = check or asyncio.ensure_future(self._structure(candidate.name))
            check = check or asyncio.ensure_future(self._structure(candidate.name))
            finding = await check
            if self._expected() == candidate.digest.sha1:  # published while the structure was read
                await self._publish(candidate, candidate.digest.sha1)
            else:
                await self._judge(candidate, finding)
        finally:
            if check:
                check.cancel()
                await finished(check)

    async def _structure(self, name: str) -> Finding:
        async with self._context.reading:
            return await structure_of(self._context.directory, name)

    async def _judge(self, candidate: Candidate, finding: Finding) -> None:
        """The verdict on a file that no published hash matches."""
        expected = self._expected()
        if finding is Finding.TRUNCATED:
            raise TransferCut(
                "the body ended early by its own structure, however cleanly the connection closed", spent=True
            )
        if expected is None and finding is Finding.WHOLE:
            await self._leave_unproven(candidate)
            return
        if self.entry.resumed:
            await self._journal("discarded")
            raise TransferCut("the resumed archive is not what the server has; starting over", spent=True)
        left = await set_aside(self._context.directory, candidate.name, self._named(), MISMATCH)
        await self._journal("discarded")
        self.changed = True
        self._settle_mismatch(candidate.digest, left)

    def _settle_mismatch(self, digest: Digest, left: str) -> None:
        error: ArchiveError = Damaged("no hash was published, and the archive is damaged by its own structure")
        if expected := self._expected():
            error = HashMismatch(f"SHA1 on disk is {digest.sha1}, Ops Manager published {expected}")
        self._settle_aside(Verdict.MISMATCH, digest, left, error)

    # ------------------------------------------------------------ what follows

    async def _after_failure(self, failure: AttemptFailed) -> None:
        """A failed attempt: read the job again and, while it says READY, try again after a pause."""
        self._last_failure = failure
        self._candidate = None
        if self._part and self._part.size:
            with suppress(DestError):
                await self._keep(self._part)
        if isinstance(failure, ResumeRefused):
            await self._journal("discarded")
        elif self.entry.whole:
            await self._journal("cut")
        self.phase = Phase.WAITING
        if self._tries > self._context.limits.retries:  # only Ops Manager's word on why is awaited
            self._reading_wanted, self._last_word = (
                self._context.poller.poll_number(),
                Deadline(self._context.clock, PATIENCE),
            )
            self._context.poller.poll_now()
            return
        wait = self._backoff.next(failure.retry_after)
        self._not_before = self._context.clock.monotonic() + wait
        self._reading_wanted = None
        spent, received = bool(failure.spent), self._part.size if self._part else self._on_disk(PART)
        self._context.reporter.report(
            RetryScheduled(self.job_id, self._named(), self._tries, failure.id, failure.message, received, spent, wait)
        )
        self._context.poller.poll_now()

    async def refuse(self, decision: Decision) -> None:
        """Settle by what Ops Manager says of the job: skipped, or failed for its reason."""
        if decision.step is Step.SKIP:
            self._settle(self._record(Verdict.SKIPPED, reason=decision.reason))
            return
        over = decision.reason in ("delivery-expired", "downloads-used-up")
        if over and not self._tries and (digest := self._quarantined):  # an earlier run's verdict tells more
            self._settle_mismatch(digest, self._named() + MISMATCH)
            return
        after = f" after: {self._last_failure.message}" if self._last_failure else ""
        await self.fail(refusal(self.job, decision, after), reason=decision.reason)

    async def fail(self, error: AgentError, reason: str | None = None) -> None:
        """Settle with an error; what is on disk stays there, but for the last bytes of a full disk."""
        if isinstance(error, NoSpace) and self._part and self._context.space.is_full():
            with suppress(DestError):
                await self._part.give_back(DiskSpace.RECORDS)
        await self.close()
        if error.left is None:
            error.left = self.left()
        error.spent = self.sent > 0
        self._settle(self._record(Verdict.FAILED, exit_code=error.exit_code, reason=reason or error.id), error)

    def left(self) -> str:
        """What is on disk of an archive that failed, in words."""
        try:
            kept = self._on_disk(PART) if self.name else 0
        except DestError as error:
            return f"unknown ({error.message})"
        return f"{self.name}{PART} with {kept} bytes" if kept else NOTHING_LEFT

    async def _leave_unproven(self, candidate: Candidate) -> None:
        left = await set_aside(self._context.directory, candidate.name, self._named(), UNPROVEN)
        self.changed = self.changed or left != candidate.name
        error = HashUnpublished("the archive is whole, but Ops Manager published no hash for it in time")
        error.exit_code = 0 if self._context.limits.allow_unproven else error.exit_code
        self._settle_aside(Verdict.UNPROVEN, candidate.digest, left, error)

    def _settle_aside(self, verdict: Verdict, digest: Digest, left: str, error: ArchiveError) -> None:
        """Settle with a file under another name than the final one."""
        error.left, error.spent = f"kept as {left}", self.sent > 0
        self._settle(
            self._record(verdict, digest, self._expected(), error.exit_code, error.id, self._path(left)), error
        )

    async def _publish(self, candidate: Candidate, expected: str | None) -> None:
        await self._publisher.publish(self.job_id, self._named(), candidate)
        self.changed = True
        self._verified(candidate.digest, expected)

    def _verified(self, digest: Digest, expected: str | None) -> None:
        self.meter.start(digest.size, digest.size)
        if expected and expected != digest.sha1:
            text = f"Ops Manager now publishes {expected}; {self._named()} was proven by the hash before that"
            self._context.reporter.report(Notice("warning", text, self.job_id))
        self._settle(self._record(Verdict.VERIFIED, digest, digest.sha1, path=self._path(self._named())))

    def _settle(self, record: ArchiveRecord, error: AgentError | None = None) -> None:
        self.record, self.phase = record, Phase.SETTLED
        if error:
            error.archive = self.name or self.job_id
        self._context.reporter.report(ArchiveFinished(self.job_id, record, error.fields() if error else None))

    async def close(self) -> None:
        """Let go of the part file; its bytes stay."""
        if self._part:
            part, self._part = self._part, None
            with suppress(OSError):  # a close that fails after a failed write tells nothing new
                await part.close()

    # ------------------------------------------------------------ small things

    def _named(self) -> str:
        assert self.name is not None  # noqa: S101  # phases after NAMING begin with a name
        return self.name

    def _path(self, name: str) -> str:
        return str(Path(self._context.directory.path) / name)

    def _expected(self) -> str | None:
        return self.job.published_hash(self._served_as) if self._served_as else None

    def _on_disk(self, suffix: str) -> int:
        found = self._context.directory.find(self._named() + suffix)
        return found.st_size if found else 0

    def _count(self, size: int) -> None:
        self.meter.bytes = size

    async def _hash_again(self, name: str) -> Digest:
        async with self._context.reading:
            self.hashing = True
            self.meter.start(0, getattr(self._context.directory.find(name), "st_size", None))
            digest = await digest_of(self._context.directory, name, self._count)
        self.hashing = False
        return digest

    async def _journal(self, fact: str, **values: Any) -> None:
        await self._context.journal.record(fact, self.job_id, self._context.clock.wall(), **values)

    def _record(
        self,
        verdict: Verdict,
        digest: Digest | None = None,
        expected: str | None = None,
        exit_code: int = 0,
        reason: str | None = None,
        path: str | None = None,
    ) -> ArchiveRecord:
        job, entry = self.job, self.entry
        rate = int(entry.received / entry.seconds) if digest and entry.received and entry.seconds else None
        return record_of(
            job,
            entry,
            self.name,
            path=path,
            bytes=digest.size if digest else None,
            sha1=digest.sha1 if digest else None,
            expected_sha1=expected,
            verdict=verdict,
            reason=reason,
            exit_code=exit_code,
            resumed=entry.resumed,
            seconds=entry.seconds if digest else None,
            bytes_per_second=rate,
        )
