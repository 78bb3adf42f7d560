"""`plan`: everything that `run` would do, and whether it could. Writes nothing, touches no delivery URL."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.clock import Clock, ServerClock, rfc3339
from ..core.errors import (
    AgentError,
    DestHeld,
    ForeignFile,
    InTheWay,
    NoSpace,
    NothingDelivered,
    NothingSelected,
    Unwritable,
)
from ..core.events import Notice, Reporter, RunStarted
from ..core.exit_codes import combined_exit_code
from ..core.jobs import Job, Step, decide, refusal
from ..core.names import MISMATCH, PART, RECEIPT, UNPROVEN
from ..core.receipt import Receipt, Verdict, parse_receipt, record_of
from ..core.redaction import Redactor
from ..core.settings import Connection, RunLimits, Target
from ..core.untrusted import printable
from ..dest.archive import digest_of
from ..dest.directory import Directory, errors_of_dest
from ..dest.journal import Identity, Journal
from ..dest.lock import STATE_DIRECTORY, Lock
from ..dest.space import DiskSpace
from ..dest.workspace import require_own_names, require_own_sums
from ..network.opsmanager import OpsManager
from .poller import first_reading
from .selection import JobSelection


@dataclass(frozen=True)
class Planned:
    """What `run` would do about one job now. `step` is wait, download, prove, verified, skip or fail."""

    job: Job
    archive: str | None
    step: str
    reason: str
    exit_code: int = 0
    largest_bytes: int | None = None
    expires_in: float | None = None

    def fields(self) -> dict[str, Any]:
        """As plain values, for a line of JSON."""
        return {
            "job_id": self.job.id,
            "archive": self.archive,
            "step": self.step,
            "reason": self.reason,
            "exit_code": self.exit_code,
            "status": self.job.status,
            "delivery_status": self.job.delivery_status,
            "expires_at": rfc3339(self.job.expires) if self.job.expires else None,
            "expires_in": None if self.expires_in is None else round(self.expires_in),
            "max_downloads": self.job.max_downloads,
            "largest_bytes": self.largest_bytes,
        }


class Plan:
    """One plan. `make()` returns its receipt and the rows, or raises what would stop a run at once."""

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
        self._server_clock = ServerClock(clock)
        self._started_at = rfc3339(clock.wall())
        self._directory: Directory | None = None
        self._ops_manager: str | None = None
        self._journal = Journal([])
        self._earlier: Receipt | None = None

    async def make(self) -> tuple[Receipt, tuple[Planned, ...]]:
        """Look at DEST, then at Ops Manager, then at each job. Raises AgentError."""
        async with AsyncExitStack() as stack:
            with errors_of_dest(f"look at DEST {printable(str(self._dest), 200)}"):
                self._look_at_dest(stack)
            api = await stack.enter_async_context(OpsManager(self._connection, self._server_clock, self._redactor))
            self._ops_manager = api.origin
            self._reporter.report(RunStarted(api.origin, str(self._dest)))
            watch = await first_reading(api, self._target, self._clock, self._limits.poll_interval)
            jobs = list(watch.jobs.values())
            if self._earlier and not self._target.batch_id:
                batch_id = next((job.batch_id for job in jobs if job.batch_id), None)
                self._earlier.require_same_restore(batch_id, self._target.job_ids)
            rows = tuple(sorted([row async for row in self._judge(api, jobs)], key=lambda row: row.job.id))
            self._check_batch(jobs, rows)
            if api.unknown:
                raise api.unknown[0]
            self._check_space(rows)
        return self.summary(combined_exit_code(row.exit_code for row in rows), rows), rows

    def summary(self, exit_code: int, rows: tuple[Planned, ...] = ()) -> Receipt:
        """The receipt's fields for a plan: nothing is verified by it unless it was before."""
        verdicts = {"verified": Verdict.VERIFIED, "skip": Verdict.SKIPPED, "fail": Verdict.FAILED}
        archives = tuple(
            record_of(
                row.job,
                self._journal.entry(row.job.id),
                row.archive,
                verdict=verdicts.get(row.step),
                reason=row.reason,
                exit_code=row.exit_code,
            )
            for row in rows
        )
        settled = rows and all(row.step in ("verified", "skip") for row in rows)
        return Receipt(
            group_id=self._target.group_id,
            cluster_id=self._target.cluster_id,
            host_id=self._target.host_id,
            batch_id=self._target.batch_id,
            ops_manager=self._ops_manager,
            started_at=self._started_at,
            finished_at=rfc3339(self._clock.wall()),
            outcome="failed" if exit_code else "verified" if settled else "unproven",
            exit_code=exit_code,
            changed=False,
            archives=archives,
        )

    # ------------------------------------------------------------ DEST

    def _look_at_dest(self, stack: AsyncExitStack) -> None:
        """What of DEST would stop a run. Raises Unwritable, InTheWay, OtherBatch, RecordUnreadable or DestHeld."""
        try:
            os.lstat(self._dest)
        except FileNotFoundError:
            _require_creatable(self._dest)
            return
        if not self._dest.is_dir():
            raise InTheWay(f"DEST {printable(str(self._dest))} is not a directory", spent=False)
        where = self._directory = stack.enter_context(Directory.open(self._dest, create=False))
        if not where.writable():
            raise Unwritable(f"DEST {printable(str(self._dest))} cannot be written", spent=False)
        require_own_names(where)
        state = where.subdirectory(STATE_DIRECTORY, create=False)
        if state:
            stack.enter_context(state)
            if Lock.is_held(state):
                raise DestHeld(f"another run holds {self._dest}", spent=False)
            self._journal = Journal.peek(state)
        if (raw := where.read(RECEIPT)) is not None:
            self._earlier = parse_receipt(raw)
            if self._target.batch_id:
                self._earlier.require_same_restore(self._target.batch_id)
        require_own_sums(where, self._earlier, self._journal)

    def _check_space(self, rows: tuple[Planned, ...]) -> None:
        downloads = [row for row in rows if row.step == "download"]
        probe = self._directory or _nearest(self._dest)
        free = probe.free_bytes()
        if probe is not self._directory:
            probe.close()
        if downloads and free < DiskSpace.LEAST + DiskSpace.RECORDS:
            raise NoSpace(f"{free} bytes are free in DEST's file system", spent=False)
        bound = sum(row.largest_bytes or 0 for row in downloads)
        if bound > free:
            text = f"the snapshots are up to {bound} bytes uncompressed and {free} are free: the archives may not fit"
            self._reporter.report(Notice("warning", text))

    # ------------------------------------------------------------ jobs

    async def _judge(self, api: OpsManager, jobs: list[Job]) -> Any:
        selection = JobSelection(self._target, self._journal)
        selection.update(jobs)
        for job in jobs:
            if selection.selected(job) is False:
                continue
            row = await self._row(job, selection)
            if row.step == "download" and job.snapshot_id:
                with suppress(AgentError):  # only a hint hangs on it
                    bound = await api.largest_size(self._target, job.snapshot_id, job.cluster_id)
                    row = Planned(job, row.archive, row.step, row.reason, 0, bound, row.expires_in)
            yield row

    async def _row(self, job: Job, selection: JobSelection) -> Planned:
        name, decision = selection.name(job), decide(job)
        expires_in = job.expires - self._server_clock.now() if job.expires else None
        try:
            found = (
                await self._on_disk(job, name, selection.served_as(job))
                if name and decision.step is not Step.SKIP
                else None
            )
        except AgentError as error:
            return Planned(job, name, "fail", error.id, error.exit_code)
        if found:
            return Planned(job, name, found[0], found[1], expires_in=expires_in)
        code = refusal(job, decision).exit_code if decision.step is Step.FAIL else 0
        return Planned(job, name, decision.step.value, decision.reason, code, expires_in=expires_in)

    async def _on_disk(self, job: Job, name: str, served_as: str | None) -> tuple[str, str] | None:
        """What DEST already holds of an archive, by reading only. Raises ForeignFile or InTheWay."""
        where, entry = self._directory, self._journal.entry(job.id)
        if where is None:
            return None
        expected = job.published_hash(served_as or name)
        if found := where.find_file(name):
            if entry.proven and entry.published == Identity.of(found):
                return "verified", "proven-before"
            if (await digest_of(where, name)).sha1 in (entry.proven, expected):
                return "verified", "same-as-published"
            raise ForeignFile(f"a file stands at {printable(name)} that is not this archive", spent=False)
        for suffix in (UNPROVEN, PART, MISMATCH):
            if not (found := where.find_file(name + suffix)):
                continue
            if suffix == PART and found.st_nlink != 1:
                raise InTheWay(f"{printable(name + suffix)} has another name elsewhere (a hard link)", spent=False)
            if expected and (await digest_of(where, name + suffix)).sha1 == expected:
                return "prove", "same-as-published"
            if suffix == UNPROVEN or (suffix == PART and entry.whole):
                return "prove", "whole-on-disk"
        return None

    def _check_batch(self, jobs: list[Job], rows: tuple[Planned, ...]) -> None:
        if not rows:
            raise NothingSelected(f"none of the {len(jobs)} jobs matches --select")
        if all(row.step == "skip" for row in rows):
            raise NothingDelivered("every selected job is an automated restore, left to its own agents")
        if self._target.expect_jobs and len(jobs) < self._target.expect_jobs:
            text = f"the batch lists {len(jobs)} jobs so far, --expect-jobs asks for {self._target.expect_jobs}"
            self._reporter.report(Notice("warning", text))


def _require_creatable(path: Path) -> None:
    parent = path.parent
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    if not parent.is_dir():
        raise InTheWay(f"{printable(str(parent))} is not a directory, so DEST cannot be made in it", spent=False)
    if not os.access(parent, os.W_OK | os.X_OK):
        raise Unwritable(f"DEST cannot be made: {printable(str(parent))} cannot be written", spent=False)


def _nearest(path: Path) -> Directory:
    while not path.is_dir():
        path = path.parent
    return Directory.open(path, create=False)
