"""Which restore jobs a run is about, and under which names their archives go in DEST."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from ..core.jobs import Job, Step, decide
from ..core.names import Names, safe_name
from ..core.settings import Target
from ..dest.journal import Journal


class JobSelection:
    """Names and selection, kept over every reading of the batch.

    A name is given once and stays, also over runs: the journal remembers it. Every job of the batch is named,
    selected or not, so that the same job has the same name on every host that fetches its own shard.
    """

    def __init__(self, target: Target, journal: Journal) -> None:
        self._target = target
        self._journal = journal
        self._names = Names()
        self._globs_for_names = target.select  # those that no id has matched so far

    def update(self, jobs: Iterable[Job]) -> None:
        """Name the archives of the jobs whose URLs are known now."""
        jobs = list(jobs)
        ids = [text for job in jobs for text in _ids(job)]
        self._globs_for_names = tuple(glob for glob in self._globs_for_names if not matches([glob], ids))
        wanted = {}
        for job in jobs:
            if self._names.of(job.id) is None and (earlier := self._journal.entry(job.id).file_name):
                self._names.keep(job.id, safe_name(earlier, job.id))
            elif job.delivery_url and decide(job).step is not Step.SKIP:
                wanted[job.id] = job.delivery_url.file_name
        self._names.give(wanted)

    def name(self, job: Job) -> str | None:
        """The archive's name in DEST, once it is known."""
        return self._names.of(job.id)

    def served_as(self, job: Job) -> str | None:
        """What the server, and so the published hash, calls the archive."""
        return (
            job.delivery_url.file_name if job.delivery_url else self._journal.entry(job.id).served_as or self.name(job)
        )

    def selected(self, job: Job) -> bool | None:
        """Whether --select admits a job; None while that hangs on a name that is not known yet."""
        if not self._target.select:
            return True
        name = self.name(job)
        if matches(self._target.select, [*_ids(job), name, job.delivery_url.file_name if job.delivery_url else None]):
            return True
        return None if name is None and self._globs_for_names and decide(job).step is Step.WAIT else False


def _ids(job: Job) -> list[str | None]:
    return [job.id, job.cluster_id, job.host_id]


def matches(globs: Iterable[str], texts: Iterable[str | None]) -> bool:
    """Whether --select admits what is known by these texts: any glob matches any of them, in the case they have."""
    texts = list(texts)
    return any(fnmatchcase(text, glob) for glob in globs for text in texts if text)
