"""Connections that return large blocks, plain or through TLS, without the interpreter lock while they wait.

CPU seconds per GiB of the reading alone (nginx on loopback):

- plain, blocks of 1 MiB: 0.33 with Python's own timeout, which polls before each `recv` and takes what is there; 0.28
  with the kernel's timeout (SO_RCVTIMEO) and MSG_WAITALL, one system call for a whole block.
- TLS: 0.60 with `SSLSocket.recv_into`, which reads each record of 16 KiB with two system calls; 0.54 with fewer
  wake-ups; 0.51 if 256 KiB of records are received together and OpenSSL reads them from memory, which also returns at
  every tick. `ssl` returns one record per call, whatever the size of the block.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

TICK = 0.25

"""Seconds after which a call returns with the bytes received so far, so that progress and stalls are noticed."""

_MOST_BUFFER, _LEAST_BUFFER = 512 << 10, 64 << 10  # bytes received together; 64 KiB of TLS records cost a sixth more

_ALL_BUFFERS = 8 << 20  # bytes of the buffers of all transfers; TLS has as much again, since OpenSSL keeps a copy

_GATHERED = 480 << 10  # bytes for which the kernel lets the thread sleep; 5% less CPU than a wake-up for each packet

# Bytes that the kernel may buffer, whatever its limit for SO_RCVBUF. It keeps the window if less is asked for later.
_WINDOW = 8 << 20

_LEAST_PER_ADDRESS = 0.5  # seconds

# A peer that vanished without a word is noticed after about 30 s (idle, interval, count).
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))

_TIMEVAL = struct.Struct("@ll")


def buffer_size(transfers: int) -> int:
    """Return the bytes that each of so many transfers in parallel receives together, where it needs a buffer."""
    return max(_LEAST_BUFFER, min(_MOST_BUFFER, _ALL_BUFFERS // max(1, transfers)))


class Idle(Exception):
    """No byte within a tick. Every reader keeps its position, so the call can be repeated."""


class Stream(Protocol):
    """A connection from which heads and bodies are read."""

    @property
    def fills_blocks(self) -> bool:
        """Whether `receive` with `all_of_it` is a single system call, however large the view."""

    def send(self, data: bytes) -> None:
        """Send all bytes. Raises OSError."""

    def expect_bulk(self) -> None:
        """Wake up less often from now on, because a large body follows."""

    def receive(self, view: memoryview, *, all_of_it: bool) -> int:
        """Return at least one byte, or with `all_of_it` the bytes of a tick; 0 at the end. Raises Idle, OSError."""


def connect(host: str, port: int, seconds: float, keep: Callable[[socket.socket], None]) -> socket.socket:
    """Connect to the first address of a host that accepts, within `seconds` for all addresses together.

    `keep` is called with each socket before it connects, and may raise. Raises OSError (TimeoutError among others).
    """
    addresses = _resolved(host, port)
    end, failure = time.monotonic() + seconds, OSError(f"{host} has no address")
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        # one dead address must not use up the time of the others
        share = (end - time.monotonic()) / (len(addresses) - number)
        try:
            return _connected(socket.socket(family, kind, protocol), address, max(share, _LEAST_PER_ADDRESS), keep)
        except OSError as error:
            failure = error
    raise failure


def _resolved(host: str, port: int) -> list[Any]:
    """Return the addresses of a host. A name with a trailing dot is not in /etc/hosts, but may be there without it."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror:
        if not host.endswith("."):
            raise
        return socket.getaddrinfo(host[:-1], port, type=socket.SOCK_STREAM)


def _connected(
    connection: socket.socket, address: Any, seconds: float, keep: Callable[[socket.socket], None]
) -> socket.socket:
    try:
        connection.settimeout(seconds)
        keep(connection)
        connection.connect(address)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
    except BaseException:
        connection.close()
        raise
    return connection


class Plain:
    """A connected socket."""

    fills_blocks = True

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(None)  # the kernel measures the time, so there is nothing to poll
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(0, int(TICK * 1e6)))
        self._socket = connection

    def send(self, data: bytes) -> None:
        """Send all bytes. Raises OSError."""
        self._socket.sendall(data)

    def expect_bulk(self) -> None:
        """Have the kernel wake the thread once many bytes have arrived, at the end, or at the tick."""
        for size in (_WINDOW, _GATHERED):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)

    def receive(self, view: memoryview, *, all_of_it: bool) -> int:
        """Return bytes as they arrive; `all_of_it` only if this many must follow, or the end. Raises Idle, OSError."""
        try:
            return self._socket.recv_into(view, len(view), socket.MSG_WAITALL if all_of_it else 0)
        except BlockingIOError:
            raise Idle from None


class Tls:
    """TLS over another stream, by way of memory. An end without close_notify is an end: many servers omit it."""

    fills_blocks = False

    def __init__(self, below: Stream, context: ssl.SSLContext, host: str, buffer: int = _LEAST_BUFFER) -> None:
        self._below = below
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        # a trailing dot marks a name as complete for the resolver; certificates do not contain it
        name = host.rstrip(".") or host
        self._tls: Any = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self._records = memoryview(bytearray(buffer))

    def shake_hands(self, timeout: float) -> None:
        """Authenticate the peer. Raises ssl.SSLError, OSError; TimeoutError after `timeout` seconds."""
        end = time.monotonic() + timeout
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
            except ssl.SSLError:
                with suppress(OSError):
                    self._flush()  # the alert that gives the peer the reason
                raise
            else:
                self._flush()
                return
            with suppress(Idle):
                self._refill()
            if time.monotonic() > end:
                raise TimeoutError("the TLS handshake did not end in time")

    def send(self, data: bytes) -> None:
        """Send all bytes. Raises OSError."""
        self._tls.write(data)
        self._flush()

    def expect_bulk(self) -> None:
        """See `Plain`."""
        self._below.expect_bulk()

    def receive(self, view: memoryview, *, all_of_it: bool) -> int:
        """Return the content of the records received together. Raises Idle, OSError (ssl.SSLError among others)."""
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
        got = self._below.receive(self._records, all_of_it=False)
        if got:
            self._incoming.write(self._records[:got])
        else:
            self._incoming.write_eof()

    def _flush(self) -> None:
        """Send TLS's own messages: the handshake, alerts, answers to key updates."""
        if self._outgoing.pending:
            self._below.send(self._outgoing.read())
