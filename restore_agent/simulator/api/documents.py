"""The JSON documents of the API, exactly as its reference page prints them: fields without a value are left out."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from ..clock import iso
from ..faults.syntax import FieldOverride
from ..model import CLUSTER_NAME, MONGOD_VERSION, SNAPSHOT_TIME, Job, Manager, Member

API = "/api/public/v1.0"

HOSTILE = '\x1b[2J\x1b]0;owned\x07\r\n{"event": "result", "exit_code": 0}\n\u202e\u0000\x9b31m'

"""Text that clears terminals, forges log lines and turns writing round."""

Document = dict[str, Any]


def job_document(job: Job) -> Document:
    """A restore job."""
    manager, member, faults = job.manager, job.member, job.faults
    document: Document = {
        "batchId": job.batch_id,
        "clusterId": None if member.host_id else member.cluster_id,
        "created": iso(job.created),
        "delivery": _delivery(job),
        "encryptionEnabled": faults.encrypted,
        "groupId": manager.group_id,
        "hashes": job.hashes,
        "hostId": member.host_id,
        "id": job.id,
        "links": [_self_link(f"{_owner_path(job)}/restoreJobs/{job.id}", manager)],
        "masterKeyUUID": manager.make_id("master-key", job.index) if faults.encrypted else None,
        "pointInTime": faults.point_in_time,
        "snapshotId": member.snapshot_id,
        "statusName": job.status,
        "timestamp": {"date": iso(SNAPSHOT_TIME), "increment": 1},
    }
    if manager.faults.hostile_text:
        document |= {"clusterName": CLUSTER_NAME + HOSTILE, "statusName": job.status + HOSTILE}
    document = _present(document)
    for override in faults.job_field:
        _force(document, override)
    return document


def _delivery(job: Job) -> Document | None:
    faults = job.faults
    if faults.missing_delivery and job.delivery_status in ("NOT_STARTED", "IN_PROGRESS"):
        return None
    return _present(
        {
            "expirationHours": round(job.expiration_hours),
            "expires": iso(job.expires),
            "maxDownloads": job.max_downloads,
            "methodName": faults.method,
            "statusName": job.delivery_status,
            "targetClusterId": job.manager.make_id("target") if faults.automated else None,
            "targetGroupId": job.manager.group_id if faults.automated else None,
            **(_urls(job) if job.has_url else {}),
        }
    )


def _urls(job: Job) -> Document:
    faults = job.faults
    urls: Document = {} if faults.url_v2 == "only" else {"url": job.url}
    if faults.url_v2 is None:
        return urls
    urls |= {"urlV2": job.url_v2, "authHeader": "Authorization", "authValue": job.bearer}
    if faults.bearer_in_value:
        urls["authValue"] = f"Bearer {job.bearer}"
    elif not faults.no_bearer_field:
        urls["authBearer"] = "Bearer"
    return urls


def _owner_path(job: Job) -> str:
    member = job.member
    owner = f"hosts/{member.host_id}" if member.host_id else f"clusters/{member.cluster_id}"
    return f"{API}/groups/{job.manager.group_id}/{owner}"


def _self_link(path: str, manager: Manager) -> Document:
    return {"href": manager.origin + path, "rel": "self"}


def _present(document: Document) -> Document:
    return {key: value for key, value in document.items() if value is not None}


def _force(document: Document, override: FieldOverride) -> None:
    *parents, last = override.path
    target: Any = document
    for key in parents:
        target = target.setdefault(key, {}) if isinstance(target, dict) else None
    if not isinstance(target, dict):
        return  # the path leads through something an earlier override made no object of
    if override.remove:
        target.pop(last, None)
    else:
        target[last] = override.value


def group_document(manager: Manager) -> Document:
    """The project."""
    path = f"{API}/groups/{manager.group_id}"
    return {"id": manager.group_id, "name": "simulated", "links": [_self_link(path, manager)]}


def cluster_document(manager: Manager, cluster_id: str) -> Document:
    """The sharded cluster, or one of its replica sets."""
    member = next((m for m in manager.members if m.cluster_id == cluster_id), None)
    path = f"{API}/groups/{manager.group_id}/clusters/{cluster_id}"
    sharded = manager.shards > 0
    document: Document = {
        "clusterName": CLUSTER_NAME if sharded else manager.members[0].replica_set,
        "groupId": manager.group_id,
        "id": cluster_id,
        "lastHeartbeat": iso(manager.clock.now()),
        "links": [_self_link(path, manager)],
        "replicaSetName": member.replica_set if member else None,
        "shardName": member.replica_set if member and sharded else None,
        "typeName": member.type_name if member else "SHARDED_REPLICA_SET",
    }
    if manager.faults.hostile_text:
        document["clusterName"] += HOSTILE
    return _present(document)


def snapshot_document(manager: Manager, snapshot_id: str) -> Document | None:
    """The sharded cluster's snapshot with a part for each replica set, or one replica set's; None for neither."""
    members = snapshot_members(manager, snapshot_id)
    if not members:
        return None
    cluster_id = members[0].cluster_id if len(members) == 1 else manager.cluster_id
    path = f"{API}/groups/{manager.group_id}/clusters/{cluster_id}/snapshots/{snapshot_id}"
    return {
        "clusterId": cluster_id,
        "complete": True,
        "created": {"date": iso(SNAPSHOT_TIME), "increment": 1},
        "doNotDelete": False,
        "expires": iso(manager.clock.now() + 48 * 3600),
        "groupId": manager.group_id,
        "id": snapshot_id,
        "isPossiblyInconsistent": False,
        "lastOplogAppliedTimestamp": {"date": iso(SNAPSHOT_TIME), "increment": 1},
        "links": [_self_link(path, manager)],
        "missingShards": [],
        "parts": [_part(manager, member) for member in members],
    }


def snapshot_members(manager: Manager, snapshot_id: str) -> list[Member]:
    """What a snapshot holds; empty for an id that is no snapshot's."""
    if snapshot_id == manager.snapshot_id:
        return manager.members
    return [member for member in manager.members if member.snapshot_id == snapshot_id]


def _part(manager: Manager, member: Member) -> Document:
    job = next(job for job in manager.jobs if job.member == member)
    archive = job.archive()
    return {
        "clusterId": member.cluster_id,
        "compressionSetting": "NONE" if job.faults.plain_tar else "GZIP",
        "dataSizeBytes": 2 * archive.unpacked,
        "encryptionEnabled": job.faults.encrypted,
        "fileSizeBytes": archive.unpacked,
        "mongodVersion": MONGOD_VERSION,
        "replicaSetName": member.replica_set,
        "storageSizeBytes": archive.unpacked,
        "typeName": member.type_name,
    }


def error_document(
    status: int, code: str, detail: str, parameters: Sequence[str] = (), *, hostile: bool = False
) -> Document:
    """An error, as every endpoint answers it."""
    return {
        "detail": detail + (HOSTILE if hostile else ""),
        "error": status,
        "errorCode": code,
        "parameters": list(parameters),
        "reason": HTTPStatus(status).phrase,
    }


def with_numbers_as_strings(value: Any) -> Any:
    """The same document with each number turned into a string."""
    if isinstance(value, dict):
        return {key: with_numbers_as_strings(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_numbers_as_strings(item) for item in value]
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
