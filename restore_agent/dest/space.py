"""Free space of DEST, shared by the archives that are being downloaded."""

from __future__ import annotations

import resource
from collections.abc import Callable

from ..core.errors import NoSpace, ResourcesExhausted
from .directory import Directory

MINIMUM = 1 << 20
"""Bytes that must be free while an archive of unknown size is downloaded."""

RESERVED_FOR_RECORDS = 256 << 10
"""Bytes that stay free for journal, receipt, status file, and SHA1SUMS: a full disk must still be reported there."""


class DiskSpace:
    """Disk space that active downloads still need, checked continuously: a transfer stops before the disk is full."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._reserved: dict[str, int] = {}
        self.request_room: Callable[[], bool] = lambda: False
        """Asks for space that something else uses and can give back; returns whether it will."""

    def reserve(self, archive: str, to_come: int | None) -> None:
        """Set the bytes that an archive still needs (None: unknown). Raises NoSpace if not all archives fit."""
        self._reserved[archive] = MINIMUM if to_come is None else to_come
        wanted, free = sum(self._reserved.values()), self._directory.free_bytes()
        if (missing := wanted + RESERVED_FOR_RECORDS - free) > 0 and not self.request_room():
            self.release(archive)
            others = f" with {len(self._reserved)} other archives" if self._reserved else ""
            kept = f"only {free} are free, of which {RESERVED_FOR_RECORDS} are reserved for records"
            raise NoSpace(f"{wanted} bytes are needed{others}, but {kept}: {missing} bytes short", archive=archive)

    def still_needed(self) -> int:
        """Return the bytes that all active downloads still need, as far as they are known."""
        return sum(self._reserved.values())

    def require_file_size(self, size: int | None) -> None:
        """Raise ResourcesExhausted if the host limits the size of files (`ulimit -f`) below what may be needed."""
        limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        if limit != resource.RLIM_INFINITY and (size is None or size > limit):
            needed = "of unknown size" if size is None else f"of {size} bytes"
            raise ResourcesExhausted(f"files are limited to {limit} bytes, and the archive is {needed}", spent=False)

    def release(self, archive: str) -> None:
        """Drop the reservation of an archive."""
        self._reserved.pop(archive, None)

    def is_full(self) -> bool:
        """Return whether the space for records is used, as an archive of unknown size may do."""
        return self._directory.free_bytes() < RESERVED_FOR_RECORDS
