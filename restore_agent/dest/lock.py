"""The lock that allows one run per DEST."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

from ..core.errors import DestHeld
from .directory import Directory, errors_of_dest

STATE_DIRECTORY = ".restore-agent"

LOCK = "lock"

_TRIES = 10


def boot_id() -> str | None:
    """Return the ID of the current boot: bytes that are still in a file after a kill may be lost after a reboot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


class Lock:
    """One run per DEST. The kernel releases the lock when the process ends, whatever ends it."""

    def __init__(self, descriptor: int) -> None:
        self._fd = descriptor

    @classmethod
    def take(cls, state: Directory) -> Lock:
        """Take the lock. Raises DestHeld when another run has it, else DestError."""
        with errors_of_dest("take the lock in DEST"):
            descriptor = state.open_file(LOCK, os.O_RDWR | os.O_CREAT)
            try:
                _exclusively(descriptor)
            except BlockingIOError:
                os.close(descriptor)
                raise DestHeld(f"another run holds {state.path.parent}", spent=False) from None
            except OSError:
                os.close(descriptor)
                raise
        return cls(descriptor)

    @staticmethod
    def is_held(state: Directory) -> bool:
        """Whether a run holds the lock now; changes nothing on disk."""
        with errors_of_dest("check the lock in DEST"):
            try:
                descriptor = state.open_file(LOCK, os.O_RDONLY)
            except FileNotFoundError:
                return False
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return False
            except BlockingIOError:
                return True
            finally:
                os.close(descriptor)

    def release(self) -> None:
        """Release the lock; the file stays, so that two runs never lock different files."""
        os.close(self._fd)


def _exclusively(descriptor: int) -> None:
    """Lock exclusively; try again for a moment, because `is_held` of another process takes a shared lock briefly."""
    for _ in range(_TRIES):
        with suppress(BlockingIOError):
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(0.02)
    return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
