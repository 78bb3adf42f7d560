"""How a whole file becomes a proven archive, in the one order that survives a crash at any point.

Sync → journal "proven" → rename → sync of the directory → journal "published" → leftovers away. A crash after the
rename finds the final name with a journalled SHA1 to hold it against; a crash before it finds the part file.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from .archive import Digest, publish
from .errors import DestError
from .files import Directory
from .journal import Identity, Journal
from .names import PART, UNPROVEN
from .pacing import Clock


@dataclass(frozen=True)
class Candidate:
    """A file that is whole as far as its transfer can tell, and waits for proof."""

    name: str
    digest: Digest


@dataclass(frozen=True)
class Publisher:
    """Publishes proven archives into one DEST."""

    directory: Directory
    journal: Journal
    clock: Clock

    async def publish(self, job_id: str, archive: str, candidate: Candidate) -> None:
        """Give a proven file its final name. Raises ForeignFile when something stands there, else DestError."""
        try:
            await asyncio.to_thread(self.directory.sync_file, candidate.name)
        except DestError:
            await self.distrust(job_id, candidate.name)
            raise
        now = self.clock.wall()
        await self.journal.record("proven", job_id, now, file_name=archive, sha1=candidate.digest.sha1)
        await publish(self.directory, candidate.name, archive, candidate.digest)
        await self.vouch(job_id, archive, candidate.digest)
        for suffix in (PART, UNPROVEN):  # what earlier attempts of ours left is of no use any more
            self.directory.remove(archive + suffix)

    async def distrust(self, job_id: str, name: str) -> None:
        """Forget a file whose sync failed: the kernel tells of a lost write once, then shows the bytes as if well."""
        with suppress(DestError):
            self.directory.remove(name)
            await self.journal.record("discarded", job_id, self.clock.wall())

    async def adopt(self, job_id: str, archive: str, digest: Digest) -> None:
        """Vouch for a file that stands at the final name already, whoever wrote it. Raises DestError."""
        await asyncio.to_thread(self.directory.sync_file, archive)
        self.directory.sync()
        await self.vouch(job_id, archive, digest)

    async def vouch(self, job_id: str, archive: str, digest: Digest) -> None:
        """Journal which very file is proven, so that a later run need not hash it again while nobody touched it."""
        now = self.clock.wall()
        if self.journal.entry(job_id).proven != digest.sha1:
            await self.journal.record("proven", job_id, now, file_name=archive, sha1=digest.sha1)
        if found := self.directory.find_file(archive):
            seen = Identity.of(found)
            fields = {"inode": seen.inode, "size": seen.size, "changed_ns": seen.changed_ns}
            await self.journal.record("published", job_id, now, **fields)
