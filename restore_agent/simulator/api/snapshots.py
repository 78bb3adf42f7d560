"""JSON documents of snapshots."""

from __future__ import annotations

from ..clock import iso
from ..model import Manager
from ..model.deployment import CLUSTER_NAME, MONGOD_VERSION, SNAPSHOT_TIME, Member
from ..model.snapshots import Snapshot
from .answers import Document
from .documents import API, self_link

_KEPT = 14 * 24 * 3600


def snapshot_document(manager: Manager, snapshot: Snapshot, snapshot_id: str) -> Document:
    """Return the document of a snapshot of the sharded cluster, or of one replica set, as `snapshot_id` says."""
    deployment = manager.deployment
    whole = snapshot_id == snapshot.id
    members = snapshot.members_for(snapshot_id)
    cluster_id = deployment.cluster_id if whole else members[0].cluster_id
    path = f"{API}/groups/{deployment.group_id}/clusters/{cluster_id}/snapshots/{snapshot_id}"
    document: Document = {
        "clusterId": cluster_id,
        "complete": snapshot.kind != "incomplete",
        "created": {"date": iso(snapshot.time), "increment": 1},
        "doNotDelete": snapshot.time == SNAPSHOT_TIME,
        "groupId": deployment.group_id,
        "id": snapshot_id,
        "lastOplogAppliedTimestamp": {"date": iso(snapshot.time), "increment": 1},
        "links": [self_link(path, manager)],
        "parts": [] if snapshot.kind == "incomplete" else [_part(manager, member) for member in members],
    }
    if not document["doNotDelete"]:
        document["expires"] = iso(snapshot.time + _KEPT)
    if whole and deployment.shards:
        document["isPossiblyInconsistent"] = snapshot.kind == "inconsistent"
        document["missingShards"] = [_missing_shard(manager, member) for member in snapshot.missing]
    return document


def _missing_shard(manager: Manager, member: Member) -> Document:
    return {
        "clusterName": CLUSTER_NAME,
        "groupId": manager.deployment.group_id,
        "id": member.cluster_id,
        "lastHeartbeat": iso(manager.clock.now()),
        "replicaSetName": member.replica_set,
        "shardName": member.replica_set,
        "typeName": member.type_name,
    }


def _part(manager: Manager, member: Member) -> Document:
    job = next(job for job in manager.jobs if job.member == member)
    unpacked = job.archive().unpacked
    return {
        "clusterId": member.cluster_id,
        "compressionSetting": "NONE" if job.faults.plain_tar else "GZIP",
        "dataSizeBytes": 2 * unpacked,
        "encryptionEnabled": job.faults.encrypted,
        "fileSizeBytes": unpacked,
        "mongodVersion": MONGOD_VERSION,
        "replicaSetName": member.replica_set,
        "storageSizeBytes": unpacked,
        "typeName": member.type_name,
    }
