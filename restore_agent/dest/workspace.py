"""Opening of DEST for each command, and the records that a run leaves there."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from ..core.errors import DestHeld, ForeignFile, InTheWay, NoRestoreHere, OtherBatch, Unwritable
from ..core.jobs import Job
from ..core.names import MISMATCH, OWN_NAMES, PART, RECEIPT, SUMS, UNPROVEN
from ..core.receipt import ArchiveRecord, Receipt, RestoreId, Verdict, parse_receipt
from ..core.untrusted import printable
from .directory import Directory, errors_of_dest, temporary_name
from .journal import DAMAGED, JOURNAL, Entry, Journal
from .journal.facts import Unpacking
from .lock import STATE_DIRECTORY, Lock
from .status import STATUS

STATE_NAMES = (JOURNAL, DAMAGED, STATUS)


class Access(Enum):
    """What a command does in DEST."""

    RUN = "run"
    """Creates DEST if it is missing, locks it, and writes."""
    VERIFY = "verify"
    """Locks a DEST that an earlier run used, and writes."""
    READ = "read"
    """Reads only; DEST may be missing."""


@dataclass
class Workspace:
    """DEST as it is found: its directory, journal, and earlier receipt. `notes` are for the operator.

    `directory` is None if DEST does not exist, and `state` (`.restore-agent/`) if no run was ever there; both only
    with Access.READ.
    """

    path: Path
    directory: Directory | None = None
    state: Directory | None = None
    journal: Journal = field(default_factory=Journal)
    earlier: Receipt | None = None
    notes: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, stack: ExitStack, path: Path, access: Access, asked: RestoreId | None = None) -> Workspace:
        """Open DEST for a command; `stack` closes it. Raises DestError.

        `asked` is the restore that the command is for: a DEST that belongs to another one is refused (OtherBatch).
        """
        place = cls(path)
        with errors_of_dest(f"open DEST {printable(str(path), 200)}"):
            place._open_directories(stack, access)
        if place.directory is None:
            return place
        for name in OWN_NAMES:
            place.directory.find_file(name)  # raises if something else has the name
        if access is Access.READ:
            if asked:
                place.require_idle()
            place.journal = Journal.peek(place.state)
        elif place.state is not None:
            place._lock(stack, asked)
        place._read_receipt()
        if asked and asked.batch_id and place.restore and place.restore.batch_id:
            place.require_same(asked)  # single jobs show their batch only when they are polled
        place._require_own_sums()
        return place

    def require_same(self, asked: RestoreId) -> None:
        """Raise OtherBatch unless DEST is free or belongs to the restore that is asked for.

        DEST is free for a batch, too, if a run for single jobs ended before their batch was known: nothing is in it.
        """
        known = self.restore
        is_empty = self.earlier is None and not self.journal.entries()
        if known is None or (is_empty and known.batch_id is None and asked.batch_id):
            return
        try:
            known.require_same(asked)
        except OtherBatch as error:
            if not is_empty:
                raise
            state = printable(str(self.path / STATE_DIRECTORY), 200)
            hint = f"If the ID of that restore was wrong, remove {state}, which records no archive. "
            raise error.with_context(hint=f"{hint}Otherwise, choose another --dest.") from None

    @property
    def state_directory(self) -> Directory:
        """The directory `.restore-agent/`; it exists for a command that writes."""
        assert self.state is not None  # noqa: S101  # RUN makes it, VERIFY requires it
        return self.state

    @property
    def restore(self) -> RestoreId | None:
        """The restore that DEST belongs to, by its journal and receipt."""
        known, receipt = self.journal.restore, self.earlier.restore if self.earlier else None
        if known is None or receipt is None:
            return known or receipt
        jobs = tuple(dict.fromkeys(known.job_ids + receipt.job_ids))
        return RestoreId(known.group_id, known.cluster_id, known.host_id, known.batch_id or receipt.batch_id, jobs)

    @property
    def ignores_case(self) -> bool:
        """Whether names in DEST that differ only in case are the same file, as far as is known."""
        return self.directory is not None and self.directory.ignores_case()

    def _open_directories(self, stack: ExitStack, access: Access) -> None:
        if access is not Access.RUN and not self._exists():
            if access is Access.VERIFY:
                raise NoRestoreHere(f"{printable(str(self.path))} does not exist: no run was ever there")
            return
        if access is Access.READ and not self.path.is_dir():
            raise InTheWay(f"DEST {printable(str(self.path))} is not a directory", spent=False)
        self.directory = stack.enter_context(Directory.open(self.path, create=access is Access.RUN))
        self.directory.on_limitation = self.notes.append
        self.state = self.directory.subdirectory(STATE_DIRECTORY, create=access is Access.RUN)
        if self.state is not None:
            stack.enter_context(self.state)
        elif access is Access.VERIFY:
            raise NoRestoreHere(f"no run was ever in {printable(str(self.path))}")

    def _exists(self) -> bool:
        try:
            os.lstat(self.path)
        except FileNotFoundError:
            return False
        return True

    def _lock(self, stack: ExitStack, asked: RestoreId | None) -> None:
        assert self.directory is not None  # noqa: S101  # callers have opened both
        assert self.state is not None  # noqa: S101  # callers have opened both
        stack.callback(Lock.take(self.state).release)
        for place, names in ((self.directory, OWN_NAMES), (self.state, STATE_NAMES)):
            for name in names:  # a run that was killed may have left them half written
                place.remove(temporary_name(name))
        self.journal = Journal.open(self.state, asked)
        stack.callback(self.journal.close)
        if self.journal.torn:
            self.notes.append("the last line of the journal was damaged by a crash; it is set aside")

    def _read_receipt(self) -> None:
        assert self.directory is not None  # noqa: S101  # callers have opened it
        raw = self.directory.read(RECEIPT)
        if raw is None:
            return
        if not raw.strip(b"\0"):
            self.notes.append("receipt.json was empty after a crash; the journal has what it would hold")
            return
        self.earlier = parse_receipt(raw)

    def require_idle(self) -> None:
        """Raise DestHeld if a run holds DEST, Unwritable if nothing can be written there. Changes nothing."""
        if self.state is not None and Lock.is_held(self.state):
            raise DestHeld(f"another run holds {self.path}", spent=False)
        if self.directory is not None and not self.directory.writable():
            raise Unwritable(f"DEST {printable(str(self.path))} cannot be written", spent=False)

    def _require_own_sums(self) -> None:
        """Raise ForeignFile if there is a SHA1SUMS although restore-agent never verified anything here."""
        verified = any(entry.proven for entry in self.journal.entries().values())
        if self.earlier is None and not verified and self.directory and self.directory.find(SUMS):
            raise ForeignFile(f"{SUMS} in DEST was not written by restore-agent", archive=SUMS, spent=False)


def record_of(job: Job, entry: Entry, file_name: str | None, **known: Any) -> ArchiveRecord:
    """Return the record of one archive: what Ops Manager and the journal hold, and what else is `known`."""
    moments = ("ready_at", "download_started_at", "downloaded_at", "verified_at")
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
        archive_kept=entry.archive_kept,
        **data_path_fields(entry.unpacked[-1] if entry.unpacked else None),
        **{name: getattr(entry, name) for name in moments},
        **known,
    )


def data_path_fields(unpacked: Unpacking | None) -> dict[str, Any]:
    """Return the fields of a record that describe a data path."""
    if unpacked is None:
        return {}
    return {
        "data_path": unpacked.path,
        "data_files": unpacked.files,
        "data_bytes": unpacked.bytes,
        "restore_info": unpacked.restore_info,
        "unpacked_at": unpacked.at,
    }


def write_receipt(directory: Directory, receipt: Receipt) -> None:
    """Replace receipt.json. Raises DestError."""
    directory.write_atomically(RECEIPT, json.dumps(receipt.to_json(), indent=2).encode() + b"\n")


def write_sums(directory: Directory, entries: Mapping[str, Entry], receipt: Receipt) -> None:
    """Bring SHA1SUMS up to date: every verified archive of the journal and the receipt that is still in DEST.

    Nothing is written before anything is verified. Raises DestError.
    """
    verified = {r.file_name: r.sha1 for r in receipt.archives if r.file_name and r.verdict is Verdict.VERIFIED}
    for entry in entries.values():
        if entry.file_name and entry.proven and _has_its_name(directory, entry.file_name, entry):
            verified[entry.file_name] = entry.proven
    present = [name for name in sorted(verified) if directory.find(name)]
    data = "".join(f"{verified[name]}  {name}\n" for name in present).encode()
    before = directory.read(SUMS)
    if before != data and (verified or before is not None):
        directory.write_atomically(SUMS, data)


def _has_its_name(directory: Directory, name: str, entry: Entry) -> bool:
    """Return whether a file at the final name can be the verified archive, and not one of another program.

    A crash may come between the rename and the fact that follows it; before the rename there is a companion.
    """
    if entry.promoted:
        return True
    return not any(directory.find(name + suffix) for suffix in (PART, UNPROVEN, MISMATCH))
