"""Restore job and its delivery."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..archives import Archive, Recipe, Shape
from ..faults.faults import Faults
from .deployment import CLUSTER_NAME, Member
from .hashes import Entry, Sent, published_hashes
from .restore_info import restore_info
from .snapshots import Snapshot
from .state import ServerState
from .timeline import Moment, delivery_status, job_status, ready_at


@dataclass
class Job:
    """Restore job and its delivery. `status` and `delivery_status` follow the timeline unless they are set.

    Times are seconds since the epoch by the server's clock. Counts are of delivery GETs: `attempts` answered with a
    body or by `refuse`, `downloads` counted against `max_downloads`, `completed` sent in full. `readings` counts how
    often its document was shown, `document_readings` without lists. `stray`: listed in a batch it does not belong to.
    """

    index: int
    id: str
    batch_id: str | None
    member: Member
    snapshot: Snapshot
    created: float
    expiration_hours: float
    expires: float
    max_downloads: int
    manager: ServerState = field(repr=False)
    attempts: int = 0
    downloads: int = 0
    completed: int = 0
    completed_at: float | None = None
    sha1: str | None = None
    readings: int = 0
    document_readings: int = 0
    stray: bool = False
    _status: str | None = None
    _delivery_status: str | None = None

    @property
    def faults(self) -> Faults:
        """Faults that apply to this job."""
        return self.manager.faults.for_job(self.member.position)

    @property
    def age(self) -> float:
        """Seconds since creation."""
        return self.manager.clock.now() - self.created

    @property
    def snapshot_id(self) -> str:
        """ID of the snapshot that this job restores."""
        return self.snapshot.member_id(self.member)

    @property
    def status(self) -> str:
        """`statusName` of the job; set it to force one, or None to follow the timeline again."""
        if self._status is not None:
            return self._status
        return job_status(self.faults, self.age, self.delivery_status, downloaded=self.completed_at is not None)

    @status.setter
    def status(self, value: str | None) -> None:
        with self.manager.lock:
            self._status = value

    @property
    def delivery_status(self) -> str:
        """`statusName` of the delivery; set it to force one, or None to follow the timeline again."""
        if self._delivery_status is not None:
            return self._delivery_status
        expired = self.manager.clock.now() >= self.expires
        moment = Moment(self.age, expired, used_up=self.downloads >= self.max_downloads)
        return delivery_status(self.faults, self.member.position, moment)

    @delivery_status.setter
    def delivery_status(self, value: str | None) -> None:
        with self.manager.lock:
            self._delivery_status = value

    @property
    def is_ready(self) -> bool:
        """Whether the delivery is READY."""
        return self.delivery_status == "READY"

    @property
    def has_url(self) -> bool:
        """Whether the document contains a delivery URL."""
        faults = self.faults
        if self.is_ready:
            return self.age >= ready_at(faults, self.member.position) + faults.ready_without_url
        return self.delivery_status in ("EXPIRED", "MAX_DOWNLOADS_EXCEEDED") and not faults.url_gone

    @property
    def exists(self) -> bool:
        """Whether the API knows the job yet."""
        return self.age >= self.faults.appears_after

    @property
    def archive_name(self) -> str:
        """File name of the archive; the URL contains it unless a fault changes it."""
        return f"{self.member.archive_stem}-{self.snapshot.time}-{self.id}.{_extension(self)}"

    @property
    def file_name(self) -> str:
        """Last segment of the delivery URL, decoded."""
        changes = self.faults.name_changes
        prefix = "renamed-" if changes is not None and self.readings > changes else ""
        if self.faults.name is not None:
            return prefix + self.faults.name
        if self.manager.faults.same_name:
            return f"{prefix}{CLUSTER_NAME}-{self.snapshot.time}.{_extension(self)}"
        return prefix + self.archive_name

    @property
    def token(self) -> str:
        """Secret in the path of `url` that is valid now."""
        return self._token("url")

    @property
    def bearer(self) -> str:
        """Secret for the Authorization header of `urlV2` that is valid now."""
        return self._token("bearer")

    def _token(self, kind: str) -> str:
        faults = self.faults
        era = int(self.age // faults.renew_url) if faults.renew_url else 0
        reading = self.readings if faults.renew_token else 0
        return self.manager.keys.token(f"{kind}/{self.id}/{era}/{reading}", faults.token)

    def accepts(self, token: str, kind: str) -> bool:
        """Return whether a token is valid: `kind` is `url` or `bearer`."""
        keeps = self.faults.renew_token in ("keep",)  # in: the linter takes a comparison for a password
        return token == self._token(kind) or (keeps and self.manager.keys.is_issued(f"{kind}/{self.id}/", token))

    def archive(self, attempt: int = 0) -> Archive:
        """Return the archive that attempt `attempt` (from 0) is sent."""
        return self.manager.archive(self._recipe(attempt if self.faults.different_bytes else 0))

    @property
    def hashes(self) -> list[Entry] | None:
        """Published `hashes`; None if there are none."""
        now = self.manager.clock.now()
        sent = Sent(None, 0.0) if self.completed_at is None else Sent(self.sha1, now - self.completed_at)
        return published_hashes(self.faults, sent, lambda: self.archive().sha1, self.file_name)

    def _recipe(self, variant: int) -> Recipe:
        faults, deployment = self.faults, self.manager.deployment
        return Recipe(
            self.archive_name,
            deployment.archive_size,
            f"{deployment.seed}/{variant}",
            gzipped=not faults.plain_tar,
            info=restore_info(faults, deployment, self.member, self.snapshot),
            shape=_shape(faults),
            source=_source(self),
        )


def _source(job: Job) -> Path | None:
    sources = job.manager.sources
    return sources[job.member.position % len(sources)] if sources else None


def _extension(job: Job) -> str:
    source = _source(job)
    is_plain = source.suffix == ".tar" if source is not None and source.is_file() else job.faults.plain_tar
    return "tar" if is_plain else "tar.gz"


def _shape(faults: Faults) -> Shape:
    return Shape(
        top=faults.top,
        members=faults.member,
        small_files=faults.small_files,
        bomb=faults.bomb,
        gzip_members=faults.gzip_members,
        damage="checksum" if faults.damaged_gzip else faults.damaged_inside,
    )
