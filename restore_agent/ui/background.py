"""Output from a thread of its own, so that a reader that stops (Ctrl-S, a pager) never holds a run back."""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any, TextIO, cast

_MOST_WAITING = 4 << 20  # characters that wait for a reader that has stopped; further output is dropped


class BackgroundStream:
    """A text stream that accepts everything at once. `failure` is the error of the stream once it cannot be written."""

    def __init__(self, stream: TextIO) -> None:
        stream.flush()
        self._stream = stream
        self.descriptor = stream.fileno()
        self._encoding = stream.encoding or "utf-8"
        self._waiting: deque[str] = deque()
        self._characters = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        """Accept text; it is dropped if too much waits already."""
        with self._changed:
            if self.failure is None and self._characters < _MOST_WAITING:
                self._waiting.append(text)
                self._characters += len(text)
                self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="output", daemon=True)
                self._thread.start()
        return len(text)

    def flush(self) -> None:
        """Do nothing: the thread writes as soon as it can."""

    def drain(self, seconds: float) -> bool:
        """Wait until everything is written; return whether it is."""
        until = time.monotonic() + seconds
        with self._changed:
            done = self._changed.wait_for(lambda: not self._characters or self.failure, until - time.monotonic())
        return bool(done)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                texts = list(self._waiting)
                self._waiting.clear()
            text = "".join(texts)
            try:
                self._write(text.encode(self._encoding, "backslashreplace"))
            except OSError as error:
                self.failure = error
            with self._changed:
                self._characters -= len(text)
                self._changed.notify_all()

    def _write(self, data: bytes) -> None:
        """Write to the descriptor itself: a lock of the stream would be held while its reader has stopped."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self.descriptor, rest) :]
            except BlockingIOError:  # another program made the terminal non-blocking
                select.select([], [self.descriptor], [], 1.0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def background(stream: TextIO) -> TextIO:
    """Return a stream that never blocks its caller; one without a descriptor (in a test) is returned as it is."""
    try:
        return cast(TextIO, BackgroundStream(stream))
    except (OSError, ValueError, AttributeError):
        return stream


def in_order(out: TextIO, err: TextIO) -> tuple[TextIO, TextIO]:
    """Return the streams; one stream twice if both are the same terminal or pipe, so that their texts keep their order.

    Two threads would write at the same time: the results would appear between progress bars that are not yet removed.
    """
    if isinstance(out, BackgroundStream) and isinstance(err, BackgroundStream):
        with suppress(OSError):
            if os.path.sameopenfile(out.descriptor, err.descriptor):
                return cast(TextIO, out), cast(TextIO, out)
    return out, err
