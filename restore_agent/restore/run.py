"""One run from outside: DEST, lock, journal and connections around the batch; the receipt and the status file."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from ..core.clock import Clock, ServerClock, rfc3339
from ..core.errors import AgentError, DestError, OtherBatch, Stopped
from ..core.events import Notice, Reporter, RunStarted
from ..core.exit_codes import RECEIPT_CODES, combined_exit_code
from ..core.names import OWN_NAMES, RECEIPT
from ..core.receipt import Receipt, outcome_of, parse_receipt
from ..core.redaction import Redactor
from ..core.settings import Connection, RunLimits, Target
from ..dest.directory import Directory, temporary_name
from ..dest.journal import Journal
from ..dest.lock import STATE_DIRECTORY, Lock
from ..dest.space import DiskSpace
from ..dest.status import StatusFile
from ..dest.workspace import require_own_names, require_own_sums, write_receipt, write_sums
from ..network.delivery import DeliveryClient
from ..network.opsmanager import OpsManager
from .batch import Batch
from .job.context import RunContext
from .job.rate import RateLimit
from .poller import JobPoller

_STATUS_EVERY, _STATUS_SOONEST = 2.0, 0.2  # seconds; the contract allows five

_SUMS_EVERY = 1.0  # seconds


class Agent:
    """One run. `run()` returns the receipt, or raises the AgentError that ended it; then `summary()` tells the rest."""

    def __init__(
        self,
        connection: Connection,
        target: Target,
        limits: RunLimits,
        dest: Path,
        reporter: Reporter,
        clock: Clock,
        redactor: Redactor,
    ) -> None:
        self._connection, self._target, self._limits, self._dest = connection, target, limits, dest
        self._reporter, self._clock, self._redactor = reporter, clock, redactor
        self._started_at = rfc3339(clock.wall())
        self._stopped: Stopped | None = None
        self._batch: Batch | None = None
        self._earlier: Receipt | None = None
        self._ops_manager: str | None = None
        self._status_written, self._sums_due = -_STATUS_EVERY, 0.0
        self._status_told: tuple[str, ...] = ()
        self._writing: asyncio.Task[None] | None = None

    def stop(self, stopped: Stopped) -> None:
        """End the run cleanly: transfers are cut, what is on disk is kept. For signal handlers of the loop."""
        self._stopped = stopped
        if self._batch:
            self._batch.stop(stopped)

    async def run(self) -> Receipt:
        """Everything from the first poll to the receipt. Raises AgentError for an end that is not the archives' own."""
        gc.freeze()  # what is loaded by now stays; not to walk it again, above all at exit, is a tenth of a short run
        async with AsyncExitStack() as stack:
            self._directory = stack.enter_context(Directory.open(self._dest, create=True))
            state = self._directory.subdirectory(STATE_DIRECTORY, create=True)
            assert state is not None  # noqa: S101  # it was just made
            stack.enter_context(state)
            stack.callback(Lock.take(state).release)
            require_own_names(self._directory)
            for name in OWN_NAMES:  # a run that was killed may have left them half written
                self._directory.remove(temporary_name(name))
            self._read_earlier()
            journal = Journal.open(state)
            stack.push_async_callback(journal.finish)
            require_own_sums(self._directory, self._earlier, journal)
            self._status = StatusFile(state, os.getpid(), self._started_at, self._target.batch_id)
            context = await stack.enter_async_context(self._surroundings(journal))
            self._tell_of_start(journal)
            batch = self._batch = Batch(context, self._target, self._earlier, self._tick, self._on_settled)
            if self._stopped:
                batch.stop(self._stopped)
            try:
                await self._supervise(batch)
            except AgentError as error:
                await self._end_early(batch, error)
                raise
            return await asyncio.to_thread(self._written, self.summary())

    @asynccontextmanager
    async def _surroundings(self, journal: Journal) -> AsyncIterator[RunContext]:
        """What every job of the run shares, with both connections open."""
        server_clock = ServerClock(self._clock)
        async with (
            OpsManager(self._connection, server_clock, self._redactor) as api,
            DeliveryClient(api.tls, self._limits.stall_timeout, self._redactor) as deliveries,
        ):
            self._ops_manager = api.origin
            yield RunContext(
                directory=self._directory,
                space=DiskSpace(self._directory),
                journal=journal,
                api=api,
                poller=JobPoller(api, self._target, self._clock, self._limits.poll_interval),
                deliveries=deliveries,
                limits=self._limits,
                limit=RateLimit(self._clock, self._limits.limit_rate),
                clock=self._clock,
                server_clock=server_clock,
                reporter=self._reporter,
            )

    def _tell_of_start(self, journal: Journal) -> None:
        self._reporter.report(RunStarted(self._ops_manager, str(self._dest)))
        if journal.torn:
            self._reporter.report(Notice("warning", "the journal's last line was cut off by a crash; it is dropped"))

    def _read_earlier(self) -> None:
        """The receipt of an earlier run here. Raises OtherBatch when it is of another batch, RecordUnreadable."""
        raw = self._directory.read(RECEIPT)
        earlier = parse_receipt(raw) if raw is not None else None
        if earlier and self._target.batch_id:
            earlier.require_same_restore(self._target.batch_id)
        self._earlier = earlier

    async def _supervise(self, batch: Batch) -> None:
        """The batch, with a truthful status file whatever its end."""
        final, code = "finished", 1
        try:
            await batch.supervise()
            code = self.summary().exit_code
        except AgentError as error:
            code = error.exit_code
            final = "interrupted" if isinstance(error, Stopped) else "finished"
            raise
        except asyncio.CancelledError:
            final, code = "interrupted", 143
            raise
        finally:
            await batch.end()
            await self._finish_status(final, code)

    async def _end_early(self, batch: Batch, error: AgentError) -> None:
        """Say of an error what it leaves behind and, when jobs were settled before it, write that down."""
        if isinstance(error, OtherBatch):
            self._earlier = None  # another restore's archives are none of this one's
        if error.left is None:
            error.left, error.spent = batch.left(), batch.spent()
        if batch.records():
            with suppress(DestError):
                await asyncio.to_thread(self._written, self.summary(error))

    # ------------------------------------------------------------ writing

    def _tick(self) -> None:
        """Write the status file every two seconds, and sooner when a state in it changes."""
        if self._batch is None or (self._writing and not self._writing.done()):
            return  # a slow disk must not hold up the batch
        states, since = self._batch.states(), self._clock.monotonic() - self._status_written
        if since >= _STATUS_EVERY or (since >= _STATUS_SOONEST and states != self._status_told):
            self._status_told, self._status_written = states, self._clock.monotonic()
            write = asyncio.to_thread(self._write_status, self._batch.state(), self._status_rows())
            self._writing = asyncio.ensure_future(write)

    async def _finish_status(self, state: str, exit_code: int) -> None:
        if self._writing:
            await self._writing
        await asyncio.to_thread(self._write_status, state, self._status_rows(), exit_code)

    def _write_status(self, state: str, rows: list[dict[str, Any]], exit_code: int | None = None) -> None:
        """Replace the status file; on a full or broken disk the archives' own errors tell more than this one."""
        with suppress(DestError):
            self._status.write(state, self._clock.wall(), rows, exit_code)

    def _status_rows(self) -> list[dict[str, Any]]:
        rows = [dict(vars(row)) for row in self._batch.rows()] if self._batch else []
        for row in rows:
            del row["delivery_status"], row["expires_in"]
        return rows

    async def _on_settled(self) -> None:
        if self._clock.monotonic() < self._sums_due:
            return  # of hundreds of small archives each would write the list of all
        with suppress(DestError):  # the end of the run writes it again, and then it counts
            await asyncio.to_thread(write_sums, self._directory, self.summary())
        self._sums_due = self._clock.monotonic() + _SUMS_EVERY

    def summary(self, error: AgentError | None = None) -> Receipt:
        """The receipt as things stand; `error` is what ended the run when that was not the archives."""
        records = self._batch.records() if self._batch else ()
        outcome, code = outcome_of(records)
        if self._batch and self._batch.extra:
            outcome, code = "failed", combined_exit_code([code, self._batch.extra.exit_code])
        if error:
            outcome, code = "failed", error.exit_code
        target = self._target
        receipt = Receipt(
            group_id=target.group_id,
            cluster_id=target.cluster_id,
            host_id=target.host_id,
            batch_id=self._batch.batch_id if self._batch else target.batch_id,
            ops_manager=self._ops_manager,
            started_at=self._started_at,
            finished_at=rfc3339(self._clock.wall()),
            outcome=outcome,
            exit_code=code,
            changed=self._batch.changed if self._batch else False,
            archives=records,
        )
        return receipt.merged_with(self._earlier)

    def _written(self, receipt: Receipt) -> Receipt:
        """Write SHA1SUMS and, last of all, the completion marker."""
        write_sums(self._directory, receipt)
        if receipt.exit_code in RECEIPT_CODES:
            write_receipt(self._directory, receipt)
        return receipt
