"""One directory held by its descriptor: the only way in which the agent touches DEST.

Every name is used relative to that descriptor and no symbolic link is ever followed, so that nothing outside of
DEST can be read or written, whoever else may write there. This is the border where OSError becomes ours, and the
seam at which tests record or break file operations.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from ..core.errors import DestError, InTheWay, NoSpace, ResourcesExhausted, Unwritable
from ..core.untrusted import printable

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EFBIG)

_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
_IN_THE_WAY = (errno.ELOOP, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY)

_RENAME_NOREPLACE = 1  # of renameat2(2), which the standard library does not have

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
    if error.errno in _EXHAUSTED:
        return ResourcesExhausted(message)
    if error.errno in _IN_THE_WAY:
        return InTheWay(message)
    return Unwritable(message)


def raw(name: str) -> bytes:
    """Return a name as it is on disk: UTF-8, whatever the locale."""
    return name.encode("utf-8", "surrogateescape")


class Directory:
    """A directory by descriptor. Use as a context manager, or `close()` it."""

    def __init__(self, path: Path, descriptor: int, trusted: frozenset[int] | None = None) -> None:
        self.path = path
        self.on_limitation: Callable[[str], None] = lambda _: None  # told once what the file system cannot do
        self._limitations: set[str] = set()
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
                    os.mkdir(raw(name), 0o700, dir_fd=self._fd)
                self._fsync()  # also when it was there: the run that made it may have been killed before this
            try:
                return self._open_subdirectory(name)
            except FileNotFoundError:
                return None

    def _open_subdirectory(self, name: str) -> Directory:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        inside = Directory(self.path / name, os.open(raw(name), flags, dir_fd=self._fd), self._trusted)
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
                return os.stat(raw(name), dir_fd=self._fd, follow_symlinks=False)
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
        descriptor = os.open(raw(name), flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, mode, dir_fd=self._fd)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise OSError(errno.EEXIST, "it is no regular file")
        if flags & (os.O_WRONLY | os.O_RDWR) and status.st_nlink != 1:
            os.close(descriptor)
            raise OSError(errno.EEXIST, "it has another name elsewhere (a hard link), which would be written, too")
        return descriptor

    def open_to_read(self, name: str) -> int:
        """Return a descriptor of a file inside for reading; links are refused. Raises DestError."""
        with errors_of_dest(f"open {printable(name)}"):
            return self.open_file(name, os.O_RDONLY)

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
        if status.st_uid not in self._trusted:
            text = f"{printable(name)} in DEST is owned by user {status.st_uid}, so restore-agent does not use it"
            hint = "Run as the user that owns DEST (on NFS with root_squash: not as root), or choose an empty --dest."
            raise InTheWay(text, archive=name, hint=hint)
        if status.st_mode & 0o022:
            text = f"{printable(name)} in DEST is writable by another user, so restore-agent does not use it"
            raise InTheWay(text, archive=name, hint="Remove the write permission of group and others, or move it away.")

    def require_own(self, name: str, status: os.stat_result) -> None:
        """Raise InTheWay unless a file that the agent is going to write belongs to its user and has one name only."""
        if status.st_uid != os.geteuid():
            text = (
                f"{printable(name)} in DEST is owned by user {status.st_uid}; restore-agent writes only its own files"
            )
            raise InTheWay(text, archive=name, spent=False)
        if status.st_nlink != 1:
            text = f"{printable(name)} has more than one hard link; writing would change the other file as well"
            raise InTheWay(text, archive=name, spent=False)

    def write_atomically(self, name: str, data: bytes, *, durable: bool = True) -> None:
        """Replace a file as a whole: temporary file, fsync, rename, fsync of the directory. Raises DestError.

        With `durable` off the directory is not synced: after a power loss the file may be the one before, never half.
        """
        temporary = temporary_name(name)
        with errors_of_dest(f"write {name}"):
            self._remove_if_there(temporary)
            try:
                self._write_new(temporary, data)
                os.replace(raw(temporary), raw(name), src_dir_fd=self._fd, dst_dir_fd=self._fd)
            except OSError:
                with suppress(OSError):
                    self._remove_if_there(temporary)
                raise
            if durable:
                self._fsync()

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
                self.make_private(descriptor)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def make_private(self, descriptor: int) -> None:
        """Set mode 0600, where the file system and the owner of the file allow it."""
        try:
            os.fchmod(descriptor, 0o600)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EACCES, *_UNSUPPORTED):
                raise
            self._limitation("the mode of files in DEST cannot be set to 0600")

    def rename(self, source: str, target: str) -> None:
        """Rename inside and sync the directory. Raises DestError."""
        with errors_of_dest(f"rename {printable(source)} to {printable(target)}"):
            os.rename(raw(source), raw(target), src_dir_fd=self._fd, dst_dir_fd=self._fd)
            self._fsync()

    def rename_new(self, source: str, target: str) -> None:
        """Rename inside to a name that is free, and sync the directory. Raises InTheWay otherwise, or DestError."""
        with errors_of_dest(f"rename {printable(source)} to {printable(target)}"):
            rename_noreplace(self._fd, raw(source), self._fd, raw(target))
            self._fsync()

    def sync(self) -> None:
        """Make the names in the directory durable. Raises DestError."""
        with errors_of_dest("sync DEST"):
            self._fsync()

    def _fsync(self) -> None:
        try:
            os.fsync(self._fd)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            self._limitation("the file system cannot sync directories: after a power loss, names may be missing")

    def _limitation(self, text: str) -> None:
        if text not in self._limitations:
            self._limitations.add(text)
            self.on_limitation(text)

    def remove(self, name: str) -> None:
        """Remove a file if it is there. Raises DestError."""
        with errors_of_dest(f"remove {printable(name)}"):
            self._remove_if_there(name)

    def _remove_if_there(self, name: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(raw(name), dir_fd=self._fd)

    def names(self) -> list[str]:
        """The names inside, sorted. Raises DestError."""
        with errors_of_dest("list DEST"):
            return sorted(os.fsencode(name).decode("utf-8", "surrogateescape") for name in os.listdir(self._fd))

    def device(self) -> int:
        """Return the device of the file system. Raises DestError."""
        with errors_of_dest("check DEST"):
            return os.fstat(self._fd).st_dev

    def free_bytes(self) -> int:
        """Return the bytes that a user without privileges may still write. Raises DestError, NoSpace without inodes.

        A file system that does not report its size (FUSE) counts as unlimited; a write that fails still raises.
        """
        with errors_of_dest("read the free space of DEST"):
            status = os.fstatvfs(self._fd)
        if status.f_files and not status.f_favail:
            raise NoSpace("DEST's file system has no free inodes", spent=False)
        return status.f_bavail * status.f_frsize if status.f_blocks else sys.maxsize

    def ignores_case(self) -> bool:
        """Return whether names that differ only in case are the same file here, as far as a known name shows it."""
        for name in (".restore-agent", "receipt.json", "SHA1SUMS"):
            found, other = self.find(name), self.find(name.swapcase())
            if found and other:
                return found.st_ino == other.st_ino
        return False

    def writable(self) -> bool:
        """Whether this process may make files here."""
        return os.access(".", os.W_OK | os.X_OK, dir_fd=self._fd) and not os.fstatvfs(self._fd).f_flag & os.ST_RDONLY


def nearest(path: Path) -> Path:
    """Return the path itself if it is a directory, or the nearest directory above it."""
    while not path.is_dir():
        path = path.parent
    return path


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


def rename_noreplace(source_fd: int, source: bytes, target_fd: int, target: bytes) -> None:
    """Rename a file or directory only if the new name is free, atomically where the system can. Raises OSError."""
    rename = getattr(_libc(), "renameat2", None)
    if rename is not None:
        if rename(source_fd, source, target_fd, target, _RENAME_NOREPLACE) == 0:
            return
        number = ctypes.get_errno()
        if number not in _UNSUPPORTED:
            raise OSError(number, os.strerror(number))
    with suppress(FileNotFoundError):  # a file system without the flag, such as NFS: look, then rename
        os.stat(target, dir_fd=target_fd, follow_symlinks=False)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    os.rename(source, target, src_dir_fd=source_fd, dst_dir_fd=target_fd)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
