"""What was proven: verdicts and the receipt. Pure data; the schema is the contract's section 3."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from typing import Any

from .. import __version__
from ..dest.journal import Entry
from .errors import OtherBatch, RecordUnreadable
from .exit_codes import EXIT_CODES, combined_exit_code
from .jobs import Job
from .names import safe_name
from .untrusted import parse_document

SCHEMA = "restore-agent/receipt/1"


class Verdict(StrEnum):
    """What became of one archive."""

    VERIFIED = "verified"
    UNPROVEN = "unproven"
    MISMATCH = "mismatch"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class ArchiveRecord:
    """One archive in the receipt. `seconds` and `bytes_per_second` are those of the transfer that brought it."""

    job_id: str
    cluster_id: str | None = None
    host_id: str | None = None
    snapshot_id: str | None = None
    snapshot_timestamp: str | None = None
    file_name: str | None = None
    path: str | None = None
    bytes: int | None = None
    sha1: str | None = None
    expected_sha1: str | None = None
    verdict: Verdict | None = None
    reason: str | None = None
    exit_code: int = 0
    downloads_spent: int = 0
    resumed: bool = False
    seconds: float | None = None
    bytes_per_second: int | None = None
    encryption_enabled: bool | None = None
    master_key_uuid: str | None = None
    point_in_time: bool | None = None


@dataclass(frozen=True)
class Receipt:
    """What a run leaves behind: which archives, how they were proven, and the exit code."""

    group_id: str | None
    cluster_id: str | None
    host_id: str | None
    batch_id: str | None
    ops_manager: str | None
    started_at: str
    finished_at: str
    outcome: str
    exit_code: int
    changed: bool
    archives: tuple[ArchiveRecord, ...] = ()
    agent_version: str = __version__
    schema: str = field(default=SCHEMA)

    def to_json(self) -> dict[str, Any]:
        """The receipt as the contract orders its fields."""
        document = asdict(self)
        order = ["schema", "agent_version", "outcome", "exit_code", "changed", "ops_manager", "group_id", "cluster_id"]
        order += ["host_id", "batch_id", "started_at", "finished_at", "archives"]
        return {name: document[name] for name in order}

    def merged_with(self, earlier: Receipt | None) -> Receipt:
        """This receipt plus the archives of an earlier one for other jobs of the same batch."""
        if earlier is None:
            return self
        mine = {record.job_id for record in self.archives}
        kept = tuple(record for record in earlier.archives if record.job_id not in mine)
        return replace(self, archives=self.archives + kept)

    def require_same_restore(self, batch_id: str | None, job_ids: Iterable[str] = ()) -> None:
        """Raise OtherBatch unless a run for that batch, or for those jobs, may merge into this receipt.

        Jobs without a batch belong together when this receipt shares one of them.
        """
        mine = {record.job_id for record in self.archives}
        shared = not mine or bool(mine & set(job_ids))
        if self.batch_id != batch_id or not (batch_id or shared):
            other = f"batch {self.batch_id}" if self.batch_id else "single restore jobs"
            raise OtherBatch(f"DEST holds the receipt of another restore ({other})", spent=False)


def outcome_of(records: Iterable[ArchiveRecord]) -> tuple[str, int]:
    """(`verified`, `unproven` or `failed`; exit code) for the archives that a run was asked for."""
    judged = [record for record in records if record.verdict is not Verdict.SKIPPED]
    verdicts = {record.verdict for record in judged}
    code = combined_exit_code(record.exit_code for record in judged)
    if verdicts <= {Verdict.VERIFIED} and code == 0:
        return "verified", code
    return ("unproven" if verdicts <= {Verdict.VERIFIED, Verdict.UNPROVEN} else "failed"), code


def parse_receipt(raw: bytes) -> Receipt:
    """The receipt in `raw`. Raises RecordUnreadable when it is damaged, not ours, or of a future version."""
    try:
        document = parse_document(raw)
        schema = document["schema"]
    except (ValueError, TypeError, KeyError):
        raise RecordUnreadable("receipt.json is damaged or not the agent's") from None
    if schema != SCHEMA:
        hint = "Use the version of restore-agent that wrote it or a newer one, or move receipt.json away."
        raise RecordUnreadable(
            f"receipt.json has the schema {str(schema)[:60]!r}, this version reads {SCHEMA!r}", hint=hint
        )
    try:
        return _receipt(document)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise RecordUnreadable("receipt.json lacks fields that this version needs") from None


def _receipt(document: dict[str, Any]) -> Receipt:
    known = {item.name for item in fields(Receipt)}
    values = {name: value for name, value in document.items() if name in known}
    archives = tuple(_record(entry) for entry in document["archives"])
    if values["exit_code"] not in EXIT_CODES or not isinstance(values["batch_id"], (str, type(None))):
        raise ValueError("wrong types")
    return Receipt(**{**values, "archives": archives})


def _record(entry: dict[str, Any]) -> ArchiveRecord:
    known = {item.name for item in fields(ArchiveRecord)}
    values = {name: value for name, value in entry.items() if name in known}
    for name in ("job_id", "file_name", "sha1"):
        if not isinstance(values.get(name), (str, type(None))):
            raise TypeError(name)
    if not isinstance(values["job_id"], str) or values.get("exit_code", 0) not in EXIT_CODES:
        raise TypeError("job_id or exit_code")
    called = values.get("file_name")
    if called is not None and called != safe_name(called, values["job_id"]):
        raise ValueError("file_name")  # it would lead out of DEST, or forge a line of SHA1SUMS
    verdict = None if values.get("verdict") is None else Verdict(values["verdict"])
    return ArchiveRecord(**{**values, "verdict": verdict})


def record_of(job: Job, entry: Entry, file_name: str | None, **known: Any) -> ArchiveRecord:
    """The record of one archive: what Ops Manager and the journal say of its job, and what is `known` beside."""
    return ArchiveRecord(
        job_id=job.id,
        cluster_id=job.cluster_id,
        host_id=job.host_id,
        snapshot_id=job.snapshot_id,
        snapshot_timestamp=job.snapshot_timestamp,
        file_name=file_name,
        downloads_spent=entry.attempts,
        encryption_enabled=job.encryption_enabled,
        master_key_uuid=job.master_key_uuid,
        point_in_time=job.point_in_time,
        **known,
    )
