"""The bytes of one attempt, from the connection to the consumers of the part file.

Three threads (read, hash, write) pass recycled blocks on by queues, two or four of them in use. The event loop wakes
ten times a second to reserve space, to show progress, and to start a sync. `asyncio.gather` of a read, a hash, and a
write, each with a switch to a thread and back per block, left all three waiting for one another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

from ...core.errors import NotAnArchive, ResourcesExhausted, TransferCut
from ...dest.archive import Consumer
from ...dest.structure import SNIFF, looks_like_archive
from ...network.delivery import Body
from .pipeline import ConsumerFailed, Pipeline
from .rate import RateLimit

# (blocks, bytes of one) of a transfer. Four, one for each thread and one on the way: 512 KiB cost a tenth more CPU in
# hand-overs, 256 KiB up to a quarter. Where the kernel fills a block by itself two large ones do better: a GiB from
# nginx on the same two cores took 0.74 s instead of 0.97, since its pacing timer (BBR) then steals less time from the
# hash; without pacing both took 0.68. Over TLS and in chunks two were 3 to 6 % slower than four.
_ASSEMBLED, _FILLED = (4, 2 << 20), (2, 5 << 20)

_MOST_IN_BLOCKS, _LEAST_BLOCK = 32 << 20, 128 << 10  # bytes

_MANY_TRANSFERS, _BLOCKS_OF_MANY, _BYTES_OF_MANY = 16, 3, 24 << 20  # one block a thread: other transfers fill the time

_KEEP_EVERY, _LEAST_KEEP = 256 << 20, 32 << 20  # bytes between two syncs in the background: the last one is short

_MOST_DIRTY = 512 << 20  # bytes, about, that all transfers together leave to be written back

_PROGRESS_EVERY = 0.1  # seconds


def blocks(transfers: int, *, filled: bool) -> tuple[int, int]:
    """Return the number and size (bytes) of the blocks of a transfer; `transfers` in parallel take at most 32 MiB.

    `filled` is whether the kernel fills a block without the interpreter.
    """
    (count, size), most = _FILLED if filled else _ASSEMBLED, _MOST_IN_BLOCKS
    if transfers > _MANY_TRANSFERS:
        count, most = min(count, _BLOCKS_OF_MANY), _BYTES_OF_MANY
    return count, max(_LEAST_BLOCK, min(size, most // (count * transfers)))


def keep_every(transfers: int) -> int:
    """Return the bytes after which one of `transfers` in parallel syncs; without it, eight had 2 GiB to write back."""
    return min(_KEEP_EVERY, max(_LEAST_KEEP, _MOST_DIRTY // transfers))


class Buffers:
    """The memory of one transfer, taken before its request is sent: a download must not fail for want of it."""

    def __init__(self, transfers: int) -> None:
        """Take the memory for one of `transfers` in parallel. Raises ResourcesExhausted."""
        self._transfers = transfers
        try:
            self._memory = memoryview(bytearray(max(self._bytes(filled=True), self._bytes(filled=False))))
        except MemoryError:
            raise ResourcesExhausted("the host gives no memory for another archive", spent=False) from None

    def _bytes(self, *, filled: bool) -> int:
        count, size = blocks(self._transfers, filled=filled)
        return count * size

    def cut(self, *, filled: bool) -> list[memoryview]:
        """Return the blocks for a body; `filled` is whether the kernel fills a block without the interpreter."""
        count, size = blocks(self._transfers, filled=filled)
        return [self._memory[number * size : (number + 1) * size] for number in range(count)]


class Transfer:
    """The transfer of one body to its consumers: `begin`, then `run`.

    `on_progress` is called a few times a second with the size of the archive (None: unknown); an error that it raises
    ends the transfer. `size` gives the bytes on disk, `flush` makes them durable in the background.

    Nothing is preallocated. `posix_fallocate` makes the file as long as it will be, and after a crash its size would
    count bytes that never arrived; with FALLOC_FL_KEEP_SIZE a killed run would leave the space taken, and the next one
    would not find it. `DiskSpace` compares a known length with the free space instead.
    """

    def __init__(
        self,
        body: Body,
        buffers: Buffers,
        consumers: tuple[Consumer, ...],
        *,
        limit: RateLimit,
        size: Callable[[], int],
        on_progress: Callable[[int | None], None],
        flush: Callable[[], Coroutine[Any, Any, None]],
        flush_every: int,
    ) -> None:
        self._body, self._consumers, self._limit = body, consumers, limit
        self._size, self._on_progress, self._flush, self._flush_every = size, on_progress, flush, flush_every
        self._pipeline = Pipeline(buffers.cut(filled=body.fills_blocks), len(consumers))
        self._first = self._pipeline.take()
        self._got = 0

    async def begin(self) -> None:
        """Read the first bytes and check that they are those of an archive. Raises NotAnArchive, TransferCut."""
        block = self._first[: max(SNIFF, self._limit.chunk_size(len(self._first)))]
        while self._got < SNIFF and (got := await self._body.read(block[self._got :])):
            self._got += got
        if not self._got:
            raise TransferCut("the body was empty", spent=True)
        if self._body.offset == 0 and not looks_like_archive(bytes(block[: min(SNIFF, self._got)])):
            kind = self._body.content_type
            raise NotAnArchive(f"the delivery URL sent something that is not an archive ({kind})", spent=True)

    async def run(self) -> None:
        """Pass the body on to its consumers. Raises TransferCut or DestError.

        However it ends, every consumer has taken the same bytes, and no thread works on.
        """
        self._report_progress()
        self._pipeline.give(self._first, self._got)
        consuming = asyncio.ensure_future(self._consume())
        reading = asyncio.ensure_future(self._read())
        flushing = _Flushing(self._flush, self._pipeline, self._size() + self._flush_every, self._flush_every)
        try:
            while not (reading.done() or consuming.done()):
                await asyncio.wait({reading, consuming}, timeout=_PROGRESS_EVERY, return_when=asyncio.FIRST_COMPLETED)
                self._report_progress()
                flushing.start_if_due(self._size())
        finally:
            reading.cancel()
            self._pipeline.end()
            for task in filter(None, (reading, consuming, flushing.task)):
                await finished(task)
        for outcome in filter(None, (consuming, flushing.task, reading)):  # a fault of DEST counts before a cut
            outcome.result()

    async def _consume(self) -> None:
        """Run all consumers. Never cancelled but ended by the pipeline: their threads use the blocks until then."""
        running = [
            asyncio.ensure_future(consumer(self._pipeline.stage(number)))
            for number, consumer in enumerate(self._consumers)
        ]
        await asyncio.wait(running, return_when=asyncio.FIRST_EXCEPTION)
        self._pipeline.break_off()  # after a failed write; otherwise it has ended already
        await asyncio.wait(running)
        for one in running:
            one.result()

    async def _read(self) -> None:
        await self._limit.spend(self._got)
        await pour(self._body, self._pipeline, self._limit)

    def _report_progress(self) -> None:
        self._on_progress(self._body.total)


class _Flushing:
    """Syncs in the background of a transfer, one at a time. A disk that is slower than the network holds the reader."""

    def __init__(
        self, flush: Callable[[], Coroutine[Any, Any, None]], pipeline: Pipeline, due_at: int, every: int
    ) -> None:
        self._flush, self._pipeline, self._due_at, self._every = flush, pipeline, due_at, every
        self.task: asyncio.Future[None] | None = None

    def start_if_due(self, size: int) -> None:
        """Start a sync once enough was written. Raises DestError if the sync before failed."""
        if size < self._due_at:
            return
        if self.task and not self.task.done():
            self._pipeline.hold()
            return
        if self.task:
            self.task.result()
        self._due_at = size + self._every
        self.task = asyncio.ensure_future(self._flush())
        self.task.add_done_callback(lambda _: self._pipeline.resume())


async def finished(task: asyncio.Future[Any]) -> None:
    """Wait for the end of a task, even while being cancelled: its thread still uses our buffer."""
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # retrieved, so that the loop does not log an exception that was never retrieved


async def pour(body: Body, pipeline: Pipeline, limit: RateLimit) -> None:
    """Read the rest of a body into a pipeline, and end it. Raises TransferCut; bytes before that are passed on."""
    try:
        await body.run(partial(_pump, pipeline, limit, asyncio.get_running_loop()))
    except ConsumerFailed:
        return  # the consumer that failed raises its own error
    finally:
        pipeline.end()


def _pump(
    pipeline: Pipeline, limit: RateLimit, loop: asyncio.AbstractEventLoop, readinto: Callable[[memoryview], int]
) -> None:
    """Fill block after block in the thread that reads."""
    while True:
        block = pipeline.take()
        got = readinto(block[: limit.chunk_size(len(block))])
        if not got:
            return
        pipeline.give(block, got)
        if not limit.off:
            asyncio.run_coroutine_threadsafe(limit.spend(got), loop).result()
