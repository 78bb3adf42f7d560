"""Blocking reader of an archive on disk, complete or still growing.

The transfer reports how many bytes it has written; the reader follows at its own pace with pread(2) on a descriptor
of its own, so it never delays the transfer. The size is always taken before the bytes are read, and the end is the
size that the transfer reported: the last bytes cannot be missed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress

from ...core.errors import CannotUnpack, NotUnpacked, UnpackCancelled
from ..errors import errors_of_unpacking

READ_SIZE = 1 << 19
"""Bytes per read, if nothing else is asked for."""
_DROP_EVERY = 8 << 20  # bytes between two hints to the page cache


class Restarted(Exception):
    """Raised in the reader: bytes that it has read were replaced, so reading must start again from the first byte."""


class Source:
    """Archive file that one thread reads while other threads report its state.

    `advance`, `restart`, `finish`, `reopen` and `cancel` are thread-safe and never block on I/O. The descriptor is
    duplicated: the caller may close its own, rename the file or replace it.
    """

    def __init__(self, descriptor: int, *, drop_read_pages: bool = False) -> None:
        self._fd = os.dup(descriptor)
        self._drop = drop_read_pages
        self._changed = threading.Condition()
        self._size = 0
        self._finished = False
        self._stop: NotUnpacked | None = None
        self._generation = 0  # counts restarts that replaced bytes already read
        self._read_generation = 0
        self._reader = 0  # counts starts; only the latest reader may read
        self._position = 0
        self._wanted = 0  # end of the bytes that are read, or are being read
        self._dropped = 0

    @classmethod
    def of_complete_file(cls, descriptor: int, *, drop_read_pages: bool = False) -> Source:
        """Return a source of all bytes that the file has now."""
        source = cls(descriptor, drop_read_pages=drop_read_pages)
        source.finish(os.fstat(descriptor).st_size)
        return source

    @property
    def position(self) -> int:
        """Bytes read so far since the last start; pages of the file after it are still needed."""
        return self._position

    @property
    def is_current(self) -> bool:
        """Whether the archive is finished and all of it, as it is now, has been read since the last start.

        False after a restart that came later: then what was unpacked must not be published.
        """
        with self._changed:
            return self._finished and self._position == self._size and not self._must_leave()

    # ---- reported by the transfer

    def advance(self, size: int) -> None:
        """Report that the file's first `size` bytes are written. A size below an earlier one is a truncation."""
        with self._changed:
            self._set_size(size)

    def restart(self, keep: int = 0, descriptor: int | None = None) -> None:
        """Report that the bytes after the first `keep` are void; with `descriptor`, that another file is the archive.

        Also revokes `finish`. With another file, reading starts again from its first byte.
        """
        with self._changed:
            self._finished = False
            if descriptor is not None:
                os.dup2(descriptor, self._fd, inheritable=False)
                self._generation += 1
            self._set_size(keep, truncated=True)

    def reopen(self) -> None:
        """Revoke `finish`: the archive turned out to be incomplete, and more bytes follow."""
        with self._changed:
            self._finished = False

    def finish(self, size: int) -> None:
        """Report that the archive is complete with exactly `size` bytes."""
        with self._changed:
            self._set_size(size)
            self._finished = True

    def cancel(self, error: NotUnpacked | None = None) -> None:
        """Stop the reader: it raises `error`, by default UnpackCancelled. The first cancellation counts."""
        with self._changed:
            self._stop = self._stop or error or UnpackCancelled("unpacking was cancelled")
            self._changed.notify_all()

    def _set_size(self, size: int, *, truncated: bool = False) -> None:
        if size < self._wanted and (truncated or size < self._size):
            self._generation += 1
        self._size = size
        self._changed.notify_all()

    # ---- used by the reader

    @property
    def cancelled(self) -> NotUnpacked | None:
        """Error of the cancellation, or None."""
        return self._stop

    def check(self, reader: int | None = None) -> None:
        """Raise if unpacking must stop (NotUnpacked) or start again, or another `reader` has started (Restarted)."""
        if self._stop:
            raise self._stop
        if self._generation != self._read_generation or reader not in (None, self._reader):
            raise Restarted

    def start(self) -> int:
        """Go to the first byte and return the key for `blocks`; an earlier reader stops with Restarted.

        Raises NotUnpacked if cancelled.
        """
        with self._changed:
            self._reader += 1
            self._read_generation = self._generation
            self._position = self._wanted = self._dropped = 0
            self._changed.notify_all()
            if self._stop:
                raise self._stop
            return self._reader

    def stop_reading(self) -> None:
        """Let the current reader stop with Restarted."""
        with self._changed:
            self._reader += 1
            self._changed.notify_all()

    def blocks(self, reader: int, size: int = READ_SIZE) -> Iterator[bytes]:
        """Yield the bytes, at most `size` together, up to the reported end; wait for those that are not written yet.

        Raises Restarted, the error of a cancellation, or CannotUnpack if the file cannot be read.
        """
        while block := self._next_block(reader, size):
            yield block

    def wait_until_settled(self) -> None:
        """Wait until the archive is finished, so that its bytes are final. Raises as `check` does."""
        with self._changed:
            self._changed.wait_for(lambda: self._finished or self._must_leave())
            self.check()

    def _must_leave(self) -> bool:
        return self._stop is not None or self._generation != self._read_generation

    def _next_block(self, reader: int, size: int) -> bytes:
        with self._changed:
            self._changed.wait_for(
                lambda: self._size > self._position or self._finished or self._must_leave() or reader != self._reader
            )
            self.check(reader)
            position = self._position
            self._wanted = max(position, min(position + size, self._size))
        if self._wanted == position:
            return b""
        with errors_of_unpacking("read the archive"):
            block = os.pread(self._fd, self._wanted - position, position)
        with self._changed:
            self.check(reader)  # bytes that were replaced while they were read are not used
            if not block:
                raise CannotUnpack(f"cannot read the archive: it ends before byte {self._size}")
            self._position += len(block)
        self._drop_pages()
        return block

    def _drop_pages(self) -> None:
        if self._drop and self._position - self._dropped >= _DROP_EVERY:
            with suppress(OSError):
                os.posix_fadvise(self._fd, self._dropped, self._position - self._dropped, os.POSIX_FADV_DONTNEED)
            self._dropped = self._position

    def close(self) -> None:
        """Close the descriptor; a second call does nothing."""
        with self._changed:
            descriptor, self._fd = self._fd, -1
        if descriptor >= 0:
            os.close(descriptor)
