"""One run: DEST, lock, journal, and connections around the batch; the receipt and SHA1SUMS."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress

from ..core.clock import ServerClock, rfc3339
from ..core.errors import AgentError, DestError, NotFound, OtherBatch, Stopped
from ..core.events import ArchiveFinished, Event, Notice, Reporter, RunStarted
from ..core.exit_codes import RECEIPT_CODES
from ..core.names import path_text
from ..core.receipt import Receipt, receipt_of
from ..core.settings import RunSettings, Services
from ..core.untrusted import printable
from ..dest.directory import Directory
from ..dest.space import DiskSpace
from ..dest.status import StatusFile
from ..dest.workspace import Access, Workspace, write_receipt, write_sums
from ..network.delivery import DeliveryClient
from ..network.opsmanager import OpsManager
from ..unpack.reading.inflate import backend
from .batch import Batch
from .job.context import RunContext
from .poller import JobPoller
from .selection import remembered_jobs
from .transfer.rate import RateLimit
from .unpacking.data_place import DataPlace

_SUMS_EVERY = 1.0  # seconds; with hundreds of small archives, each would write the list of all


class Run:
    """One run. `run()` returns the receipt, or raises the AgentError that ended it; `summary()` is that so far."""

    def __init__(self, settings: RunSettings, services: Services) -> None:
        self._settings = settings
        self._services = services
        self._started_at = rfc3339(services.clock.wall())
        self._stopped: Stopped | None = None
        self._workspace = Workspace(settings.dest)
        self._batch: Batch | None = None
        self._ops_manager: str | None = None

    def stop(self, stopped: Stopped) -> None:
        """End the run cleanly: transfers end, files stay. For signal handlers of the loop."""
        self._stopped = stopped
        if self._batch:
            self._batch.stop(stopped)

    async def run(self) -> Receipt:
        """Run from the first poll to the receipt. Raises AgentError if the run fails, rather than a single archive."""
        settings = self._settings
        async with AsyncExitStack() as stack:
            place = stack.enter_context(ExitStack())
            asked = settings.target.restore()
            workspace = self._workspace = Workspace.open(place, settings.dest, Access.RUN, asked)
            stack.push_async_callback(workspace.journal.finish)
            status = StatusFile(workspace.state_directory, os.getpid(), self._started_at, settings.target.batch_id)
            sums = _SumsWriter(self)
            reporter = DisplayWith(self._services.reporter, sums)
            context = await stack.enter_async_context(self._context(reporter, place))
            self._report_start(context)
            batch = self._batch = Batch(context, settings.target, workspace, status)
            if self._stopped:
                batch.stop(self._stopped)
            return await self._supervise(batch, sums)

    @asynccontextmanager
    async def _context(self, reporter: Reporter, stack: ExitStack) -> AsyncIterator[RunContext]:
        """What every job of the run shares, with both connections open."""
        limits, clock = self._settings.limits, self._services.clock
        server_clock = ServerClock(clock)
        async with (
            OpsManager(self._settings.connection, server_clock, self._services.redactor) as api,
            DeliveryClient(api.tls, limits.stall_timeout, self._services.redactor, limits.parallel) as deliveries,
        ):
            self._ops_manager = api.origin
            space = DiskSpace(self.directory)
            yield RunContext(
                directory=self.directory,
                space=space,
                data_place=self._data_place(space, stack),
                journal=self._workspace.journal,
                api=api,
                poller=JobPoller(
                    api, self._settings.target, clock, limits.poll_interval, remembered_jobs(self._workspace)
                ),
                deliveries=deliveries,
                limits=limits,
                limit=RateLimit(clock, limits.limit_rate),
                clock=clock,
                server_clock=server_clock,
                reporter=reporter,
            )

    def _data_place(self, space: DiskSpace, stack: ExitStack) -> DataPlace | None:
        """Open the directory of --unpack; what is wrong with it concerns only unpacking."""
        unpack = self._settings.unpack
        if unpack is None:
            return None
        names, ignore_case = self._workspace.journal.file_names, self._workspace.ignores_case
        place = DataPlace(self._settings, unpack, space, names, ignore_case=ignore_case)
        place.open(self.directory)
        stack.callback(place.close)
        return place

    @property
    def directory(self) -> Directory:
        """DEST, once it is open."""
        assert self._workspace.directory is not None  # noqa: S101  # a run creates it
        return self._workspace.directory

    def _report_start(self, context: RunContext) -> None:
        report = self._services.reporter.report
        report(RunStarted(self._ops_manager, path_text(self._settings.dest)))
        warning = context.data_place.owner_warning(self._settings.dest) if context.data_place else None
        for note in (*self._workspace.notes, *filter(None, [warning])):
            report(Notice("warning", note))
        if context.data_place:
            text = f"unpacking into {printable(str(context.data_place.path), 200)}, inflating with {backend().name}"
            report(Notice("info", text))
        self.directory.on_limitation = lambda text: report(Notice("warning", text))

    async def _supervise(self, batch: Batch, sums: _SumsWriter) -> Receipt:
        """Run the batch and write its records; the status file says how it ended, whatever that is."""
        state, code = "finished", 1
        try:
            try:
                await batch.supervise()
            finally:
                await batch.end()
                await sums.finish()
            receipt = await asyncio.to_thread(self._write_records, self.summary())
            code = receipt.exit_code
            return receipt
        except AgentError as error:
            state, code = ("interrupted" if isinstance(error, Stopped) else "finished"), error.exit_code
            of_archives, error = error, self._with_what_is_left(batch, error)
            if isinstance(error, NotFound):  # jobs that were known and are gone: the receipt says so of each
                batch.fail_the_rest(of_archives)
            if batch.records() and not isinstance(error, DestError):
                with suppress(DestError):
                    await asyncio.to_thread(self._write_records, self.summary(error))
            raise error from error.__cause__
        except asyncio.CancelledError:
            state, code = "interrupted", 143
            raise
        finally:
            await batch.progress.finish(state, code)

    def _with_what_is_left(self, batch: Batch, error: AgentError) -> AgentError:
        if isinstance(error, OtherBatch):
            self._workspace.earlier = None  # the archives of another restore are none of this one's
        return error if error.left is not None else error.with_context(left=batch.left(), spent=batch.spent())

    def summary(self, error: AgentError | None = None) -> Receipt:
        """Return the receipt so far; `error` is what ended the run, if that was not the archives."""
        batch = self._batch
        receipt = receipt_of(
            self._settings.target.restore(batch.batch_id if batch else None),
            batch.records() if batch else (),
            ops_manager=self._ops_manager,
            times=(self._started_at, rfc3339(self._services.clock.wall())),
            changed=batch.changed if batch else False,
            batch_error=batch.completion.error if batch else None,
            run_error=error,
        )
        return receipt.merged_with(self._workspace.earlier)

    def write_sums(self) -> None:
        """Bring SHA1SUMS up to date. Raises DestError."""
        write_sums(self.directory, self._workspace.journal.entries(), self.summary())

    def _write_records(self, receipt: Receipt) -> Receipt:
        """Write SHA1SUMS and, last of all, the receipt as the completion marker. Raises DestError."""
        write_sums(self.directory, self._workspace.journal.entries(), receipt)
        if receipt.exit_code in RECEIPT_CODES:
            write_receipt(self.directory, receipt)
        return receipt


class _SumsWriter:
    """Keeps SHA1SUMS up to date during a run, in the background, after archives finish."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._task: asyncio.Task[None] | None = None
        self._writing: asyncio.Future[None] | None = None
        self._due = False

    def report(self, event: Event) -> None:
        """Start to write after an archive has finished."""
        if isinstance(event, ArchiveFinished):
            self._due = True
            if self._task is None or self._task.done():
                self._task = asyncio.ensure_future(self._write())

    async def _write(self) -> None:
        while self._due:
            self._due = False
            self._writing = asyncio.ensure_future(asyncio.to_thread(self._run.write_sums))
            with suppress(DestError):  # the end of the run writes it again, and then it counts
                await asyncio.shield(self._writing)
            await asyncio.sleep(_SUMS_EVERY)

    async def finish(self) -> None:
        """Stop writing; one that has begun is completed."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, *filter(None, [self._writing]), return_exceptions=True)


class DisplayWith:
    """A reporter, followed by another one."""

    def __init__(self, first: Reporter, second: Reporter) -> None:
        self._reporters = (first, second)

    def report(self, event: Event) -> None:
        """Pass the event to both."""
        for reporter in self._reporters:
            reporter.report(event)
