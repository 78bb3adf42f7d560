"""One directory held by its descriptor: the only way in which the agent touches DEST.

Every name is used relative to that descriptor and no symbolic link is ever followed, so that nothing outside of
DEST can be read or written, whoever else may write there. This is the border where OSError becomes ours, and the
seam at which tests record or break file operations.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..core.errors import DestError, InTheWay, NoSpace, Unwritable
from ..core.untrusted import printable

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_IN_THE_WAY = (errno.ELOOP, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY)

RECORD_LIMIT = 16 << 20

"""Bytes that a receipt, journal or status file may have."""


@contextmanager
def errors_of_dest(doing: str) -> Iterator[None]:
    """Turn an OSError inside the block into NoSpace, InTheWay or Unwritable. `doing` is what failed, as a phrase."""
    try:
        yield
    except OSError as error:
        raise dest_error(error, doing) from error


def dest_error(error: OSError, doing: str) -> DestError:
    """The DestError that an OSError stands for."""
    message = f"cannot {doing}: {error.strerror or error}"
    if error.errno in _NO_SPACE:
        return NoSpace(message)
    if error.errno in _IN_THE_WAY:
        return InTheWay(message)
    return Unwritable(message)


class Directory:
    """A directory by descriptor. Use as a context manager, or `close()` it."""

    def __init__(self, path: Path, descriptor: int, trusted: frozenset[int] | None = None) -> None:
        self.path = path
        self._fd = descriptor
        # whose records are believed: ours, root's, and those of DEST's owner, who could replace them anyway
        self._trusted = trusted or frozenset({os.geteuid(), 0, os.fstat(descriptor).st_uid})

    @classmethod
    def open(cls, path: Path, *, create: bool) -> Directory:
        """Open `path`, made with mode 0700 when `create`, its parents too. Raises DestError."""
        with errors_of_dest(f"open DEST {printable(str(path))}"):
            if create:
                _make_durably(path)
            if os.path.islink(path) and not os.path.exists(path):
                raise FileExistsError(errno.EEXIST, "it is a link to nowhere")
            return cls(path, os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    def __enter__(self) -> Directory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the descriptor go; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def subdirectory(self, name: str, *, create: bool) -> Directory | None:
        """A directory inside, mode 0700; None when it is not there and not to be made. Raises DestError."""
        with errors_of_dest(f"open {name} in DEST"):
            if create:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=self._fd)
                os.fsync(self._fd)  # also when it was there: the run that made it may have been killed before this
            try:
                return self._open_subdirectory(name)
            except FileNotFoundError:
                return None

    def _open_subdirectory(self, name: str) -> Directory:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        inside = Directory(self.path / name, os.open(name, flags, dir_fd=self._fd), self._trusted)
        try:
            self._require_trusted(name, os.fstat(inside._fd))
        except InTheWay:
            inside.close()
            raise
        return inside

    def find(self, name: str) -> os.stat_result | None:
        """The lstat of a name, or None when nothing is there. Raises DestError."""
        with errors_of_dest(f"look at {printable(name)}"):
            try:
                return os.stat(name, dir_fd=self._fd, follow_symlinks=False)
            except FileNotFoundError:
                return None

    def find_file(self, name: str) -> os.stat_result | None:
        """Like `find`; raises InTheWay when what is there is no regular file (a link, a directory, a device)."""
        found = self.find(name)
        if found and not stat.S_ISREG(found.st_mode):
            kind = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "no regular file"
            raise InTheWay(f"{printable(name)} in DEST is {kind}", archive=name)
        return found

    def open_file(self, name: str, flags: int, mode: int = 0o600) -> int:
        """A descriptor of a regular file inside; links are refused. Raises OSError: the caller is the border."""
        descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, mode, dir_fd=self._fd)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise OSError(errno.EEXIST, "it is no regular file")
        if flags & (os.O_WRONLY | os.O_RDWR) and status.st_nlink != 1:
            os.close(descriptor)
            raise OSError(errno.EEXIST, "it has another name elsewhere (a hard link), which would be written, too")
        return descriptor

    def read(self, name: str) -> bytes | None:
        """All of a small file, or None when it is not there. Raises DestError; InTheWay above `RECORD_LIMIT` bytes."""
        with errors_of_dest(f"read {printable(name)}"):
            try:
                descriptor = self.open_file(name, os.O_RDONLY)
            except FileNotFoundError:
                return None
            with os.fdopen(descriptor, "rb") as file:
                self._require_trusted(name, os.fstat(descriptor))
                raw = file.read(RECORD_LIMIT + 1)
        if len(raw) > RECORD_LIMIT:
            raise InTheWay(f"{printable(name)} is larger than the agent would write it")
        return raw

    def _require_trusted(self, name: str, status: os.stat_result) -> None:
        if status.st_mode & 0o022 or status.st_uid not in self._trusted:
            raise InTheWay(f"{printable(name)} in DEST can be written by others: what it says cannot be trusted")

    def write_atomically(self, name: str, data: bytes, *, durable: bool = True) -> None:
        """Replace a file as a whole: temporary file, fsync, rename, fsync of the directory. Raises DestError.

        With `durable` off the directory is not synced: after a power loss the file may be the one before, never half.
        """
        temporary = temporary_name(name)
        with errors_of_dest(f"write {name}"):
            self._remove_if_there(temporary)
            try:
                self._write_new(temporary, data)
                os.replace(temporary, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            except OSError:
                with suppress(OSError):
                    self._remove_if_there(temporary)
                raise
            if durable:
                os.fsync(self._fd)

    def _write_new(self, name: str, data: bytes) -> None:
        descriptor = self.open_file(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) or 0 :]
            os.fsync(file.fileno())

    def sync_file(self, name: str) -> None:
        """Make a file private and durable. Raises DestError; then what the kernel still shows of it proves nothing."""
        with errors_of_dest(f"sync {printable(name)}"):
            descriptor = self.open_file(name, os.O_RDONLY)
            try:
                with suppress(PermissionError):  # another user's file, which is proven all the same
                    os.fchmod(descriptor, 0o600)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def rename(self, source: str, target: str) -> None:
        """Rename inside and sync the directory. Raises DestError."""
        with errors_of_dest(f"rename {printable(source)} to {printable(target)}"):
            os.rename(source, target, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            os.fsync(self._fd)

    def sync(self) -> None:
        """Make the names in the directory durable. Raises DestError."""
        with errors_of_dest("sync DEST"):
            os.fsync(self._fd)

    def remove(self, name: str) -> None:
        """Remove a file if it is there. Raises DestError."""
        with errors_of_dest(f"remove {printable(name)}"):
            self._remove_if_there(name)

    def _remove_if_there(self, name: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._fd)

    def names(self) -> list[str]:
        """The names inside, sorted. Raises DestError."""
        with errors_of_dest("list DEST"):
            return sorted(os.listdir(self._fd))

    def free_bytes(self) -> int:
        """What a user without privileges may still write here. Raises DestError."""
        with errors_of_dest("ask for the free space of DEST"):
            status = os.fstatvfs(self._fd)
            return status.f_bavail * status.f_frsize

    def writable(self) -> bool:
        """Whether this process may make files here."""
        return os.access(".", os.W_OK | os.X_OK, dir_fd=self._fd) and not os.fstatvfs(self._fd).f_flag & os.ST_RDONLY


def temporary_name(name: str) -> str:
    """What `write_atomically` calls a file that is not whole yet."""
    return f".{name}.tmp"


def _make_durably(path: Path) -> None:
    """Make a directory (mode 0700) and its missing parents, the name of each synced. Raises OSError.

    The parent of one that is there already is synced, too, where that is allowed: the run that made it may have been
    killed before it could.
    """
    missing = [parent for parent in (path, *path.parents) if not os.path.lexists(parent)]
    for directory in reversed(missing):
        with suppress(FileExistsError):  # whatever it is, opening it as a directory tells
            os.mkdir(directory, 0o700 if directory == path else 0o777)
        _sync_directory(directory.parent)
    if not missing:
        with suppress(OSError):
            _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
