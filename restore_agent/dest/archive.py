"""A file coming to be: named safely, hashed and written block by block, synced, published or quarantined.

The one user of aiofiles. Hash and write run in threads of their own beside the one that reads; all three release the
interpreter lock for nearly all of their time, so verification costs no second pass over the file. The SHA1 of 1 GiB is
0.66 s of a core (measured, with SHA instructions): free where a core is idle, and only there.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from aiofiles.threadpool import wrap
from aiofiles.threadpool.binary import AsyncFileIO

from ..core.errors import InTheWay
from ..core.names import PART
from ..core.untrusted import printable
from ..restore.job.pipeline import Pipeline
from .directory import Directory, errors_of_dest
from .structure import Finding, StructureCheck

BLOCK = 2 << 20

"""Bytes of a file that is there which are read and hashed at once: large enough that a thread hop costs nothing."""

_WRITE_BACK_EVERY = 32 << 20  # bytes; on ext4 a GiB then took 1.2 s where it took 1.55 to 2.0 when first told to sync


@dataclass(frozen=True)
class Digest:
    """What a file's bytes were when they were hashed, and which file that was."""

    sha1: str
    size: int
    inode: int


class Part:
    """`<archive>.part` while it grows. SHA1 is of exactly the bytes that were written, in order."""

    def __init__(self, directory: Directory, name: str, file: AsyncFileIO, threads: ThreadPoolExecutor) -> None:
        self._directory = directory
        self._file = file
        self._threads = threads
        self._sha1 = hashlib.sha1(usedforsecurity=False)
        self.name = name
        self.size = 0

    @classmethod
    async def open(cls, directory: Directory, archive: str) -> Part:
        """Open or create the part file, positioned at its start, nothing hashed yet. Raises DestError."""
        name = archive + PART
        directory.find_file(name)
        threads = ThreadPoolExecutor(2, thread_name_prefix="archive")
        with errors_of_dest(f"open {printable(name)}"):
            file = _opened(directory, name, os.O_RDWR | os.O_CREAT, threads)
            os.fchmod(file.fileno(), 0o600)
        return cls(directory, name, file, threads)

    async def take_over(self, size: int, seen: Callable[[int], None]) -> None:
        """Hash the first `size` bytes that are already there, so that the next block follows them. Raises DestError."""
        block = memoryview(bytearray(BLOCK))
        if os.fstat(self._file.fileno()).st_size < size:
            raise InTheWay(f"{printable(self.name)} is shorter than it was", archive=self.name)
        await self.restart(keep=size)
        while self.size < size:
            with errors_of_dest(f"read {printable(self.name)}"):
                got = await self._file.readinto(block[: min(BLOCK, size - self.size)])
            if not got:
                raise InTheWay(f"{printable(self.name)} shrank while it was read", archive=self.name)
            await self._hash(block[:got])
            self.size += got
            seen(self.size)

    async def restart(self, keep: int = 0) -> None:
        """Forget what was hashed; cut the file to `keep` bytes and go to its start. Raises DestError."""
        self._sha1 = hashlib.sha1(usedforsecurity=False)
        self.size = 0
        with errors_of_dest(f"truncate {printable(self.name)}"):
            await self._file.truncate(keep)
            await self._file.seek(0)

    async def pour(self, pipeline: Pipeline) -> None:
        """Hash and write a flow's blocks until it ends. Raises DestError; then the file's tail is not to be trusted.

        Never cancel it, end the flow: its threads work until then, and hash and file stay in step.
        """
        hashing = asyncio.get_running_loop().run_in_executor(self._threads, self._hash_all, pipeline)
        try:
            with errors_of_dest(f"write {printable(self.name)}"):
                await self._file.writelines(self._landing(pipeline))
        finally:
            pipeline.break_off()  # after a failed write; else it is over already
            await hashing

    def _hash_all(self, pipeline: Pipeline) -> None:
        for block in pipeline.stage(0):
            self._sha1.update(block)

    def _landing(self, pipeline: Pipeline) -> Iterator[memoryview]:
        begun = self.size
        for block in pipeline.stage(1):
            yield block
            self.size += len(block)  # being asked for the next one means that this one is written
            if self.size >= begun + _WRITE_BACK_EVERY:
                _let_go(self._file.fileno(), begun, self.size - begun)
                begun = self.size

    async def _hash(self, block: memoryview) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, self._sha1.update, block)

    async def flush(self) -> int:
        """Make what was written so far durable while more is written; how much that is. Raises DestError."""
        size = self.size
        with errors_of_dest(f"sync {printable(self.name)}"):
            await asyncio.to_thread(_write_back, self._file.fileno(), size)
        return size

    async def sync(self) -> Digest:
        """Make the bytes durable and say what they are. Raises DestError."""
        with errors_of_dest(f"sync {printable(self.name)}"):
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._threads, os.fsync, self._file.fileno())
            status = os.fstat(self._file.fileno())
        if status.st_size != self.size:
            raise InTheWay(
                f"{printable(self.name)} was changed by somebody else while it was written", archive=self.name
            )
        return Digest(self._sha1.hexdigest(), self.size, status.st_ino)

    async def give_back(self, size: int) -> None:
        """Cut off the last bytes, so that others have room. Raises DestError; after it the part can only be closed."""
        with errors_of_dest(f"truncate {printable(self.name)}"):
            await self._file.truncate(max(0, self.size - size))

    async def close(self) -> None:
        """Close the file and end its threads; bytes stay as they are."""
        await self._file.close()
        self._threads.shutdown(wait=False)


def _write_back(descriptor: int, size: int) -> None:
    """Make a file's bytes durable and let the page cache forget the first `size`: it has better use for its room."""
    os.fdatasync(descriptor)
    _let_go(descriptor, 0, size)


def _let_go(descriptor: int, offset: int, size: int) -> None:
    """Have the kernel begin to write a part of a file back, without waiting, and forget what of it is written.

    What goes wrong there is told by the next sync. Python has no sync_file_range(2); this advice begins the same.
    """
    with suppress(OSError):
        os.posix_fadvise(descriptor, offset, size, os.POSIX_FADV_DONTNEED)


class _BlockFile(io.FileIO):
    """A file of which one `writelines` takes a whole transfer, in one call of aiofiles and one thread."""

    def writelines(self, lines: Iterable[Any], /) -> None:
        """Write every block as a whole; `write` alone may stop short."""
        for block in lines:
            rest = block
            while rest:
                rest = rest[self.write(rest) or 0 :]


async def digest_of(directory: Directory, name: str, seen: Callable[[int], None] = lambda _: None) -> Digest:
    """Hash a file in DEST; `seen` is told the bytes so far. Raises DestError."""
    sha1 = hashlib.sha1(usedforsecurity=False)
    inode, size = await _read_through(directory, name, sha1.update, seen)
    return Digest(sha1.hexdigest(), size, inode)


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


def _opened(directory: Directory, name: str, flags: int, executor: ThreadPoolExecutor | None = None) -> AsyncFileIO:
    """An unbuffered file in DEST, its reads and writes in threads.

    Opened here and not by `aiofiles.open`, whose thread may open a file after its caller was cancelled, for nobody.
    """
    descriptor = directory.open_file(name, flags)
    file: AsyncFileIO = wrap(_BlockFile(descriptor, "r+b" if flags & os.O_RDWR else "rb"), executor=executor)
    return file
