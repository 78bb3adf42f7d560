"""Progress of a batch: events for the displays, and the status file."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Protocol

from ..core.clock import Clock, Deadline, rfc3339
from ..core.errors import AgentError, DestError
from ..core.events import ArchiveProgress, Notice, Progress, Reporter, Trouble
from ..core.jobs import Step, decide
from ..core.settings import Target
from ..core.untrusted import printable
from ..dest.status import StatusFile
from .completion import Completion
from .job.context import RunContext
from .job.job import JobRestore
from .job.state import JobState

_STATUS_EVERY, _STATUS_SOONEST = 2.0, 0.2  # seconds
_SIZE_TIMEOUT = 2.0  # seconds
_SHOW_EVERY = 0.25  # seconds; a large batch wakes more often than the display needs to refresh
_SILENT_AFTER = 1.5  # seconds without an answer to a poll after which it is reported


class BatchProgress:
    """Shows where every archive is. The status file is written in a thread of its own: a slow disk holds nothing up."""

    def __init__(
        self, context: RunContext, restores: Mapping[str, JobRestore], completion: Completion, status: StatusFile
    ) -> None:
        self._context, self._restores, self._completion, self._status = context, restores, completion, status
        self._show_due = 0.0
        self._warned: set[str] = set()
        self._trouble = TroubleReport(context.poller, context.reporter, context.clock)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="status")
        self._written_at = -_STATUS_EVERY
        self._written_states: tuple[str, ...] = ()
        self._writing: asyncio.Future[None] | None = None

    def show(self) -> None:
        """Report progress and trouble, and write the status file if it is due."""
        self._trouble.update(self._completion.phase_deadline())
        now = self._context.clock.monotonic()
        if now >= self._show_due:
            self._show_rows(now)
        self._write_if_due(now)

    def _show_rows(self, now: float) -> None:
        rows = self.rows()
        if rows:
            self._show_due = now + _SHOW_EVERY
            self._context.reporter.report(Progress(rows))
        for row in rows:
            if row.job_id not in self._warned and (text := too_slow(row)):
                self._warned.add(row.job_id)
                self._context.reporter.report(Notice("warning", f"{row.file_name}: {text}", row.job_id))

    def rows(self) -> tuple[ArchiveProgress, ...]:
        """Return the progress of every archive."""
        now = self._context.server_clock.now()
        return tuple(_row(restore.state, now) for restore in self._restores.values())

    def state(self) -> str:
        """Return the state of the run in the status file: `unpacking` only if nothing else is left to do."""
        states = {restore.state.shown_state for restore in self._restores.values()}
        order = (("downloading", "downloading"), ("hashing", "verifying"), ("waiting", "waiting"))
        for shown, state in (*order, ("unpacking", "unpacking")):
            if shown in states:
                return state
        return "waiting"

    def _write_if_due(self, now: float) -> None:
        if self._writing and not self._writing.done():
            return
        trouble = self._trouble_fields() or {}
        shown = [restore.state.shown_state for restore in self._restores.values()]
        states = (self.state(), str(trouble.get("since")), *shown)  # what is due at once
        since = now - self._written_at
        if since >= _STATUS_EVERY or (since >= _STATUS_SOONEST and states != self._written_states):
            self._written_states, self._written_at = states, now
            self._writing = self._start_writing(self.state(), None)

    def _start_writing(self, state: str, exit_code: int | None) -> asyncio.Future[None]:
        rows = [status_row(row) for row in self.rows()]
        trouble = self._trouble_fields()
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._thread, lambda: self._write(state, rows, trouble, exit_code))

    def _trouble_fields(self) -> dict[str, Any] | None:
        """Return the present trouble: of Ops Manager, else of the first archive that waits for another attempt."""
        if (fields := self._trouble.fields()) is not None:
            return fields
        retrying = (one for one in self._restores.values() if one.state.is_waiting and one.retries.last)
        return next((_attempt_trouble(one) for one in retrying), None)

    def _write(
        self, state: str, rows: list[dict[str, Any]], trouble: dict[str, Any] | None, exit_code: int | None
    ) -> None:
        with suppress(DestError):  # on a full or broken disk the errors of the archives say more
            self._status.write(state, self._context.clock.wall(), rows, exit_code, trouble)

    async def finish(self, state: str, exit_code: int) -> None:
        """Write the last status, with the exit code."""
        await self._start_writing(state, exit_code)
        self._thread.shutdown(wait=False)


class Asking(Protocol):
    """A task that asks Ops Manager again and again; see `JobPoller`."""

    @property
    def trouble(self) -> AgentError | None:
        """The error of the last answer, if it may pass."""

    def silence(self, seconds: float) -> AgentError | None:
        """Return the error of a request that has had no answer for so long."""

    def next_poll_in(self) -> float | None:
        """Return the seconds until the next request, or None while one is in progress."""


class TroubleReport:
    """Reports that Ops Manager cannot be reached: once per cause, and again when it answers."""

    def __init__(self, poller: Asking, reporter: Reporter, clock: Clock) -> None:
        self._poller, self._reporter, self._clock = poller, reporter, clock
        self._reported: Trouble | None = None

    def update(self, until: Deadline) -> None:
        """Report a new cause, or the end of the trouble. Polls are retried until the deadline."""
        error: AgentError | None = self._poller.trouble or self._poller.silence(_SILENT_AFTER)
        before = self._reported
        if error is None and before:
            self._reported = None
            over = Trouble(before.reason, "Ops Manager answers again", before.since, None, over=True)
            self._reporter.report(over)
        elif error and (before is None or (before.reason, _kind(before.message)) != (error.id, _kind(error.message))):
            self._reported = self._describe(error, before, until)
            self._reporter.report(self._reported)

    def _describe(self, error: AgentError, before: Trouble | None, until: Deadline) -> Trouble:
        wall = self._clock.wall()
        since = before.since if before else rfc3339(wall)
        ends = rfc3339(wall + until.remaining())
        return Trouble(error.id, error.message, since, ends, self._poller.next_poll_in())

    def fields(self) -> dict[str, Any] | None:
        """Return the present trouble for the status file, or None."""
        return self._reported.fields() if self._reported else None


def _kind(message: str) -> str:
    """A message without its numbers: a silence that lasts longer is no new cause."""
    return "".join(char for char in message if not char.isdigit())


def _attempt_trouble(restore: JobRestore) -> dict[str, Any]:
    """Return the failure of the last attempt of an archive, as `Trouble.fields` does; its delivery is the limit."""
    state, last = restore.state, restore.retries.last
    assert last is not None  # noqa: S101  # the caller looked
    until = rfc3339(state.job.expires) if state.job.expires else None
    since = rfc3339(restore.retries.failed_at)
    return {"reason": last.id, "message": f"{state.name}: {last.message}", "since": since, "until": until}


def _row(state: JobState, now: float) -> ArchiveProgress:
    job, moving = state.job, state.shown_state in ("downloading", "hashing")
    return ArchiveProgress(
        job_id=job.id,
        file_name=state.name,
        state=state.shown_state,
        bytes=state.meter.bytes,
        total_bytes=state.meter.total,
        bytes_per_second=state.meter.rate() if moving else 0,
        expires_at=rfc3339(job.expires) if job.expires else None,
        downloads_spent=state.entry.attempts,
        unpacked_bytes=state.meter.unpacked,
        delivery_status=job.delivery_status,
        expires_in=job.expires - now if job.expires else None,
    )


def status_row(row: ArchiveProgress) -> dict[str, Any]:
    """Return the row of one archive in the status file."""
    return {name: value for name, value in vars(row).items() if name not in ("delivery_status", "expires_in")}


def too_slow(row: ArchiveProgress) -> str | None:
    """Return a warning if an archive will not be complete before its delivery expires, at the present rate."""
    if row.state != "downloading" or not row.total_bytes or not row.bytes_per_second or row.expires_in is None:
        return None
    missing = row.total_bytes - row.bytes
    needed = missing / row.bytes_per_second
    if needed <= max(row.expires_in, 0.0):
        return None
    takes = f"{missing} bytes are missing; at {row.bytes_per_second} bytes/s that takes {needed:.0f} s"
    return f"{takes}, but the delivery expires in {row.expires_in:.0f} s"


async def warn_of_space(context: RunContext, target: Target, restores: Mapping[str, JobRestore]) -> None:
    """Compare the snapshots' uncompressed sizes, an upper bound, with the free space: a warning, not a refusal."""
    place = context.data_place
    with suppress(AgentError, TimeoutError):  # only a hint depends on it, and the polls wait for their turn
        # first of all: the bytes that are written until the sizes are known would count as needed, and as not free
        free, free_for_data = context.directory.free_bytes(), place.free_bytes() if place else None
        while not restores:
            await context.poller.wait_for_poll()
            await asyncio.sleep(0)
        archives = data = 0
        async with asyncio.timeout(_SIZE_TIMEOUT):
            for restore in list(restores.values())[:100]:
                job, comes, unpacks = restore.state.job, _is_to_come(restore), _is_to_unpack(context, restore)
                if job.snapshot_id and (comes or unpacks):
                    size = await context.api.largest_size(target, job.snapshot_id, job.cluster_id) or 0
                    archives, data = archives + size * comes, data + size * unpacks
        _warn_if_short(context, archives, free, "free: archives may not fit")
        if place and free_for_data is not None:
            text = f"free in {printable(str(place.path), 200)}: data paths may not fit"
            _warn_if_short(context, data, free_for_data, text)


def _is_to_come(restore: JobRestore) -> bool:
    return restore.state.may_still_download and decide(restore.state.job).step in (Step.WAIT, Step.DOWNLOAD)


def _is_to_unpack(context: RunContext, restore: JobRestore) -> bool:
    place = context.data_place
    found = restore.state.entry.data_path_in(place.path_of()) if place else None
    return place is not None and not (found and found.final)


def _warn_if_short(context: RunContext, needed: int, free: int, text: str) -> None:
    if needed > free:
        text = f"the snapshots are up to {needed} bytes uncompressed, and {free} bytes are {text}"
        context.reporter.report(Notice("warning", text))
