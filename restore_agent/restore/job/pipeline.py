"""Blocks on their way from one reader through a chain of consumers, each in a thread of its own, in order.

A fixed number of blocks goes round: that is all the memory it takes, and what holds the reader back when a consumer is
slower. No block costs a hop of the event loop, and none is copied; the event loop only watches.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import SimpleQueue


class ConsumerFailed(Exception):
    """A consumer has given up; what the reader still brings is wanted by nobody."""


class Pipeline:
    """`blocks` blocks of `size` bytes for one reader (`take`, `give`, `end`) and `stages` consumers (`stage`)."""

    def __init__(self, blocks: int, size: int, stages: int) -> None:
        self._free: SimpleQueue[memoryview | None] = SimpleQueue()
        for _ in range(blocks):
            self._free.put(memoryview(bytearray(size)))
        self._waiting: list[SimpleQueue[tuple[memoryview, int] | None]] = [SimpleQueue() for _ in range(stages)]
        self._open = threading.Event()
        self._open.set()

    # ------------------------------------------------------------ the reader's side

    def take(self) -> memoryview:
        """A block to fill, once one is free and the flow is not held. Raises ConsumerFailed."""
        self._open.wait()
        block = self._free.get()
        if block is None:
            self._free.put(None)  # for whoever asks again
            raise ConsumerFailed
        return block

    def take_now(self) -> memoryview | None:
        """A block, if there is one to be had without waiting. Raises ConsumerFailed."""
        return None if self._free.empty() or not self._open.is_set() else self.take()

    def give(self, block: memoryview, size: int) -> None:
        """Hand a block on to the first consumer, `size` bytes of it filled."""
        self._waiting[0].put((block, size))

    def end(self) -> None:
        """No more blocks come; consumers finish with those that are under way."""
        self._waiting[0].put(None)

    # ------------------------------------------------------------ the consumers' side

    def stage(self, number: int) -> Iterator[memoryview]:
        """What the consumer of this number is to work on; asking for the next block says that it is done with one."""
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

    # ------------------------------------------------------------ whoever watches

    def hold(self) -> None:
        """Give the reader no more blocks until `resume`."""
        self._open.clear()

    def resume(self) -> None:
        """Undo `hold`."""
        self._open.set()

    def break_off(self) -> None:
        """End it from the consumers' side: the reader gets ConsumerFailed, and every stage comes to its end."""
        self._free.put(None)
        self._open.set()
        for waiting in self._waiting:
            waiting.put(None)
