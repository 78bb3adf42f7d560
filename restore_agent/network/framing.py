"""Heads and bodies of HTTP/1.1 answers (RFC 9112): by length, in chunks, or until the connection closes.

A delivery URL may allow a single request, so everything that curl or h11 accepts is accepted here. h11 itself is not
used: it rejects white space before a colon and names that are not ASCII, and stops at 20 digits of a chunk size.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from enum import Enum

from .sockets import Idle, Stream

_LONGEST_HEAD = 1 << 20  # bytes of one head; curl stops at 300 KiB, h11 at 100 KiB

_HEAD_PIECE = 64 << 10  # bytes received together while a head is read

_END_OF_HEAD = re.compile(rb"\n\r?\n")

_STATUS_LINE = re.compile(rb"(?i)HTTP/1(?:\.\d)?[ \t]+(\d{3})(?:[ \t].*)?")

_TLS_RECORD = (b"\x15\x03", b"\x16\x03")  # an alert or a handshake

_CHUNK_HEAD = re.compile(rb"\s*0*([0-9A-Fa-f]{1,15})(?:[\s;].*)?\n", re.DOTALL)

_BETWEEN_CHUNKS = re.compile(rb"\r\n0*([1-9A-Fa-f][0-9A-Fa-f]{0,14})\r\n")

_LONGEST_LINE = 16 << 10  # bytes of a chunk head


class FramingError(Exception):
    """An answer that is not HTTP/1.1, or a body that ended before its framing says so."""


class TlsExpected(FramingError):
    """TLS bytes in answer to plain HTTP."""


@dataclass(frozen=True)
class Head:
    """Status and headers of one answer, as bytes. Lines without a colon are left out."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]

    def items(self, name: bytes) -> list[bytes]:
        """Return the comma-separated items of all headers of that name (lower case), without empty ones."""
        values = [value for key, value in self.headers if key.lower() == name]
        return [item for value in values for piece in value.split(b",") if (item := piece.strip())]

    @property
    def chunked(self) -> bool:
        """Whether the body comes in chunks. Other transfer codings were not asked for and are ignored, as in curl."""
        codings = [item.split(b";")[0].strip().lower() for item in self.items(b"transfer-encoding")]
        return b"chunked" in codings

    @property
    def length(self) -> int | None:
        """Bytes of the body; None if it comes in chunks or if the length is missing, invalid or ambiguous."""
        if self.status in (204, 304):
            return 0
        lengths = {item.lstrip(b"0") or b"0" for item in self.items(b"content-length")}
        if self.chunked or len(lengths) != 1:
            return None
        (digits,) = lengths
        return int(digits) if re.fullmatch(rb"[0-9]{1,18}", digits) else None


def read_head(stream: Stream, patience: float, received: memoryview) -> tuple[Head, memoryview]:
    """Return the head of an answer and the bytes after it. `received` holds bytes that were already received.

    Raises FramingError, OSError; TimeoutError if no byte arrives for `patience` seconds.
    """
    data, piece = bytearray(received), memoryview(bytearray(_HEAD_PIECE))
    at = 0  # up to where the end has been searched for
    while True:
        _require_http(data)
        if end := _END_OF_HEAD.search(data, at):
            return _parsed(bytes(data[: end.start()])), memoryview(bytes(data[end.end() :]))
        if len(data) > _LONGEST_HEAD:
            raise FramingError(f"the head of the answer is larger than {_LONGEST_HEAD >> 10} KiB")
        at = max(0, len(data) - 2)
        got = _receive(stream, piece, patience)
        if not got:
            where = "in the head of the answer" if data else "without an answer"
            raise FramingError(f"the connection closed {where}")
        data += piece[:got]


def _receive(stream: Stream, view: memoryview, patience: float) -> int:
    end = time.monotonic() + patience
    while True:
        try:
            return stream.receive(view, all_of_it=False)
        except Idle:
            if time.monotonic() > end:
                raise TimeoutError(f"no byte within {patience:g} s") from None


def _require_http(data: bytearray) -> None:
    """Raise FramingError as soon as the first bytes cannot be those of an HTTP answer."""
    while data.startswith((b"\r", b"\n")):  # some servers send a line break too many after the previous answer
        del data[0]
    if bytes(data[:2]) in _TLS_RECORD:
        raise TlsExpected("the port expects TLS, use https")
    if not b"HTTP/".startswith(bytes(data[:5]).upper()):
        raise FramingError("the answer is not HTTP")


def _parsed(raw: bytes) -> Head:
    first, *lines = raw.replace(b"\r\n", b"\n").split(b"\n")
    status = _STATUS_LINE.fullmatch(first.rstrip())
    if not status:
        raise FramingError("the status line of the answer is not HTTP/1.1")
    headers: list[tuple[bytes, bytes]] = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if line[:1] in (b" ", b"\t"):
            if headers:  # a folded line continues the one before (RFC 9112, 5.2)
                headers[-1] = (headers[-1][0], headers[-1][1] + b" " + line.strip())
        elif colon and name.strip():
            headers.append((name.strip(), value.strip()))
    return Head(int(status[1]), tuple(headers))


class Body:
    """A body that ends when the connection closes, and base class of the other two kinds."""

    def __init__(self, left_over: memoryview, stream: Stream) -> None:
        self._stream = stream
        self._left_over = left_over

    @property
    def fills_blocks(self) -> bool:
        """Whether one system call fills a whole block."""
        return self._stream.fills_blocks

    def readinto(self, view: memoryview) -> int:
        """Fill `view` with at least one byte of the body and return the count; 0 at its end.

        Raises Idle, OSError, FramingError.
        """
        return self._receive(view, all_of_it=True)

    def _receive(self, view: memoryview, *, all_of_it: bool) -> int:
        """Receive at least one byte; 0 if the peer has closed. Raises Idle, OSError."""
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
        """See `Body`. An end before the last byte raises FramingError."""
        if not self._remaining:
            return 0
        got = self._receive(view[: self._remaining], all_of_it=True)
        if not got:
            raise FramingError(f"the connection closed {self._remaining} bytes early")
        self._remaining -= got
        return got


class _Next(Enum):
    """The next part of a chunked body."""

    HEAD = "chunk head"
    DATA = "data"
    AFTER = "line break after the data"
    END = "end"


class _ChunkedBody(Body):
    """A chunked body (RFC 9112, 7.1). One `recv` brings many small chunks, so they pass through a scratch block.

    nginx sends chunks of 32 KiB, tens of thousands per GiB, so the cost per chunk matters: it is one match for a usual
    chunk head. The copy out of the scratch block, which stays in the cache, is cheap.

    The body is complete with its last chunk, which has size 0. Trailers are not read: the connection is not used again.
    """

    def __init__(self, left_over: memoryview, stream: Stream, scratch: int) -> None:
        super().__init__(left_over, stream)
        self._scratch = memoryview(bytearray(scratch))
        self._ready = self._scratch[:0]
        self._line = bytearray()
        self._next = _Next.HEAD
        self._chunk = 0  # bytes of the current chunk still to come

    @property
    def fills_blocks(self) -> bool:
        """Always False: chunks are copied into the block."""
        return False

    def readinto(self, view: memoryview) -> int:
        """See `Body`. Framing that is invalid or ends early raises FramingError."""
        filled = 0
        while filled < len(view) and self._next is not _Next.END:
            if not self._ready:
                if filled:
                    break  # return the bytes received so far rather than wait
                self._refill()
            if self._next is _Next.DATA:
                filled += self._data(view[filled:])
            elif (line := self._take_line()) is not None:
                self._next = self._after_line(line)
        return filled

    def _refill(self) -> None:
        got = self._receive(self._scratch, all_of_it=False)
        if not got:
            raise FramingError("the connection closed before the last chunk")
        self._ready = self._scratch[:got]

    def _data(self, view: memoryview) -> int:
        """Copy the received part of this chunk, and of the next ones whose heads are usual and complete."""
        ready, chunk, at, filled = self._ready, self._chunk, 0, 0
        while True:
            size = min(chunk, len(ready) - at, len(view) - filled)
            view[filled : filled + size] = ready[at : at + size]
            at, filled, chunk = at + size, filled + size, chunk - size
            if chunk:  # the rest has not been received, or the block is full
                break
            if not (head := _BETWEEN_CHUNKS.match(ready, at)):
                self._next = _Next.AFTER
                break
            at, chunk = head.end(), int(bytes(head[1]), 16)
        self._ready, self._chunk = ready[at:], chunk
        return filled

    def _take_line(self) -> bytes | None:
        """Return the next line, or None while it is incomplete."""
        piece = bytes(self._ready[:_LONGEST_LINE])
        end = piece.find(b"\n") + 1 or len(piece)
        self._line += piece[:end]
        self._ready = self._ready[end:]
        if self._line.endswith(b"\n"):
            line = bytes(self._line)
            self._line.clear()
            return line
        if len(self._line) > _LONGEST_LINE:
            raise FramingError(f"a chunk head is longer than {_LONGEST_LINE >> 10} KiB")
        return None

    def _after_line(self, line: bytes) -> _Next:
        if self._next is _Next.AFTER:
            if line.strip():
                raise FramingError("a chunk is longer than its head says")
            return _Next.HEAD
        found = _CHUNK_HEAD.fullmatch(line)
        if not found:
            raise FramingError("a chunk head is invalid")
        self._chunk = int(found[1], 16)
        return _Next.DATA if self._chunk else _Next.END


def body_of(head: Head, left_over: memoryview, stream: Stream, scratch: int) -> Body:
    """Return the reader for the framing that the head declares (RFC 9112, 6.3).

    `scratch` is the number of bytes that are received together where chunk heads are mixed with data.
    """
    length = head.length
    if length is not None:
        return _LengthBody(left_over, stream, length)
    return _ChunkedBody(left_over, stream, scratch) if head.chunked else Body(left_over, stream)
