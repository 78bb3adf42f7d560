"""Performs answers on a socket: framing, throttle, and every way in which a transfer can end.

A body is a row of pieces (file slices, bytes, repeated bytes), so that damage and padding are pieces, too, and whole
archives go out with `sendfile`.
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

_PATIENCE = 0.05  # seconds between looks at whether a held connection is still wanted


class Watcher(Protocol):
    """Who keeps count of a transfer and may end it."""

    def sent(self, count: int) -> None:
        """`count` more bytes of the body were given to the system."""

    def last_byte(self) -> None:
        """All but the last byte is out, and nothing is going to stop it."""

    def halted(self) -> bool:
        """Whether the transfer has to be cut now."""


class Wire:
    """One client's connection. Errors of the connection are OSErrors, as sockets raise them."""

    def __init__(self, connection: socket.socket, stopping: threading.Event) -> None:
        self._socket = connection
        self._stopping = stopping
        self._files: dict[Path, BinaryIO] = {}
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close_files(self) -> None:
        """Let go of the files that were sent."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def send(self, data: bytes) -> None:
        """Bytes as they are."""
        self._socket.sendall(data)

    def send_head(self, status: int, reason: str, headers: Headers | Iterable[tuple[str, str]]) -> None:
        """Status line and headers."""
        self.send(render_head(status, reason, headers))

    def transfer(self, body: Body, *, chunked: bool, ending: Ending, rate: int | None, watcher: Watcher) -> bool:
        """Send a body and end it as told; whether all of it went out.

        `rate` is in bytes per second. The last byte waits until the watcher knows of it: a client that has the whole
        body must find every consequence of that.
        """
        try:
            size = len(body)
            finished = self._stream(body.cut(0, size - 1), chunked, rate, watcher)
            if finished and ending == "whole":
                watcher.last_byte()
            if finished:
                self._stream(body.cut(size - 1, size), chunked, None, watcher)
            if finished and chunked and ending in ("whole", "clean-cut"):
                self.send(b"0\r\n\r\n")
            self._end(ending if finished else "cut", watcher)
            return finished and ending == "whole"
        finally:
            self.close_files()

    def _stream(self, body: Body, chunked: bool, rate: int | None, watcher: Watcher) -> bool:
        size = min(_CHUNK if chunked else _PIECE, max(1, rate // 20) if rate else _PIECE)
        started, sent = time.monotonic(), 0
        for piece in body.pieces(size):
            if watcher.halted():
                return False
            if chunked:
                self.send(f"{len(piece):x}\r\n".encode())
            self._send_part(piece)
            if chunked:
                self.send(b"\r\n")
            sent += len(piece)
            watcher.sent(len(piece))
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
        # SSLSocket.sendfile reads 8 KiB at a time; large blocks keep the encryption busy instead
        file.seek(part.start)
        for start in range(part.start, part.stop, _TLS_PIECE):
            self._socket.sendall(file.read(min(_TLS_PIECE, part.stop - start)))

    def _end(self, ending: Ending, watcher: Watcher) -> None:
        if ending == "reset":
            self.reset()
        elif ending == "stall":
            self.hold(watcher.halted)

    def reset(self) -> None:
        """Have the connection end with RST when it is closed (SO_LINGER with no time to linger)."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def hold(self, halted: Callable[[], bool]) -> None:
        """Keep the connection without a byte until the client leaves or the simulator stops."""
        while not halted():
            if select.select([self._socket], [], [], _PATIENCE)[0]:
                return  # the end of the stream, or TLS's goodbye: clients here never pipeline

    def goodbye(self) -> None:
        """End TLS properly (close_notify), without waiting for the client's answer; nothing to do without TLS."""
        if isinstance(self._socket, ssl.SSLSocket):
            self._socket.settimeout(0)
            with contextlib.suppress(OSError, ValueError):
                self._socket.unwrap()


def render_head(status: int, reason: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """Status line, headers, and the empty line after them."""
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
