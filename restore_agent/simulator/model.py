"""The live state of the simulated Ops Manager: one project, its clusters, snapshots, restore jobs and deliveries.

A model of the server, not a mock: everything time-dependent follows from the clock, and tests may change jobs, clock
and faults while it serves. Whoever reads or changes several things at once holds `lock`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import quote

from .archives import Archive, Recipe
from .clock import Clock, iso
from .faults.faults import Faults

SNAPSHOT_TIME = 1_492_528_465

"""When all snapshots were taken, seconds since the epoch; fixed, so that archive names are the same at every start."""

CLUSTER_NAME = "electron"

MONGOD_VERSION = "3.4.4"

ArchiveSource = Callable[["Job", int], Archive]


@dataclass(frozen=True)
class Member:
    """A replica set of the deployment, which a job restores; `host_id` only for a mirrored config server."""

    cluster_id: str
    snapshot_id: str
    replica_set: str
    type_name: str
    host_id: str | None = None

    @property
    def archive_stem(self) -> str:
        """What an archive's name begins with."""
        return "config" if self.type_name.startswith("CONFIG") else self.replica_set


@dataclass
class Job:
    """One restore job and its delivery. `status` and `delivery_status` follow the timeline until they are set.

    Times are seconds since the epoch by the server's clock; `expires` may be moved. Counts are of delivery GETs:
    `attempts` those answered with a body or by `refuse`, `downloads` those that count, `completed` the whole ones.
    """

    index: int
    id: str
    batch_id: str | None
    member: Member
    created: float
    expiration_hours: float
    expires: float
    max_downloads: int
    manager: Manager = field(repr=False)
    attempts: int = 0
    downloads: int = 0
    completed: int = 0
    completed_at: float | None = None
    sha1: str | None = None
    _status: str | None = None
    _delivery_status: str | None = None

    @property
    def faults(self) -> Faults:
        """The faults as they concern this job."""
        return self.manager.faults.for_job(self.index)

    @property
    def age(self) -> float:
        """Seconds since creation."""
        return self.manager.clock.now() - self.created

    @property
    def status(self) -> str:
        """The job's `statusName`."""
        faults = self.faults
        if self._status is not None:
            return self._status
        if self.age < faults.unknown_status:
            return "AWAITING_OPERATOR"
        if _reached(faults.broken, self.age):
            return "BROKEN"
        if _reached(faults.killed, self.age):
            return "KILLED"
        done = self.completed_at is not None or self.delivery_status == "EXPIRED"
        return "FINISHED" if done or (faults.finished == "ready" and self.is_ready) else "IN_PROGRESS"

    @status.setter
    def status(self, value: str | None) -> None:
        with self.manager.lock:
            self._status = value

    @property
    def delivery_status(self) -> str:
        """The delivery's `statusName`; set it to force one, or None to follow the timeline again."""
        return self._delivery_status or self._timeline(self.faults)

    @delivery_status.setter
    def delivery_status(self, value: str | None) -> None:
        with self.manager.lock:
            self._delivery_status = value

    def _timeline(self, faults: Faults) -> str:
        age = self.age
        if age < faults.unknown_status:
            return "STAGED_FOR_PICKUP"
        if _reached(faults.delivery_failed, age):
            return "FAILED"
        if _reached(faults.interrupted, age):
            return "INTERRUPTED"
        if faults.expired or self.manager.clock.now() >= self.expires:
            return "EXPIRED"
        ready_at = faults.ready_after + self.index * faults.stagger
        if faults.never_ready or age < ready_at:
            return "NOT_STARTED" if age < ready_at / 2 else "IN_PROGRESS"
        return "READY" if self.downloads < self.max_downloads else "MAX_DOWNLOADS_EXCEEDED"

    @property
    def is_ready(self) -> bool:
        """Whether the delivery is READY."""
        return self.delivery_status == "READY"

    @property
    def has_url(self) -> bool:
        """Whether the document shows a delivery URL."""
        faults = self.faults
        if self.is_ready:
            ready_at = faults.ready_after + self.index * faults.stagger
            return self.age >= ready_at + faults.ready_without_url
        return self.delivery_status in ("EXPIRED", "MAX_DOWNLOADS_EXCEEDED") and not faults.url_gone

    @property
    def is_listed(self) -> bool:
        """Whether the API knows the job yet."""
        return self.age >= self.faults.appears_after

    @property
    def archive_name(self) -> str:
        """The archive's own name, as its URL has it unless a fault says otherwise."""
        extension = "tar" if self.faults.plain_tar else "tar.gz"
        return f"{self.member.archive_stem}-{SNAPSHOT_TIME}-{self.id}.{extension}"

    @property
    def file_name(self) -> str:
        """The last segment of the delivery URL, decoded."""
        faults = self.faults
        if faults.name is not None:
            return faults.name
        if self.manager.faults.same_name:
            return f"{CLUSTER_NAME}-{SNAPSHOT_TIME}.{'tar' if faults.plain_tar else 'tar.gz'}"
        return self.archive_name

    @property
    def token(self) -> str:
        """The secret in the URL's path that is valid now."""
        return self._token("url")

    @property
    def bearer(self) -> str:
        """The secret for urlV2's header that is valid now."""
        return self._token("bearer")

    def _token(self, kind: str) -> str:
        every = self.faults.renew_url
        era = int(self.age // every) if every else 0
        return self.manager.make_token(f"{kind}/{self.id}/{era}")

    @property
    def url(self) -> str:
        """The delivery URL with the token in its path."""
        return self.manager.delivery_origin(self) + self.path_v2()

    @property
    def url_v2(self) -> str:
        """The delivery URL that goes with an Authorization header."""
        return f"{self.manager.delivery_origin(self)}/backup/restore/v3/pull/{self.id}/{self._quoted_name()}"

    def path_v2(self) -> str:
        """Path of `url`."""
        return f"/backup/restore/v2/pull/{self.id}/{self.token}/{self._quoted_name()}"

    def _quoted_name(self) -> str:
        return quote(self.file_name, safe="")

    def archive(self, attempt: int = 0) -> Archive:
        """The archive that this attempt (from 0) gets."""
        return self.manager.archive_for(self, attempt if self.faults.different_bytes else 0)

    @property
    def hashes(self) -> list[dict[str, str | None]] | None:
        """The published `hashes`; None while there are none."""
        faults = self.faults
        rule = faults.hash
        if faults.digest_none or rule.kind == "never":
            return None
        done_for = None if self.completed_at is None else self.manager.clock.now() - self.completed_at
        digest = self.sha1 if self.sha1 and done_for is not None else None
        awaited = rule.seconds > (done_for or 0.0) if digest else True
        if rule.kind == "early" and digest is None:
            digest = self.archive().sha1
        elif rule.kind == "early-wrong" and awaited:
            digest = _other(self.archive().sha1)  # one and the same until it is replaced, whatever each GET sends
        elif rule.kind == "late" and awaited:
            digest = None
        return None if digest is None else [self._hash_entry(rule.kind, digest)]

    def _hash_entry(self, kind: str, digest: str) -> dict[str, str | None]:
        shown: dict[str, str | None] = {"wrong": _other(digest), "upper": digest.upper(), "null": None}
        name = f"other-{self.file_name}" if kind == "other-name" else self.file_name
        return {"fileName": name, "hash": shown.get(kind, digest), "typeName": "SHA1"}

    def recipe(self, variant: int = 0) -> Recipe:
        """What this job's archive is made of; `variant` counts archives that differ."""
        faults, manager = self.faults, self.manager
        return Recipe(
            self.archive_name,
            manager.archive_size,
            f"{manager.seed}/{variant}",
            gzipped=not faults.plain_tar,
            damaged=faults.damaged_gzip,
            bomb=faults.bomb,
            info=self._restore_info(),
        )

    def _restore_info(self) -> tuple[tuple[str, str], ...]:
        return (
            ("Restore Information", ""),
            ("Group Name", "restore-agent simulator"),
            ("Replica Set", self.member.replica_set),
            ("Cluster Id", self.member.cluster_id),
            ("Snapshot timestamp", iso(SNAPSHOT_TIME)),
            ("Last Oplog Applied", f"{iso(SNAPSHOT_TIME)} (1)"),
            ("MongoDB Version", MONGOD_VERSION),
            ("Storage Engine", "wiredTiger"),
            ("Startup Options", f"--replSet {self.member.replica_set} --storageEngine wiredTiger"),
            ("Encryption Enabled", str(self.faults.encrypted).lower()),
        )


def _reached(after: float | None, age: float) -> bool:
    return after is not None and age >= after


def _other(digest: str) -> str:
    """A hash that is not this one."""
    return hashlib.sha1(digest.encode(), usedforsecurity=False).hexdigest()


class Manager:
    """The server's state. `faults` may be replaced at any time; `jobs` is in order of creation."""

    def __init__(self, *, shards: int, archive_size: int, faults: Faults, seed: str) -> None:
        self.lock = threading.RLock()
        self.faults = faults
        self.clock = Clock(faults.clock_skew)
        self.shards, self.archive_size, self.seed = shards, archive_size, seed
        self.group_id = self.make_id("group")
        self.members = list(self._make_members())
        self.cluster_id = self.make_id("cluster") if shards else self.members[0].cluster_id
        self.snapshot_id = self.make_id("snapshot") if shards else self.members[0].snapshot_id
        self.public_key = "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(8))
        self.private_key = str(uuid.uuid4())
        self.origin = self.second_origin = ""
        self.archive_source: ArchiveSource | None = None
        self._token_key = secrets.token_bytes(16)
        self._tokens: dict[str, str] = {}
        self.jobs: list[Job] = []
        self.create_jobs(self.members)

    def make_id(self, *what: object) -> str:
        """24 hex digits that are the same for the same seed, shape and purpose."""
        text = "/".join(str(part) for part in (self.seed, self.shards, self.archive_size, *what))
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def _make_members(self) -> Iterator[Member]:
        if not self.shards:
            yield self._member(f"{CLUSTER_NAME}_0", "REPLICA_SET")
            return
        for number in range(self.shards):
            yield self._member(f"{CLUSTER_NAME}_{number}", "REPLICA_SET")
        if self.faults.sccc:
            yield self._member(f"{CLUSTER_NAME}_config", "CONFIG_SERVER", host_id=self.make_id("host"))
        else:
            yield self._member(f"{CLUSTER_NAME}_configRS", "CONFIG_SERVER_REPLICA_SET")

    def _member(self, name: str, type_name: str, host_id: str | None = None) -> Member:
        return Member(self.make_id("cluster", name), self.make_id("snapshot", name), name, type_name, host_id)

    def create_jobs(
        self, members: list[Member], *, max_downloads: int | None = None, hours: float = 1, expires: float | None = None
    ) -> list[Job]:
        """A restore of these members, as the API and the web interface make it: several share a batch."""
        with self.lock:
            first = len(self.jobs)
            batch_id = self.make_id("batch", first) if self.shards and len(members) > 1 else None
            now = self.clock.now()
            for number, member in enumerate(members, start=first):
                faults = self.faults.for_job(number)
                end = now + hours * 3600 if expires is None else expires
                self.jobs.append(
                    Job(
                        index=number,
                        id=self.make_id("job", number),
                        batch_id=batch_id,
                        member=member,
                        created=now,
                        expiration_hours=hours,
                        expires=_expiry(faults, now, end),
                        max_downloads=max_downloads or faults.max_downloads,
                        manager=self,
                    )
                )
            return self.jobs[first:]

    def make_token(self, purpose: str) -> str:
        """A secret that is random per start, and the same for the same purpose."""
        if purpose not in self._tokens:
            digest = hmac.new(self._token_key, purpose.encode(), hashlib.sha256).hexdigest()[:32]
            self._tokens[purpose] = base64.b64encode(digest.encode()).decode()
        return self._tokens[purpose]

    @property
    def secrets(self) -> list[str]:
        """Every secret handed out so far: the private key, the tokens of URLs and of headers."""
        with self.lock:
            return [self.private_key, *self._tokens.values()]

    def delivery_origin(self, job: Job) -> str:
        """Scheme, host and port of a job's delivery URL."""
        return self.second_origin if job.faults.other_origin else self.origin

    def archive_for(self, job: Job, variant: int) -> Archive:
        """The archive of a job on disk."""
        if self.archive_source is None:
            raise RuntimeError("the simulator has not been started, so there are no archives yet")
        return self.archive_source(job, variant)

    def find_job(self, job_id: str) -> Job | None:
        """The job with this id."""
        return next((job for job in self.jobs if job.id == job_id), None)

    def jobs_of(self, owner: str) -> list[Job]:
        """Jobs that are listed under a cluster id (the sharded one lists all) or a host id."""
        return [job for job in self.jobs if job.is_listed and self._belongs(job, owner)]

    def _belongs(self, job: Job, owner: str) -> bool:
        return owner in (self.cluster_id, job.member.host_id or job.member.cluster_id)

    def members_of(self, cluster_id: str) -> list[Member]:
        """The replica sets of a cluster; none for an id that is no cluster's."""
        return [m for m in self.members if cluster_id in (self.cluster_id, m.cluster_id)]


def _expiry(faults: Faults, now: float, end: float) -> float:
    if faults.expired:
        return now - 1
    moments = [now + after for after in (faults.expires_in, faults.expires_cut) if after is not None]
    return min([end, *moments])
