"""Selection of restore jobs, and the names of their archives in DEST."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from ..core.jobs import Job, Step, decide
from ..core.names import Names, safe_name
from ..core.receipt import ArchiveRecord
from ..core.settings import Target
from ..dest.journal import Journal
from ..dest.workspace import Workspace


class JobSelection:
    """Names and selection over all poll results of the batch.

    Every name of the journal is reserved for its job, whichever jobs are listed. Every job of the batch gets a name,
    selected or not, so that the same job has the same name on every host that downloads its own shard.
    """

    def __init__(self, target: Target, journal: Journal, *, ignore_case: bool = False) -> None:
        self._target = target
        self._names = Names(ignore_case=ignore_case)
        self._globs_for_names = target.select  # those that no ID has matched so far
        for job_id, entry in journal.entries().items():
            if entry.file_name:
                self._names.keep(job_id, safe_name(entry.file_name, job_id))

    def update(self, jobs: Iterable[Job]) -> dict[str, str]:
        """Name the archives of the jobs whose URLs are known; return the new names by job ID, to be journaled."""
        jobs = list(jobs)
        ids = [text for job in jobs for text in _ids(job)]
        self._globs_for_names = tuple(glob for glob in self._globs_for_names if not matches([glob], ids))
        wanted = {
            job.id: job.delivery_url.file_name
            for job in jobs
            if job.delivery_url and decide(job).step is not Step.SKIP and self._names.of(job.id) is None
        }
        self._names.give(wanted)
        return {job_id: name for job_id in wanted if (name := self._names.of(job_id))}

    def name(self, job: Job) -> str | None:
        """Return the name of the archive in DEST, or None while it is not known."""
        return self._names.of(job.id)

    def selected(self, job: Job) -> bool | None:
        """Return whether --select admits a job; None while that depends on a name that is not known yet."""
        if not self._target.select:
            return True
        name, url = self.name(job), job.delivery_url
        if matches(self._target.select, [*_ids(job), name, url.file_name if url else None]):
            return True
        return None if name is None and self._globs_for_names and decide(job).step is Step.WAIT else False


def remembered_jobs(workspace: Workspace) -> dict[str, Job]:
    """Return the jobs whose archives are verified and still there, by ID, as the records in DEST know them.

    Ops Manager removes old jobs. Their archives stay verified without it. Raises DestError.
    """
    records = {record.job_id: record for record in (workspace.earlier.archives if workspace.earlier else ())}
    known = {}
    for job_id, entry in workspace.journal.entries().items():
        name, directory = entry.file_name, workspace.directory
        if entry.proven and name and (not entry.archive_kept or (directory and directory.find(name))):
            record = records.get(job_id) or ArchiveRecord(job_id)
            fields = {name: getattr(record, name) for name in _SHARED_FIELDS}
            known[job_id] = Job(job_id, workspace.restore.batch_id if workspace.restore else None, **fields)
    return known


_SHARED_FIELDS = (
    "cluster_id",
    "host_id",
    "snapshot_id",
    "snapshot_timestamp",
    "encryption_enabled",
    "master_key_uuid",
    "point_in_time",
)
"""Fields that a job and its record share."""


def _ids(job: Job) -> list[str | None]:
    return [job.id, job.cluster_id, job.host_id]


def matches(globs: Iterable[str], texts: Iterable[str | None]) -> bool:
    """Return whether any glob matches any of the texts; the case counts."""
    texts = list(texts)
    return any(fnmatchcase(text, glob) for glob in globs for text in texts if text)
