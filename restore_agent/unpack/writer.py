"""Files and directories of a data path, written relative to the descriptor of its root.

Every name is opened without following links, and files are created with O_EXCL, so nothing outside the root can be
written. Directories keep the owner of the process until all is written; only then do they get theirs.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from ..core.errors import CannotUnpack, NoSpaceToUnpack, UnsafeArchive
from .errors import errors_of_unpacking, shown
from .pipeline import Syncer
from .reading.members import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITE_BACK_EVERY = 32 << 20  # bytes after which the kernel is asked to begin writing them back
_BLOCK = 4096  # bytes that a file or directory needs at least
_DIRECTORIES_LIMIT = 8 << 20  # bytes; about what the paths and times of all directories may take in memory
_PER_DIRECTORY = 128  # bytes of overhead of one
_TIME_LIMIT = (1 << 62) * 10**9  # nanoseconds; the file system limits it further


@dataclass(frozen=True, slots=True)
class Owner:
    """Numeric owner of what is unpacked; -1 leaves one as it is."""

    uid: int = -1
    gid: int = -1

    def apply(self, descriptor: int) -> None:
        """Change the owner of an open file or directory. Raises OSError."""
        if (self.uid, self.gid) != (-1, -1):
            os.fchown(descriptor, self.uid, self.gid)


class SpaceGuard:
    """Free space that unpacking may use: what is free, without a reserve that the caller computes at each check."""

    MINIMUM = 4 << 20
    """Bytes that stay free in any case, for metadata of the file system."""
    STEP = 1 << 20
    """Bytes between two checks."""

    def __init__(self, descriptor: int, reserve: Callable[[], int]) -> None:
        self._fd = descriptor
        self._reserve = reserve
        self._allowance = 0

    def take(self, size: int) -> None:
        """Use `size` bytes. Raises NoSpaceToUnpack if they are not free, or are reserved."""
        self._allowance -= size
        if self._allowance >= 0:
            return
        with errors_of_unpacking("read the free space"):
            status = os.fstatvfs(self._fd)
        free, reserved = status.f_bavail * status.f_frsize, self._reserve() + self.MINIMUM
        if free - reserved < size:
            text = f"{size} bytes more are needed, but only {free} bytes are free in the file system of the data path"
            raise NoSpaceToUnpack(f"{text}, of which {reserved} bytes must stay free")
        self._allowance = min(free - reserved - size, self.STEP)


class Tree:
    """Content of a data path while it is written. `files` and `bytes` count files and links, and their sizes."""

    def __init__(
        self, root: int, owner: Owner, space: SpaceGuard, syncer: Syncer, check: Callable[[], None] = lambda: None
    ) -> None:
        self._root = root
        self._owner = owner
        self._space = space
        self._syncer = syncer
        self._check = check
        self._times: dict[bytes, int | None] = {b"": None}  # of each directory: path below the root, nanoseconds
        self._memory = 0
        self._parent: tuple[Path, int] | None = None  # the directory of the last member stays open
        self.files = 0
        self.bytes = 0

    # ---- members

    def directory(self, path: Path, mtime_ns: int) -> None:
        """Make a directory, or take one that is there. Raises NotUnpacked."""
        if path and b"/".join(path) not in self._times:
            parent = self._open_parent(path[:-1])
            with errors_of_unpacking("create", path):
                self._make_directory(parent, path, replace=True)
        self._times[b"/".join(path)] = mtime_ns

    def file(self, path: Path, size: int, mtime_ns: int, data: Iterable[tuple[int, memoryview]]) -> None:
        """Write a file: `data` is (offset, bytes); what is not in it stays a hole. Raises NotUnpacked."""
        parent = self._open_parent(path[:-1])
        self._space.take(_BLOCK)
        with errors_of_unpacking("create", path):
            descriptor = self._create(parent, path)
        try:
            self._write(descriptor, path, data)
            with errors_of_unpacking("write", path):
                os.ftruncate(descriptor, size)
                self._settle(descriptor, 0o600, mtime_ns)
        except BaseException:
            os.close(descriptor)
            raise
        self._syncer.add(descriptor)
        self.files += 1
        self.bytes += size

    def link(self, path: Path, target: Path | None) -> None:
        """Make a hard link to a file that came before. Raises NotUnpacked."""
        with errors_of_unpacking("create", path):
            source = self._open_existing(target[:-1]) if target else None
            if not target or source is None:
                raise UnsafeArchive(f"{_text(path)} is a link to a name that is not an earlier file")
            try:
                self._link(source, path, target)
            finally:
                os.close(source)

    def nest(self, top: bytes) -> None:
        """Move all that is written into a new directory `top` of the root. Raises NotUnpacked."""
        self._forget_parent()
        name = next(name for name in (b".top%d" % n for n in range(1 << 30)) if not _find(self._root, name))
        with errors_of_unpacking("create", top):
            children = [os.fsencode(child) for child in os.listdir(self._root)]
            os.mkdir(name, 0o700, dir_fd=self._root)
            inside = os.open(name, _DIRECTORY, dir_fd=self._root)
            try:
                for child in children:
                    os.rename(child, child, src_dir_fd=self._root, dst_dir_fd=inside)
            finally:
                os.close(inside)
            os.rename(name, top, src_dir_fd=self._root, dst_dir_fd=self._root)
        self._times = {top + b"/" * bool(path) + path: time for path, time in self._times.items()} | {b"": None}

    # ---- the end

    def finish(self) -> None:
        """Make all durable: files, then directories with their owner and time, the root last. Raises NotUnpacked."""
        self._forget_parent()
        self._syncer.finish()
        for path in sorted(self._times, key=_depth, reverse=True):
            self._check()
            with errors_of_unpacking("sync", path):
                descriptor = self._open_existing(tuple(path.split(b"/")) if path else ())
                if descriptor is None:
                    raise CannotUnpack(f"{shown(path)} has disappeared")
                try:
                    self._settle(descriptor, 0o700, self._times[path])
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)

    def close(self, wait: float = 0.0) -> None:
        """Close what is open, and wait so many seconds for syncs in progress. The content stays."""
        self._forget_parent()
        self._syncer.abort()
        self._syncer.wait_until_closed(wait)

    # ---- files

    def _create(self, parent: int, path: Path) -> int:
        try:
            return os.open(path[-1], _NEW_FILE, 0o600, dir_fd=parent)
        except FileExistsError:
            self._remove_earlier(parent, path)
            return os.open(path[-1], _NEW_FILE, 0o600, dir_fd=parent)

    def _write(self, descriptor: int, path: Path, data: Iterable[tuple[int, memoryview]]) -> None:
        written = begun = 0
        for offset, piece in data:  # errors of reading the archive pass unchanged
            self._check()
            self._space.take(len(piece))
            with errors_of_unpacking("write", path):
                _write_all(descriptor, piece, offset)
            written += len(piece)
            if written - begun >= _WRITE_BACK_EVERY:
                begun = written
                _begin_write_back(descriptor)

    def _settle(self, descriptor: int, mode: int, mtime_ns: int | None) -> None:
        os.fchmod(descriptor, mode)  # whatever the umask
        self._owner.apply(descriptor)
        if mtime_ns is not None:
            mtime_ns = max(-_TIME_LIMIT, min(mtime_ns, _TIME_LIMIT))
            os.utime(descriptor, ns=(mtime_ns, mtime_ns))

    def _link(self, source: int, path: Path, target: Path) -> None:
        status = _find(source, target[-1])
        if status is None or not stat.S_ISREG(status.st_mode):
            raise UnsafeArchive(f"{_text(path)} is a link to {_text(target)}, which is not an earlier file")
        parent = self._open_parent(path[:-1])
        earlier = _find(parent, path[-1])
        if earlier is not None and (earlier.st_dev, earlier.st_ino) == (status.st_dev, status.st_ino):
            return
        if earlier is not None:
            self._remove_earlier(parent, path)
        os.link(target[-1], path[-1], src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        self.files += 1
        self.bytes += status.st_size

    def _remove_earlier(self, parent: int, path: Path) -> None:
        """Remove the earlier member of this name: the last one counts. Raises OSError or NotUnpacked."""
        name = path[-1]
        _require_same_case(parent, name)
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(name, dir_fd=parent)
            self.files -= 1
            self.bytes -= status.st_size
            return
        try:
            os.rmdir(name, dir_fd=parent)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            raise UnsafeArchive(f"{_text(path)} is a file, but was a directory with content before") from error
        self._times.pop(b"/".join(path), None)

    # ---- directories

    def _open_parent(self, path: Path) -> int:
        """Return a descriptor, which stays open until the next call, of a directory; it is made if it is missing."""
        if self._parent is not None and self._parent[0] == path:
            return self._parent[1]
        descriptor = self._step_into(path)
        self._forget_parent()
        self._parent = (path, descriptor)
        return descriptor

    def _step_into(self, path: Path) -> int:
        known = self._known_part(path)
        with errors_of_unpacking("open", path):
            descriptor = self._open_existing(path[:known])
            if descriptor is None:
                raise CannotUnpack(f"{_text(path)} has disappeared")
            try:
                for depth in range(known + 1, len(path) + 1):
                    self._make_directory(descriptor, path[:depth], replace=False)
                    inside = os.open(path[depth - 1], _DIRECTORY, dir_fd=descriptor)
                    os.close(descriptor)
                    descriptor = inside
            except BaseException:
                os.close(descriptor)
                raise
        return descriptor

    def _known_part(self, path: Path) -> int:
        """Return how many components of a path are a directory that was made."""
        known = len(path)
        while b"/".join(path[:known]) not in self._times:
            known -= 1
        return known

    def _make_directory(self, parent: int, path: Path, *, replace: bool) -> None:
        self._space.take(_BLOCK)
        try:
            os.mkdir(path[-1], 0o700, dir_fd=parent)
        except FileExistsError:
            status = os.stat(path[-1], dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):  # every directory that was made is known by its exact name
                raise _ignores_case(path[-1]) from None
            if not replace:
                raise UnsafeArchive(f"{_text(path)} is a file, and another name leads through it") from None
            self._remove_earlier(parent, path)
            os.mkdir(path[-1], 0o700, dir_fd=parent)
        self._remember(b"/".join(path))

    def _remember(self, path: bytes) -> None:
        self._times[path] = None
        self._memory += len(path) + _PER_DIRECTORY
        if self._memory > _DIRECTORIES_LIMIT:
            raise CannotUnpack(f"the archive contains more than {len(self._times) - 1} directories")

    def _open_existing(self, path: Path) -> int | None:
        """Return a new descriptor of a directory that was made, or None. Raises OSError."""
        descriptor = os.dup(self._root)
        for name in path:
            try:
                inside = os.open(name, _DIRECTORY, dir_fd=descriptor)
            except (FileNotFoundError, NotADirectoryError):
                return None
            finally:
                os.close(descriptor)
            descriptor = inside
        return descriptor

    def _forget_parent(self) -> None:
        if self._parent is not None:
            os.close(self._parent[1])
            self._parent = None


def _find(parent: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _require_same_case(parent: int, name: bytes) -> None:
    """Raise CannotUnpack if the file that `name` finds has another name, in which only the case differs."""
    other = name.swapcase()
    found, same = _find(parent, name), _find(parent, other) if other != name else None
    if not found or not same or found.st_ino != same.st_ino:
        return
    if name not in map(os.fsencode, os.listdir(parent)):
        raise _ignores_case(name)


def _ignores_case(name: bytes) -> CannotUnpack:
    return CannotUnpack(
        f"{shown(name)}: the archive has two names that differ in case only, as this file system sees it"
    )


def _write_all(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(descriptor, data, offset)
        data, offset = data[count:], offset + count


def _begin_write_back(descriptor: int) -> None:
    """Ask the kernel to begin writing a file back, without waiting. Failures are reported by the next sync.

    Python has no sync_file_range(2); this advice begins the same.
    """
    with suppress(OSError):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def _depth(path: bytes) -> int:
    return path.count(b"/") + bool(path)


def _text(path: Path) -> str:
    return shown(b"/".join(path))
