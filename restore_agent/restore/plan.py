"""`plan`: what `run` would do, and whether it could. Writes nothing, and requests no delivery URL."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..core.clock import ServerClock, rfc3339
from ..core.errors import AgentError, ArchiveDiscarded, ForeignFile, InTheWay, NoSpace, NothingDelivered, Unwritable
from ..core.events import Notice, RunStarted
from ..core.jobs import Job, Step, decide, refusal
from ..core.names import PART, path_text
from ..core.receipt import Receipt, Verdict, receipt_of
from ..core.settings import RunSettings, Services
from ..core.untrusted import printable
from ..dest.archive import Digest, digest_of, structure_of
from ..dest.directory import Directory, errors_of_dest, nearest
from ..dest.journal import Identity
from ..dest.lock import boot_id
from ..dest.space import MINIMUM, RESERVED_FOR_RECORDS, require_file_size
from ..dest.workspace import Access, Workspace, record_of
from ..network.opsmanager import OpsManager
from .completion import nothing_selected
from .job.attempt import resume_offset
from .poller import JobPoller, first_poll
from .progress import TroubleReport
from .proof import Evidence, Kind, Standing, needs_structure, standing_of
from .selection import JobSelection, remembered_jobs
from .unpacking.data_place import DataPlace


@dataclass(frozen=True)
class Planned:
    """What `run` would do about one job now. `step` is wait, download, prove, verified, skip, or fail.

    `resumes_at` is in bytes; `largest_bytes` is an upper bound of the size of the archive. `data_path` is where `run`
    unpacks it, or did; `to_unpack` says that it is not there yet.
    """

    job: Job
    archive: str | None
    step: str
    reason: str
    exit_code: int = 0
    largest_bytes: int | None = None
    expires_in: float | None = None
    resumes_at: int = 0
    data_path: str | None = None
    to_unpack: bool = False

    @property
    def name(self) -> str:
        """The archive, or its job, for messages."""
        return printable(self.archive or f"job {self.job.id}")

    def fields(self) -> dict[str, Any]:
        """Return plain values, for a line of JSON."""
        return {
            "job_id": self.job.id,
            "file_name": self.archive,
            "step": self.step,
            "reason": self.reason,
            "exit_code": self.exit_code,
            "status": self.job.status,
            "delivery_status": self.job.delivery_status,
            "expires_at": rfc3339(self.job.expires) if self.job.expires else None,
            "expires_in": None if self.expires_in is None else round(self.expires_in),
            "max_downloads": self.job.max_downloads,
            "largest_bytes": self.largest_bytes,
            "resumes_at": self.resumes_at,
            "data_path": self.data_path,
            "to_unpack": self.to_unpack,
        }


@dataclass(frozen=True)
class ToUnpack:
    """Archives that `run` would unpack: how many, the bytes that they take at most, and those that are free there.

    `largest_bytes` is None if it is not known for each of them, `free_bytes` if it cannot be read.
    """

    archives: int
    largest_bytes: int | None
    free_bytes: int | None


class Plan:
    """One plan. `make()` returns its receipt and the rows, or raises what would stop a run."""

    def __init__(self, settings: RunSettings, services: Services) -> None:
        self._settings, self._services = settings, services
        self._server_clock = ServerClock(services.clock)
        self._started_at = rfc3339(services.clock.wall())
        self._workspace = Workspace(settings.dest)
        self._ops_manager: str | None = None
        self._bounds: dict[str, int | None] = {}
        self._obstacles: list[str] = []
        self.to_unpack: ToUnpack | None = None
        """After `make()`, with --unpack only."""

    async def make(self) -> tuple[Receipt, tuple[Planned, ...]]:
        """Check DEST, then ask Ops Manager, then check each job. Raises AgentError."""
        settings, services = self._settings, self._services
        async with AsyncExitStack() as stack:
            with errors_of_dest(f"open DEST {printable(str(settings.dest), 200)}"):
                self._open_dest(stack.enter_context(ExitStack()))
            api = await stack.enter_async_context(
                OpsManager(settings.connection, self._server_clock, services.redactor)
            )
            self._ops_manager = api.origin
            services.reporter.report(RunStarted(api.origin, path_text(settings.dest)))
            for note in self._workspace.notes:
                services.reporter.report(Notice("warning", note))
            remembered = remembered_jobs(self._workspace)
            poller = JobPoller(api, settings.target, services.clock, settings.limits.poll_interval, remembered)
            await first_poll(
                poller, services.clock, while_polling=TroubleReport(poller, services.reporter, services.clock).update
            )
            jobs = list(poller.jobs.values())
            batch_id = next((job.batch_id for job in jobs if job.batch_id), None)
            asked = replace(settings.target.restore(batch_id), job_ids=tuple(poller.jobs))
            self._workspace.require_same(asked)
            rows = tuple(sorted(await self._rows(api, jobs), key=lambda row: row.job.id))
            self._check_batch(jobs, rows)
            for error in poller.unknown:
                raise error
            self._check_space(rows)
            rows = self._with_unpacking(rows, stack)
        return self.summary(None, rows), rows

    def summary(self, error: AgentError | None, rows: tuple[Planned, ...] = ()) -> Receipt:
        """Return the receipt of a plan: nothing is verified by it that was not before."""
        verdicts = {"verified": Verdict.VERIFIED, "skip": Verdict.SKIPPED, "fail": Verdict.FAILED}
        records = [
            record_of(
                row.job,
                self._workspace.journal.entry(row.job.id),
                row.archive,
                verdict=verdicts.get(row.step),
                reason=row.reason,
                exit_code=row.exit_code,
            )
            for row in rows
        ]
        receipt = receipt_of(
            self._settings.target.restore(),
            records,
            ops_manager=self._ops_manager,
            times=(self._started_at, rfc3339(self._services.clock.wall())),
            changed=False,
            run_error=error,
        )
        open_rows = any(row.step not in ("verified", "skip") for row in rows)
        return replace(receipt, outcome="unproven") if open_rows and not receipt.exit_code else receipt

    # ------------------------------------------------------------ DEST

    def _open_dest(self, stack: ExitStack) -> None:
        """Open DEST for reading. Raises what of it would stop a run."""
        path, asked = self._settings.dest, self._settings.target.restore()
        self._workspace = Workspace.open(stack, path, Access.READ, asked)
        if self._workspace.directory is None:
            _require_creatable(path)

    def _check_space(self, rows: tuple[Planned, ...]) -> None:
        downloads = [row for row in rows if row.step == "download"]
        free = self._free_bytes()
        for row in downloads:
            require_file_size(self._workspace.journal.entry(row.job.id).total)
        if downloads and free < MINIMUM + RESERVED_FOR_RECORDS:
            raise NoSpace(f"only {free} bytes are free in DEST's file system", spent=False)
        bound = sum(row.largest_bytes or 0 for row in downloads)
        if bound > free:
            text = (
                f"the snapshots are up to {bound} bytes uncompressed, and {free} bytes are free: archives may not fit"
            )
            self._services.reporter.report(Notice("warning", text))

    def _with_unpacking(self, rows: tuple[Planned, ...], stack: AsyncExitStack) -> tuple[Planned, ...]:
        """The rows with what would keep `run` from unpacking; warn if the snapshots may not fit."""
        unpack = self._settings.unpack
        if unpack is None:
            return rows
        names = self._workspace.journal.file_names() | {row.job.id: row.archive for row in rows if row.archive}
        place = DataPlace(self._settings, unpack, None, lambda: names, ignore_case=self._workspace.ignores_case)
        stack.callback(place.close)
        place.inspect()
        if warning := place.owner_warning(self._settings.dest):
            self._services.reporter.report(Notice("warning", warning))
        planned = tuple(self._foreseen(row, place) for row in rows)
        self._check_unpack_space([row.job.id for row in planned if row.to_unpack and not row.exit_code], place)
        for text in dict.fromkeys(self._obstacles):  # one directory can be in the way of each archive
            self._services.reporter.report(Notice("warning", text))
        return planned

    def _check_unpack_space(self, job_ids: list[str], place: DataPlace) -> None:
        bounds, free = [bound for job_id in job_ids if (bound := self._bounds.get(job_id))], place.free_bytes()
        bound = sum(bounds)
        self.to_unpack = ToUnpack(len(job_ids), bound if len(bounds) == len(job_ids) else None, free)
        if free is not None and bound > free:
            shown = printable(str(place.path), 200)
            text = f"the snapshots are up to {bound} bytes uncompressed, and {free} bytes are free in {shown}"
            self._services.reporter.report(Notice("warning", f"{text}: data paths may not fit"))

    def _foreseen(self, row: Planned, place: DataPlace) -> Planned:
        """The row with its data path, and the error that `run` would meet there."""
        if row.exit_code or row.step == "skip":
            return row
        entry = self._workspace.journal.entry(row.job.id)
        if self._is_unpacked(row, place):
            done = entry.data_path_in(place.path_of()) or entry.staged
            return replace(row, data_path=done.path if done else None)
        data_path = place.path_of(place.name_of(row.job.id)) if row.archive else None
        row = replace(row, data_path=data_path, to_unpack=True)
        error = place.foresee(row.job.id) if row.archive else place.error
        if row.step == "verified" and not entry.archive_kept:
            error = ArchiveDiscarded("the archive was removed after it had been unpacked into another directory")
        if error is None:
            return row
        # what is wrong with the directory itself is said once, not for each archive
        self._obstacles.append(error.message if error is place.error else f"{row.name}: {error.message}")
        return replace(row, reason=error.id, exit_code=error.exit_code)

    def _is_unpacked(self, row: Planned, place: DataPlace) -> bool:
        entry = self._workspace.journal.entry(row.job.id)
        found = entry.data_path_in(place.path_of())
        return bool(found and found.final) or bool(entry.staged and entry.staged.final and place.has(entry.staged))

    def _free_bytes(self) -> int:
        if self._workspace.directory:
            return self._workspace.directory.free_bytes()
        with Directory.open(nearest(self._settings.dest), create=False) as parent:
            return parent.free_bytes()

    # ------------------------------------------------------------ jobs

    async def _rows(self, api: OpsManager, jobs: list[Job]) -> list[Planned]:
        workspace = self._workspace
        selection = JobSelection(self._settings.target, workspace.journal, ignore_case=workspace.ignores_case)
        selection.update(jobs)
        self._selection = selection
        rows = []
        for job in jobs:
            if selection.selected(job) is not False:
                row = await self._row(job, selection.name(job))
                if row.step == "download" or (self._settings.unpack and row.step in ("wait", "prove", "verified")):
                    self._bounds[job.id] = await self._largest_size(api, job)
                rows.append(replace(row, largest_bytes=self._bounds.get(job.id)) if row.step == "download" else row)
        return rows

    async def _largest_size(self, api: OpsManager, job: Job) -> int | None:
        with suppress(AgentError):  # only a hint depends on it
            if job.snapshot_id:
                return await api.largest_size(self._settings.target, job.snapshot_id, job.cluster_id)
        return None

    async def _row(self, job: Job, name: str | None) -> Planned:
        decision = decide(job)
        expires_in = job.expires - self._server_clock.now() if job.expires else None
        try:
            found = await self._on_disk(job, name) if name and decision.step is not Step.SKIP else None
        except AgentError as error:
            return Planned(job, name, "fail", error.id, error.exit_code)
        if found:
            return Planned(job, name, found[0], found[1], expires_in=expires_in)
        code = refusal(job, decision).exit_code if decision.step is Step.FAIL else 0
        row = Planned(job, name, decision.step.value, decision.reason, code, expires_in=expires_in)
        return replace(row, resumes_at=self._resumes_at(job, name)) if decision.step is Step.DOWNLOAD else row

    def _resumes_at(self, job: Job, name: str | None) -> int:
        directory = self._workspace.directory
        part = directory.find_file(name + PART) if directory and name else None
        entry = self._workspace.journal.entry(job.id)
        return resume_offset(entry, part.st_size, 0, boot_id()) if part and entry.is_ours else 0

    async def _on_disk(self, job: Job, name: str) -> tuple[str, str] | None:
        """Return step and reason by what DEST holds of an archive. Raises ForeignFile, InTheWay."""
        directory = self._workspace.directory
        if directory is None:
            return None
        entry = self._workspace.journal.entry(job.id)
        if found := directory.find_file(name):
            if entry.proven and entry.promoted == Identity.of(found):
                return "verified", "proven-before"
            if self._standing(job, Kind.FINAL, await digest_of(directory, name)) is Standing.VERIFIED:
                return "verified", "same-as-published"
            raise ForeignFile(f"{printable(name)} already exists and is not this archive", spent=False)
        if entry.proven and not entry.archive_kept:
            return "verified", "proven-before"
        for kind in (Kind.UNPROVEN, Kind.PART, Kind.MISMATCH):
            if (found := directory.find_file(name + kind.value)) and found.st_size:
                if kind is Kind.PART:
                    directory.require_own(name + kind.value, found)
                if provable := await self._companion(directory, job, name, kind, found.st_size):
                    return "prove", provable
        return None

    async def _companion(self, directory: Directory, job: Job, name: str, kind: Kind, size: int) -> str | None:
        """Return why `run` would verify an existing file instead of downloading the archive, or None."""
        entry, published = self._workspace.journal.entry(job.id), self._published(job)
        structure = kind is Kind.PART and entry.is_ours and needs_structure(entry, size, boot_id())
        complete = entry.whole is not None or entry.total == size or kind is Kind.UNPROVEN
        if not (published or structure or (complete and entry.is_ours)):
            return None
        digest = await digest_of(directory, name + kind.value)
        standing = self._standing(job, kind, digest)
        if standing is Standing.INCOMPLETE and structure:
            finding = await structure_of(directory, name + kind.value)
            evidence = Evidence(kind, digest, published, entry, finding=finding)
            standing = standing_of(evidence)
        if standing is Standing.VERIFIED:
            return "same-as-published"
        return "whole-on-disk" if standing is Standing.AWAITS_HASH else None

    def _standing(self, job: Job, kind: Kind, digest: Digest) -> Standing:
        return standing_of(Evidence(kind, digest, self._published(job), self._workspace.journal.entry(job.id)))

    def _published(self, job: Job) -> tuple[str, ...]:
        url = job.delivery_url
        served_as = self._workspace.journal.entry(job.id).served_as
        return job.published_hashes(url.file_name if url else None, served_as, self._selection.name(job))

    def _check_batch(self, jobs: list[Job], rows: tuple[Planned, ...]) -> None:
        target, report = self._settings.target, self._services.reporter.report
        if not rows:
            raise nothing_selected(self._selection, jobs)
        if all(row.step == "skip" for row in rows):
            text = "every selected job is an automated restore, which MongoDB Agents perform"
            raise NothingDelivered(f"{text}; there is nothing to download")
        if target.expect_jobs and len(jobs) < target.expect_jobs:
            text = f"the batch lists {len(jobs)} jobs so far, --expect-jobs asks for {target.expect_jobs}"
            report(Notice("warning", text))
        unknown = [row for row in rows if self._selection.selected(row.job) is None]
        if unknown:
            text = f"{len(unknown)} jobs have no delivery URL yet, so it is not known whether --select matches them"
            report(Notice("warning", text))


def _require_creatable(path: Path) -> None:
    parent = path.parent
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    if not parent.is_dir():
        raise InTheWay(f"{printable(str(parent))} is not a directory, so DEST cannot be created in it", spent=False)
    if not os.access(parent, os.W_OK | os.X_OK):
        text = f"DEST cannot be created: {printable(str(parent))} is not writable"
        raise Unwritable(text, spent=False)
