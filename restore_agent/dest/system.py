"""System calls that the standard library does not have, or that some file systems do not support."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)

_RENAME_NOREPLACE = 1  # of renameat2(2), which the standard library does not have


def sync_names(descriptor: int) -> bool:
    """Make the names in a directory durable; return False if its file system cannot. Raises OSError."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        return False
    return True


def make_private(descriptor: int) -> bool:
    """Set mode 0600; return False if the file system or the owner of the file does not allow it. Raises OSError."""
    try:
        os.fchmod(descriptor, 0o600)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EACCES, *_UNSUPPORTED):
            raise
        return False
    return True


def make_durably(path: Path) -> None:
    """Make a directory (mode 0700) and its missing parents, the name of each synced. Raises OSError.

    The parent of an existing directory is synced, too, where that is allowed: the run that made it may have been
    killed before it could.
    """
    missing = [parent for parent in (path, *path.parents) if not os.path.lexists(parent)]
    for directory in reversed(missing):
        with suppress(FileExistsError):  # opening it as a directory shows what it is
            os.mkdir(directory, 0o700 if directory == path else 0o777)
        _sync_directory(directory.parent)
    if not missing:
        with suppress(OSError):
            _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync_names(descriptor)
    finally:
        os.close(descriptor)


def rename_noreplace(source_fd: int, source: bytes, target_fd: int, target: bytes) -> None:
    """Rename a file or directory only if the new name is free, atomically where the system can. Raises OSError."""
    rename = _renameat2()
    try:
        if rename is not None:
            rename(source_fd, source, target_fd, target, _RENAME_NOREPLACE)
            return
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    with suppress(FileNotFoundError):  # a file system without the flag, such as NFS: look, then rename
        os.stat(target, dir_fd=target_fd, follow_symlinks=False)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    os.rename(source, target, src_dir_fd=source_fd, dst_dir_fd=target_fd)


def _renameat2() -> Callable[[int, bytes, int, bytes, int], None] | None:
    """Return renameat2(2), which raises OSError; None if there is no such function."""
    with suppress(ImportError):  # built into the executable, which has no ctypes because it cannot load libraries
        from _system_calls import renameat2  # type: ignore[import-not-found]  # exists only in the executable

        built_in: Callable[[int, bytes, int, bytes, int], None] = renameat2
        return built_in
    function = getattr(_libc(), "renameat2", None)
    return None if function is None else partial(_called, function)


def _called(function: Callable[..., int], *arguments: int | bytes) -> None:
    import ctypes  # imported here because the executable does not have it

    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@cache
def _libc() -> Any:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)
