"""The part file of an archive, and the files that are already in DEST: hashed, written, synced.

The hash and the write are two consumers of the blocks of a transfer, each in a thread of its own next to the one that
reads. All release the interpreter lock for nearly all of their time, so verification needs no second pass over the
file. The SHA1 of 1 GiB takes 0.66 s of a core (measured, with SHA instructions): free if a core is idle.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import os
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from threading import Barrier
from typing import Any, Protocol

from aiofiles.threadpool import wrap
from aiofiles.threadpool.binary import AsyncFileIO

from ..core.errors import DestError, Finding, InTheWay, ResourcesExhausted
from ..core.names import PART
from ..core.untrusted import printable
from .directory import Directory, errors_of_dest
from .structure import StructureCheck

BLOCK = 2 << 20
"""Bytes of an existing file that are read and hashed at once, large enough that the switch of threads costs nothing."""

_WRITE_BACK_EVERY = 32 << 20  # bytes; on ext4 a GiB then took 1.2 s where it took 1.55 to 2.0 when first told to sync
_THREADS = 3  # of a part file: hash, write, and a sync in the background


class Follower(Protocol):
    """A reader of the part file while it grows. Its methods may be called from any thread and return at once."""

    def opened(self, descriptor: int) -> None:
        """The part file is open; it may be another file than before."""

    def grew(self, size: int) -> None:
        """The first `size` bytes are written."""

    def truncated(self, size: int) -> None:
        """The bytes after the first `size` are void."""

    def position(self) -> int:
        """Return the bytes that are read; pages of the file after them are still needed."""

    def complete(self, size: int) -> None:
        """The file is complete with `size` bytes, as far as its transfer shows."""

    def make_room(self) -> bool:
        """Give back disk space that the reader uses, and return whether there was any. May take a while."""


class NoFollower:
    """The follower of a part file that only its transfer uses."""

    def opened(self, descriptor: int) -> None:
        """Do nothing."""

    def grew(self, size: int) -> None:
        """Do nothing."""

    def truncated(self, size: int) -> None:
        """Do nothing."""

    def complete(self, size: int) -> None:
        """Do nothing."""

    def position(self) -> int:
        """Return a position after any file."""
        return sys.maxsize

    def make_room(self) -> bool:
        """Have nothing to give back."""
        return False


Consumer = Callable[[Iterable[memoryview]], Coroutine[Any, Any, None]]
"""One user of the blocks of a transfer, in their order. It is done with a block when it asks for the next one."""


@dataclass(frozen=True)
class Digest:
    """SHA1 and size in bytes of a file when it was hashed, and its inode."""

    sha1: str
    size: int
    inode: int


class Hashed:
    """The hash of the first `size` bytes of a file, so that it can be continued later."""

    def __init__(self, inode: int) -> None:
        self.sha1 = hashlib.sha1(usedforsecurity=False)
        self.size = 0
        self.inode = inode

    def digest(self) -> Digest:
        """Return the digest of the bytes so far."""
        return Digest(self.sha1.hexdigest(), self.size, self.inode)


class Part:
    """`<archive>.part` while it is open. Its hash is of exactly the bytes that were written, in order.

    `sync_failed` is set once the kernel reported that bytes could not be made durable: then no byte of the file can be
    trusted, although later reads show them.
    """

    def __init__(self, name: str, file: AsyncFileIO, hashed: Hashed, pool: ThreadPoolExecutor, follower: Follower):
        self._file = file
        self._pool = pool
        self._follower = follower
        self.hashed = hashed
        self.name = name
        self.sync_failed = False

    @classmethod
    async def open(
        cls,
        directory: Directory,
        archive: str,
        *,
        ours: bool,
        hashed: Hashed | None = None,
        follower: Follower | None = None,
    ) -> Part:
        """Open the part file of an archive, or create it. Raises DestError.

        `ours` says that the journal knows of bytes that this job wrote; any other file of this name is replaced.
        `hashed` continues the hash of an earlier attempt; it is ignored if the file was changed since.
        """
        name, follower = archive + PART, follower or NoFollower()
        with errors_of_dest(f"open {printable(name)}"):
            pool = _started(_THREADS)
            try:
                file = _open_part(directory, name, pool, ours=ours, make_room=follower.make_room)
            except BaseException:
                pool.shutdown(wait=False)
                raise
        status = os.fstat(file.fileno())
        if hashed is None or (hashed.inode, hashed.size) != (status.st_ino, status.st_size):
            hashed = Hashed(status.st_ino)
        part = cls(name, file, hashed, pool, follower)
        follower.opened(file.fileno())
        follower.grew(hashed.size)
        if hashed.size:
            await file.seek(hashed.size)
        return part

    @property
    def size(self) -> int:
        """The bytes that are hashed and written."""
        return self.hashed.size

    def on_disk(self) -> int:
        """Return the size of the file now: also bytes of a block that is not counted yet. From any thread."""
        try:
            return os.fstat(self._file.fileno()).st_size
        except (OSError, ValueError):  # it was closed meanwhile
            return self.size

    @property
    def consumers(self) -> tuple[Consumer, ...]:
        """What takes the blocks of a transfer, in order: the hash, then the file."""
        return (self._hash_all, self._write_all)

    async def hash_existing(self, size: int, seen: Callable[[int], None]) -> None:
        """Hash the first `size` bytes of the file, and cut the rest off. Raises DestError."""
        block = memoryview(bytearray(BLOCK))
        if os.fstat(self._file.fileno()).st_size < size:
            raise InTheWay(f"{printable(self.name)} is shorter than it was", archive=self.name)
        await self.restart(keep=size)
        while self.size < size:
            with errors_of_dest(f"read {printable(self.name)}"):
                got = await self._file.readinto(block[: min(BLOCK, size - self.size)])
            if not got:
                raise InTheWay(f"{printable(self.name)} became shorter while it was read", archive=self.name)
            await asyncio.get_running_loop().run_in_executor(self._pool, self.hashed.sha1.update, block[:got])
            self.hashed.size += got
            seen(self.size)
            self._follower.grew(self.size)

    async def restart(self, keep: int = 0) -> None:
        """Start the hash again; cut the file to `keep` bytes and go to its start. Raises DestError."""
        self.hashed = Hashed(self.hashed.inode)
        self._follower.truncated(0)
        with errors_of_dest(f"truncate {printable(self.name)}"):
            await self._file.truncate(keep)
            await self._file.seek(0)

    async def _hash_all(self, blocks: Iterable[memoryview]) -> None:
        def update() -> None:
            for block in blocks:
                self.hashed.sha1.update(block)

        await asyncio.get_running_loop().run_in_executor(self._pool, update)

    async def _write_all(self, blocks: Iterable[memoryview]) -> None:
        """Write blocks. Raises DestError; then the file and its hash differ, and only a sync by size repairs that."""
        with errors_of_dest(f"write {printable(self.name)}"):
            await self._file.writelines(self._counted(blocks))

    def _counted(self, blocks: Iterable[memoryview]) -> Iterator[memoryview]:
        begun = self.size
        for block in blocks:
            yield block
            self.hashed.size += len(block)  # being asked for the next one means that this one is written
            self._follower.grew(self.size)
            if self.size >= begun + _WRITE_BACK_EVERY:
                _start_write_back(self._file.fileno(), begun, self.size - begun)
                begun = self.size

    async def flush(self) -> int:
        """Make what was written so far durable while more is written; return its size. Raises DestError."""
        size = self.size
        await self._synced(lambda: _write_back(self._file.fileno(), min(size, self._follower.position())))
        return size

    async def sync(self) -> Digest:
        """Make the bytes durable and return their digest. Raises DestError."""
        await self._synced(lambda: os.fsync(self._file.fileno()))
        status = os.fstat(self._file.fileno())
        if status.st_size != self.size:
            text = f"{printable(self.name)} was changed by another process while it was written"
            raise InTheWay(text, archive=self.name)
        return self.hashed.digest()

    async def _synced(self, sync: Callable[[], None]) -> None:
        try:
            with errors_of_dest(f"sync {printable(self.name)}"):
                await asyncio.get_running_loop().run_in_executor(self._pool, sync)
        except DestError:
            self.sync_failed = True
            raise

    def complete(self) -> None:
        """Let the follower know that no more bytes follow."""
        self._follower.complete(self.size)

    async def truncate_tail(self, size: int) -> None:
        """Cut off the last bytes to free space. Raises DestError; after it the part can only be closed."""
        with errors_of_dest(f"truncate {printable(self.name)}"):
            await self._file.truncate(max(0, self.size - size))

    async def close(self) -> None:
        """Close the file and end its threads; the bytes stay."""
        await self._file.close()
        self._pool.shutdown(wait=False)


def _started(threads: int) -> ThreadPoolExecutor:
    """Return a pool whose threads run already, so that none is missing later. Raises ResourcesExhausted."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="archive")
    barrier = Barrier(threads + 1)
    try:
        for _ in range(threads):
            pool.submit(barrier.wait)
    except RuntimeError as error:  # "can't start new thread"
        barrier.abort()
        pool.shutdown(wait=False)
        raise ResourcesExhausted(f"the host gives no thread for another archive: {error}", spent=False) from None
    barrier.wait()
    return pool


def _open_part(
    directory: Directory, name: str, pool: ThreadPoolExecutor, *, ours: bool, make_room: Callable[[], bool]
) -> AsyncFileIO:
    """Open the part file of this job, or create one exclusively. Raises OSError, DestError."""
    if found := directory.find_file(name):
        directory.require_own(name, found)
        if not ours:
            directory.remove(name)  # of another program or of a journal that is gone: nothing of it can be trusted
            found = None
    flags = os.O_RDWR if found else os.O_RDWR | os.O_CREAT | os.O_EXCL
    file = _opened(directory, name, flags, pool, make_room)
    directory.make_private(file.fileno())
    return file


def _write_back(descriptor: int, size: int) -> None:
    """Make the bytes of a file durable and drop the first `size` of them from the page cache."""
    os.fdatasync(descriptor)
    _start_write_back(descriptor, 0, size)


def _start_write_back(descriptor: int, offset: int, size: int) -> None:
    """Start to write a part of a file back, without waiting, and drop the pages that are already written.

    An error there is reported by the next sync. Python has no sync_file_range(2); this advice starts the same.
    """
    with suppress(OSError):
        os.posix_fadvise(descriptor, offset, size, os.POSIX_FADV_DONTNEED)


class _BlockFile(io.FileIO):
    """A file of which one `writelines` takes a whole transfer, in one call of aiofiles and one thread."""

    make_room: Callable[[], bool] = staticmethod(lambda: False)

    def writelines(self, lines: Iterable[Any], /) -> None:
        """Write every block as a whole; `write` alone may write less. On a full disk, ask for room once per block."""
        for block in lines:
            rest, asked = block, False
            while rest:
                try:
                    rest = rest[self.write(rest) or 0 :]
                except OSError as error:
                    if error.errno != errno.ENOSPC or asked or not self.make_room():
                        raise
                    asked = True


async def hash_file(directory: Directory, name: str, seen: Callable[[int], None] = lambda _: None) -> Hashed:
    """Hash a file in DEST; `seen` gets the bytes so far. Raises DestError."""
    hashed = Hashed(0)
    hashed.inode, hashed.size = await _read_through(directory, name, hashed.sha1.update, seen)
    return hashed


async def digest_of(directory: Directory, name: str, seen: Callable[[int], None] = lambda _: None) -> Digest:
    """Return the digest of a file in DEST; `seen` gets the bytes so far. Raises DestError."""
    return (await hash_file(directory, name, seen)).digest()


async def structure_of(directory: Directory, name: str) -> Finding:
    """Check a file's structure by reading all of it; as fast as one core inflates. Raises DestError."""
    check = StructureCheck()
    await _read_through(directory, name, check.feed, lambda _: None, enough=lambda: check.damaged)
    return check.finish()


async def _read_through(
    directory: Directory,
    name: str,
    consume: Callable[[memoryview], None],
    seen: Callable[[int], None],
    enough: Callable[[], bool] = lambda: False,
) -> tuple[int, int]:
    """Hand a file's bytes to `consume` in a thread, block by block; (inode, bytes read)."""
    block = memoryview(bytearray(BLOCK))
    size = 0
    with errors_of_dest(f"read {printable(name)}"):
        file = _opened(directory, name, os.O_RDONLY)
        try:
            while not enough() and (got := await file.readinto(block)):
                await asyncio.to_thread(consume, block[:got])
                size += got
                seen(size)
            return os.fstat(file.fileno()).st_ino, size
        finally:
            await asyncio.shield(file.close())


def _opened(
    directory: Directory,
    name: str,
    flags: int,
    executor: ThreadPoolExecutor | None = None,
    make_room: Callable[[], bool] = lambda: False,
) -> AsyncFileIO:
    """An unbuffered file in DEST, its reads and writes in threads.

    It is not opened by `aiofiles.open`, whose thread may still open the file after the caller was cancelled: that
    descriptor would leak.
    """
    descriptor = directory.open_file(name, flags)
    blocks = _BlockFile(descriptor, "r+b" if flags & os.O_RDWR else "rb")
    blocks.make_room = make_room
    file: AsyncFileIO = wrap(blocks, executor=executor)
    return file
