"""Lines of restoreInfo.txt in an archive."""

from __future__ import annotations

from ..clock import iso
from ..faults.faults import Faults
from .deployment import MONGOD_VERSION, Deployment, Member
from .snapshots import Snapshot

Lines = tuple[tuple[str, str], ...]


def restore_info(faults: Faults, deployment: Deployment, member: Member, snapshot: Snapshot) -> Lines | None:
    """Return the lines of restoreInfo.txt as names and values, or None if there is no such file."""
    kind = faults.restore_info
    if kind == "missing":
        return None
    lines = _lines(faults, deployment, member, snapshot)
    if kind == "huge":
        return (*lines, *((f"Startup Option {number}", "v" * 500) for number in range(2000)))
    if kind == "binary":
        return (*lines[:2], ("Binary\0\udcff", "\udcfe\x1b[2J"), *lines[2:])
    other = deployment.make_id("other")
    wrong = {
        "replica-set": ("Replica Set", "other"),
        "cluster-id": ("Cluster ID", other),
        "group-id": ("Group ID", other),
    }
    return tuple(wrong[kind] if kind in wrong and name == wrong[kind][0] else (name, value) for name, value in lines)


def _lines(faults: Faults, deployment: Deployment, member: Member, snapshot: Snapshot) -> Lines:
    time = iso(snapshot.time)
    encryption = (("Master Key UUID", deployment.make_id("master-key", member.position)),) if faults.encrypted else ()
    return (
        ("Group ID", deployment.group_id),
        ("Group Name", "restore-agent simulator"),
        ("Replica Set", member.replica_set),
        ("Cluster ID", member.cluster_id),
        ("Snapshot timestamp", time),
        ("Last Oplog Applied", f"{time} (1)"),
        ("MongoDB Version", MONGOD_VERSION),
        ("Storage Engine", "wiredTiger"),
        ("Startup Options", f"--replSet {member.replica_set} --storageEngine wiredTiger"),
        ("Encryption Enabled", str(faults.encrypted).lower()),
        *encryption,
    )
