"""Blocks that one reader passes through a chain of consumers, each in a thread of its own, in order.

A fixed number of blocks is recycled. That is all the memory it takes, and it holds the reader back when a consumer is
slower. No block needs the event loop, and none is copied.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from queue import SimpleQueue


class ConsumerFailed(Exception):
    """Raised in the reader after a consumer has failed; further blocks would be discarded."""


class Pipeline:
    """Blocks for one reader (`take`, `give`, `end`) and `stages` consumers (`stage`)."""

    def __init__(self, blocks: Iterable[memoryview], stages: int) -> None:
        self._free: SimpleQueue[memoryview | None] = SimpleQueue()
        for block in blocks:
            self._free.put(block)
        self._waiting: list[SimpleQueue[tuple[memoryview, int] | None]] = [SimpleQueue() for _ in range(stages)]
        self._open = threading.Event()
        self._open.set()

    def take(self) -> memoryview:
        """Return a block to fill, once one is free and the reader is not held. Raises ConsumerFailed."""
        self._open.wait()
        block = self._free.get()
        if block is None:
            self._free.put(None)  # for the next call
            raise ConsumerFailed
        return block

    def give(self, block: memoryview, size: int) -> None:
        """Pass a block to the first consumer; `size` bytes of it are filled."""
        self._waiting[0].put((block, size))

    def end(self) -> None:
        """Say that no more blocks follow; consumers finish those that they have."""
        self._waiting[0].put(None)

    def stage(self, number: int) -> Iterator[memoryview]:
        """Return the blocks for the consumer of this number; asking for the next block frees the one before."""
        onward = self._waiting[number + 1] if number + 1 < len(self._waiting) else None
        while (item := self._waiting[number].get()) is not None:
            block, size = item
            yield block[:size]
            if onward:
                onward.put(item)
            else:
                self._free.put(block)
        if onward:
            onward.put(None)

    def hold(self) -> None:
        """Give the reader no more blocks until `resume`."""
        self._open.clear()

    def resume(self) -> None:
        """Undo `hold`."""
        self._open.set()

    def break_off(self) -> None:
        """End the pipeline from the side of the consumers: the reader gets ConsumerFailed, and every stage ends."""
        self._free.put(None)
        self._open.set()
        for waiting in self._waiting:
            waiting.put(None)
