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
        self._reserved: dict[str, Callable[[], int]] = {}
        self.request_room: Callable[[], bool] = lambda: False
        """Asks for space that something else uses and can give back; returns whether it will."""

    def reserve(self, archive: str, to_come: Callable[[], int] | int | None) -> None:
        """Set the bytes that an archive still needs (None: unknown). Raises NoSpace if not all archives fit.

        While bytes are written, a function gives them at each check: a number from before would count the bytes that
        were written since twice, once as needed and once as not free any more.
        """
        size = MINIMUM if to_come is None else to_come
        self._reserved[archive] = size if callable(size) else lambda: size
        # space may be freed between the first check and the request
        if self._missing()[0] > 0 and not self.request_room() and (found := self._missing())[0] > 0:
            self.release(archive)
            missing, wanted, free = found
            others = f" with {len(self._reserved)} other archives" if self._reserved else ""
            kept = f"only {free} bytes are free, of which {RESERVED_FOR_RECORDS} bytes are reserved for records"
            raise NoSpace(f"{wanted} bytes are needed{others}, but {kept}: {missing} bytes short", archive=archive)

    def _missing(self) -> tuple[int, int, int]:
        """Return the bytes that are missing, needed, and free. Free space is measured first: see `reserve`."""
        free = self._directory.free_bytes()
        wanted = self.still_needed()
        return wanted + RESERVED_FOR_RECORDS - free, wanted, free

    def still_needed(self) -> int:
        """Return the bytes that all active downloads still need, as far as they are known. From any thread."""
        return sum(needed() for needed in list(self._reserved.values()))

    def release(self, archive: str) -> None:
        """Drop the reservation of an archive."""
        self._reserved.pop(archive, None)

    def is_full(self) -> bool:
        """Return whether the space for records is used, as an archive of unknown size may do."""
        return self._directory.free_bytes() < RESERVED_FOR_RECORDS


def require_file_size(size: int | None) -> None:
    """Raise ResourcesExhausted if the host limits the size of files (`ulimit -f`) below what may be needed."""
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit != resource.RLIM_INFINITY and (size is None or size > limit):
        needed = "of unknown size" if size is None else f"of {size} bytes"
        raise ResourcesExhausted(f"files are limited to {limit} bytes, and the archive is {needed}", spent=False)
