"""The batch: admit jobs as they are listed, schedule their phases, and judge when it is complete.

One loop looks at everything a few times a second and starts what may start; each restore job's phases run in tasks
of their own. All deadlines are the monotonic clock's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from ..core.clock import Deadline, rfc3339
from ..core.errors import AgentError, FewerJobs, NotFound, NothingDelivered, NothingSelected, NotReady, Stopped
from ..core.events import ArchiveProgress, JobSeen, Notice, Progress, RunFailed
from ..core.jobs import Job, Step, decide
from ..core.receipt import ArchiveRecord, Receipt, Verdict
from ..core.settings import Target
from .job.context import RunContext
from .job.job import NOTHING_LEFT, JobRestore, Phase
from .poller import PATIENCE
from .selection import JobSelection

_READINGS_TO_SELECT = 3

_TIME_FOR_A_HINT = 2.0  # seconds

_SILENCE = 15.0  # seconds without an answer to a poll that count as trouble once the time of the phase is over

_BUSY_TICK, _IDLE_TICK = 0.25, 1.0  # seconds between two looks while bytes flow, and while nothing does


class Batch:
    """Every restore job of one run, on the way to its verdict.

    `on_tick` is called at every look, `on_settled` whenever an archive is settled. `extra` is what is wrong with the
    batch beside its archives: too few jobs, none selected, none to download.
    """

    def __init__(
        self,
        context: RunContext,
        target: Target,
        earlier: Receipt | None,
        on_tick: Callable[[], None],
        on_settled: Callable[[], Awaitable[None]],
    ) -> None:
        self._context = context
        self._poller = context.poller
        self._target, self._earlier = target, earlier
        self._on_tick, self._on_settled = on_tick, on_settled
        self._selection = JobSelection(target, context.journal)
        self._restores: dict[str, JobRestore] = {}
        self._admitted = 0  # how many readings were taken up
        self._show_due = 0.0
        self._warned: set[str] = set()
        self._left_out: set[str] = set()
        self._seen: dict[str, JobSeen] = {}
        self._tasks: dict[asyncio.Task[None], JobRestore] = {}
        self._wake = asyncio.Event()
        self._stopped: Stopped | None = None
        self._hash_deadline: Deadline | None = None
        self._last_word: int | None = None
        self._defect: BaseException | None = None
        self.extra: AgentError | None = None

    def stop(self, stopped: Stopped) -> None:
        """End the loop with this error at its next look, which is now."""
        self._stopped = stopped
        self._wake.set()

    @property
    def changed(self) -> bool:
        """Whether anything was written for an archive."""
        return any(restore.changed for restore in self._restores.values())

    @property
    def batch_id(self) -> str | None:
        """The batch asked for, or that of the jobs asked for one by one."""
        return self._target.batch_id or next((job.batch_id for job in self._poller.jobs.values() if job.batch_id), None)

    async def supervise(self) -> None:
        """Go on until every archive is settled. Raises AgentError for an end that is not the archives' own."""
        wait = Deadline(self._context.clock, self._context.limits.wait_timeout)
        helpers = [
            asyncio.ensure_future(work) for work in (self._poller.run(), self._ring_on_news(), self._warn_of_space())
        ]
        try:
            while not self._stopped:
                self._check_jobs_belong_here()
                self._admit()
                self._start_phases()
                await self._keep_hash_time(wait)
                await self._judge_waiting(wait)
                self._raise_trouble(wait)
                if self._complete(wait):
                    return
                self._show()
                self._on_tick()
                await self._pause()
                await self._reap()
                self._notice_defects(helpers)
            raise self._stopped
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)

    def _notice_defects(self, helpers: Sequence[asyncio.Future[None]]) -> None:
        """A helper that fell over must not look like a server that says nothing."""
        for helper in helpers:
            if helper.done() and not helper.cancelled():
                self._defect = self._defect or helper.exception()

    async def _ring_on_news(self) -> None:
        while True:
            await self._poller.wait_for_poll()
            self._wake.set()

    async def _pause(self) -> None:
        tick = _BUSY_TICK if self._tasks else min(_IDLE_TICK, self._context.limits.poll_interval)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), tick)
        self._wake.clear()

    def _check_jobs_belong_here(self) -> None:
        """Jobs named one by one tell their batch only once they are read. Raises OtherBatch."""
        if self._earlier and not self._target.batch_id and not self._restores and self._poller.jobs:
            self._earlier.require_same_restore(self.batch_id, self._target.job_ids)

    # ------------------------------------------------------------ admitting jobs

    def _admit(self) -> None:
        """Take up jobs as they are listed, and name their archives as soon as their URLs are known."""
        if self._admitted == self._poller.successful_polls:
            return
        self._admitted = self._poller.successful_polls
        jobs = self._poller.jobs
        self._selection.update(jobs.values())
        for job in jobs.values():
            if job.id not in self._restores and self._selection.selected(job) is not False:
                self._restores[job.id] = JobRestore(job.id, self._context)
                for oddity in job.oddities:
                    self._context.reporter.report(Notice("warning", f"Ops Manager's document is odd: {oddity}", job.id))
            self._assign_name(job)
            self._tell_of(job)

    def _assign_name(self, job: Job) -> None:
        restore, name = self._restores.get(job.id), self._selection.name(job)
        if not restore or not name or restore.phase is not Phase.NAMING:
            return
        if self._selection.selected(job) is False:
            del self._restores[job.id]  # only its name could tell, and that does not match
        else:
            restore.assign_name(name, self._selection.served_as(job) or name)

    def _tell_of(self, job: Job) -> None:
        decision, name = decide(job), self._selection.name(job)
        expires = rfc3339(job.expires) if job.expires else None
        seen = JobSeen(job.id, name, job.status, job.delivery_status, decision.step.value, decision.reason, expires)
        restore = self._restores.get(job.id)
        waiting = restore and restore.phase in (Phase.NAMING, Phase.WAITING)
        if waiting and self._seen.get(job.id) != seen:
            self._seen[job.id] = seen
            self._context.reporter.report(seen)

    # ------------------------------------------------------------ starting phases

    def _start_phases(self) -> None:
        busy = set(self._tasks.values())
        for restore in self._restores.values():
            if restore in busy:
                continue
            if restore.phase is Phase.LOOKING:
                self._start(restore, restore.guarded(restore.look))
            elif restore.phase is Phase.PROVING:
                self._start(restore, restore.guarded(restore.prove))
        if self._poller.fatal is None and self._defect is None:  # then nothing new is begun
            self._start_downloads(busy)

    def _start_downloads(self, busy: set[JobRestore]) -> None:
        """Fill the free slots, tightest expiry first."""
        free = self._context.limits.parallel - sum(
            restore.phase is Phase.FETCHING for restore in self._restores.values()
        )
        ready = [restore for restore in self._restores.values() if restore not in busy and restore.may_fetch()]
        ready.sort(key=lambda restore: (restore.job.expires is None, restore.job.expires or 0.0, restore.job_id))
        for restore in ready[: max(0, free)]:
            restore.phase = Phase.FETCHING
            self._start(restore, restore.guarded(restore.fetch))

    def _start(self, restore: JobRestore, phase: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(phase)
        self._tasks[task] = restore
        task.add_done_callback(lambda _: self._wake.set())

    async def _reap(self) -> None:
        """Take away finished tasks; what one raised that is none of our errors is a defect, kept for later."""
        for task in [task for task in self._tasks if task.done()]:
            restore = self._tasks.pop(task)
            if error := task.exception():
                self._defect = self._defect or error
                restore.phase = Phase.SETTLED
            elif restore.phase is Phase.SETTLED:
                await self._on_settled()

    async def end(self) -> None:
        """Stop whatever runs; part files stay as they are."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(restore.close() for restore in self._restores.values()))
        self._tasks.clear()

    # ------------------------------------------------------------ judging

    async def _keep_hash_time(self, wait: Deadline) -> None:
        """--hash-timeout runs from the moment when no download is under way and none is to come.

        When it is over, Ops Manager is asked once more: only its answer, not its silence, is a word about hashes.
        """
        restores = self._restores.values()
        awaited = len(self._poller.jobs) < (self._target.expect_jobs or 0) and not wait.passed()
        if awaited or not restores or any(restore.may_still_fetch() for restore in restores):
            self._hash_deadline = self._last_word = None
            self._context.hash_time_over.clear()
        elif self._hash_deadline is None:
            self._hash_deadline = Deadline(self._context.clock, self._context.limits.hash_timeout)
        elif self._hash_deadline.passed() and self._last_word is None:
            self._last_word = self._poller.poll_number()
            self._poller.poll_now()
        elif (
            self._last_word is not None
            and self._poller.newer_than(self._last_word)
            and not self._context.hash_time_over.is_set()
        ):
            self._context.hash_time_over.set()
            await self._poller.notify()

    async def _judge_waiting(self, wait: Deadline) -> None:
        """Settle jobs that Ops Manager gave up, and those that are not READY in time."""
        for restore in list(self._restores.values()):
            if restore.phase not in (Phase.NAMING, Phase.WAITING) or restore in self._tasks.values():
                continue
            decision = decide(restore.job)
            if wait.passed() and self._is_only_perhaps_selected(restore):
                del self._restores[restore.job_id]
            elif decision.step in (Step.FAIL, Step.SKIP):
                await restore.refuse(decision)
            elif self._poller.gone(restore.job_id):
                await restore.fail(NotFound("Ops Manager does not list the restore job any more"))
            elif restore.given_up:
                await restore.give_up()
            elif decision.step is Step.WAIT and wait.passed() and not self._poller.trouble:
                said = f"job {restore.job.status or 'unknown'}, delivery {restore.job.delivery_status or 'none'}"
                odd = f"; its document is odd: {restore.job.oddities[0]}" if restore.job.oddities else ""
                await restore.fail(NotReady(f"not READY within --wait-timeout ({said}, {decision.reason}){odd}"))

    def _is_only_perhaps_selected(self, restore: JobRestore) -> bool:
        """Whether --select may mean a job by a name that never came, while it surely means others. Says so."""
        if self._selection.selected(restore.job) is not None:
            return False
        if not any(self._selection.selected(other.job) for other in self._restores.values()):
            return False
        if restore.job_id not in self._left_out:  # each reading takes it up again, should its name come after all
            self._left_out.add(restore.job_id)
            text = f"job {restore.job_id} has no URL yet, so no name that --select could mean: it is left out"
            self._context.reporter.report(Notice("warning", text, restore.job_id))
        return True

    def _complete(self, wait: Deadline) -> bool:
        """Whether every selected job is settled, and there are as many as there should be."""
        if (
            not self._poller.successful_polls
            or self._tasks
            or any(r.phase is not Phase.SETTLED for r in self._restores.values())
        ):
            return False
        listed, expected = len(self._poller.jobs), self._target.expect_jobs or 0
        if not listed:
            return False
        if listed < expected:
            if not wait.passed():
                return False
            self.extra = FewerJobs(f"the batch lists {listed} jobs, --expect-jobs asks for {expected}")
        elif not self._restores and self._poller.successful_polls < _READINGS_TO_SELECT:
            return False  # the batch may still be growing
        elif not self._restores:
            self.extra = NothingSelected(f"none of the {listed} jobs matches --select")
        elif all(r.record and r.record.verdict is Verdict.SKIPPED for r in self._restores.values()):
            self.extra = NothingDelivered("every selected job is an automated restore, left to its own agents")
        elif self._context.api.unknown:
            self.extra = self._context.api.unknown[0]
        if self.extra:
            self._context.reporter.report(RunFailed(self.extra.fields()))
        return True

    def _raise_trouble(self, wait: Deadline) -> None:
        """End the run on a defect, or when the API is lost; never while bytes of somebody's only download flow."""
        if any(restore.phase is Phase.FETCHING for restore in self._restores.values()):
            return
        if self._defect:
            raise self._defect
        if self._poller.fatal:
            raise self._poller.fatal
        over = self._hash_deadline or wait
        if (
            over.passed()
            and (trouble := self._poller.trouble or self._poller.silence(_SILENCE))
            and not self._patient()
        ):
            raise trouble

    def _patient(self) -> bool:
        """Whether a link between two attempts is worth a minute, although the time to wait for READY is over."""
        retrying = any(restore.retrying for restore in self._restores.values())
        return retrying and self._poller.troubled_for() < PATIENCE

    # ------------------------------------------------------------ what there is to tell

    def left(self) -> str:
        """What is on disk of the archives that are not settled, in words."""
        unsettled = [restore for restore in self._restores.values() if not restore.record and restore.name]
        parts = [text for restore in unsettled if (text := restore.left()) != NOTHING_LEFT]
        return ", ".join(parts) if parts else "no archive under way"

    def spent(self) -> bool:
        """Whether this run spent a download on any archive."""
        return any(restore.sent for restore in self._restores.values())

    def records(self) -> tuple[ArchiveRecord, ...]:
        """The records of the archives that are settled, by file name."""
        records = [restore.record for restore in self._restores.values() if restore.record]
        return tuple(sorted(records, key=lambda record: (record.file_name or "", record.job_id)))

    def state(self) -> str:
        """`waiting`, `downloading` or `verifying`, as the status file says it."""
        phases = {restore.phase for restore in self._restores.values()}
        if Phase.FETCHING in phases:
            return "downloading"
        return "verifying" if any(r.shown_state == "hashing" for r in self._restores.values()) else "waiting"

    def states(self) -> tuple[str, ...]:
        """The batch's state and that of each archive; differs as soon as one of them does."""
        return (self.state(), *(restore.shown_state for restore in self._restores.values()))

    def rows(self) -> tuple[ArchiveProgress, ...]:
        """Where every archive stands."""
        now = self._context.server_clock.now()
        rows = []
        for restore in self._restores.values():
            job, moving = restore.job, restore.shown_state in ("downloading", "hashing")
            rows.append(
                ArchiveProgress(
                    job_id=job.id,
                    file_name=restore.name,
                    state=restore.shown_state,
                    bytes=restore.meter.bytes,
                    total_bytes=restore.meter.total,
                    bytes_per_second=restore.meter.rate() if moving else 0,
                    expires_at=rfc3339(job.expires) if job.expires else None,
                    downloads_spent=restore.entry.attempts,
                    delivery_status=job.delivery_status,
                    expires_in=job.expires - now if job.expires else None,
                )
            )
        return tuple(rows)

    def _show(self) -> None:
        if (
            self._context.clock.monotonic() < self._show_due
        ):  # a batch of hundreds is woken more often than anybody looks
            return
        if rows := self.rows():
            self._show_due = self._context.clock.monotonic() + _BUSY_TICK
            self._context.reporter.report(Progress(rows))
        for row in rows:
            if row.job_id not in self._warned and (text := _too_slow(row)):
                self._warned.add(row.job_id)
                self._context.reporter.report(Notice("warning", f"{row.file_name}: {text}", row.job_id))

    async def _warn_of_space(self) -> None:
        """Hold the snapshots' uncompressed sizes, an upper bound, against the free space: a warning, no refusal."""
        while not self._restores:
            await self._poller.wait_for_poll()
            await asyncio.sleep(0)
        with suppress(AgentError, TimeoutError):  # only a hint hangs on it, and the polls wait for their turn
            async with asyncio.timeout(_TIME_FOR_A_HINT):
                sizes = [await self._bound(restore.job) for restore in list(self._restores.values())[:100]]
            needed, free = sum(filter(None, sizes)), self._context.directory.free_bytes()
            if needed > free:
                text = f"the snapshots are up to {needed} bytes uncompressed, {free} are free: archives may not fit"
                self._context.reporter.report(Notice("warning", text))

    async def _bound(self, job: Job) -> int | None:
        if job.snapshot_id is None or decide(job).step not in (Step.WAIT, Step.DOWNLOAD):
            return None
        return await self._context.api.largest_size(self._target, job.snapshot_id, job.cluster_id)


def _too_slow(row: ArchiveProgress) -> str | None:
    """What to warn of when an archive will not be here before its link expires, at the rate of the last seconds."""
    if row.state != "downloading" or not row.total_bytes or not row.bytes_per_second or row.expires_in is None:
        return None
    needed = (row.total_bytes - row.bytes) / row.bytes_per_second
    if needed <= max(row.expires_in, 0.0):
        return None
    left, rate = f"{row.total_bytes - row.bytes} bytes are to come", f"{row.bytes_per_second} bytes/s"
    return f"{left} at {rate}, which takes {needed:.0f} s, and the link expires in {row.expires_in:.0f} s"
