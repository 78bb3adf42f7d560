"""The free space of DEST, as the archives that come at the same time share it."""

from __future__ import annotations

from ..core.errors import NoSpace
from .directory import Directory


class DiskSpace:
    """Who still needs how much. Asked all the time, so that a transfer ends before the disk is full.

    The last bytes of a disk are kept for the agent's own records: a run that ends for want of space must still be
    able to say so in its journal and receipt.
    """

    LEAST = 1 << 20
    """Bytes that must be free while an archive of unknown size comes."""
    RECORDS = 256 << 10
    """Bytes that stay free for journal, receipt, status file and SHA1SUMS."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._booked: dict[str, int] = {}

    def book(self, archive: str, to_come: int | None) -> None:
        """Keep in view what an archive still needs (None: unknown). Raises NoSpace as soon as not all will fit."""
        self._booked[archive] = self.LEAST if to_come is None else to_come
        wanted, free = sum(self._booked.values()), self._directory.free_bytes()
        if (missing := wanted + self.RECORDS - free) > 0:
            self.release(archive)
            others = f" with {len(self._booked)} other archives" if self._booked else ""
            kept = f"of {free} free ones {self.RECORDS} are kept for the agent's records"
            raise NoSpace(f"{wanted} bytes are needed{others}, {kept}: {missing} bytes are missing", archive=archive)

    def release(self, archive: str) -> None:
        """The archive needs no more space."""
        self._booked.pop(archive, None)

    def is_full(self) -> bool:
        """Whether what is kept for the records is gone, too, as an archive of unknown size may have it."""
        return self._directory.free_bytes() < self.RECORDS
