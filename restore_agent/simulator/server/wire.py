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
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO, Protocol

from ..body import Body, BytesPart, FilePart, Part
from ..delivery.heads import ChunkStyle, HeadStyle
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


@dataclass(frozen=True)
class Transfer:
    """Form and end of a body: `rate` in bytes per second, `chunks` if it is chunked, `is_all`: not shortened."""

    ending: Ending = "whole"
    rate: int | None = None
    chunks: ChunkStyle | None = None
    is_all: bool = True

    @property
    def is_unclean(self) -> bool:
        """Whether the framing of the body is left incomplete."""
        return self.ending not in ("whole", "clean-cut")


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

    def send_head(self, status: int, headers: Iterable[tuple[str, str]], style: HeadStyle | None = None) -> None:
        """Send the status line and headers, and interim answers before them."""
        self.send(render_head(status, headers, style or HeadStyle()))

    def transfer(self, body: Body, transfer: Transfer, progress: Progress) -> bool:
        """Send a body and end it; return whether it was sent and ended completely.

        `progress.last_byte` is called before the last byte is sent, so a client that has the whole body finds all
        effects of that.
        """
        try:
            size = len(body)
            finished = self._stream(body.cut(0, size - 1), transfer, transfer.rate, progress)
            if finished:
                progress.last_byte()
                self._stream(body.cut(size - 1, size), transfer, None, progress, is_last=True)
            if finished and transfer.chunks:
                self._end_chunks(transfer, transfer.chunks)
            self._end(transfer.ending if finished else "cut", progress)
            return finished and transfer.ending == "whole"
        finally:
            self.close_files()

    def _end_chunks(self, transfer: Transfer, style: ChunkStyle) -> None:
        if transfer.ending in ("whole", "clean-cut"):
            self.send(b"0" * style.zeros + b"0\r\n" + style.trailer + b"\r\n")
        elif transfer.is_all and style.end == "no-crlf":
            self.send(b"0\r\n")

    def _stream(
        self, body: Body, transfer: Transfer, rate: int | None, progress: Progress, *, is_last: bool = False
    ) -> bool:
        style = transfer.chunks
        size = min(_CHUNK if style else _PIECE, max(1, rate // 20) if rate else _PIECE)
        started, sent = time.monotonic(), 0
        for piece in body.pieces(size):
            if progress.halted():
                return False
            if style:
                self.send(f"{'0' * style.zeros}{len(piece):x}{style.extension}\r\n".encode())
            self._send_part(piece)
            if style and not (is_last and transfer.is_all and style.end == "no-data-crlf" and transfer.is_unclean):
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


def render_head(status: int, headers: Iterable[tuple[str, str]], style: HeadStyle) -> bytes:
    """Return the status line, the headers, and the empty line after them; before them, interim answers."""
    interim = ["HTTP/1.1 103 Early Hints", "X-Interim: yes", ""] * style.interim
    reason = _phrase(status) if style.reason is None else style.reason
    lines = [*interim, f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers)]
    return (style.newline.join(lines) + 2 * style.newline).encode("latin-1", "replace")


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Unknown"
