"""Memory that is available at once: without it, a bench on the RAM disk of a virtual machine measures the host.

A balloon with free page reporting gives free memory back to the host two seconds after it became free, and the
process that touches it next waits for the host: 1.1 to 1.7 s per GiB instead of 0.36 (measured). With it `curl -o`
and all other commands took 0.6 or 2.0 s for the same GiB, depending on what had run before. Only free blocks of 2 MiB
and more are given back, so memory stays that is free in smaller pieces.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PIECE = 1 << 20  # bytes; half of the least block that is given back
_PAGE = os.sysconf("SC_PAGE_SIZE")
_KEEP_SIZE_AND_PUNCH_HOLE = 3  # linux/falloc.h


@contextmanager
def kept_warm(ram_disk: Path, size: int) -> Iterator[None]:
    """Touch `size` bytes and free them again but for a page of each MiB, which is held until the end.

    The kernel takes what it is asked for from small free pieces first, so the commands that run meanwhile get these.
    """
    descriptor = os.open(ram_disk, os.O_TMPFILE | os.O_RDWR, 0o600)
    try:
        nothing = bytes(_PIECE)
        for _ in range(0, size, _PIECE):
            os.write(descriptor, nothing)
        for at in range(0, size, _PIECE):
            _punch_hole(descriptor, at + _PAGE, _PIECE - _PAGE)
        yield
    finally:
        os.close(descriptor)


def _punch_hole(descriptor: int, offset: int, size: int) -> None:
    """Free a part of a file (fallocate(2); `os` has no way to it)."""
    kernel = ctypes.CDLL(None, use_errno=True)
    if kernel.fallocate(descriptor, _KEEP_SIZE_AND_PUNCH_HOLE, ctypes.c_long(offset), ctypes.c_long(size)):
        error = ctypes.get_errno()
        raise OSError(error, f"fallocate: {errno.errorcode.get(error, error)}")
