"""Resources of the API: from a path to documents."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ..faults.values import Span
from ..model import Job, Manager
from . import documents as doc
from .answers import Document, Question, Refused
from .restores import delivery_order, json_object
from .snapshots import snapshot_document

_ID = re.compile(r"[0-9a-f]{24}")


@dataclass(frozen=True)
class Listing:
    """All items of a list; the answer contains one page of them. `missing`: items at the end that are left out."""

    items: list[Document]
    missing: int = 0


Found = Document | Listing


class Resources:
    """Handlers for the paths of the API. Each returns a document or a list, or raises Refused."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def find(self, question: Question) -> Found:
        """Return what a request asks for."""
        path = question.path.removeprefix(doc.API).strip("/")
        for method, pattern, handler in _ROUTES:
            matched = re.fullmatch(pattern, path)
            if matched is not None and method == question.method:
                return handler(self, question, **matched.groupdict())
        if any(re.fullmatch(pattern, path) for _, pattern, _ in _ROUTES):
            raise Refused(405, "METHOD_NOT_ALLOWED", f"{question.method} is not allowed here.")
        raise Refused(404, "RESOURCE_NOT_FOUND", f"Cannot find resource {question.path}.", question.path)

    def _root(self, _question: Question) -> Found:
        link = {"href": f"{self._manager.origin}{doc.API}/groups", "rel": "http://mms.mongodb.com/groups"}
        return {"appName": "MongoDB Ops Manager API (simulated)", "links": [link]}

    def _group(self, _question: Question, group: str) -> Found:
        self._check_group(group)
        return doc.group_document(self._manager)

    def _clusters(self, _question: Question, group: str) -> Found:
        self._check_group(group)
        deployment = self._manager.deployment
        own = (member.cluster_id for member in deployment.members if not member.host_id)
        ids = dict.fromkeys([deployment.cluster_id, *own])
        return Listing([doc.cluster_document(self._manager, cluster_id) for cluster_id in ids])

    def _cluster(self, _question: Question, group: str, cluster: str) -> Found:
        self._check_cluster(group, cluster)
        return doc.cluster_document(self._manager, cluster)

    def _snapshots(self, question: Question, group: str, cluster: str) -> Found:
        self._check_cluster(group, cluster)
        manager = self._manager
        completed = "all" if manager.faults.old_snapshots else question.query.get("completed", "true")
        ids = manager.snapshots.listed(cluster, completed)
        return Listing([self._snapshot(question, group, cluster, snapshot_id) for snapshot_id in ids])

    def _snapshot(self, _question: Question, group: str, cluster: str, snapshot: str) -> Document:
        self._check_cluster(group, cluster)
        found = self._manager.snapshots.find(snapshot)
        document = snapshot_document(self._manager, found, snapshot) if found else None
        if document is None or cluster not in (self._manager.deployment.cluster_id, document["clusterId"]):
            raise Refused(404, "SNAPSHOT_NOT_FOUND", f"No snapshot with ID {snapshot} exists.", snapshot)
        return document

    def _jobs(self, question: Question, group: str, owner: str) -> Found:
        owner_id = self._check_owner(group, owner)
        batch = question.query.get("batchId")
        if batch is not None and self._manager.faults.no_batch:
            return Listing([])
        if question.number("pageNum", 1) == 1:
            self._manager.list_readings += 1
        reading, faults = self._manager.list_readings, self._manager.faults
        listed = [
            job
            for job in self._manager.jobs_of(owner_id)
            if (batch in (None, job.batch_id) or job.stray) and not _is_in(reading, job.faults.job_unlisted)
        ]
        missing = min(len(listed), 1) if _is_in(reading, faults.short_list) else 0
        return Listing([_read(job) for job in listed], missing)

    def _job(self, _question: Question, group: str, owner: str, job: str) -> Found:
        owner_id = self._check_owner(group, owner)
        if not _ID.fullmatch(job):
            raise Refused(404, "INVALID_JOB_ID", f"{job} is not a restore job ID.", job)
        found = next((known for known in self._manager.jobs_of(owner_id) if known.id == job), None)
        if found is not None:
            found.document_readings += 1
        if found is None or _is_in(found.document_readings, found.faults.job_404):
            raise Refused(404, "RESTORE_JOB_NOT_FOUND", f"No restore job with ID {job} exists.", job)
        if found.faults.job_swapped:
            found = self._manager.next_job(found)
        return _read(found)

    def _create(self, question: Question, group: str, owner: str) -> Found:
        self._check_owner(group, owner)
        wanted = json_object(question.body)
        snapshot_id = str(wanted.get("snapshotId"))
        snapshot = self._manager.snapshots.find(snapshot_id)
        if snapshot is None:
            raise Refused(400, "INVALID_SNAPSHOT_ID", "No such snapshot.", snapshot_id)
        if snapshot.kind == "incomplete":
            raise Refused(409, "SNAPSHOT_NOT_COMPLETE", f"Snapshot {snapshot_id} is not complete.", snapshot_id)
        jobs = self._manager.create_jobs(snapshot, snapshot_id, delivery_order(wanted))
        return Listing([_read(job) for job in jobs])

    def _check_group(self, group: str) -> None:
        if group != self._manager.deployment.group_id:
            raise Refused(404, "GROUP_NOT_FOUND", f"No group with ID {group} exists.", group)

    def _check_cluster(self, group: str, cluster: str) -> None:
        self._check_group(group)
        if not self._manager.deployment.members_of(cluster):
            detail = f"No cluster with ID {cluster} exists in group {group}."
            raise Refused(404, "CLUSTER_NOT_FOUND", detail, cluster, group)

    def _check_owner(self, group: str, owner: str) -> str:
        """Return the ID in `clusters/ID` or `hosts/ID`. Raises Refused if it does not exist."""
        kind, _, owner_id = owner.partition("/")
        if kind == "clusters":
            self._check_cluster(group, owner_id)
            return owner_id
        self._check_group(group)
        if owner_id not in [member.host_id for member in self._manager.deployment.members]:
            raise Refused(
                404, "HOST_NOT_FOUND", f"No host with ID {owner_id} exists in group {group}.", owner_id, group
            )
        return owner_id


def _is_in(reading: int, spans: tuple[Span, ...]) -> bool:
    return any(reading in span for span in spans)


def _read(job: Job) -> Document:
    job.readings += 1
    return doc.job_document(job)


_GROUP = r"groups/(?P<group>[^/]+)"

_CLUSTER = rf"{_GROUP}/clusters/(?P<cluster>[^/]+)"

_JOBS = rf"{_GROUP}/(?P<owner>(?:clusters|hosts)/[^/]+)/restoreJobs"

_ROUTES: tuple[tuple[str, str, Callable[..., Found]], ...] = (
    ("GET", "", Resources._root),
    ("GET", _GROUP, Resources._group),
    ("GET", rf"{_GROUP}/clusters", Resources._clusters),
    ("GET", _CLUSTER, Resources._cluster),
    ("GET", rf"{_CLUSTER}/snapshots", Resources._snapshots),
    ("GET", rf"{_CLUSTER}/snapshots/(?P<snapshot>[^/]+)", Resources._snapshot),
    ("GET", _JOBS, Resources._jobs),
    ("GET", rf"{_JOBS}/(?P<job>[^/]+)", Resources._job),
    ("POST", _JOBS, Resources._create),
)
