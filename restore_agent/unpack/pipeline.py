"""Threads of one archive: a bounded queue between two of them, and the threads that sync closed files."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from .errors import unpack_error

_Item = TypeVar("_Item")
_CHECK_EVERY = 0.25  # seconds; cancelling takes at most this long


class QueueClosed(Exception):
    """Raised in the thread that puts: the other side needs no more items."""


class Queue(Generic[_Item]):
    """Bounded queue. Waiting on either side calls `check` four times a second, which raises to end the wait."""

    def __init__(self, capacity: int, check: Callable[[], None]) -> None:
        self._capacity = capacity
        self._check = check
        self._items: deque[_Item] = deque()
        self._changed = threading.Condition()
        self._end: BaseException | None = None
        self._closed = False

    def put(self, item: _Item) -> None:
        """Add an item, after waiting for space. Raises QueueClosed, and what `check` raises."""
        with self._changed:
            while len(self._items) >= self._capacity and not self._closed:
                self._changed.wait(_CHECK_EVERY)
                self._check()
            if self._closed:
                raise QueueClosed
            self._items.append(item)
            self._changed.notify()

    def end(self, error: BaseException | None = None) -> None:
        """Let the reader stop, or raise `error`, after the last item."""
        with self._changed:
            self._end = error or StopIteration()
            self._changed.notify_all()

    def close(self) -> list[_Item]:
        """Refuse further items; return those that were not taken."""
        with self._changed:
            self._closed = True
            left = list(self._items)
            self._items.clear()
            self._changed.notify_all()
        return left

    def __iter__(self) -> Iterator[_Item]:
        """Yield items until the end. Raises the error given to `end`, and what `check` raises."""
        while True:
            with self._changed:
                while not self._items and self._end is None and not self._closed:
                    self._changed.wait(_CHECK_EVERY)
                    self._check()
                if not self._items:
                    if self._end is None or isinstance(self._end, StopIteration):
                        return
                    raise self._end
                item = self._items.popleft()
                self._changed.notify()
            yield item


class Syncer:
    """Threads that make closed files durable while others are written.

    Each file is synced by the descriptor that it was written with: the kernel reports a failed write-back only to
    descriptors that were open at the time. Several threads, because concurrent syncs share a commit of the journal;
    more than two cost more processor time than they save (measured with 5,000 files on ext4).
    """

    THREADS = 2
    PENDING = 64
    """Files that may wait with an open descriptor."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check
        self._queue: Queue[int] = Queue(self.PENDING, check)
        self._failure: OSError | None = None
        self._threads: list[threading.Thread] = []

    def add(self, descriptor: int) -> None:
        """Sync and close a file later. Raises NotUnpacked for a failure of an earlier one."""
        if len(self._threads) < self.THREADS:
            self._threads.append(start_thread(self._sync_all, "unpack-sync"))
        try:
            self._raise_failure()
            self._queue.put(descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    def finish(self) -> None:
        """Wait until all files are durable. Raises NotUnpacked, and what `check` raises."""
        self._queue.end()
        for thread in self._threads:
            while thread.is_alive():
                thread.join(_CHECK_EVERY)
                self._check()
        self._raise_failure()

    def abort(self) -> None:
        """Close the files that wait, without waiting for a sync that is in progress."""
        for descriptor in self._queue.close():
            os.close(descriptor)

    def wait_until_closed(self, seconds: float) -> None:
        """Wait after `abort` until no file is open any more: only then is the space of removed files free."""
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _raise_failure(self) -> None:
        if self._failure:
            raise unpack_error(self._failure, "sync a file") from self._failure

    def _sync_all(self) -> None:
        try:
            for descriptor in self._queue:
                self._sync(descriptor)
        except Exception:  # noqa: S110 — what `check` raises here is raised in the main thread, too
            pass

    def _sync(self, descriptor: int) -> None:
        try:
            if self._failure is None:
                os.fsync(descriptor)
        except OSError as error:
            self._failure = error
        finally:
            os.close(descriptor)


def start_thread(target: Callable[[], None], name: str) -> threading.Thread:
    """Start a daemon thread: a sync or read that hangs must not keep the process alive."""
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread
