"""Restore jobs as the operator lists them. No I/O."""

from __future__ import annotations

from collections.abc import Iterable

from ...core.events import JobListed
from ...core.jobs import Job
from .snapshots import moment


def newest_first(jobs: Iterable[Job]) -> list[Job]:
    """Return the jobs by their time of creation, those of one batch together; jobs without a time come last."""
    return sorted(jobs, key=lambda job: (job.created or 0.0, job.batch_id or ""), reverse=True)


def listed(job: Job) -> JobListed:
    """Return the event of one job. Its file name is that of the delivery URL or, without one, of a published hash."""
    names = [job.delivery_url.file_name] if job.delivery_url else [name for name, _ in job.hashes]
    return JobListed(
        job_id=job.id,
        batch_id=job.batch_id,
        cluster_id=job.cluster_id,
        created=moment(job.created),
        status=job.status,
        delivery_status=job.delivery_status,
        expires=moment(job.expires),
        file_name=names[0] if names else None,
        snapshot_id=job.snapshot_id,
    )
