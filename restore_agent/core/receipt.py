"""Verdicts and the receipt: pure data. `share/doc/json.md` describes the fields."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from typing import Any

from .. import __version__
from .errors import AgentError, OtherBatch, RecordUnreadable
from .exit_codes import EXIT_CODES, NOT_UNPACKED, combined_exit_code
from .names import safe_name
from .untrusted import parse_document

SCHEMA = "restore-agent/receipt/1"


class Verdict(StrEnum):
    """The verdict on one archive."""

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
    ready_at: str | None = None
    download_started_at: str | None = None
    downloaded_at: str | None = None
    verified_at: str | None = None
    unpacked_at: str | None = None
    data_path: str | None = None
    data_files: int | None = None
    data_bytes: int | None = None
    restore_info: dict[str, str] | None = None
    archive_kept: bool = True


@dataclass(frozen=True)
class RestoreId:
    """The restore that a DEST belongs to. `batch_id` is None for single jobs, and for jobs whose batch is not known."""

    group_id: str | None = None
    cluster_id: str | None = None
    host_id: str | None = None
    batch_id: str | None = None
    job_ids: tuple[str, ...] = ()

    def values(self) -> dict[str, Any]:
        """Return plain values for a line of JSON."""
        return {**asdict(self), "job_ids": list(self.job_ids)}

    @classmethod
    def read(cls, values: Any) -> RestoreId:
        """Return the value that `values()` gave. Raises TypeError."""
        if not isinstance(values, dict) or not isinstance(values.get("job_ids", []), list):
            raise TypeError("restore")
        ids = [values.get(name) for name in ("group_id", "cluster_id", "host_id", "batch_id")]
        job_ids = values.get("job_ids", [])
        if not all(one is None or isinstance(one, str) for one in ids) or not all(isinstance(i, str) for i in job_ids):
            raise TypeError("restore")
        return cls(ids[0], ids[1], ids[2], ids[3], tuple(job_ids))

    def with_jobs(self, job_ids: tuple[str, ...]) -> RestoreId:
        """Return the same restore with its single jobs; a batch needs none."""
        return replace(self, job_ids=() if self.batch_id else job_ids)

    def require_same(self, asked: RestoreId) -> None:
        """Raise OtherBatch unless a run for the restore that is asked for may use this DEST.

        Jobs without a batch belong together if the two restores share one of them.
        """
        shared = bool(set(self.job_ids) & set(asked.job_ids))
        if self.batch_id is None and (shared or not (self.job_ids or asked.batch_id)):
            return
        if self.batch_id != asked.batch_id or asked.batch_id is None:
            other = f"batch {self.batch_id}" if self.batch_id else "single restore jobs"
            raise OtherBatch(f"DEST belongs to another restore ({other})", spent=False)


@dataclass(frozen=True)
class Receipt:
    """The result of one run: its archives, how they were verified, and the exit code."""

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
    hostname: str | None = None
    agent_version: str = __version__
    schema: str = field(default=SCHEMA)

    def to_json(self) -> dict[str, Any]:
        """Return the receipt as plain values, in the documented order."""
        document = asdict(self)
        order = ["schema", "agent_version", "hostname", "outcome", "exit_code", "changed", "ops_manager", "group_id"]
        order += ["cluster_id", "host_id", "batch_id", "started_at", "finished_at", "archives"]
        return {name: document[name] for name in order}

    @property
    def restore(self) -> RestoreId:
        """The restore that the receipt is of."""
        jobs = tuple(record.job_id for record in self.archives)
        return RestoreId(self.group_id, self.cluster_id, self.host_id, self.batch_id, jobs)

    def merged_with(self, earlier: Receipt | None) -> Receipt:
        """Return this receipt with the archives of an earlier one for other jobs of the same restore."""
        if earlier is None:
            return self
        mine = {record.job_id for record in self.archives}
        kept = tuple(record for record in earlier.archives if record.job_id not in mine)
        return replace(self, archives=self.archives + kept)


def receipt_of(
    restore: RestoreId,
    records: Iterable[ArchiveRecord],
    *,
    ops_manager: str | None,
    times: tuple[str, str],
    changed: bool,
    batch_error: AgentError | None = None,
    run_error: AgentError | None = None,
) -> Receipt:
    """Return the receipt of a command over `records`. `times` are its start and end, RFC 3339.

    `batch_error` counts like the error of one more archive; `run_error` alone decides the exit code.
    """
    records = tuple(records)
    outcome, code = outcome_of(records)
    if batch_error:
        outcome, code = "failed", combined_exit_code([code, batch_error.exit_code])
    if run_error:
        outcome, code = "failed", run_error.exit_code
    return Receipt(
        group_id=restore.group_id,
        cluster_id=restore.cluster_id,
        host_id=restore.host_id,
        batch_id=restore.batch_id,
        ops_manager=ops_manager,
        started_at=times[0],
        finished_at=times[1],
        outcome=outcome,
        exit_code=code,
        changed=changed,
        archives=records,
        hostname=socket.gethostname(),
    )


def outcome_of(records: Iterable[ArchiveRecord]) -> tuple[str, int]:
    """(`verified`, `unproven` or `failed`; exit code) for the archives that a run was asked for."""
    judged = [record for record in records if record.verdict is not Verdict.SKIPPED]
    verdicts = {record.verdict for record in judged}
    code = combined_exit_code(record.exit_code for record in judged)
    if verdicts <= {Verdict.VERIFIED} and code in (0, NOT_UNPACKED):
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
