"""Errors of the destination directory."""

from __future__ import annotations

from .base import AgentError


class DestError(AgentError):
    """DEST cannot be used."""


class NoSpace(DestError, id="no-space", exit_code=40):
    """ENOSPC or EDQUOT, or a size that does not fit."""

    hint = "Free space in DEST's file system, or choose another --dest, then run again."


class Unwritable(DestError, id="dest-unwritable", exit_code=41):
    """DEST cannot be created, written, synced, or locked."""

    hint = "Check owner, mode, and mount of DEST, and the kernel log for I/O errors."


class ResourcesExhausted(DestError, id="no-resources", exit_code=41):
    """A limit of the host or process: threads, descriptors, memory, or file size."""

    hint = "Raise the limits of this process (ulimit -n, -u, -v, -f), or lower --parallel; then run again."


class InTheWay(DestError, id="in-the-way", exit_code=42):
    """A file that restore-agent did not create, or cannot use, has a name that it needs."""

    hint = "Check DEST: move away files that restore-agent did not create, or choose an empty --dest."


class ForeignFile(InTheWay, id="foreign-file"):
    """The file at the final name of an archive is not verified to be that archive."""


class OtherBatch(InTheWay, id="other-batch"):
    """DEST holds the receipt of another restore."""

    hint = "Choose an empty --dest for each batch, or move the old restore away."


class RecordUnreadable(InTheWay, id="record-unreadable"):
    """receipt.json, the journal, or the status file is damaged or of another version."""


class ArchiveMissing(InTheWay, id="archive-missing"):
    """The receipt names an archive that is no longer in DEST."""

    hint = "Find out why the file is missing. `restore-agent run` downloads it again while its delivery is READY."


class NoRestoreHere(InTheWay, id="no-restore"):
    """A command about an earlier run was called for a DEST that no run ever used."""

    hint = "Check --dest: `restore-agent run` uses it as the directory of the archives."


class DestHeld(DestError, id="dest-held", exit_code=50):
    """Another run holds the lock in DEST."""

    hint = "Wait for the other run to end. `restore-agent status --dest DEST` shows its progress."
