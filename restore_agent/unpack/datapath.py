"""Directory of data paths: staging of one job, its publication under the final name, and what is in the way.

A data path is unpacked into `.<job id>.unpacking` and gets its name by one rename, which never replaces anything but
an empty directory. The lock is held on the staging directory itself: it needs no file of its own and moves with the
directory, so nothing has to be removed after the rename.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ..core.errors import CannotUnpack, DataPathInTheWay
from ..core.names import raw
from .errors import errors_of_unpacking, shown, unpack_error
from .writer import Owner

UNPROVEN = ".unproven"
"""Suffix of the data path of an archive for which no hash was published."""
_STAGING = ".unpacking"
_ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".tar")
_PLAIN_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_IN_THE_WAY = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EBUSY, errno.EXDEV)
_CLOSE_TIME = 1.0  # seconds for a publication in progress to end when the run is stopped
_NO_LOCKS = (errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)  # NFS cannot lock a directory

Identity = tuple[int, int]
"""Device and inode of a directory. It stays the same when the directory is renamed."""


def data_path_name(archive: str) -> str:
    """Return the name of an archive's data path: the archive's without `.tar.gz`, `.tgz` or `.tar`."""
    for suffix in _ARCHIVE_SUFFIXES:
        if archive.lower().endswith(suffix) and len(archive) > len(suffix):
            return archive[: -len(suffix)]
    return archive


def staging_name(job_id: str) -> str:
    """Return the name of a job's staging directory. An id with other characters than A-Z a-z 0-9 _ - is hashed."""
    plain = job_id if _PLAIN_ID.fullmatch(job_id) else hashlib.sha256(job_id.encode("utf-8", "replace")).hexdigest()
    return f".{plain}{_STAGING}"


class _Names:
    """Entries of one directory, which is held by its descriptor."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.fd = descriptor

    def find(self, name: str) -> os.stat_result | None:
        """Return the lstat of a name, or None. Raises OSError."""
        try:
            return os.stat(raw(name), dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def open_directory(self, name: str) -> int | None:
        """Return a descriptor of a directory, or None if there is none. Raises OSError or DataPathInTheWay."""
        try:
            return os.open(raw(name), _DIRECTORY, dir_fd=self.fd)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise DataPathInTheWay(f"{self.shown(name)} is not a directory") from error
            raise

    def has_content(self, name: str) -> bool:
        """Return whether a directory has entries. Raises OSError."""
        descriptor = os.open(raw(name), _DIRECTORY, dir_fd=self.fd)
        try:
            with os.scandir(descriptor) as entries:
                return next(entries, None) is not None
        finally:
            os.close(descriptor)

    def rename(self, source: str, target: str) -> None:
        """Rename a directory; only an empty one is replaced. Raises NotUnpacked."""
        try:
            os.rename(raw(source), raw(target), src_dir_fd=self.fd, dst_dir_fd=self.fd)
        except OSError as error:
            if error.errno in _IN_THE_WAY:
                raise DataPathInTheWay(f"{self.shown(target)} is in the way: {error.strerror}") from error
            raise unpack_error(error, f"rename {shown(source)} to {shown(target)}") from error

    def remove_directory(self, name: str) -> None:
        """Remove an empty directory durably. Raises OSError."""
        with suppress(FileNotFoundError):
            os.rmdir(raw(name), dir_fd=self.fd)
        os.fsync(self.fd)

    def shown(self, name: str) -> str:
        """Return the path of a name for messages."""
        return shown(str(self.path / name))


class DataPaths:
    """The directory given with `--unpack`, held by its descriptor. Use as a context manager, or call `close()`."""

    def __init__(self, path: Path, descriptor: int, owner: Owner) -> None:
        self._names = _Names(path, descriptor)
        trusted = {os.geteuid(), 0, os.fstat(descriptor).st_uid, owner.uid}
        self._trusted = trusted - {-1}

    @classmethod
    def open(cls, path: Path, owner: Owner | None = None, *, create: bool) -> DataPaths:
        """Open the directory, which may be reached through links; make it (0700, of the owner) if `create`.

        Raises NotUnpacked.
        """
        owner = owner or Owner()
        with errors_of_unpacking("open", str(path)):
            if create:
                _make_durably(path, owner)
            return cls(path, os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), owner)

    def __enter__(self) -> DataPaths:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptor; a second call does nothing."""
        if self._names.fd >= 0:
            os.close(self._names.fd)
            self._names.fd = -1

    @property
    def path(self) -> Path:
        """The directory as it was given."""
        return self._names.path

    # ---- questions, which change nothing

    def is_writable(self) -> bool:
        """Return whether this process may create directories here."""
        read_only = os.fstatvfs(self._names.fd).f_flag & os.ST_RDONLY
        return not read_only and os.access(".", os.W_OK | os.X_OK, dir_fd=self._names.fd)

    def free_bytes(self) -> int:
        """Return how many bytes a user without privileges may still write. Raises NotUnpacked."""
        with errors_of_unpacking("read the free space"):
            status = os.fstatvfs(self._names.fd)
        return status.f_bavail * status.f_frsize

    def device(self) -> int:
        """Return the number of the file system, to compare with that of DEST."""
        return os.fstat(self._names.fd).st_dev

    def require_free(self, name: str) -> None:
        """Raise DataPathInTheWay unless the name is unused or an empty directory, which publishing replaces."""
        with errors_of_unpacking("check", name):
            status = self._names.find(name)
            if status is None:
                return
            if not stat.S_ISDIR(status.st_mode):
                raise DataPathInTheWay(f"{self._names.shown(name)} is not a directory")
            if status.st_dev != self.device():
                raise DataPathInTheWay(f"{self._names.shown(name)} is a mount point")
            if self._names.has_content(name):
                raise DataPathInTheWay(f"{self._names.shown(name)} is not empty")

    def require_unlocked(self, job_id: str) -> None:
        """Raise DataPathInTheWay if an active run fills the staging directory of the job."""
        name = staging_name(job_id)
        with errors_of_unpacking("check", name):
            descriptor = self._names.open_directory(name)
            if descriptor is not None:
                try:
                    self._lock(name, descriptor)
                finally:
                    os.close(descriptor)

    def identity(self, name: str) -> Identity | None:
        """Return the identity of the directory `name`, or None. Raises NotUnpacked."""
        with errors_of_unpacking("check", name):
            status = self._names.find(name)
        return (status.st_dev, status.st_ino) if status and stat.S_ISDIR(status.st_mode) else None

    # ---- staging

    def staging(self, job_id: str) -> Staging:
        """Lock and empty the staging directory of a job; it is made if it is missing.

        Raises DataPathInTheWay if another run holds it or something else has its name, else NotUnpacked.
        """
        name = staging_name(job_id)
        with errors_of_unpacking("create", name):
            while True:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=self._names.fd)
                descriptor = self._locked(name)
                if descriptor is not None:
                    break
        staging = Staging(self, name, descriptor)
        try:
            staging.empty()
        except BaseException:
            staging.close()
            raise
        return staging

    def remove_stale(self, job_id: str, check: Callable[[], None] = lambda: None) -> bool:
        """Remove the staging directory that an earlier run of the job left; return whether there was one.

        `check` is called often and may raise to end it. Raises DataPathInTheWay if another run holds it.
        """
        name = staging_name(job_id)
        with errors_of_unpacking("remove", name):
            if self._names.find(name) is None:
                return False
            descriptor = self._locked(name)
        if descriptor is None:
            return False
        staging = Staging(self, name, descriptor)
        staging.discard(check)
        return True

    def _locked(self, name: str) -> int | None:
        """Return a locked descriptor, or None if the name does not belong to that directory any more."""
        descriptor = self._names.open_directory(name)
        if descriptor is None:
            return None
        try:
            self._lock(name, descriptor)
            status, named = os.fstat(descriptor), self._names.find(name)
            if named is None or not os.path.samestat(status, named):
                os.close(descriptor)
                return None
            if status.st_uid not in self._trusted:
                raise DataPathInTheWay(f"{self._names.shown(name)} belongs to another user")
            os.fchmod(descriptor, 0o700)
        except BaseException:
            with suppress(OSError):
                os.close(descriptor)
            raise
        return descriptor

    def _lock(self, name: str, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataPathInTheWay(f"another run is unpacking into {self._names.shown(name)}") from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise

    # ---- final names

    def publish(self, staging: Staging, name: str) -> Identity:
        """Give a complete, synced staging directory its final name durably, and release it; return its identity.

        Call this only once the archive is verified, or with a name that ends in UNPROVEN. If it raises, the content
        is in the staging directory again. Raises DataPathInTheWay if the name is used, else NotUnpacked.
        """
        with staging.in_use:
            self.require_free(name)
            self._require_own(staging)
            self._names.rename(staging.name, name)
            try:
                os.fsync(self._names.fd)
            except OSError as error:
                with suppress(OSError):
                    os.rename(raw(name), raw(staging.name), src_dir_fd=self._names.fd, dst_dir_fd=self._names.fd)
                raise unpack_error(error, f"sync {shown(str(self._names.path))}") from error
            staging.close()
        return staging.identity

    def promote(self, unproven: str, name: str, expected: Identity | None = None) -> None:
        """Give the data path `unproven` its final name durably; with `expected`, only if it is still that directory.

        Raises DataPathInTheWay if it is another directory or the name is used, else NotUnpacked.
        """
        identity = self.identity(unproven)
        if identity is None or (expected is not None and identity != expected):
            raise DataPathInTheWay(f"{self._names.shown(unproven)} is not the data path that was unpacked")
        self.require_free(name)
        self._names.rename(unproven, name)
        with errors_of_unpacking("sync", str(self._names.path)):
            os.fsync(self._names.fd)

    def _require_own(self, staging: Staging) -> None:
        if self.identity(staging.name) != staging.identity:
            raise CannotUnpack(f"{self._names.shown(staging.name)} was replaced by another process")


class Staging:
    """Locked staging directory of one job: `descriptor` is its root.

    A thread that publishes it goes on after the run was stopped; it holds `in_use`, and `close` waits for that.
    """

    def __init__(self, parent: DataPaths, name: str, descriptor: int) -> None:
        self._parent = parent
        self.name = name
        self.descriptor = descriptor
        self.in_use = threading.RLock()
        status = os.fstat(descriptor)
        self.identity: Identity = (status.st_dev, status.st_ino)

    def empty(self, check: Callable[[], None] = lambda: None) -> None:
        """Remove the content. `check` is called often and may raise to end it. Raises NotUnpacked."""
        with errors_of_unpacking("empty", self.name):
            os.fchmod(self.descriptor, 0o700)
            remove_content(self.descriptor, check)

    def discard(self, check: Callable[[], None] = lambda: None) -> None:
        """Remove the directory and release it; a second call does nothing. Raises NotUnpacked."""
        if self.descriptor < 0:
            return
        try:
            self.empty(check)
            with errors_of_unpacking("remove", self.name):
                self._parent._require_own(self)
                self._parent._names.remove_directory(self.name)
        finally:
            self.close()

    def close(self) -> None:
        """Release the lock; what the directory contains stays for the next run to remove. Blocks for a moment.

        If it is in use for longer, it stays open: another file could get the number of a closed descriptor.
        """
        if self.in_use.acquire(timeout=_CLOSE_TIME):
            try:
                descriptor, self.descriptor = self.descriptor, -1
                if descriptor >= 0:
                    os.close(descriptor)
            finally:
                self.in_use.release()


def remove_content(root: int, check: Callable[[], None] = lambda: None) -> None:
    """Remove all entries of an open directory. Raises OSError.

    Directories are first moved up to the root, so that any depth needs two descriptors and no recursion.
    """
    while names := os.listdir(root):
        for name in names:
            check()
            try:
                os.unlink(name, dir_fd=root)
            except (IsADirectoryError, PermissionError):  # unlink of a directory may give either
                _remove_directory(root, name, check)


def _remove_directory(root: int, name: str, check: Callable[[], None]) -> None:
    descriptor = os.open(name, _DIRECTORY, dir_fd=root)
    try:
        for child in os.listdir(descriptor):
            check()
            try:
                os.unlink(child, dir_fd=descriptor)
            except (IsADirectoryError, PermissionError):
                os.rename(child, _unused(root), src_dir_fd=descriptor, dst_dir_fd=root)
    finally:
        os.close(descriptor)
    os.rmdir(name, dir_fd=root)


def _unused(root: int) -> str:
    while True:
        name = f".removed-{os.urandom(8).hex()}"
        try:
            os.stat(name, dir_fd=root, follow_symlinks=False)
        except FileNotFoundError:
            return name


def _make_durably(path: Path, owner: Owner) -> None:
    """Make a directory (0700, of `owner`) and its missing parents, the name of each synced. Raises OSError."""
    missing = [parent for parent in (path, *path.parents) if not os.path.lexists(parent)]
    for directory in reversed(missing):
        try:
            os.mkdir(directory, 0o700 if directory == path else 0o777)
        except FileExistsError:
            continue  # another run made it; opening it shows what it is
        if directory == path:
            _apply(directory, owner.apply)
        _apply(directory.parent, os.fsync)


def _apply(directory: Path, action: Callable[[int], None]) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        action(descriptor)
    finally:
        os.close(descriptor)
