"""The thread that unpacks an archive while it is downloaded."""

from __future__ import annotations

import concurrent.futures
import hashlib
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial

from ...core.errors import CannotUnpack, NoSpaceToUnpack, NotUnpacked
from ...core.untrusted import printable
from ...unpack.datapath import Staging
from ...unpack.pipeline import start_thread
from ...unpack.reading.source import Source
from ...unpack.unpacker import Options, Unpacked, Unpacker
from ..unpacking.data_place import DataPlace
from .state import JobState, Phase

_STOP_TIME = 2.0  # seconds for a thread to stop at a signal
_DISCARD_TIME = 30.0  # seconds for a thread to stop before its staging directory is removed


class Follower:
    """Unpacks a file into the staging directory of one job, in a thread of its own.

    The transfer calls the methods of `dest.archive.Follower` to report the size of the file; they return at once,
    except `make_room`, and never raise. `staging` exists once the result does; `void` is why it was given up after all.
    """

    def __init__(self, state: JobState, place: DataPlace, *, rehash: bool = False) -> None:
        self._state, self._place = state, place
        self._source: Source | None = None
        self.staging: Staging | None = None
        self._lock = threading.Lock()
        self._claimed = False
        self._giving_back: threading.Thread | None = None
        self.void: NotUnpacked | None = None
        self.inode: int | None = None
        self.sha1 = None if not rehash else hashlib.sha1(usedforsecurity=False)
        self.result: Future[Unpacked] = Future()
        self.result.set_running_or_notify_cancel()  # a task that waits for it and is cancelled must not cancel it

    # ------------------------------------------------------------ reported by the transfer

    def opened(self, descriptor: int) -> None:
        """Start with the file, or go on with another one."""
        try:
            self._open(descriptor)
        except (OSError, RuntimeError) as error:  # no descriptor or no thread is left
            if self._source and self.inode is not None:
                self._source.cancel(defect(error))
            else:
                self.result.set_exception(defect(error))

    def _open(self, descriptor: int) -> None:
        inode = os.fstat(descriptor).st_ino
        if self.result.done():
            return
        if self._source is None:
            self._source = Source(descriptor, drop_read_pages=True)
            start_thread(partial(self._run, self._source), "unpack")
        elif inode != self.inode:
            self._source.restart(descriptor=descriptor)
        else:
            self._source.reopen()
        self.inode = inode

    def grew(self, size: int) -> None:
        """The first `size` bytes are written."""
        if self._source:
            self._source.advance(size)

    def truncated(self, size: int) -> None:
        """The bytes after the first `size` are void."""
        if self._source:
            self._source.restart(keep=size)

    def position(self) -> int:
        """Return the bytes that are read."""
        return self._source.position if self._source and not self.result.done() else sys.maxsize

    def make_room(self) -> bool:
        """Give back the space of everything that is being unpacked on the disk of DEST."""
        return self._place.space.make_room()

    def complete(self, size: int) -> None:
        """The file is complete with `size` bytes."""
        if self._source:
            self._source.finish(size)

    # ------------------------------------------------------------ the result

    @property
    def is_current(self) -> bool:
        """Whether the result is of the file as it is now."""
        return self._source is not None and self._source.is_current

    @property
    def is_idle(self) -> bool:
        """Whether it waits for bytes although no transfer is in progress."""
        return not self.result.done() and self._state.phase is Phase.WAITING

    def claim(self) -> None:
        """Keep the staging directory from being given up, because it is published now. Raises NotUnpacked."""
        with self._lock:
            if self.void:
                raise self.void
            self._claimed = True

    def give_up(self, error: NotUnpacked) -> bool:
        """Stop, and give the space of the staging directory back; return whether it will be. From any thread."""
        with self._lock:
            if self._claimed or self._source is None:
                return False
            if self.void is None:
                self.void = error
                if self.result.done():
                    self._giving_back = start_thread(self._give_back, "unpack-give-back")
        self._source.cancel(error)
        return True

    def _give_back(self) -> None:
        if self.staging:
            with suppress(NotUnpacked):
                self.staging.empty()
        self._place.space.gave_back(self)

    # ------------------------------------------------------------ the thread

    def _run(self, source: Source) -> None:
        try:
            while not self._place.space.slots.acquire(timeout=0.25):
                if source.cancelled:
                    raise source.cancelled
                self._place.space.free_a_slot()
            try:
                result = self._unpack(source)
            finally:
                self._place.space.slots.release()
            with self._lock:
                if self.void:
                    raise self.void
                self.result.set_result(result)
        except BaseException as error:  # raised again where the result is awaited
            if isinstance(error, NoSpaceToUnpack):
                self._give_back()
            self._place.space.ended(self)
            self.result.set_exception(error if isinstance(error, NotUnpacked) else defect(error))

    def _unpack(self, source: Source) -> Unpacked:
        paths = self._place.paths
        paths.require_free(self._place.name_of(self._state.job_id))
        self.staging = paths.staging(self._state.job_id)
        options = Options(
            owner=self._place.owner,
            space_reserve=self._place.space.reserve,
            block_size=self._place.space.block_size,
            on_progress=partial(setattr, self._state.meter, "unpacked"),
            consumer=self._start_hash if self.sha1 is not None else None,
        )
        self._place.space.started(self)
        return Unpacker(source, self.staging, options).run()

    def _start_hash(self) -> Callable[[bytes], object]:
        self.sha1 = hashlib.sha1(usedforsecurity=False)
        return self.sha1.update

    # ------------------------------------------------------------ the end

    def stop(self) -> None:
        """Let the thread stop within a second; the content of the staging directory stays."""
        if self._source:
            self._source.cancel()

    def discard(self) -> None:
        """Stop, and remove the staging directory. Blocks."""
        if self._stopped(_DISCARD_TIME) and self.staging:
            with suppress(NotUnpacked):
                self.staging.discard(self._place.check)
        self.close()

    def close(self) -> None:
        """Stop, and release the staging directory and the file. Blocks for a moment."""
        if self._source and self._stopped(_STOP_TIME):
            self._source.close()
            if self.staging:
                self.staging.close()
        self._place.space.ended(self)

    def _stopped(self, patience: float) -> bool:
        """Stop, and return whether no thread uses the descriptors any more: another file could get their numbers."""
        self.stop()
        if self._source is None:
            return True
        ended = bool(concurrent.futures.wait([self.result], patience).done)
        if self._giving_back:
            self._giving_back.join(patience)
            ended = ended and not self._giving_back.is_alive()
        return ended


def defect(error: BaseException) -> CannotUnpack:
    """Return the error for something unexpected in the thread: a defect must not end the run."""
    return CannotUnpack(f"unpacking failed: {type(error).__name__}: {printable(str(error), 200)}")
