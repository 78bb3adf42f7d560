"""The data path of one archive: unpacked while the archive is downloaded or from disk, published at the end.

Nothing here can fail a download: every error is kept until the archive is verified, and then its exit code is 13.
"""

from __future__ import annotations

import asyncio
import os
import re
from contextlib import suppress

from ...core.errors import ArchiveDiscarded, DamagedArchive, Finding, NotUnpacked, UnpackCancelled
from ...core.events import Notice
from ...core.names import UNPROVEN
from ...core.untrusted import printable
from ...dest.archive import Digest
from ...dest.directory import errors_of_dest
from ...dest.journal.facts import Staged, Unpacking
from ...unpack.restore_info import contradictions
from ...unpack.unpacker import Unpacked
from ..unpacking.data_place import DataPlace
from .follower import Follower
from .state import JobState

_REPLICA_SET = re.compile(r"(.+)-\d+-[0-9a-f]{24}\.(?:tar\.gz|tgz|tar)")


class JobUnpacking:
    """The data path of one restore job. `is_clean` says that nothing of an unfinished one is left."""

    def __init__(self, state: JobState, place: DataPlace) -> None:
        self._state, self._place = state, place
        self.follower: Follower | None = None
        self.is_clean = False

    @property
    def discards_archive(self) -> bool:
        """Whether the archive is removed once its data path is published."""
        return self._place.settings.discard_archive

    async def follow(self) -> Follower | None:
        """Return the follower of the part file, or None if nothing is to be unpacked from it."""
        if self._place.error or self.is_published():
            return None
        if self.follower is not None and not _can_follow(self.follower):
            await self._discard_follower()
        self.follower = self.follower or Follower(self._state, self._place)
        return self.follower

    def is_published(self) -> bool:
        """Return whether the data path of the verified archive was published in this directory."""
        return self._published(final=True) is not None

    def _published(self, *, final: bool) -> Unpacking | None:
        found = self._state.entry.data_path_in(self._place.path_of())
        return found if found and found.final == final else None

    async def finding(self) -> Finding | None:
        """Return what unpacking showed of the structure, or None if it showed nothing."""
        follower = self.follower
        if follower is None:
            return None
        try:
            result = await asyncio.wrap_future(follower.result)
        except DamagedArchive as error:
            return error.finding
        except NotUnpacked:
            return None
        return result.finding if follower.is_current else None

    # ------------------------------------------------------------ publishing

    async def publish(self, digest: Digest, file_name: str, *, verified: bool) -> Unpacking:
        """Give the data path its name once the archive is verified, or accepted without a hash; return it.

        `file_name` is the archive in DEST. Raises NotUnpacked, or DestError if it cannot be journaled.
        """
        await self._recover()
        found = self._published(final=True)
        unproven = self._published(final=False)
        if found is None and unproven and unproven.sha1 == digest.sha1:
            found = unproven if not verified else await self._promote(unproven)
        if found is None:
            if not self._state.entry.archive_kept:
                raise ArchiveDiscarded("the archive was removed after it had been unpacked into another directory")
            follower = await self._unpacked(digest, file_name)
            found = await self._rename(follower, digest, final=verified)
        self._state.meter.unpacked = digest.size
        return found

    async def _unpacked(self, digest: Digest, file_name: str) -> Follower:
        """Return a follower that has unpacked exactly the archive. Raises NotUnpacked, DestError."""
        with errors_of_dest(f"open {printable(file_name)}"):
            descriptor = self._state.context.directory.open_file(file_name, os.O_RDONLY)
        try:
            status = os.fstat(descriptor)
            if self.follower is not None and self.follower.inode == status.st_ino:
                self.follower.complete(digest.size)
                with suppress(UnpackCancelled):
                    result = await asyncio.wrap_future(self.follower.result)
                    if self.follower.is_current and result.archive_bytes == digest.size:
                        return self.follower
            await self._discard_follower()
            follower = self.follower = Follower(self._state, self._place, rehash=True)
            follower.opened(descriptor)
            follower.complete(status.st_size)
        finally:
            os.close(descriptor)
        await asyncio.wrap_future(follower.result)
        if follower.sha1 is None or follower.sha1.hexdigest() != digest.sha1:
            raise DamagedArchive(f"{printable(file_name)} was changed on disk after it was verified")
        return follower

    async def _rename(self, follower: Follower, digest: Digest, *, final: bool) -> Unpacking:
        result, staging, paths = follower.result.result(), follower.staging, self._place.paths
        assert staging is not None  # noqa: S101  # there is a result
        self._warn_of_contradictions(result)
        name = self._place.name_of(self._state.job_id) + ("" if final else UNPROVEN)
        path, inode = self._place.path_of(name), staging.identity[1]
        staged = Staged(path, result.files, result.bytes, final, result.restore_info, digest.sha1, inode)
        follower.claim()
        await asyncio.to_thread(paths.require_free, name)
        await self._state.journal(staged)
        await asyncio.to_thread(paths.publish, staging, name)
        self._place.space.ended(follower)
        return await self._journal_published(staged)

    async def _journal_published(self, staged: Staged) -> Unpacking:
        await self._state.journal(staged.published())
        self._state.changed = True
        found = self._published(final=staged.final)
        assert found is not None  # noqa: S101  # it was just journaled
        return found

    async def _recover(self) -> None:
        """Finish what a crash interrupted between the rename of a data path and its fact."""
        staged = self._state.entry.staged
        if staged is not None and self._place.has(staged):
            await self._journal_published(staged)

    async def _promote(self, unproven: Unpacking) -> Unpacking | None:
        """Give the data path of an archive whose hash came later its final name; None if it was moved away."""
        old = os.path.basename(unproven.path)
        identity = self._place.paths.identity(old)
        if identity is None or identity[1] != unproven.inode:
            return None
        name = self._place.name_of(self._state.job_id)
        staged = Staged(
            self._place.path_of(name),
            *(unproven.files, unproven.bytes, True, unproven.restore_info, unproven.sha1, identity[1]),
        )
        await asyncio.to_thread(self._place.paths.require_free, name)
        await self._state.journal(staged)
        await asyncio.to_thread(self._place.paths.promote, old, name, identity)
        return await self._journal_published(staged)

    def _warn_of_contradictions(self, result: Unpacked) -> None:
        job, context = self._state.job, self._state.context
        named = _REPLICA_SET.fullmatch(self._state.named())
        expected = {
            "Replica Set": named[1] if named and named[1] != "config" else None,  # a config server has both names
            "Cluster ID": job.cluster_id,
            "Group ID": self._place.group_id,
        }
        for text in contradictions(result.restore_info or {}, expected):
            context.reporter.report(Notice("warning", f"{self._state.named()}: {printable(text)}", job.id))

    # ------------------------------------------------------------ the end

    async def clean(self) -> None:
        """Leave nothing of a data path that is not published, neither of this run nor of an earlier one."""
        self.is_clean = True
        await self._discard_follower()
        if self._place.error is None:
            with suppress(NotUnpacked):
                await asyncio.to_thread(self._place.paths.remove_stale, self._state.job_id, self._place.check)

    async def _discard_follower(self) -> None:
        follower, self.follower = self.follower, None
        if follower:
            await asyncio.to_thread(follower.discard)

    def close(self) -> None:
        """Stop unpacking; the staging directory stays for the next run. Blocks for a moment."""
        if self.follower:
            self.follower.close()


def _can_follow(follower: Follower) -> bool:
    """Whether the next attempt goes on with this follower, rather than with a new one."""
    if not follower.result.done():
        return True
    error = follower.result.exception()
    return isinstance(error, NotUnpacked) and not error.about_archive and not isinstance(error, UnpackCancelled)
