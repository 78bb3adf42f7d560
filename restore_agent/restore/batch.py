"""The batch: admit jobs as they are listed, and start what may start until it is complete.

One loop checks everything a few times a second; the phases of each restore job run in tasks of their own. All
deadlines are those of the monotonic clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ..core.clock import rfc3339
from ..core.errors import AgentError, Stopped
from ..core.events import JobSeen, Notice
from ..core.jobs import Job, Step, decide
from ..core.receipt import ArchiveRecord
from ..core.settings import Target
from ..dest.journal.facts import Fact, Named, Ready
from ..dest.status import StatusFile
from ..dest.workspace import Workspace
from .completion import Completion
from .job.context import RunContext
from .job.job import JobRestore
from .job.state import NOTHING_LEFT, Phase
from .progress import BatchProgress, warn_of_space
from .selection import JobSelection

_BUSY_TICK, _IDLE_TICK = 0.25, 1.0  # seconds between two checks with and without active tasks


class Admission:
    """Admits restore jobs as they are listed, names their archives, and reports them."""

    def __init__(
        self, context: RunContext, target: Target, workspace: Workspace, restores: dict[str, JobRestore]
    ) -> None:
        self._context, self._target, self._workspace, self._restores = context, target, workspace, restores
        self.selection = JobSelection(target, context.journal, ignore_case=context.directory.ignores_case())
        self._seen: dict[str, JobSeen] = {}
        self._remarks: set[str] = set()
        self._admitted = 0  # successful polls whose jobs were admitted

    async def admit(self) -> None:
        """Admit jobs as they are listed, and name their archives once their URLs are known."""
        poller = self._context.poller
        if self._admitted == poller.successful_polls:
            return
        self._admitted = poller.successful_polls
        jobs = poller.jobs
        for remark in set(self._context.api.remarks) - self._remarks:
            self._remarks.add(remark)
            self._context.reporter.report(Notice("warning", remark))
        if jobs:
            await self._require_one_restore()
        elif self._admitted == 1:
            self._context.reporter.report(Notice("info", "no restore job of the batch is listed yet; polling again"))
        await self._journal_names_and_readiness(list(jobs.values()))
        for job in jobs.values():
            selected = self.selection.selected(job)
            if job.id not in self._restores and selected is not False:
                self._restores[job.id] = JobRestore(job.id, self._context)
                for oddity in job.oddities:
                    text = f"Ops Manager's document is odd: {oddity}"
                    self._context.reporter.report(Notice("warning", text, job.id))
            self._assign_name(job, selected)
            self._report_job(job)

    async def _require_one_restore(self) -> None:
        """The batch of jobs that are named one by one is known only once they are polled. Raises OtherBatch."""
        batch_id = batch_of(self._target, self._context.poller.jobs.values())
        asked, known = self._target.restore(batch_id), self._workspace.restore
        polled = tuple(self._context.poller.jobs)
        self._workspace.require_same(replace(asked, job_ids=polled))
        jobs = tuple(dict.fromkeys((known.job_ids if known else ()) + asked.job_ids))
        await self._context.journal.belongs_to(asked.with_jobs(jobs))

    async def _journal_names_and_readiness(self, jobs: list[Job]) -> None:
        wall = self._context.clock.wall()
        names: dict[str, Fact] = {job_id: Named(name) for job_id, name in self.selection.update(jobs).items()}
        if names:
            await self._context.journal.record_all(names, wall)
        at = rfc3339(self._context.server_clock.now())
        ready: dict[str, Fact] = {
            job.id: Ready(at)
            for job in jobs
            if decide(job).step is Step.DOWNLOAD and self._context.journal.entry(job.id).ready_at is None
        }
        if ready:
            await self._context.journal.record_all(ready, wall)

    def _assign_name(self, job: Job, selected: bool | None) -> None:
        restore, name = self._restores.get(job.id), self.selection.name(job)
        if not restore or not name or restore.state.phase is not Phase.NAMING:
            return
        if selected is False:
            del self._restores[job.id]  # only its name could decide, and it does not match
        else:
            restore.state.assign_name(name)

    def _report_job(self, job: Job) -> None:
        decision, name = decide(job), self.selection.name(job)
        expires = rfc3339(job.expires) if job.expires else None
        seen = JobSeen(job.id, name, job.status, job.delivery_status, decision.step.value, decision.reason, expires)
        restore = self._restores.get(job.id)
        if restore and restore.state.is_waiting and self._seen.get(job.id) != seen:
            self._seen[job.id] = seen
            self._context.reporter.report(seen)


def batch_of(target: Target, jobs: Iterable[Job]) -> str | None:
    """Return the batch that was asked for, or that of the jobs that were asked for one by one."""
    return target.batch_id or next((job.batch_id for job in jobs if job.batch_id), None)


class Batch:
    """Every restore job of one run."""

    def __init__(self, context: RunContext, target: Target, workspace: Workspace, status: StatusFile) -> None:
        self._context, self._target = context, target
        self._restores: dict[str, JobRestore] = {}
        self._admission = Admission(context, target, workspace, self._restores)
        self._tasks: dict[asyncio.Task[None], JobRestore] = {}
        self._wake = asyncio.Event()
        self._end: BaseException | None = None  # a signal, or a defect
        self.completion = Completion(context, target, self._admission.selection, self._restores)
        self.progress = BatchProgress(context, self._restores, self.completion, status)

    def stop(self, stopped: Stopped) -> None:
        """End the loop with this error at its next check, which is now."""
        self._end = stopped
        self._wake.set()

    def fail_the_rest(self, error: AgentError) -> None:
        """Finish every archive without a verdict with the error that ended the run."""
        for restore in self._restores.values():
            if restore.state.record is None:
                restore.fail(error)

    @property
    def changed(self) -> bool:
        """Whether anything was written for an archive."""
        return any(restore.state.changed for restore in self._restores.values())

    @property
    def batch_id(self) -> str | None:
        """The batch that was asked for, or that of the jobs that were asked for one by one."""
        return batch_of(self._target, self._context.poller.jobs.values())

    async def supervise(self) -> None:
        """Go on until every archive is finished. Raises AgentError if the run fails, rather than a single archive."""
        helpers = [
            asyncio.ensure_future(work)
            for work in (
                self._context.poller.run(),
                self._wake_after_poll(),
                warn_of_space(self._context, self._target, self._restores),
            )
        ]
        try:
            while not isinstance(self._end, Stopped):
                await self._admission.admit()
                self._start_work()
                await self.completion.keep_hash_time()
                self._judge_waiting()
                self._start_cleaning()
                self._raise_if_ended()
                if not self._tasks and self.completion.is_complete():
                    return
                self.progress.show()
                await self._pause()
                self._reap()
                self._notice_defects(helpers)
            raise self._end
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)

    def _notice_defects(self, helpers: Sequence[asyncio.Future[None]]) -> None:
        """Keep what a helper raised: it must not look like a server that does not answer."""
        for helper in helpers:
            if helper.done() and not helper.cancelled():
                self._end = self._end or helper.exception()

    def _raise_if_ended(self) -> None:
        downloading = any(restore.state.phase is Phase.DOWNLOADING for restore in self._restores.values())
        if self._end and not downloading and not isinstance(self._end, Stopped):
            raise self._end
        self.completion.raise_trouble()

    async def _wake_after_poll(self) -> None:
        while True:
            await self._context.poller.wait_for_poll()
            self._wake.set()

    async def _pause(self) -> None:
        asking = self._context.poller.silence(0.0) is not None  # whose silence is reported in time
        tick = _BUSY_TICK if self._tasks or asking else min(_IDLE_TICK, self._context.limits.poll_interval)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), tick)
        self._wake.clear()

    # ------------------------------------------------------------ starting work

    def _start_work(self) -> None:
        busy = set(self._tasks.values())
        idle = [restore for restore in self._restores.values() if restore not in busy]
        for restore in idle:
            if work := restore.next_work():
                self._start(restore, work)
        if self._context.poller.fatal is None and self._end is None:  # otherwise nothing new begins
            self._start_downloads([restore for restore in idle if restore.may_download()])

    def _start_cleaning(self) -> None:
        """Let finished jobs remove what they unpacked and did not publish."""
        busy = set(self._tasks.values())
        for restore in self._restores.values():
            if restore not in busy and (work := restore.cleaning()):
                self._start(restore, work)

    def _start_downloads(self, ready: list[JobRestore]) -> None:
        """Fill the free slots, earliest expiry first."""
        active = sum(restore.state.phase is Phase.DOWNLOADING for restore in self._restores.values())
        ready.sort(key=lambda one: (one.state.job.expires is None, one.state.job.expires or 0.0, one.state.job_id))
        for restore in ready[: max(0, self._context.limits.parallel - active)]:
            self._start(restore, restore.download())

    def _start(self, restore: JobRestore, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks[task] = restore
        task.add_done_callback(lambda _: self._wake.set())

    def _reap(self) -> None:
        """Remove finished tasks. Any other exception than AgentError is a defect, raised once no download is active."""
        for task in [task for task in self._tasks if task.done()]:
            restore = self._tasks.pop(task)
            if error := task.exception():
                self._end = self._end or error
                restore.abandon()

    def _judge_waiting(self) -> None:
        active = set(self._tasks.values())
        for restore in list(self._restores.values()):
            if restore.state.is_waiting and restore not in active and not self.completion.judge(restore):
                del self._restores[restore.state.job_id]

    async def end(self) -> None:
        """Stop all tasks; part files stay as they are."""
        if self._context.data_place:
            self._context.data_place.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(restore.close() for restore in self._restores.values()))
        self._tasks.clear()

    # ------------------------------------------------------------ results

    def left(self) -> str:
        """Return what is on disk of the archives that are not finished, in words."""
        states = [restore.state for restore in self._restores.values()]
        parts = [text for state in states if not state.record and state.name and (text := state.left()) != NOTHING_LEFT]
        return ", ".join(parts) if parts else "no archive in progress"

    def spent(self) -> bool:
        """Return whether this run spent a download on any archive."""
        return any(restore.state.sent for restore in self._restores.values())

    def records(self) -> tuple[ArchiveRecord, ...]:
        """Return the records of the archives that have a verdict, by file name."""
        records = [restore.state.record for restore in self._restores.values() if restore.state.record]
        return tuple(sorted(records, key=lambda record: (record.file_name or "", record.job_id)))
