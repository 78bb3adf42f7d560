"""One body on its way into a part file: sniffed, then three threads (read, hash, write) under the loop's eyes.

Before, `asyncio.gather` of a read, a hash and a write, each a hop to a thread and back per block of 2 MiB, left all
three waiting for one another and for the event loop. Now a block passes from thread to thread by a queue, two or four
are under way, and the event loop wakes ten times a second to book space, to show progress and to begin a sync.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

from ...core.errors import NotAnArchive, TransferCut
from ...dest.archive import Part
from ...dest.structure import SNIFF, looks_like_archive
from ...network.delivery import Body
from .pipeline import ConsumerFailed, Pipeline
from .rate import RateLimit

CONSUMERS = 2

"""Stages that a `Pipeline` into a part has: the hash, then the file."""

# (blocks, bytes of one) of a transfer. Four, one for each thread and one on the way: 512 KiB cost a tenth more CPU in
# hand-overs, 256 KiB up to a quarter. Where the kernel fills a block by itself two large ones do better: a GiB from
# nginx on the same two cores took 0.74 s instead of 0.97, since its pacing timer (BBR) then steals less time from the
# hash; without pacing both took 0.68. Over TLS and in chunks two were 3 to 6 % slower than four.
_ASSEMBLED, _FILLED = (4, 2 << 20), (2, 5 << 20)

_MOST_IN_BLOCKS, _LEAST_BLOCK = 32 << 20, 128 << 10  # bytes

_KEEP_EVERY, _LEAST_KEEP = 256 << 20, 32 << 20  # bytes between two syncs in the background: the last one is short

_MOST_DIRTY = 512 << 20  # bytes, about, that all transfers together leave to be written back

_LOOK_EVERY = 0.1  # seconds


def blocks(transfers: int, *, filled: bool) -> tuple[int, int]:
    """How many blocks of how many bytes, so that so many transfers at once hold no more than 32 MiB.

    `filled` is whether the kernel fills them by itself.
    """
    count, size = _FILLED if filled else _ASSEMBLED
    return count, max(_LEAST_BLOCK, min(size, _MOST_IN_BLOCKS // (count * transfers)))


def keep_every(transfers: int) -> int:
    """Bytes after which one of so many transfers syncs what came; without it eight at once had 2 GiB to write back."""
    return min(_KEEP_EVERY, max(_LEAST_KEEP, _MOST_DIRTY // transfers))


class Transfer:
    """The way of one body into one part file: `begin`, then `run`.

    `look` is told, a few times a second, the part's size and how many bytes are to come (None: unknown); what it raises
    ends the transfer. `transfers` is how many there may be at once.

    Nothing is preallocated. `posix_fallocate` makes the file as long as it will be, and after a crash its size would
    tell of bytes that never came; with FALLOC_FL_KEEP_SIZE a killed run would leave the room taken, and the next one
    would not find it. `DiskSpace` holds a known length against the free space instead.
    """

    def __init__(
        self, body: Body, part: Part, transfers: int, limit: RateLimit, look: Callable[[int, int | None], None]
    ) -> None:
        self._body, self._part, self._limit, self._tell = body, part, limit, look
        self._keep_every = keep_every(transfers)
        self._flow = Pipeline(*blocks(transfers, filled=body.fills_blocks), CONSUMERS)
        self._first = self._flow.take()
        self._got = 0
        self._keeping: asyncio.Future[None] | None = None
        self._keep_at = 0

    async def begin(self) -> None:
        """Read the first bytes and judge by them whether this is an archive. Raises NotAnArchive, TransferCut."""
        block = self._first[: max(SNIFF, self._limit.chunk_size(len(self._first)))]
        while self._got < SNIFF and (got := await self._body.read(block[self._got :])):
            self._got += got
        if not self._got:
            raise TransferCut("the body was empty", spent=True)
        if self._body.offset == 0 and not looks_like_archive(bytes(block[: min(SNIFF, self._got)])):
            kind = self._body.content_type
            raise NotAnArchive(f"the delivery URL sent something that is no archive ({kind})", spent=True)

    async def run(self, keep: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Bring the body into the part. `keep` syncs what came so far. Raises TransferCut or DestError.

        However it ends, hash and file are in step, and no thread works on.
        """
        self._look()
        self._keep_at = self._part.size + self._keep_every
        self._flow.give(self._first, self._got)
        landing = asyncio.ensure_future(self._part.pour(self._flow))
        reading = asyncio.ensure_future(self._read())
        try:
            while not (reading.done() or landing.done()):
                await asyncio.wait({reading, landing}, timeout=_LOOK_EVERY, return_when=asyncio.FIRST_COMPLETED)
                self._look()
                self._keep_if_due(keep)
        finally:
            reading.cancel()
            self._flow.end()
            for task in filter(None, (reading, landing, self._keeping)):
                await finished(task)
        for outcome in filter(None, (landing, self._keeping, reading)):  # a fault of DEST is told before a cut
            outcome.result()

    async def _read(self) -> None:
        await self._limit.spend(self._got)
        await pour(self._body, self._flow, self._limit)

    def _look(self) -> None:
        total, size = self._body.total, self._part.size
        self._tell(size, None if total is None else total - size)

    def _keep_if_due(self, keep: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin a sync in the background; a disk slower than the wire holds the flow, else dirty pages pile up."""
        if self._part.size < self._keep_at:
            return
        if self._keeping and not self._keeping.done():
            self._flow.hold()
            return
        if self._keeping:
            self._keeping.result()
        self._keep_at = self._part.size + self._keep_every
        self._keeping = asyncio.ensure_future(keep())
        self._keeping.add_done_callback(lambda _: self._flow.resume())


async def finished(task: asyncio.Future[Any]) -> None:
    """Wait for a task whatever its outcome, even while being cancelled: its thread still uses our buffer."""
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # seen, so that the loop does not complain when nobody asks for it again


async def pour(body: Body, pipeline: Pipeline, limit: RateLimit) -> None:
    """Read the rest of a body into a pipeline, and end it. Raises TransferCut; bytes before that are passed on."""
    try:
        if body.has_own_thread:
            await body.run(partial(_pump, pipeline, limit, asyncio.get_running_loop()))
        else:
            await _carry(body, pipeline, limit)
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


async def _carry(body: Body, pipeline: Pipeline, limit: RateLimit) -> None:
    """Fill block after block where the event loop reads (httpx's own transport)."""
    while True:
        block = pipeline.take_now()
        if block is None:
            block = await asyncio.to_thread(pipeline.take)
        got = await body.read(block[: limit.chunk_size(len(block))])
        if not got:
            return
        pipeline.give(block, got)
        await limit.spend(got)
