"""Where a body begins and ends: by length, in chunks, or when the connection closes (RFC 9112, 6 and 7)."""

from __future__ import annotations

import http.client
import re
from enum import Enum
from typing import Any

from .sockets import HeadReader, Stream

_SCRATCH = 256 << 10  # bytes received at once where chunk heads stand between the data

_CHUNK_HEAD = re.compile(rb"\s*([0-9A-Fa-f]{1,15})\s*(?:;.*)?\r?\n", re.DOTALL)

_BETWEEN_CHUNKS = re.compile(rb"\r\n0*([1-9A-Fa-f][0-9A-Fa-f]{0,14})\r\n")

_LONGEST_LINE = 16 << 10  # bytes of a chunk head or trailer line

_MOST_TRAILERS = 100


class Body:
    """A body until the connection closes; also the way to the bytes for the other two kinds."""

    def __init__(self, left_over: memoryview, stream: Stream) -> None:
        self._stream = stream
        self._left_over = left_over

    @property
    def fills_blocks(self) -> bool:
        """Whether the kernel fills a whole block by itself."""
        return self._stream.fills_blocks

    def readinto(self, view: memoryview) -> int:
        """At least one byte of the body; 0 at its end. Raises Idle, OSError, http.client.HTTPException."""
        return self._receive(view, all_of_it=True)

    def _receive(self, view: memoryview, *, all_of_it: bool) -> int:
        """Bytes from the wire, at least one; 0 when the peer has closed. Raises Idle, OSError."""
        if not self._left_over:
            return self._stream.receive(view, all_of_it=all_of_it)
        size = min(len(view), len(self._left_over))
        view[:size] = self._left_over[:size]
        self._left_over = self._left_over[size:]
        return size


class _LengthBody(Body):
    """A body of `Content-Length` bytes."""

    def __init__(self, left_over: memoryview, stream: Stream, length: int) -> None:
        super().__init__(left_over, stream)
        self._remaining = length

    def readinto(self, view: memoryview) -> int:
        """See `Body`; an end before the last byte is an HTTPException."""
        if not self._remaining:
            return 0
        got = self._receive(view[: self._remaining], all_of_it=True)
        if not got:
            raise http.client.HTTPException(f"the connection closed {self._remaining} bytes early")
        self._remaining -= got
        return got


class _Next(Enum):
    """What a chunked body shows next."""

    HEAD = "chunk head"
    DATA = "data"
    AFTER = "line break after the data"
    TRAILER = "trailer"
    END = "end"


class _ChunkedBody(Body):
    """A chunked body (RFC 9112, 7.1). Many small chunks come per `recv`, so they pass through a scratch block.

    nginx sends chunks of 32 KiB, ten thousands per GiB: what is done for each of them counts, and is one match
    where the head is the usual one. The copy out of the scratch block, which stays in the cache, is cheap.
    """

    def __init__(self, left_over: memoryview, stream: Stream) -> None:
        super().__init__(left_over, stream)
        self._scratch = memoryview(bytearray(_SCRATCH))
        self._ready = self._scratch[:0]
        self._line = bytearray()
        self._next = _Next.HEAD
        self._chunk = 0  # bytes of the current chunk still to come
        self._trailers = 0

    @property
    def fills_blocks(self) -> bool:
        """No: chunk by chunk is copied into it."""
        return False

    def readinto(self, view: memoryview) -> int:
        """See `Body`; framing that does not parse or breaks off is an HTTPException."""
        filled = 0
        while filled < len(view) and self._next is not _Next.END:
            if not self._ready:
                if filled:
                    break  # hand on what is here rather than wait for more
                self._refill()
            if self._next is _Next.DATA:
                filled += self._data(view[filled:])
            elif (line := self._take_line()) is not None:
                self._next = self._after_line(line)
        return filled

    def _refill(self) -> None:
        got = self._receive(self._scratch, all_of_it=False)
        if not got:
            raise http.client.HTTPException("the connection closed before the last chunk")
        self._ready = self._scratch[:got]

    def _data(self, view: memoryview) -> int:
        """Take what is here of this chunk, and of those behind it whose heads are plain ones and here as a whole."""
        ready, chunk, at, filled = self._ready, self._chunk, 0, 0
        while True:
            size = min(chunk, len(ready) - at, len(view) - filled)
            view[filled : filled + size] = ready[at : at + size]
            at, filled, chunk = at + size, filled + size, chunk - size
            if chunk:  # no more of it is here, or the block is full
                break
            if not (head := _BETWEEN_CHUNKS.match(ready, at)):
                self._next = _Next.AFTER
                break
            at, chunk = head.end(), int(bytes(head[1]), 16)
        self._ready, self._chunk = ready[at:], chunk
        return filled

    def _take_line(self) -> bytes | None:
        """The next line, or None while it is not whole."""
        piece = bytes(self._ready[:_LONGEST_LINE])
        end = piece.find(b"\n") + 1 or len(piece)
        self._line += piece[:end]
        self._ready = self._ready[end:]
        if self._line.endswith(b"\n"):
            line = bytes(self._line)
            self._line.clear()
            return line
        if len(self._line) > _LONGEST_LINE:
            raise http.client.HTTPException("a chunk head does not end")
        return None

    def _after_line(self, line: bytes) -> _Next:
        if self._next is _Next.AFTER:
            if line.strip():
                raise http.client.HTTPException("a chunk is longer than its head says")
            return _Next.HEAD
        if self._next is _Next.TRAILER:
            self._trailers += 1
            if self._trailers > _MOST_TRAILERS:
                raise http.client.HTTPException("the trailers do not end")
            return _Next.TRAILER if line.strip() else _Next.END
        found = _CHUNK_HEAD.fullmatch(line)
        if not found:
            raise http.client.HTTPException("a chunk head does not parse")
        self._chunk = int(found[1], 16)
        return _Next.DATA if self._chunk else _Next.TRAILER


def body_of(response: http.client.HTTPResponse, left_over: memoryview, stream: Stream) -> Body:
    """The reader for the framing that the head declares (RFC 9112, 6.3)."""
    stream.expect_bulk()
    if response.status in (204, 304) or response.length == 0:
        return _LengthBody(left_over, stream, 0)
    if response.chunked:
        return _ChunkedBody(left_over, stream)
    if response.length is not None:
        return _LengthBody(left_over, stream, response.length)
    return Body(left_over, stream)


def behind_head(response: http.client.HTTPResponse, head: HeadReader) -> memoryview:
    """What came together with the head: in the buffer that http.client read it through, and not even there yet."""
    reader: Any = response.fp
    head.over = True
    buffered = reader.peek() if reader else b""  # without a reader http.client found no body
    return memoryview(buffered + bytes(head.before)) if head.before else memoryview(buffered)
