"""Bytes off a connection in large bites, plain or through TLS, the interpreter lock free while they come.

What was measured (CPU seconds per GiB from nginx on loopback, of the reading alone):

- plain, blocks of 1 MiB: 0.33 with Python's own timeout, which polls before each `recv` and takes what is there; 0.28
  with the kernel's (SO_RCVTIMEO) and MSG_WAITALL, one system call for a whole block.
- TLS: 0.60 through `SSLSocket.recv_into`, which reads each record of 16 KiB with two system calls, 0.54 when woken less
  often; 0.51 when 256 KiB of records are received at once and OpenSSL takes them from memory, which also returns at
  every tick. `ssl` hands out one record per call, whatever the size of the block: that is what is left to save.
"""

from __future__ import annotations

import io
import socket
import ssl
import struct
import time
from contextlib import suppress
from typing import Any, Protocol

TICK = 0.25

"""Seconds after which a call returns with what is here, so that progress shows and a stall is noticed."""

_RECORDS = 512 << 10  # bytes of TLS records received at once; 64 KiB cost a sixth more, 256 KiB 3 % with four at once

_GATHERED = 480 << 10  # bytes for which the kernel lets us sleep; 5 % less CPU than being woken for each packet

_WINDOW = (
    8 << 20
)  # bytes that the kernel may hold for us, whatever its limit for SO_RCVBUF; it keeps it when we ask for less

_TIMEVAL = struct.Struct("@ll")


class Idle(Exception):
    """No byte within a tick. Every reader keeps its place, so that it can simply be called again."""


class Stream(Protocol):
    """A connection, as the readers of heads and bodies know it."""

    @property
    def fills_blocks(self) -> bool:
        """Whether `receive` with `all_of_it` is one call of the kernel's, however large the view."""

    def send(self, data: bytes) -> None:
        """Send all of it. Raises OSError."""

    def expect_bulk(self) -> None:
        """From now on a body comes: let it gather a little rather than be woken for every packet."""

    def receive(self, view: memoryview, *, all_of_it: bool) -> int:
        """At least one byte, or with `all_of_it` as much as comes in a tick; 0 at the end. Raises Idle, OSError."""


class Plain:
    """A connected socket."""

    fills_blocks = True

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(None)  # the kernel keeps the time, so that there is nothing to poll
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(0, int(TICK * 1e6)))
        self._socket = connection

    def send(self, data: bytes) -> None:
        """Send all of it. Raises OSError."""
        self._socket.sendall(data)

    def expect_bulk(self) -> None:
        """Have the kernel wake us once so many bytes are here, at the end, or at the tick."""
        for size in (_WINDOW, _GATHERED):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)

    def receive(self, view: memoryview, *, all_of_it: bool) -> int:
        """Bytes as they come; `all_of_it` only where so many are sure to follow, or the end. Raises Idle, OSError."""
        try:
            return self._socket.recv_into(view, len(view), socket.MSG_WAITALL if all_of_it else 0)
        except BlockingIOError:
            raise Idle from None


class Tls:
    """TLS over a connected socket, by way of memory. An end without close_notify is an end: servers do that."""

    fills_blocks = False

    def __init__(self, connection: socket.socket, context: ssl.SSLContext, host: str) -> None:
        self._plain = Plain(connection)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: Any = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._records = memoryview(bytearray(_RECORDS))

    def shake_hands(self, timeout: float) -> None:
        """Prove the peer. Raises ssl.SSLError, OSError; TimeoutError after so many seconds."""
        end = time.monotonic() + timeout
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
            except ssl.SSLError:
                with suppress(OSError):
                    self._flush()  # the alert that tells the peer why not
                raise
            else:
                self._flush()
                return
            with suppress(Idle):
                self._refill()
            if time.monotonic() > end:
                raise TimeoutError("the TLS handshake did not end in time")

    def send(self, data: bytes) -> None:
        """Send all of it. Raises OSError."""
        self._tls.write(data)
        self._flush()

    def expect_bulk(self) -> None:
        """See `Plain`."""
        self._plain.expect_bulk()

    def receive(self, view: memoryview, *, all_of_it: bool) -> int:
        """What one chunk_size of records holds. Raises Idle, OSError (ssl.SSLError among them)."""
        filled = 0
        while filled < len(view):
            try:
                got = self._tls.read(len(view) - filled, view[filled:])
            except ssl.SSLWantReadError:
                if filled:
                    break
                self._refill()
                continue
            except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
                break
            if not got:
                break
            filled += got
        self._flush()
        return filled

    def _refill(self) -> None:
        got = self._plain.receive(self._records, all_of_it=False)
        if got:
            self._incoming.write(self._records[:got])
        else:
            self._incoming.write_eof()

    def _flush(self) -> None:
        """Send what TLS itself has to say: the handshake, alerts, answers to key updates."""
        if self._outgoing.pending:
            self._plain.send(self._outgoing.read())


class HeadReader(io.RawIOBase):
    """What `http.client` reads a head from: `before`, what came behind another head, then the wire.

    Raises TimeoutError when no byte comes for so many seconds.
    """

    def __init__(self, stream: Stream, patience: float, before: memoryview) -> None:
        self._stream = stream
        self._patience = patience
        self.before = before
        self.over = False

    def makefile(self, _mode: str) -> io.BufferedReader:
        """What makes it look like a socket to `http.client`."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Some bytes; None once the head is over, so that a look into the buffer never waits for the wire."""
        began, view = time.monotonic(), memoryview(buffer)
        while not self.over:
            if self.before:
                size = min(len(view), len(self.before))
                view[:size], self.before = self.before[:size], self.before[size:]
                return size
            try:
                return self._stream.receive(view, all_of_it=False)
            except Idle:
                if time.monotonic() > began + self._patience:
                    raise TimeoutError(f"no byte within {self._patience:g} s") from None
        return None
