"""Simulated Ops Manager: the restore jobs of one project."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..faults.faults import Faults
from .deployment import Member
from .job import Job
from .snapshots import Snapshot, Snapshots
from .state import ServerState


@dataclass(frozen=True)
class Order:
    """Delivery that a restore was requested with. `expires` (seconds since the epoch) overrides `hours`."""

    max_downloads: int | None = None
    hours: float = 1
    expires: float | None = None


class Manager(ServerState):
    """State of the server. `jobs` are in order of creation; `list_readings` counts readings of the list of jobs."""

    def __init__(
        self, *, shards: int, archive_size: int, faults: Faults, seed: str, sources: Sequence[Path] = ()
    ) -> None:
        super().__init__(shards=shards, archive_size=archive_size, faults=faults, seed=seed, sources=sources)
        self.snapshots = Snapshots(self.deployment, faults.snapshots, self.clock.now())
        self.jobs: list[Job] = []
        self.list_readings = 0
        self.create_jobs(self.snapshots.first, self.snapshots.first.id, Order())
        if faults.stray_job and shards:
            self._add_stray(faults.stray_job)

    @property
    def snapshot_id(self) -> str:
        """ID of the snapshot that the first jobs restore."""
        return self.snapshots.first.id

    def create_jobs(self, snapshot: Snapshot, snapshot_id: str, order: Order) -> list[Job]:
        """Create the jobs of a restore, as the API does; those of a sharded cluster share a batch."""
        with self.lock:
            first = len(self.jobs)
            is_batch = self.deployment.shards > 0 and snapshot_id == snapshot.id
            batch_id = self.deployment.make_id("batch", first) if is_batch else None
            for index, member in enumerate(snapshot.members_for(snapshot_id), start=first):
                self.jobs.append(self._job(index, batch_id, member, snapshot, order))
            return self.jobs[first:]

    def _job(self, index: int, batch_id: str | None, member: Member, snapshot: Snapshot, order: Order) -> Job:
        faults, now = self.faults.for_job(member.position), self.clock.now()
        end = now + order.hours * 3600 if order.expires is None else order.expires
        return Job(
            index=index,
            id=self.deployment.make_id("job", index),
            batch_id=batch_id,
            member=member,
            snapshot=snapshot,
            created=now,
            expiration_hours=order.hours,
            expires=_expiry(faults, now, end),
            max_downloads=order.max_downloads or faults.max_downloads,
            manager=self,
        )

    def _add_stray(self, kind: str) -> None:
        batch_id = self.deployment.make_id("batch", "stray") if kind == "other" else None
        job = self._job(len(self.jobs), batch_id, self.deployment.members[0], self.snapshots.first, Order())
        job.stray = True
        self.jobs.append(job)

    def find_job(self, job_id: str) -> Job | None:
        """Return the job with this ID."""
        return next((job for job in self.jobs if job.id == job_id), None)

    def next_job(self, job: Job) -> Job:
        """Return the job after this one, or the first job after the last one."""
        return self.jobs[(job.index + 1) % len(self.jobs)]

    def jobs_of(self, owner: str) -> list[Job]:
        """Return the jobs that exist under a cluster ID (the sharded cluster has all) or a host ID."""
        cluster_id = self.deployment.cluster_id
        return [
            job
            for job in self.jobs
            if job.exists and owner in (cluster_id, job.member.host_id or job.member.cluster_id)
        ]


def _expiry(faults: Faults, now: float, end: float) -> float:
    if faults.expired:
        return now - 1
    moments = [now + after for after in (faults.expires_in, faults.expires_cut) if after is not None]
    return min([end, *moments])
