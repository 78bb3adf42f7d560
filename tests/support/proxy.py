"""A small HTTP proxy: CONNECT tunnels, and plain requests in absolute form, which it forwards one after the other."""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

_BLOCK = 1 << 16
_RESET = struct.pack("ii", 1, 0)


class Proxy(socketserver.ThreadingTCPServer):
    """The proxy on a port of 127.0.0.1; `served` counts the connections it relayed."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.served = 0

    @property
    def url(self) -> str:
        """The value of `http_proxy` and `https_proxy`."""
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def proxy() -> Iterator[Proxy]:
    """Serve until the end of the block."""
    with Proxy() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(socketserver.BaseRequestHandler):
    request: socket.socket
    server: Proxy

    def setup(self) -> None:
        """Let small answers pass at once."""
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def handle(self) -> None:
        """Relay one connection of a client."""
        self.server.served += 1
        with suppress(OSError, ValueError):
            head, rest = _head(self.request, b"")
            if not head:
                return
            method, target, version = head.split(b"\r\n", 1)[0].split(b" ")
            if method == b"CONNECT":
                host, _, port = target.decode().rpartition(":")
            else:
                parts = urlsplit(target.decode())
                host, port = parts.hostname or "", str(parts.port or 80)
            with socket.create_connection((host.strip("[]"), int(port)), timeout=30) as upstream:
                if method == b"CONNECT":
                    self.request.sendall(version + b" 200 Connection established\r\n\r\n")
                    upstream.sendall(rest)
                else:
                    upstream.sendall(_origin_form(head) + rest)
                self._relay(upstream, tunnel=method == b"CONNECT")

    def _relay(self, upstream: socket.socket, *, tunnel: bool) -> None:
        """Copy both ways until the server ends; a reset of the server becomes one for the client."""
        back = threading.Thread(target=_copy if tunnel else _forward, args=(self.request, upstream), daemon=True)
        back.start()
        try:
            _copy(upstream, self.request, raising=True)
        except ConnectionResetError:
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        finally:
            for one, how in ((upstream, socket.SHUT_RDWR), (self.request, socket.SHUT_RD)):
                with suppress(OSError):
                    one.shutdown(how)
            back.join()  # a thread that still reads would keep the connection open
            self.request.close()


def _head(client: socket.socket, data: bytes) -> tuple[bytes, bytes]:
    """The head of the next request with its empty line, and what came after it; nothing at the end."""
    while b"\r\n\r\n" not in data:
        if not (more := client.recv(_BLOCK)):
            return b"", b""
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    return head + b"\r\n\r\n", rest


def _origin_form(head: bytes) -> bytes:
    line, _, rest = head.partition(b"\r\n")
    method, target, version = line.split(b" ")
    parts = urlsplit(target.decode())
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return b" ".join((method, path.encode(), version)) + b"\r\n" + rest


def _forward(client: socket.socket, upstream: socket.socket) -> None:
    """Further requests on the same connection; none of the agent's has a body."""
    with suppress(OSError, ValueError):
        rest = b""
        while True:
            head, rest = _head(client, rest)
            if not head:
                break
            upstream.sendall(_origin_form(head))
    with suppress(OSError):
        upstream.shutdown(socket.SHUT_WR)


def _copy(source: socket.socket, target: socket.socket, *, raising: bool = False) -> None:
    try:
        while data := source.recv(_BLOCK):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        if raising:
            raise
