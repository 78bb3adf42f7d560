"""Snapshots of the simulated cluster."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..faults.values import SnapshotRule
from .deployment import SNAPSHOT_TIME, Deployment, Member

_SCHEDULE = (
    SnapshotRule("incomplete", 0.25),
    SnapshotRule("complete", 6),
    SnapshotRule("inconsistent", 12),
    SnapshotRule("missing", 18),
    SnapshotRule("complete", 24),
    SnapshotRule("complete", 7 * 24),
)
"""Snapshots without the `snapshots` fault, newest first; a replica set has only those that are (in)complete."""


@dataclass(frozen=True)
class Snapshot:
    """Snapshot of the deployment. `number` 0 is that of the first jobs; `time` is in seconds since the epoch."""

    deployment: Deployment
    number: int
    kind: str
    time: int

    @property
    def id(self) -> str:
        """ID of the sharded cluster's snapshot, or of the replica set's."""
        deployment = self.deployment
        return self._id() if deployment.shards else self.member_id(deployment.members[0])

    def member_id(self, member: Member) -> str:
        """Return the ID of the snapshot of one replica set."""
        return self._id(member.replica_set)

    def _id(self, *names: str) -> str:
        return self.deployment.make_id("snapshot", *names, *([self.number] if self.number else []))

    @property
    def missing(self) -> list[Member]:
        """Replica sets that the snapshot lacks: the last shard, or none."""
        deployment = self.deployment
        return deployment.members[deployment.shards - 1 : deployment.shards] if self.kind == "missing" else []

    @property
    def members(self) -> list[Member]:
        """Replica sets that the snapshot includes."""
        return [member for member in self.deployment.members if member not in self.missing]

    def members_for(self, snapshot_id: str) -> list[Member]:
        """Return the replica sets that an ID stands for: all, one, or none if the ID is not of this snapshot."""
        if snapshot_id == self.id:
            return self.members
        return [member for member in self.members if self.member_id(member) == snapshot_id]


class Snapshots:
    """Snapshots of the deployment; `first` is that of the first jobs. Ages are relative to the start, `now`."""

    def __init__(self, deployment: Deployment, rules: tuple[SnapshotRule, ...] | None, now: float) -> None:
        self.first = Snapshot(deployment, 0, "complete", SNAPSHOT_TIME)
        sharded = deployment.shards > 0
        scheduled = [rule for rule in _SCHEDULE if sharded or rule.kind in ("complete", "incomplete")]
        self._listed = [
            Snapshot(deployment, number, rule.kind, int(now - rule.hours * 3600))
            for number, rule in enumerate(scheduled if rules is None else rules, start=1)
        ]
        if rules is None:
            self._listed.append(self.first)

    def listed(self, cluster_id: str, completed: str) -> list[str]:
        """Return the IDs of a cluster's snapshots; `completed` is `true`, `false`, or `all`."""
        wanted = {"true": [True], "false": [False]}.get(completed, [True, False])
        found = (one for one in self._listed if (one.kind != "incomplete") in wanted)
        return [snapshot_id for one in found for snapshot_id in _ids_for(one, cluster_id)]

    def find(self, snapshot_id: str) -> Snapshot | None:
        """Return the snapshot with this ID, of the whole deployment or of one replica set."""
        return next((one for one in [self.first, *self._listed] if one.members_for(snapshot_id)), None)


def _ids_for(snapshot: Snapshot, cluster_id: str) -> Iterable[str]:
    if cluster_id == snapshot.deployment.cluster_id:
        return [snapshot.id]
    return [snapshot.member_id(member) for member in snapshot.members if member.cluster_id == cluster_id]
