"""JSON documents of the API, as its reference page shows them: fields without a value are left out."""

from __future__ import annotations

from typing import Any

from ..clock import iso
from ..delivery.urls import delivery_url, header_url
from ..faults.values import FieldOverride
from ..model import Job, Manager
from ..model.deployment import CLUSTER_NAME
from ..model.state import ServerState
from .answers import Document, odd_text

API = "/api/public/v1.0"


def job_document(job: Job) -> Document:
    """Return the document of a restore job."""
    manager, member, faults = job.manager, job.member, job.faults
    document: Document = {
        "batchId": job.batch_id,
        "clusterId": None if member.host_id else member.cluster_id,
        "created": iso(job.created),
        "delivery": _delivery(job),
        "encryptionEnabled": faults.encrypted,
        "groupId": manager.deployment.group_id,
        "hashes": job.hashes,
        "hostId": member.host_id,
        "id": job.id,
        "links": [self_link(f"{_owner_path(job)}/restoreJobs/{job.id}", manager)],
        "masterKeyUUID": manager.deployment.make_id("master-key", member.position) if faults.encrypted else None,
        "pointInTime": faults.point_in_time,
        "snapshotId": job.snapshot_id,
        "statusName": job.status,
        "timestamp": {"date": iso(job.snapshot.time), "increment": 1},
    }
    if odd := odd_text(manager.faults):
        document |= {"clusterName": CLUSTER_NAME + odd, "statusName": job.status + odd}
    document = _present(document)
    for override in faults.job_field:
        _force(document, override)
    return document


def _delivery(job: Job) -> Document | None:
    faults = job.faults
    if faults.missing_delivery and job.delivery_status in ("NOT_STARTED", "IN_PROGRESS"):
        return None
    deployment = job.manager.deployment
    return _present(
        {
            "expirationHours": round(job.expiration_hours),
            "expires": iso(job.expires),
            "maxDownloads": job.max_downloads,
            "methodName": faults.method,
            "statusName": job.delivery_status,
            "targetClusterId": deployment.make_id("target") if faults.automated else None,
            "targetGroupId": deployment.group_id if faults.automated else None,
            **(_urls(job) if job.has_url else {}),
        }
    )


def _urls(job: Job) -> Document:
    faults = job.faults
    urls: Document = {} if faults.url_v2 == "only" else {"url": delivery_url(job)}
    if faults.url_v2 is None:
        return urls
    urls |= {"urlV2": header_url(job), "authHeader": "Authorization", "authValue": job.bearer}
    if faults.bearer_in_value:
        urls["authValue"] = f"Bearer {job.bearer}"
    elif not faults.no_bearer_field:
        urls["authBearer"] = "Bearer"
    return urls


def _owner_path(job: Job) -> str:
    member = job.member
    owner = f"hosts/{member.host_id}" if member.host_id else f"clusters/{member.cluster_id}"
    return f"{API}/groups/{job.manager.deployment.group_id}/{owner}"


def self_link(path: str, manager: ServerState) -> Document:
    """Return the link of a document to itself."""
    return {"href": manager.origin + path, "rel": "self"}


def _present(document: Document) -> Document:
    return {key: value for key, value in document.items() if value is not None}


def _force(document: Document, override: FieldOverride) -> None:
    *parents, last = override.path
    target: Any = document
    for key in parents:
        target = target.setdefault(key, {}) if isinstance(target, dict) else None
    if not isinstance(target, dict):
        return  # an earlier override replaced an object on the path
    if override.remove:
        target.pop(last, None)
    else:
        target[last] = override.value


def group_document(manager: Manager) -> Document:
    """Return the document of the project."""
    group_id = manager.deployment.group_id
    return {"id": group_id, "name": "simulated", "links": [self_link(f"{API}/groups/{group_id}", manager)]}


def cluster_document(manager: Manager, cluster_id: str) -> Document:
    """Return the document of the sharded cluster, or of one of its replica sets."""
    deployment = manager.deployment
    member = next((m for m in deployment.members if m.cluster_id == cluster_id), None)
    path = f"{API}/groups/{deployment.group_id}/clusters/{cluster_id}"
    sharded = deployment.shards > 0
    document: Document = {
        "clusterName": CLUSTER_NAME if sharded else deployment.members[0].replica_set,
        "groupId": deployment.group_id,
        "id": cluster_id,
        "lastHeartbeat": iso(manager.clock.now()),
        "links": [self_link(path, manager)],
        "replicaSetName": member.replica_set if member else None,
        "shardName": member.replica_set if member and sharded else None,
        "typeName": member.type_name if member else "SHARDED_REPLICA_SET",
    }
    document["clusterName"] += odd_text(manager.faults)
    return _present(document)
