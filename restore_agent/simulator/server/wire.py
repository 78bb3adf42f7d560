"""Answers on a socket: framing, rate limit, and every way in which a transfer can end.

A body is a sequence of parts (file slices, bytes, repeated bytes), so whole archives are sent with `sendfile`.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO, Protocol

from ..body import Body, BytesPart, FilePart, Headers, Part
from ..delivery.plan import Ending

_PIECE = 4 << 20

_TLS_PIECE = 1 << 20

_CHUNK = 1 << 20

_POLL = 0.05  # seconds between checks of whether an idle connection is still needed


class Progress(Protocol):
    """Interface that counts the bytes of a transfer and may end it."""

    def sent(self, count: int) -> None:
        """Count bytes of the body that were given to the system."""

    def last_byte(self) -> None:
        """Record that all bytes but the last are sent, and that the last will be."""

    def halted(self) -> bool:
        """Return whether the transfer must be interrupted now."""


class Wire:
    """Connection of one client. Errors of the connection are OSErrors."""

    def __init__(self, connection: socket.socket, stopping: threading.Event) -> None:
        self._socket = connection
        self._stopping = stopping
        self._files: dict[Path, BinaryIO] = {}
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close_files(self) -> None:
        """Close the files that were sent."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._socket.sendall(data)

    def send_head(self, status: int, reason: str, headers: Headers | Iterable[tuple[str, str]]) -> None:
        """Send the status line and headers."""
        self.send(render_head(status, reason, headers))

    def transfer(self, body: Body, *, chunked: bool, ending: Ending, rate: int | None, progress: Progress) -> bool:
        """Send a body and end it with `ending`; return whether it was sent and ended completely.

        `rate` is in bytes per second. `progress.last_byte` is called before the last byte is sent, so a client that
        has the whole body finds all effects of that.
        """
        try:
            size = len(body)
            finished = self._stream(body.cut(0, size - 1), chunked, rate, progress)
            if finished and ending == "whole":
                progress.last_byte()
            if finished:
                self._stream(body.cut(size - 1, size), chunked, None, progress)
            if finished and chunked and ending in ("whole", "clean-cut"):
                self.send(b"0\r\n\r\n")
            self._end(ending if finished else "cut", progress)
            return finished and ending == "whole"
        finally:
            self.close_files()

    def _stream(self, body: Body, chunked: bool, rate: int | None, progress: Progress) -> bool:
        size = min(_CHUNK if chunked else _PIECE, max(1, rate // 20) if rate else _PIECE)
        started, sent = time.monotonic(), 0
        for piece in body.pieces(size):
            if progress.halted():
                return False
            if chunked:
                self.send(f"{len(piece):x}\r\n".encode())
            self._send_part(piece)
            if chunked:
                self.send(b"\r\n")
            sent += len(piece)
            progress.sent(len(piece))
            if rate:
                self._stopping.wait(max(0.0, started + sent / rate - time.monotonic()))
        return True

    def _send_part(self, part: Part) -> None:
        if isinstance(part, FilePart):
            self._send_file(part)
        else:
            self.send(part.data if isinstance(part, BytesPart) else part.byte * part.size)

    def _send_file(self, part: FilePart) -> None:
        if part.path not in self._files:
            self._files[part.path] = part.path.open("rb", buffering=0)
        file = self._files[part.path]
        if not isinstance(self._socket, ssl.SSLSocket):
            self._socket.sendfile(file, part.start, len(part))
            return
        # SSLSocket.sendfile reads 8 KiB at a time; large blocks are faster
        file.seek(part.start)
        for start in range(part.start, part.stop, _TLS_PIECE):
            self._socket.sendall(file.read(min(_TLS_PIECE, part.stop - start)))

    def _end(self, ending: Ending, progress: Progress) -> None:
        if ending == "reset":
            self.reset()
        elif ending == "stall":
            self.hold(progress.halted)

    def reset(self) -> None:
        """Make the connection end with RST when it is closed (SO_LINGER without a timeout)."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def hold(self, halted: Callable[[], bool]) -> None:
        """Keep the connection open without sending, until the client closes it or the simulator stops."""
        while not halted():
            if select.select([self._socket], [], [], _POLL)[0]:
                return  # end of the stream or close_notify; clients do not pipeline

    def close_notify(self) -> None:
        """Send the close_notify alert of TLS, without waiting for an answer; do nothing without TLS."""
        if isinstance(self._socket, ssl.SSLSocket):
            self._socket.settimeout(0)
            with contextlib.suppress(OSError, ValueError):
                self._socket.unwrap()


def render_head(status: int, reason: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """Return the status line, the headers, and the empty line after them."""
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
