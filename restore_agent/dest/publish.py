"""Crash-safe promotion of a complete file to a verified archive."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from ..core.clock import Clock
from ..core.errors import DestError, ForeignFile, InTheWay
from ..core.names import PART, UNPROVEN
from ..core.untrusted import printable
from .archive import Digest
from .directory import Directory
from .journal import Identity, Journal


async def publish(directory: Directory, name: str, archive: str, digest: Digest) -> None:
    """Give a proven, synced file its final name, if it is still the file that was hashed; sync the directory.

    Raises ForeignFile when something stands at the final name, else DestError.
    """
    await asyncio.to_thread(_move, directory, name, archive, digest)


async def set_aside(directory: Directory, name: str, archive: str, suffix: str) -> str:
    """Rename a file to `<archive><suffix>` (UNPROVEN or MISMATCH), replacing an older one of ours; the new name."""
    if name != archive + suffix:
        await asyncio.to_thread(directory.rename, name, archive + suffix)
    return archive + suffix


def _move(directory: Directory, name: str, archive: str, digest: Digest) -> None:
    if directory.find(archive):
        raise ForeignFile(f"something already stands at {printable(archive)}", archive=archive, left=f"{name} is kept")
    status = directory.find_file(name)
    if status is None or (status.st_ino, status.st_size) != (digest.inode, digest.size):
        raise InTheWay(f"{printable(name)} was replaced by somebody else after it was hashed", archive=archive)
    directory.rename(name, archive)


@dataclass(frozen=True)
class Candidate:
    """A file that is whole as far as its transfer can tell, and waits for proof."""

    name: str
    digest: Digest


@dataclass(frozen=True)
class Promoter:
    """Publishes proven archives into one DEST."""

    directory: Directory
    journal: Journal
    clock: Clock

    async def publish(self, job_id: str, archive: str, candidate: Candidate) -> None:
        """Give a proven file its final name. Raises ForeignFile when something stands there, else DestError."""
        try:
            await asyncio.to_thread(self.directory.sync_file, candidate.name)
        except DestError:
            await self.discard_unsynced(job_id, candidate.name)
            raise
        now = self.clock.wall()
        await self.journal.record("proven", job_id, now, file_name=archive, sha1=candidate.digest.sha1)
        await publish(self.directory, candidate.name, archive, candidate.digest)
        await self.record_verified(job_id, archive, candidate.digest)
        for suffix in (PART, UNPROVEN):  # what earlier attempts of ours left is of no use any more
            self.directory.remove(archive + suffix)

    async def discard_unsynced(self, job_id: str, name: str) -> None:
        """Forget a file whose sync failed: the kernel tells of a lost write once, then shows the bytes as if well."""
        with suppress(DestError):
            self.directory.remove(name)
            await self.journal.record("discarded", job_id, self.clock.wall())

    async def accept_existing(self, job_id: str, archive: str, digest: Digest) -> None:
        """Vouch for a file that stands at the final name already, whoever wrote it. Raises DestError."""
        await asyncio.to_thread(self.directory.sync_file, archive)
        self.directory.sync()
        await self.record_verified(job_id, archive, digest)

    async def record_verified(self, job_id: str, archive: str, digest: Digest) -> None:
        """Journal which very file is proven, so that a later run need not hash it again while nobody touched it."""
        now = self.clock.wall()
        if self.journal.entry(job_id).proven != digest.sha1:
            await self.journal.record("proven", job_id, now, file_name=archive, sha1=digest.sha1)
        if found := self.directory.find_file(archive):
            seen = Identity.of(found)
            fields = {"inode": seen.inode, "size": seen.size, "changed_ns": seen.changed_ns}
            await self.journal.record("published", job_id, now, **fields)
