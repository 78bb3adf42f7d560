"""The facts that the journal records, and what they make of the entry of a restore job.

Each fact is one dataclass: its fields are the fields of the journal line, `apply` is its effect. A misspelt fact or
field is an error of the type checker. A line of an unknown fact, written by a newer version, is skipped.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

from ...core.names import raw


@dataclass(frozen=True)
class Identity:
    """One file on disk. Any write, rename, or replacement after it was taken changes its `changed_ns`."""

    inode: int
    size: int
    changed_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        """Return the identity of a file by its stat."""
        return cls(status.st_ino, status.st_size, status.st_ctime_ns)


@dataclass(frozen=True)
class Unpacking:
    """The data path of an archive. `path` is absolute; `final` is false for one with the suffix `.unproven`.

    `sha1` is that of the archive, `inode` that of the directory, which a rename does not change.
    """

    path: str
    files: int
    bytes: int
    final: bool = True
    restore_info: dict[str, str] | None = None
    sha1: str | None = None
    inode: int | None = None
    at: str | None = None


@dataclass(frozen=True)
class Entry:
    """The state of one restore job, from all of its facts.

    `attempts` counts the GETs that Ops Manager may have counted. `hash_before` is what was published when the last
    attempt began, several hashes separated by spaces. `validator` and `total` are those of the answer that the part
    file comes from; `boot` is the boot of the host in which its bytes were written, and `synced` how many of them are
    durable. `whole`, `set_aside`, and `proven` are SHA1s: of a complete, synced part file, of the `.unproven` file, and
    of the verified archive.
    `delimited` is false if only the end of the connection ended the body of the complete file.
    """

    file_name: str | None = None
    served_as: str | None = None
    attempts: int = 0
    hash_before: str | None = None
    validator: str | None = None
    total: int | None = None
    resumed: bool = False
    whole: str | None = None
    delimited: bool = True
    seconds: float | None = None
    received: int | None = None
    boot: str | None = None
    synced: int = 0
    set_aside: str | None = None
    proven: str | None = None
    promoted: Identity | None = None
    archive_kept: bool = True
    ready_at: str | None = None
    download_started_at: str | None = None
    downloaded_at: str | None = None
    verified_at: str | None = None
    unpacked: tuple[Unpacking, ...] = ()
    staged: Staged | None = None

    @property
    def is_ours(self) -> bool:
        """Whether this job ever wrote bytes into DEST, so that a part file can be its own."""
        return self.attempts > 0 or self.whole is not None or self.proven is not None or self.set_aside is not None

    def data_path_in(self, directory: str) -> Unpacking | None:
        """Return the data path that was published in a directory, the final one first, or None.

        The directory may be reached through links that differ from those of the earlier run.
        """
        here = [one for one in self.unpacked if is_in(one.path, directory)]
        return next((one for one in here if one.final), here[0] if here else None)


def is_in(path: str, directory: str) -> bool:
    """Return whether the parent of a path is this directory, by its name or after links are resolved."""
    parent = os.path.dirname(path)
    return parent == directory or os.path.realpath(raw(parent)) == os.path.realpath(raw(directory))


@dataclass(frozen=True)
class Fact:
    """A fact about one restore job. `fact` is its name in the journal."""

    fact: ClassVar[str] = ""

    def apply(self, entry: Entry, time: str) -> Entry:
        """Return the entry after this fact; `time` is when it was recorded (RFC 3339)."""
        raise NotImplementedError  # each kind of fact has its own

    def values(self) -> dict[str, Any]:
        """Return the fields of the journal line."""
        return asdict(self)


@dataclass(frozen=True)
class Named(Fact):
    """The archive has its name in DEST from now on."""

    fact = "named"
    file_name: str

    def apply(self, entry: Entry, time: str) -> Entry:
        """Set the name."""
        return replace(entry, file_name=self.file_name)


@dataclass(frozen=True)
class Ready(Fact):
    """The delivery was READY for the first time at `at`, by the server's clock."""

    fact = "ready"
    at: str

    def apply(self, entry: Entry, time: str) -> Entry:
        """Set the moment."""
        return replace(entry, ready_at=self.at)


@dataclass(frozen=True)
class Attempt(Fact):
    """A GET of the delivery URL is about to be sent."""

    fact = "attempt"
    file_name: str
    served_as: str
    hash_before: str | None

    def apply(self, entry: Entry, time: str) -> Entry:
        """Count the attempt."""
        return replace(
            entry,
            file_name=self.file_name,
            served_as=self.served_as,
            attempts=entry.attempts + 1,
            hash_before=self.hash_before,
            download_started_at=time,
        )


@dataclass(frozen=True)
class Unsent(Fact):
    """The last attempt failed before its request was sent."""

    fact = "unsent"

    def apply(self, entry: Entry, time: str) -> Entry:
        """Take the attempt back."""
        return replace(entry, attempts=max(0, entry.attempts - 1))


@dataclass(frozen=True)
class Answered(Fact):
    """The answer to the attempt was accepted; its bytes follow."""

    fact = "answered"
    validator: str | None
    total: int | None
    resumed: bool
    boot: str | None = None

    def apply(self, entry: Entry, time: str) -> Entry:
        """Begin or continue a part file."""
        synced = entry.synced if self.resumed else 0
        return replace(entry, **asdict(self), whole=None, synced=synced)


@dataclass(frozen=True)
class Synced(Fact):
    """The first `offset` bytes of the part file are durable."""

    fact = "synced"
    offset: int

    def apply(self, entry: Entry, time: str) -> Entry:
        """Set the durable length."""
        return replace(entry, synced=self.offset)


@dataclass(frozen=True)
class Whole(Fact):
    """The part file is complete and durable. `seconds` and `received` (bytes) are those of the attempt.

    `delimited` is false if only the end of the connection ended the body.
    """

    fact = "whole"
    sha1: str
    seconds: float
    received: int
    delimited: bool = True

    def apply(self, entry: Entry, time: str) -> Entry:
        """Set the SHA1 of the complete file."""
        ended = replace(entry, seconds=self.seconds, received=self.received, downloaded_at=time)
        return replace(ended, whole=self.sha1, delimited=self.delimited)


@dataclass(frozen=True)
class SetAside(Fact):
    """A complete file without a published hash now has the suffix `.unproven`."""

    fact = "set-aside"
    sha1: str

    def apply(self, entry: Entry, time: str) -> Entry:
        """Remember the SHA1 of that file; the part file may be used again."""
        return replace(entry, set_aside=self.sha1)


@dataclass(frozen=True)
class Proven(Fact):
    """The SHA1 equals the published hash."""

    fact = "proven"
    file_name: str
    sha1: str

    def apply(self, entry: Entry, time: str) -> Entry:
        """Set the verified SHA1."""
        return replace(entry, file_name=self.file_name, proven=self.sha1, promoted=None, verified_at=time)


@dataclass(frozen=True)
class Promoted(Fact):
    """The verified archive has its final name; these are its inode, size, and time of change."""

    fact = "published"
    inode: int
    size: int
    changed_ns: int

    def apply(self, entry: Entry, time: str) -> Entry:
        """Set the identity of the archive."""
        return replace(entry, promoted=Identity(self.inode, self.size, self.changed_ns), archive_kept=True)


@dataclass(frozen=True)
class Cut(Fact):
    """The part file that seemed complete is not."""

    fact = "cut"

    def apply(self, entry: Entry, time: str) -> Entry:
        """Withdraw the completion."""
        return replace(entry, whole=None)


@dataclass(frozen=True)
class Discarded(Fact):
    """The bytes on disk are not used any more."""

    fact = "discarded"

    def apply(self, entry: Entry, time: str) -> Entry:
        """Forget everything about the bytes; the name and the attempts stay."""
        nothing = Entry()
        kept = ("file_name", "served_as", "attempts", "hash_before", "ready_at", "download_started_at", "unpacked")
        return replace(nothing, **{name: getattr(entry, name) for name in kept})


@dataclass(frozen=True)
class Staged(Fact):
    """A complete, durable data path is about to get its name; `inode` is that of its directory."""

    fact = "staged"
    path: str
    files: int
    bytes: int
    final: bool
    restore_info: dict[str, str] | None
    sha1: str | None
    inode: int

    def apply(self, entry: Entry, time: str) -> Entry:
        """Remember which directory it is: a crash may come before the next fact."""
        return replace(entry, staged=self)

    def published(self) -> Unpacked:
        """Return the fact that follows once it has its name."""
        return Unpacked(self.path, self.files, self.bytes, self.final, self.restore_info, self.sha1, self.inode)


@dataclass(frozen=True)
class Unpacked(Fact):
    """A data path was published."""

    fact = "unpacked"
    path: str
    files: int
    bytes: int
    final: bool
    restore_info: dict[str, str] | None
    sha1: str | None = None
    inode: int | None = None

    def apply(self, entry: Entry, time: str) -> Entry:
        """Add the data path, in place of an earlier one in the same directory."""
        place = os.path.dirname(self.path)
        others = tuple(one for one in entry.unpacked if os.path.dirname(one.path) != place)
        return replace(entry, unpacked=(*others, Unpacking(**asdict(self), at=time)), staged=None)


@dataclass(frozen=True)
class ArchiveDiscarded(Fact):
    """The verified archive is about to be removed, because its data path is published."""

    fact = "archive-discarded"

    def apply(self, entry: Entry, time: str) -> Entry:
        """Keep the proof without the file."""
        return replace(entry, archive_kept=False)


@dataclass(frozen=True)
class Summary(Fact):
    """All of an entry in one line, in place of the facts before it."""

    fact = "entry"
    entry: Entry

    def apply(self, entry: Entry, time: str) -> Entry:
        """Replace the entry."""
        return self.entry
