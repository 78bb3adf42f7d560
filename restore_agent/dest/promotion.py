"""Crash-safe promotion of a complete file to a verified archive.

The order survives a crash at any point: sync the file, journal that it is verified, rename it to a name that is free,
sync the directory, journal which file that is.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from ..core.clock import Clock
from ..core.errors import DestError, ForeignFile, InTheWay
from ..core.names import MISMATCH, PART, UNPROVEN
from ..core.untrusted import printable
from .archive import Digest
from .directory import Directory
from .journal import Identity, Journal
from .journal.facts import ArchiveDiscarded, Discarded, Promoted, Proven, SetAside


@dataclass(frozen=True)
class Candidate:
    """A file that is complete as far as its transfer shows, and needs a published hash."""

    name: str
    digest: Digest


@dataclass(frozen=True)
class Promoter:
    """Renames the files of one DEST by what is known of them, and journals it."""

    directory: Directory
    journal: Journal
    clock: Clock

    async def promote(self, job_id: str, archive: str, candidate: Candidate) -> None:
        """Give a verified file its final name. Raises ForeignFile if that name is taken, else DestError."""
        await self._sync(job_id, candidate.name)
        await self.journal.record(job_id, Proven(archive, candidate.digest.sha1), self.clock.wall())
        await asyncio.to_thread(_move, self.directory, candidate, archive)
        await self.record_verified(job_id, archive, candidate.digest)
        for suffix in (PART, UNPROVEN):  # earlier attempts of this job
            self.directory.remove(archive + suffix)

    async def accept_existing(self, job_id: str, archive: str, digest: Digest) -> None:
        """Accept the file at the final name as verified, whichever program wrote it. Raises DestError."""
        await asyncio.to_thread(self.directory.sync_file, archive)
        self.directory.sync()
        await self.record_verified(job_id, archive, digest)

    async def record_verified(self, job_id: str, archive: str, digest: Digest) -> None:
        """Journal which file is verified, so that a later run hashes it again only if it was changed."""
        if self.journal.entry(job_id).proven != digest.sha1:
            await self.journal.record(job_id, Proven(archive, digest.sha1), self.clock.wall())
        if found := self.directory.find_file(archive):
            seen = Identity.of(found)
            await self.journal.record(job_id, Promoted(seen.inode, seen.size, seen.changed_ns), self.clock.wall())

    async def set_aside(self, job_id: str, archive: str, candidate: Candidate) -> str:
        """Rename a complete file without a published hash to `.unproven`; return its name. Raises DestError."""
        name = archive + UNPROVEN
        if candidate.name == name and self.journal.entry(job_id).set_aside == candidate.digest.sha1:
            return name
        await self._sync(job_id, candidate.name)
        await self.journal.record(job_id, SetAside(candidate.digest.sha1), self.clock.wall())
        if candidate.name != name:
            await asyncio.to_thread(self.directory.rename, candidate.name, name)
        return name

    async def quarantine(self, job_id: str, archive: str, name: str) -> str:
        """Rename a file that differs or is damaged to `.mismatch`; return its name. Raises DestError."""
        if name != archive + MISMATCH:
            await asyncio.to_thread(self.directory.rename, name, archive + MISMATCH)
        await self.journal.record(job_id, Discarded(), self.clock.wall())
        return archive + MISMATCH

    async def discard(self, job_id: str, name: str) -> None:
        """Remove a file whose sync failed: the kernel reports a lost write only once, and later reads show the data."""
        with suppress(DestError):
            await self.journal.record(job_id, Discarded(), self.clock.wall())
        with suppress(DestError):
            self.directory.remove(name)

    async def _sync(self, job_id: str, name: str) -> None:
        """Make a file durable, whichever process wrote it; one whose sync fails is discarded. Raises DestError."""
        try:
            await asyncio.to_thread(self.directory.sync_file, name)
        except DestError:
            await self.discard(job_id, name)
            raise

    async def remove_archive(self, job_id: str, archive: str) -> None:
        """Remove a verified archive after its data path was published. Raises DestError."""
        await self.journal.record(job_id, ArchiveDiscarded(), self.clock.wall())
        self.directory.remove(archive)
        self.directory.sync()


def _move(directory: Directory, candidate: Candidate, archive: str) -> None:
    """Rename a file to a free name if it is still the one that was hashed. Raises DestError."""
    status = directory.find_file(candidate.name)
    if status is None or (status.st_ino, status.st_size) != (candidate.digest.inode, candidate.digest.size):
        raise InTheWay(f"{printable(candidate.name)} was replaced by another process after it was hashed")
    try:
        directory.rename(candidate.name, archive, replace=False)
    except InTheWay:
        left = f"{candidate.name} is kept"
        raise ForeignFile(f"another file is already at {printable(archive)}", archive=archive, left=left) from None
