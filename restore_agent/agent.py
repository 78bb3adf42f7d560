"""The batch: poll, admit, schedule, judge, and write down what was proven.

One loop looks at everything a few times a second and starts what may start; each restore job's phases run in tasks
of their own. All deadlines are the monotonic clock's.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .delivery import Deliveries
from .download import JobRestore, Phase, Surroundings
from .errors import (
    AgentError,
    DestError,
    FewerJobs,
    NothingDelivered,
    NothingSelected,
    NotReady,
    OtherBatch,
    Stopped,
    combined_exit_code,
)
from .events import ArchiveProgress, Failed, JobSeen, Notice, Progress, Reporter, RunStarted
from .files import Directory
from .jobs import Job, Step, decide
from .journal import STATE_DIRECTORY, Journal, Lock, StatusFile
from .opsmanager import OpsManager, tls_context
from .pacing import Clock, Deadline, RateLimit, ServerClock
from .receipt import ArchiveRecord, Receipt, Verdict, outcome_of, parse_receipt, rfc3339
from .redaction import Redactor, printable
from .roster import Roster
from .settings import Connection, Pace, Target
from .watch import Watch

RECEIPT, SUMS = "receipt.json", "SHA1SUMS"
RECEIPT_CODES = frozenset({0, 10, 11, 12, 20, 21, 22, 23, 24, 25, 31, 40, 41, 42})
"""Ends after which the receipt is written, if the jobs were known."""
_BUSY_TICK, _IDLE_TICK = 0.25, 1.0  # seconds between two looks while bytes flow, and while nothing does
_STATUS_EVERY = 2.0  # seconds; the contract allows five


class Agent:
    """One run. `run()` returns the receipt, or raises the AgentError that ended it; then `summary()` tells the rest."""

    def __init__(
        self,
        connection: Connection,
        target: Target,
        pace: Pace,
        dest: Path,
        reporter: Reporter,
        clock: Clock,
        redactor: Redactor,
    ) -> None:
        self._connection, self._target, self._pace, self._dest = connection, target, pace, dest
        self._reporter, self._clock, self._redactor = reporter, clock, redactor
        self._started_at = rfc3339(clock.wall())
        self._server_clock = ServerClock(clock)
        self._restores: dict[str, JobRestore] = {}
        self._seen: dict[str, JobSeen] = {}
        self._tasks: dict[asyncio.Task[None], JobRestore] = {}
        self._wake = asyncio.Event()
        self._stopped: Stopped | None = None
        self._hash_deadline: Deadline | None = None
        self._extra: AgentError | None = None
        self._defect: BaseException | None = None
        self._earlier: Receipt | None = None
        self._ops_manager: str | None = None
        self._status_due = 0.0

    def stop(self, signal_name: str, exit_code: int) -> None:
        """End the run cleanly: transfers are cut, what is on disk is kept. For signal handlers of the loop."""
        self._stopped = Stopped(f"stopped by {signal_name}; what is on disk is kept", exit_code=exit_code)
        self._wake.set()

    # ------------------------------------------------------------ the run

    async def run(self) -> Receipt:
        """Everything from the first poll to the receipt. Raises AgentError for an end that is not the archives' own."""
        async with AsyncExitStack() as stack:
            self._directory = stack.enter_context(Directory.open(self._dest, create=True))
            state = self._directory.subdirectory(STATE_DIRECTORY, create=True)
            assert state is not None  # noqa: S101  # it was just made
            stack.enter_context(state)
            stack.callback(Lock.take(state).release)
            self._read_earlier()
            self._journal = Journal.open(state)
            stack.callback(self._journal.close)
            self._roster = Roster(self._target, self._journal)
            self._status = StatusFile(state, os.getpid(), self._started_at, self._target.batch_id)
            await stack.enter_async_context(self._connected())
            await self._supervised()
            return await asyncio.to_thread(self._written, self.summary())

    async def _supervised(self) -> None:
        """The loop, with a truthful status file whatever its end."""
        final, code = "finished", 1
        try:
            await self._supervise()
            code = self.summary().exit_code
        except AgentError as error:
            code = error.exit_code
            final = "interrupted" if isinstance(error, Stopped) else "finished"
            raise
        except asyncio.CancelledError:
            final = "interrupted"
            raise
        finally:
            await self._end_tasks()
            self._write_status(final, code)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[None]:
        context = tls_context(self._connection)
        async with (
            OpsManager(self._connection, self._server_clock, self._redactor) as api,
            Deliveries(context, self._pace.stall_timeout) as deliveries,
        ):
            self._api, self._ops_manager = api, api.origin
            self._watch = Watch(api, self._target, self._clock, self._pace.poll_interval)
            self._surroundings = Surroundings(
                directory=self._directory,
                journal=self._journal,
                watch=self._watch,
                deliveries=deliveries,
                pace=self._pace,
                limit=RateLimit(self._clock, self._pace.limit_rate),
                clock=self._clock,
                server_clock=self._server_clock,
                reporter=self._reporter,
                hash_time_over=lambda: self._hash_deadline is not None and self._hash_deadline.passed(),
            )
            self._reporter.report(RunStarted(api.origin, str(self._dest)))
            if self._journal.torn:
                self._reporter.report(
                    Notice("warning", "the journal's last line was cut off by a crash; it is dropped")
                )
            yield

    def _read_earlier(self) -> None:
        """The receipt of an earlier run here. Raises OtherBatch when it is of another restore, RecordUnreadable."""
        raw = self._directory.read(RECEIPT)
        self._earlier = parse_receipt(raw) if raw is not None else None
        if self._earlier and self._earlier.names_other_restore(self._target.batch_id, self._target.job_ids):
            other = self._earlier.batch_id or "single restore jobs"
            raise OtherBatch(f"DEST holds the receipt of another restore ({printable(other)})", spent=False)

    async def _supervise(self) -> None:
        wait = Deadline(self._clock, self._pace.wait_timeout)
        polling = asyncio.ensure_future(self._watch.run())
        ringing = asyncio.ensure_future(self._ring_on_news())
        estimate: asyncio.Task[None] | None = None
        try:
            while not self._stopped:
                self._admit()
                estimate = estimate or (asyncio.ensure_future(self._warn_of_space()) if self._restores else None)
                self._start_phases()
                self._keep_hash_time()
                await self._judge_waiting(wait)
                self._raise_trouble(wait)
                if self._complete(wait):
                    return
                self._show()
                await self._pause()
                await self._reap()
                if polling.done() and self._watch.fatal is None:
                    self._defect = self._defect or polling.exception()
            raise self._stopped
        finally:
            for task in filter(None, (polling, ringing, estimate)):
                task.cancel()
            await asyncio.gather(*filter(None, (polling, ringing, estimate)), return_exceptions=True)

    async def _ring_on_news(self) -> None:
        while True:
            await self._watch.news()
            self._wake.set()

    async def _pause(self) -> None:
        tick = _BUSY_TICK if self._tasks else min(_IDLE_TICK, self._pace.poll_interval)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), tick)
        self._wake.clear()

    # ------------------------------------------------------------ admitting jobs

    def _admit(self) -> None:
        """Take up jobs as they are listed, and name their archives as soon as their URLs are known."""
        jobs = self._watch.jobs
        self._roster.update(jobs.values())
        for job in jobs.values():
            if job.id not in self._restores and self._roster.selected(job) is not False:
                self._restores[job.id] = JobRestore(job.id, self._surroundings)
                for oddity in job.oddities:
                    self._reporter.report(Notice("warning", f"Ops Manager's document is odd: {oddity}", job.id))
            self._christen(job)
            self._tell_of(job)

    def _christen(self, job: Job) -> None:
        restore, name = self._restores.get(job.id), self._roster.name(job)
        if not restore or not name or restore.phase is not Phase.NAMING:
            return
        if self._roster.selected(job) is False:
            del self._restores[job.id]  # only its name could tell, and that does not match
        else:
            restore.christen(name, self._roster.served_as(job) or name)

    def _tell_of(self, job: Job) -> None:
        decision, name = decide(job), self._roster.name(job)
        seen = JobSeen(job.id, name, job.status, job.delivery_status, decision.step.value, decision.reason, job.expires)
        restore = self._restores.get(job.id)
        waiting = restore and restore.phase in (Phase.NAMING, Phase.LOOKING, Phase.WAITING)
        if waiting and self._seen.get(job.id) != seen:
            self._seen[job.id] = seen
            self._reporter.report(seen)

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
        if self._watch.fatal is None and self._defect is None:  # then nothing new is begun
            self._start_downloads(busy)

    def _start_downloads(self, busy: set[JobRestore]) -> None:
        """Fill the free slots, tightest expiry first."""
        free = self._pace.parallel - sum(restore.phase is Phase.FETCHING for restore in self._restores.values())
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
        """Take away finished tasks; what one raised that is none of our errors is a defect, kept for `_raise_trouble`."""
        for task in [task for task in self._tasks if task.done()]:
            restore = self._tasks.pop(task)
            if error := task.exception():
                self._defect = self._defect or error
                restore.phase = Phase.SETTLED
            if restore.record and restore.record.verdict is Verdict.VERIFIED and restore.changed:
                await asyncio.to_thread(write_sums, self._directory, self.summary())

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(restore.close() for restore in self._restores.values()))
        self._tasks.clear()

    # ------------------------------------------------------------ judging

    def _keep_hash_time(self) -> None:
        """--hash-timeout runs from the moment when no download is under way and none is to come."""
        if any(restore.may_still_fetch() for restore in self._restores.values()):
            self._hash_deadline = None
        elif self._hash_deadline is None:
            self._hash_deadline = Deadline(self._clock, self._pace.hash_timeout)

    async def _judge_waiting(self, wait: Deadline) -> None:
        """Settle jobs that Ops Manager gave up, and those that are not READY in time."""
        for restore in self._restores.values():
            if restore.phase not in (Phase.NAMING, Phase.WAITING) or restore in self._tasks.values():
                continue
            decision = decide(restore.job)
            if decision.step in (Step.FAIL, Step.SKIP):
                await restore.refuse(decision)
            elif decision.step is Step.WAIT and wait.passed() and not self._watch.trouble:
                said = f"job {restore.job.status or 'unknown'}, delivery {restore.job.delivery_status or 'none'}"
                odd = f"; its document is odd: {restore.job.oddities[0]}" if restore.job.oddities else ""
                await restore.fail(NotReady(f"not READY within --wait-timeout ({said}, {decision.reason}){odd}"))

    def _complete(self, wait: Deadline) -> bool:
        """Whether every selected job is settled, and there are as many as there should be."""
        if (
            not self._watch.readings
            or self._tasks
            or any(r.phase is not Phase.SETTLED for r in self._restores.values())
        ):
            return False
        listed, expected = len(self._watch.jobs), self._target.expect_jobs or 0
        if not listed:
            return False
        if listed < expected:
            if not wait.passed():
                return False
            self._extra = FewerJobs(f"the batch lists {listed} jobs, --expect-jobs asks for {expected}")
        elif not self._restores:
            self._extra = NothingSelected(f"none of the {listed} jobs matches --select")
        elif all(r.record and r.record.verdict is Verdict.SKIPPED for r in self._restores.values()):
            self._extra = NothingDelivered("every selected job is an automated restore, left to its own agents")
        if self._extra:
            self._reporter.report(Failed(self._extra.fields()))
        return True

    def _raise_trouble(self, wait: Deadline) -> None:
        """End the run on a defect, or when the API is lost; never while bytes of somebody's only download flow."""
        if any(restore.phase is Phase.FETCHING for restore in self._restores.values()):
            return
        if self._defect:
            raise self._defect
        if self._watch.fatal:
            raise self._watch.fatal
        over = self._hash_deadline or wait
        if self._watch.trouble and over.passed():
            raise self._watch.trouble

    # ------------------------------------------------------------ showing and writing

    def _show(self) -> None:
        rows = self._rows()
        self._reporter.report(Progress(rows))
        if self._clock.monotonic() >= self._status_due:
            self._status_due = self._clock.monotonic() + _STATUS_EVERY
            self._write_status(self._run_state())

    def _write_status(self, state: str, exit_code: int | None = None) -> None:
        """Replace the status file; on a full or broken disk the archives' own errors tell more than this one."""
        with suppress(DestError):
            self._status.write(state, self._clock.wall(), self._status_rows(), exit_code)

    def _run_state(self) -> str:
        phases = {restore.phase for restore in self._restores.values()}
        if Phase.FETCHING in phases:
            return "downloading"
        return "verifying" if phases & {Phase.PROVING, Phase.LOOKING} else "waiting"

    def _rows(self) -> tuple[ArchiveProgress, ...]:
        now = self._server_clock.now()
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

    def _status_rows(self) -> list[dict[str, Any]]:
        rows = [asdict(row) for row in self._rows()]
        for row in rows:
            del row["delivery_status"], row["expires_in"]
        return rows

    async def _warn_of_space(self) -> None:
        """Hold the snapshots' uncompressed sizes, an upper bound, against the free space: a warning, no refusal."""
        sizes = [await self._bound(restore.job) for restore in list(self._restores.values())[:100]]
        needed, free = sum(filter(None, sizes)), self._directory.free_bytes()
        if needed > free:
            text = f"the snapshots are up to {needed} bytes uncompressed and {free} are free: the archives may not fit"
            self._reporter.report(Notice("warning", text))

    async def _bound(self, job: Job) -> int | None:
        if job.snapshot_id is None or decide(job).step not in (Step.WAIT, Step.DOWNLOAD):
            return None
        try:
            return await self._api.largest_size(self._target, job.snapshot_id, job.cluster_id)
        except AgentError:
            return None  # only a hint hangs on it

    def _records(self) -> tuple[ArchiveRecord, ...]:
        records = [restore.record for restore in self._restores.values() if restore.record]
        return tuple(sorted(records, key=lambda record: (record.file_name or "", record.job_id)))

    def summary(self, error: AgentError | None = None) -> Receipt:
        """The receipt as things stand; `error` is what ended the run when that was not the archives."""
        records = self._records()
        outcome, code = outcome_of(records)
        if self._extra:
            outcome, code = "failed", combined_exit_code([code, self._extra.exit_code])
        if error:
            outcome, code = "failed", error.exit_code
        target = self._target
        receipt = Receipt(
            group_id=target.group_id,
            cluster_id=target.cluster_id,
            host_id=target.host_id,
            batch_id=target.batch_id or next((job.batch_id for job in self._jobs() if job.batch_id), None),
            ops_manager=self._ops_manager,
            started_at=self._started_at,
            finished_at=rfc3339(self._clock.wall()),
            outcome=outcome,
            exit_code=code,
            changed=any(restore.changed for restore in self._restores.values()),
            archives=records,
        )
        return receipt.merged_with(self._earlier)

    def _jobs(self) -> Iterable[Job]:
        return [restore.job for restore in self._restores.values()]

    def _written(self, receipt: Receipt) -> Receipt:
        """Write SHA1SUMS and, last of all, the completion marker."""
        write_sums(self._directory, receipt)
        if receipt.exit_code in RECEIPT_CODES:
            self._directory.write_atomically(RECEIPT, json.dumps(receipt.to_json(), indent=2).encode() + b"\n")
        return receipt


def write_sums(directory: Directory, receipt: Receipt) -> None:
    """Bring SHA1SUMS up to date with a receipt; nothing is written while nothing is proven. Raises DestError."""
    proven = [record for record in receipt.archives if record.verdict is Verdict.VERIFIED]
    text = "".join(f"{record.sha1}  {record.file_name}\n" for record in sorted(proven, key=lambda r: r.file_name or ""))
    data = text.encode()
    there = directory.read(SUMS)
    if there != data and (data or there is not None):
        directory.write_atomically(SUMS, data)
