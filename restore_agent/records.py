"""What a restore leaves in DEST for others to read: the receipt and SHA1SUMS."""

from __future__ import annotations

import json
from typing import Any

from .errors import ForeignFile
from .files import Directory
from .jobs import Job
from .journal import Entry, Journal
from .names import OWN_NAMES, RECEIPT, SUMS
from .receipt import ArchiveRecord, Receipt, Verdict

RECEIPT_CODES = frozenset({0, 10, 11, 12, 20, 21, 22, 23, 24, 25, 40, 41, 42})
"""Ends of the archives after which the receipt is written."""


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


def require_own_names(directory: Directory) -> None:
    """Raise InTheWay when something that is no regular file stands where the agent will write its own."""
    for name in OWN_NAMES:
        directory.find_file(name)


def require_own_sums(directory: Directory, earlier: Receipt | None, journal: Journal) -> None:
    """Raise ForeignFile when there is a SHA1SUMS although this agent never proved anything here."""
    proven = any(entry.proven for entry in journal.entries().values())
    if earlier is None and not proven and directory.find(SUMS):
        raise ForeignFile(f"a {SUMS} stands in DEST that this agent did not write", archive=SUMS, spent=False)


def write_receipt(directory: Directory, receipt: Receipt) -> None:
    """Replace receipt.json. Raises DestError."""
    directory.write_atomically(RECEIPT, json.dumps(receipt.to_json(), indent=2).encode() + b"\n")


def write_sums(directory: Directory, receipt: Receipt) -> None:
    """Bring SHA1SUMS up to date with a receipt; nothing is written while nothing is proven. Raises DestError."""
    proven = {r.file_name: r.sha1 for r in receipt.archives if r.file_name and r.verdict is Verdict.VERIFIED}
    there = [name for name in sorted(proven) if directory.find(name)]  # an earlier run's may have been moved on
    text = "".join(f"{proven[name]}  {name}\n" for name in there)
    data = text.encode()
    before = directory.read(SUMS)
    if before != data and (data or before is not None):
        directory.write_atomically(SUMS, data)
