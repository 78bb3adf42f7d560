"""The status file that `restore-agent status` and monitoring read."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.clock import rfc3339
from ..core.errors import DestError, RecordUnreadable
from ..core.receipt import ArchiveRecord, Receipt, Verdict
from ..core.untrusted import parse_document
from .directory import Directory
from .lock import STATE_DIRECTORY, Lock

STATUS = "status.json"

STATUS_SCHEMA = "restore-agent/status/1"


@dataclass
class StatusFile:
    """Status of a run for `restore-agent status` and monitoring; replaced atomically."""

    state_directory: Directory
    pid: int
    started_at: str
    batch_id: str | None
    last: dict[str, Any] = field(default_factory=dict)

    def write(
        self,
        state: str,
        now: float,
        archives: list[dict[str, Any]],
        exit_code: int | None = None,
        trouble: dict[str, Any] | None = None,
    ) -> None:
        """Replace the status file; the last one, with an exit code, durably. Raises DestError."""
        self.last = {
            "schema": STATUS_SCHEMA,
            "state": state,
            "pid": self.pid,
            "started_at": self.started_at,
            "updated_at": rfc3339(now),
            "batch_id": self.batch_id,
            "exit_code": exit_code,
            "trouble": trouble,
            "archives": archives,
        }
        data = json.dumps(self.last, indent=2).encode() + b"\n"
        self.state_directory.write_atomically(STATUS, data, durable=exit_code is not None)


def read_status(state: Directory) -> dict[str, Any] | None:
    """Return the status file, or None if there is none; its state is `interrupted` if the run that wrote it is gone.

    Raises RecordUnreadable if it is damaged or of a newer version, else DestError.
    """
    raw = state.read(STATUS)
    if raw is None:
        return None
    if not raw.strip(b"\x00"):
        return None  # what a power loss may leave of a file that is replaced, but not synced, every two seconds
    try:
        document = parse_document(raw)
        if document["schema"] == STATUS_SCHEMA:
            _check_status(document)
    except (ValueError, TypeError, KeyError):
        raise RecordUnreadable("status.json in DEST is damaged, or restore-agent did not write it") from None
    if document["schema"] != STATUS_SCHEMA:
        seen = str(document["schema"])[:60]
        raise RecordUnreadable(f"status.json has the schema {seen!r}, this version reads {STATUS_SCHEMA!r}")
    running = document["state"] not in ("finished", "interrupted")
    if running and not Lock.is_held(state):
        document["state"] = "interrupted"
    return dict(document)


def update_status(state: Directory, pid: int, receipt: Receipt, now: float) -> None:
    """Bring the status file up to date with what was verified again, if there is one and it differs.

    `now` is in seconds since the epoch. Raises DestError.
    """
    before = read_status(state)
    if before is None:
        return
    rows = {row["job_id"]: row for row in before["archives"]}
    archives = [_verified_row(rows.get(record.job_id, {}), record) for record in receipt.archives]
    known = {row["job_id"]: row["state"] for row in archives}
    if before["exit_code"] == receipt.exit_code and known == {job: row["state"] for job, row in rows.items()}:
        return
    StatusFile(state, pid, receipt.started_at, receipt.batch_id).write("finished", now, archives, receipt.exit_code)


def _verified_row(before: dict[str, Any], record: ArchiveRecord) -> dict[str, Any]:
    size = before.get("bytes", 0) if record.bytes is None else record.bytes
    changed = {
        "job_id": record.job_id,
        "file_name": record.file_name,
        "state": str(record.verdict or before.get("state", Verdict.FAILED)),
        "bytes": size,
        "total_bytes": before.get("total_bytes", size),
        "bytes_per_second": 0,
        "expires_at": before.get("expires_at"),
        "downloads_spent": record.downloads_spent,
        "unpacked_bytes": before.get("unpacked_bytes"),
    }
    return {**before, **changed}


def holder(path: Path) -> int | None:
    """Return the process ID of the run that holds DEST, by its status file, or None if it is not known."""
    try:
        with Directory.open(path, create=False) as directory:
            state = directory.subdirectory(STATE_DIRECTORY, create=False)
            if state is None:
                return None
            with state:
                document = read_status(state)
    except DestError:
        return None
    running = document is not None and document["state"] not in ("finished", "interrupted")
    return int(document["pid"]) if document and running else None


def _check_status(document: dict[str, Any]) -> None:
    """Raise TypeError or KeyError unless a status document has the fields that `status` shows."""
    kinds: dict[str, Any] = {
        "state": str,
        "pid": int,
        "updated_at": str,
        "exit_code": (int, type(None)),
        "archives": list,
    }
    of_archives: dict[str, Any] = {"job_id": str, "file_name": (str, type(None)), "state": str, "bytes": int}
    of_archives |= {"total_bytes": (int, type(None)), "bytes_per_second": int}
    for values, wanted in [(document, kinds), *((row, of_archives) for row in document["archives"])]:
        for name, kind in wanted.items():
            if not isinstance(values[name], kind):
                raise TypeError(name)
