"""Receipts as documents, for tests of the report: one call makes an archive, one the receipt of a host."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

from restore_agent.ui.report import ReceiptFile

Json = dict[str, Any]

BEGIN = datetime(2026, 11, 24, 2, 11, 7, tzinfo=UTC).timestamp()

MOMENTS = ("ready_at", "download_started_at", "downloaded_at", "verified_at", "unpacked_at")


def stamp(seconds: float) -> str:
    """Return the time `seconds` after the start of the run as RFC 3339."""
    return datetime.fromtimestamp(BEGIN + seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def archive(number: int = 0, **changes: Any) -> Json:
    """Return a verified and unpacked archive of a receipt; `changes` replace fields, `...` removes one."""
    name = f"commerce-prod-shard{number:02d}-1732413600-672a9c0e1f4b7d3a9c5e{number:04d}.tar.gz"
    sha1 = hashlib.sha1(name.encode()).hexdigest()
    times = (95 + number * 7, 120 + number * 40, 2150 + number * 130, 2212 + number * 130, 2490 + number * 150)
    fields = {
        "job_id": f"6743f1a02b7c4e0012ab{number:04x}",
        "cluster_id": "6512bd43d9caa6e02c990b0a",
        "host_id": None,
        "snapshot_id": "6742a1200fc3b7001eaa41c9",
        "snapshot_timestamp": "2026-11-24T02:00:00Z",
        "file_name": name,
        "path": f"/backup/restore/{name}",
        "bytes": 182_493_120_044 + number * 7_311_204_113,
        "sha1": sha1,
        "expected_sha1": sha1,
        "verdict": "verified",
        "reason": None,
        "exit_code": 0,
        "downloads_spent": 1,
        "resumed": False,
        "seconds": times[2] - times[1] + 0.25,
        "bytes_per_second": 89_000_000,
        "encryption_enabled": False,
        "master_key_uuid": None,
        "point_in_time": False,
        **dict(zip(MOMENTS, map(stamp, times), strict=True)),
        "data_path": f"/data/restore/{name.removesuffix('.tar.gz')}",
        "data_files": 1284,
        "data_bytes": 401_229_004_800,
        "restore_info": {"Replica Set": f"shard{number:02d}", "MongoDB Version": "7.0.14"},
        "archive_kept": True,
    } | changes
    return {name: value for name, value in fields.items() if value is not ...}


def failed(number: int, code: int, reason: str, verdict: str = "failed", **changes: Any) -> Json:
    """Return an archive that is not verified and has no data path."""
    unknown = {"sha1": None, "expected_sha1": None, "path": None, "bytes": None, "data_path": None, "seconds": None}
    unknown |= {"data_files": None, "data_bytes": None, "restore_info": None, "downloads_spent": 0}
    unknown |= {"downloaded_at": None, "verified_at": None, "unpacked_at": None, "download_started_at": None}
    return archive(number, **{**unknown, "verdict": verdict, "exit_code": code, "reason": reason, **changes})


def old(number: int = 0, **changes: Any) -> Json:
    """Return a verified archive as version 1 wrote it: no moments, nothing about data paths."""
    later = (*MOMENTS, "data_path", "data_files", "data_bytes", "restore_info", "archive_kept")
    return archive(number, **{**dict.fromkeys(later, ...), **changes})


def receipt(*archives: Json, host: Any = "db-restore-01.example.com", **changes: Any) -> Json:
    """Return the receipt of one host; `...` removes a field."""
    code = next((entry["exit_code"] for entry in archives if entry.get("exit_code")), 0)
    fields = {
        "schema": "restore-agent/receipt/1",
        "agent_version": "1.3.0",
        "hostname": host,
        "outcome": "failed" if code else "verified",
        "exit_code": code,
        "changed": True,
        "ops_manager": "https://ops.example.com:8443",
        "group_id": "5f3c2a9b8d1e4f0012345678",
        "cluster_id": "6512bd43d9caa6e02c990b0a",
        "host_id": None,
        "batch_id": "6743f19e2b7c4e0012ab0001",
        "started_at": stamp(0),
        "finished_at": stamp(9000),
        "archives": list(archives),
    } | changes
    return {name: value for name, value in fields.items() if value is not ...}


def files(*documents: Json) -> list[ReceiptFile]:
    """Return the documents as files with distinct paths."""
    return [ReceiptFile(f"/receipts/BATCH/{number:02d}.json", one) for number, one in enumerate(documents)]
