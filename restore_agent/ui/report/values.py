"""Values of a report: hosts, archives, problems, and the judgement over all of them. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Standing(StrEnum):
    """State of one archive on one host, in the order in which a report lists them."""

    MISMATCH = "mismatch"
    FAILED = "failed"
    UNPROVEN = "unproven"
    TWICE = "verified twice"
    NOT_UNPACKED = "not unpacked"
    VERIFIED = "verified"
    ELSEWHERE = "not needed"  # failed on this host, verified on another one
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Moments:
    """Moments of one archive, in seconds since the epoch; None where the receipt does not have them."""

    ready: float | None = None
    download_started: float | None = None
    downloaded: float | None = None
    verified: float | None = None
    unpacked: float | None = None


@dataclass(frozen=True)
class Host:
    """One receipt, which is one host. Times are RFC 3339 text as the receipt has them."""

    source: str
    name: str | None
    agent_version: str | None
    outcome: str | None
    exit_code: int
    started_at: str | None
    finished_at: str | None
    started: float | None
    archives: int

    @property
    def label(self) -> str:
        """Name of the host, or of its receipt where an older agent did not write the name."""
        return self.name or f"unknown host ({self.source.rsplit('/', 1)[-1]})"


@dataclass(frozen=True)
class Archive:
    """One archive of one receipt; sizes in bytes, `seconds` and `rate` of the transfer. None means unknown."""

    job_id: str
    host: Host
    verdict: str | None
    exit_code: int
    reason: str | None
    file_name: str | None
    path: str | None
    size: int | None
    sha1: str | None
    published: str | None
    downloads_spent: int | None
    seconds: float | None
    rate: int | None  # in bytes per second
    cluster_id: str | None
    snapshot_id: str | None
    snapshot_time: str | None
    unpack_known: bool  # whether the agent that wrote the receipt records data paths
    data_path: str | None
    data_files: int | None
    data_size: int | None
    kept: bool | None
    encrypted: bool | None
    master_key: str | None
    point_in_time: bool | None
    restore_info: Mapping[str, str] = field(default_factory=dict)
    moments: Moments = Moments()

    @property
    def name(self) -> str:
        """Name of the archive, or of its job before it has one."""
        return self.file_name or f"job {self.job_id}"

    @property
    def mongodb_version(self) -> str | None:
        """MongoDB version from restoreInfo.txt, or None."""
        named = {name.lower(): value for name, value in self.restore_info.items()}
        return named.get("mongodb version") or named.get("mongod version") or named.get("version")

    @property
    def contradicts(self) -> bool:
        """Whether the receipt calls the archive verified although its two hashes differ."""
        return self.verdict == "verified" and None not in (self.sha1, self.published) and not self.equal

    @property
    def equal(self) -> bool:
        """Whether both hashes are known and equal."""
        return self.sha1 is not None and self.published is not None and self.sha1.lower() == self.published.lower()


@dataclass(frozen=True)
class Row:
    """One row of the report: an archive and its standing in the batch."""

    archive: Archive
    standing: Standing
    code: int  # 0 where the archive keeps nothing from being complete


@dataclass(frozen=True)
class Problem:
    """One cause that keeps the batch from being complete, with its archives and the next step."""

    code: int
    title: str
    step: str
    archives: tuple[tuple[str, str], ...] = ()  # (archive, where and why)


@dataclass(frozen=True)
class Batch:
    """Identity of the restore, as far as the receipts agree on it."""

    batch_id: str | None
    cluster_id: str | None
    group_id: str | None
    ops_manager: str | None
    started_at: str | None
    finished_at: str | None


@dataclass(frozen=True)
class BatchReport:
    """Judgement over the receipts of one batch; `rows` start with the archives that are not verified."""

    exit_code: int
    sentence: str
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    rows: tuple[Row, ...]
    hosts: tuple[Host, ...]
    batch: Batch
    verified: int
    jobs: int

    @property
    def complete(self) -> bool:
        """Whether the exit code is 0."""
        return self.exit_code == 0

    @property
    def next_steps(self) -> tuple[str, ...]:
        """Next steps of the problems, each once."""
        return tuple(dict.fromkeys(problem.step for problem in self.problems))
