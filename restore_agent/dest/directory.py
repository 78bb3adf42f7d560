"""One directory held by its descriptor: the only way in which the agent touches DEST.

Every name is used relative to that descriptor and no symbolic link is ever followed, so that nothing outside of
DEST can be read or written, even if other users may write there. This is the border where OSError becomes ours, and
the seam at which tests record or break file operations.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from ..core.errors import DestError, InTheWay, NoSpace, ResourcesExhausted, Unwritable
from ..core.names import raw
from ..core.untrusted import printable
from . import system

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EFBIG)
_IN_THE_WAY = (errno.ELOOP, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY)

RECORD_LIMIT = 16 << 20
"""Bytes that a receipt, journal, or status file may have."""


@contextmanager
def errors_of_dest(doing: str) -> Iterator[None]:
    """Turn an OSError inside the block into a DestError. `doing` is what failed, as a phrase."""
    try:
        yield
    except OSError as error:
        raise dest_error(error, doing) from error


def dest_error(error: OSError, doing: str) -> DestError:
    """Return the DestError for an OSError."""
    message = f"cannot {doing}: {error.strerror or error}"
    if error.errno in _NO_SPACE:
        return NoSpace(message)
    if error.errno in _EXHAUSTED:
        return ResourcesExhausted(message)
    if error.errno in _IN_THE_WAY:
        return InTheWay(message)
    return Unwritable(message)


class Directory(AbstractContextManager["Directory"]):
    """A directory by descriptor. Use as a context manager, or `close()` it.

    `on_limitation` is called once for each thing that the file system cannot do.
    """

    def __init__(self, path: Path, descriptor: int, trusted: frozenset[int] | None = None) -> None:
        self.path = path
        self.on_limitation: Callable[[str], None] = lambda _: None
        self._limitations: set[str] = set()
        self._fd = descriptor
        # users whose records are used: ours, root, and the owner of DEST, who could replace them anyway
        self._trusted = trusted or frozenset({os.geteuid(), 0, os.fstat(descriptor).st_uid})

    @classmethod
    def open(cls, path: Path, *, create: bool) -> Directory:
        """Open `path`; `create` makes it (mode 0700) and its parents if they are missing. Raises DestError."""
        with errors_of_dest(f"open DEST {printable(str(path))}"):
            if create:
                system.make_durably(path)
            if os.path.islink(path) and not os.path.exists(path):
                raise FileExistsError(errno.EEXIST, "it is a link to nowhere")
            return cls(path, os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptor; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def subdirectory(self, name: str, *, create: bool) -> Directory | None:
        """Return a directory inside; `create` makes it (mode 0700), else a missing one is None. Raises DestError."""
        with errors_of_dest(f"open {name} in DEST"):
            if create:
                with suppress(FileExistsError):
                    os.mkdir(raw(name), 0o700, dir_fd=self._fd)
                self.sync()  # also if it exists: the run that made it may have been killed before this
            try:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                descriptor = os.open(raw(name), flags, dir_fd=self._fd)
            except FileNotFoundError:
                return None
            inside = Directory(self.path / name, descriptor, self._trusted)
            try:
                _require_trusted(name, os.fstat(descriptor), self._trusted)
            except InTheWay:
                inside.close()
                raise
            return inside

    def find(self, name: str) -> os.stat_result | None:
        """Return the lstat of a name, or None if it is free. Raises DestError."""
        with errors_of_dest(f"inspect {printable(name)}"):
            try:
                return os.stat(raw(name), dir_fd=self._fd, follow_symlinks=False)
            except FileNotFoundError:
                return None

    def find_file(self, name: str) -> os.stat_result | None:
        """Like `find`; raises InTheWay if the name is not that of a regular file (a link, a directory, a device)."""
        found = self.find(name)
        if found and not stat.S_ISREG(found.st_mode):
            kind = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "not a regular file"
            raise InTheWay(f"{printable(name)} in DEST is {kind}", archive=name)
        return found

    def open_file(self, name: str, flags: int, mode: int = 0o600) -> int:
        """Return a descriptor of a regular file inside; links are refused. Raises OSError: the caller is the border."""
        descriptor = os.open(raw(name), flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, mode, dir_fd=self._fd)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise OSError(errno.EEXIST, "it is not a regular file")
        if flags & (os.O_WRONLY | os.O_RDWR) and status.st_nlink != 1:
            os.close(descriptor)
            raise OSError(errno.EEXIST, "it has more than one hard link; writing would change the other file as well")
        return descriptor

    def read(self, name: str) -> bytes | None:
        """Return a small file, or None if it is missing. Raises DestError; InTheWay above `RECORD_LIMIT` bytes."""
        with errors_of_dest(f"read {printable(name)}"):
            try:
                descriptor = self.open_file(name, os.O_RDONLY)
            except FileNotFoundError:
                return None
            with os.fdopen(descriptor, "rb") as file:
                _require_trusted(name, os.fstat(descriptor), self._trusted)
                data = file.read(RECORD_LIMIT + 1)
        if len(data) > RECORD_LIMIT:
            raise InTheWay(f"{printable(name)} is larger than {RECORD_LIMIT} bytes", archive=name)
        return data

    def require_own(self, name: str, status: os.stat_result) -> None:
        """Raise InTheWay unless a file that the agent will write belongs to its user and has one name only."""
        if status.st_uid != os.geteuid():
            owner = f"owned by user {status.st_uid}"
            text = f"{printable(name)} in DEST is {owner}; restore-agent writes only its own files"
            raise InTheWay(text, archive=name, spent=False)
        if status.st_nlink != 1:
            text = f"{printable(name)} has more than one hard link; writing would change the other file as well"
            raise InTheWay(text, archive=name, spent=False)

    def write_atomically(self, name: str, data: bytes, *, durable: bool = True) -> None:
        """Replace a file as a whole: temporary file, fsync, rename, fsync of the directory. Raises DestError.

        Without `durable` the directory is not synced: a power loss may bring the earlier file back, never half of one.
        """
        temporary = temporary_name(name)
        with errors_of_dest(f"write {name}"):
            self.remove(temporary)
            try:
                _write(self.open_file(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL), data)
                os.replace(raw(temporary), raw(name), src_dir_fd=self._fd, dst_dir_fd=self._fd)
            except OSError:
                with suppress(DestError):
                    self.remove(temporary)
                raise
            if durable:
                self.sync()

    def sync_file(self, name: str) -> None:
        """Make a file private and durable. Raises DestError; then no byte of it that is read later can be trusted."""
        with errors_of_dest(f"sync {printable(name)}"):
            descriptor = self.open_file(name, os.O_RDONLY)
            try:
                self.make_private(descriptor)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def make_private(self, descriptor: int) -> None:
        """Set mode 0600, if the file system and the owner of the file allow it. Raises OSError."""
        if not system.make_private(descriptor):
            _report_limitation(self, "the mode of files in DEST cannot be set to 0600")

    def rename(self, source: str, target: str, *, replace: bool = True) -> None:
        """Rename inside and sync the directory. Raises DestError, without `replace` InTheWay if `target` exists."""
        with errors_of_dest(f"rename {printable(source)} to {printable(target)}"):
            if replace:
                os.rename(raw(source), raw(target), src_dir_fd=self._fd, dst_dir_fd=self._fd)
            else:
                system.rename_noreplace(self._fd, raw(source), self._fd, raw(target))
            self.sync()

    def sync(self) -> None:
        """Make the names in the directory durable, if its file system can. Raises DestError."""
        with errors_of_dest("sync DEST"):
            if not system.sync_names(self._fd):
                text = "the file system cannot sync directories: after a power loss, names may be missing"
                _report_limitation(self, text)

    def remove(self, name: str) -> None:
        """Remove a file if it is there. Raises DestError."""
        with errors_of_dest(f"remove {printable(name)}"), suppress(FileNotFoundError):
            os.unlink(raw(name), dir_fd=self._fd)

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
        """Return whether this process may create files here."""
        return os.access(".", os.W_OK | os.X_OK, dir_fd=self._fd) and not os.fstatvfs(self._fd).f_flag & os.ST_RDONLY


def is_own(status: os.stat_result | None) -> bool:
    """Return whether there is a file, of the user of this process: another user could still change the others."""
    return status is not None and status.st_uid == os.geteuid()


def nearest(path: Path) -> Path:
    """Return the path itself if it is a directory, or the nearest directory above it."""
    while not path.is_dir():
        path = path.parent
    return path


def temporary_name(name: str) -> str:
    """Return the name that `write_atomically` gives a file until it is complete."""
    return f".{name}.tmp"


def _require_trusted(name: str, status: os.stat_result, trusted: frozenset[int]) -> None:
    """Raise InTheWay for a record that another user owns or may write."""
    if status.st_uid not in trusted:
        text = f"{printable(name)} in DEST is owned by user {status.st_uid}, so restore-agent does not use it"
        hint = "Run as the user that owns DEST (on NFS with root_squash: not as root), or choose an empty --dest."
        raise InTheWay(text, archive=name, hint=hint)
    if status.st_mode & 0o022:
        text = f"{printable(name)} in DEST is writable by another user, so restore-agent does not use it"
        raise InTheWay(text, archive=name, hint="Remove the write permission of group and others, or move it away.")


def _write(descriptor: int, data: bytes) -> None:
    """Write, sync, and close a new file. Raises OSError."""
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) or 0 :]
        os.fsync(file.fileno())


def _report_limitation(directory: Directory, text: str) -> None:
    if text not in directory._limitations:
        directory._limitations.add(text)
        directory.on_limitation(text)
