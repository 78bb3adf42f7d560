"""The simulated project and its cluster: IDs, replica sets, and constants."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

SNAPSHOT_TIME = 1_492_528_465
"""Time of the first jobs' snapshot, in seconds since the epoch; constant, so that archive names are reproducible."""

CLUSTER_NAME = "electron"

MONGOD_VERSION = "3.4.4"


@dataclass(frozen=True)
class Member:
    """One replica set of the deployment, restored by one job; only a mirrored config server has a `host_id`."""

    position: int
    cluster_id: str
    replica_set: str
    type_name: str
    host_id: str | None = None

    @property
    def archive_stem(self) -> str:
        """First part of an archive's name."""
        return "config" if self.type_name.startswith("CONFIG") else self.replica_set


class Deployment:
    """One project with a sharded cluster, or with a replica set if `shards` is 0."""

    def __init__(self, *, shards: int, archive_size: int, seed: str, sccc: bool) -> None:
        self.shards, self.archive_size, self.seed = shards, archive_size, seed
        self.group_id = self.make_id("group")
        self.members = list(self._make_members(sccc))
        self.cluster_id = self.make_id("cluster") if shards else self.members[0].cluster_id

    def make_id(self, *purpose: object) -> str:
        """Return 24 hex digits that depend only on the seed, the shape, and the purpose."""
        text = "/".join(str(part) for part in (self.seed, self.shards, self.archive_size, *purpose))
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def members_of(self, cluster_id: str) -> list[Member]:
        """Return the replica sets of a cluster; empty for an unknown ID."""
        return [member for member in self.members if cluster_id in (self.cluster_id, member.cluster_id)]

    def _make_members(self, sccc: bool) -> Iterator[Member]:
        for number in range(self.shards or 1):
            yield self._member(number, f"{CLUSTER_NAME}_{number}", "REPLICA_SET")
        if not self.shards:
            return
        if sccc:
            host_id = self.make_id("host")
            yield self._member(self.shards, f"{CLUSTER_NAME}_config", "CONFIG_SERVER", host_id)
        else:
            yield self._member(self.shards, f"{CLUSTER_NAME}_configRS", "CONFIG_SERVER_REPLICA_SET")

    def _member(self, position: int, name: str, type_name: str, host_id: str | None = None) -> Member:
        return Member(position, self.make_id("cluster", name), name, type_name, host_id)
