"""Servers of raw bytes on real sockets."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

Script = Callable[[socket.socket], None]


def says(*pieces: bytes | float) -> Script:
    """A server that sends these bytes, pausing for the numbers (seconds), and closes."""

    def play(connection: socket.socket) -> None:
        for piece in pieces:
            if isinstance(piece, bytes):
                connection.sendall(piece)
            else:
                time.sleep(piece)

    return play


@contextlib.contextmanager
def serving(*scripts: Script, read_head: bool = True) -> Iterator[tuple[str, list[bytes]]]:
    """A server that plays one script per connection; the URL of an archive there, and the heads of its requests.

    Without `read_head` a script finds the request unread.
    """
    heads: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for script in scripts:
                with contextlib.suppress(OSError):
                    connection, _ = listener.accept()
                    with connection:
                        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        head = b""
                        while read_head and b"\r\n\r\n" not in head and (data := connection.recv(65536)):
                            head += data
                        heads.append(head)
                        script(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/pull/secret/a.tar.gz", heads
        listener.close()


def drips(data: bytes, pause: float = 0.0005) -> Script:
    """A server that sends every byte in a packet of its own."""
    pieces: list[bytes | float] = []
    for byte in data:
        pieces += [bytes([byte]), pause]
    return says(*pieces)


def repeats(first: bytes, again: bytes) -> Script:
    """A server that never comes to an end."""

    def play(connection: socket.socket) -> None:
        connection.sendall(first)
        while True:
            connection.sendall(again)

    return play


class ForwardProxy:
    """A forward proxy for absolute-form requests and CONNECT, an exchange per connection; `targets`: what was asked."""

    def __init__(self, refusal: bytes | None = None) -> None:
        self.targets: list[bytes] = []
        self.heads: list[bytes] = []
        self._refusal = refusal
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                received = client.recv(1)
                if not received:
                    return
                head += received
            method, target, _ = head.split(b" ", 2)
            self.targets.append(method + b" " + target)
            self.heads.append(head)
            if self._refusal:
                client.sendall(self._refusal)
                return
            address = target.removeprefix(b"http://").split(b"/", 1)[0].decode()
            host, _, port = address.partition(":")
            with socket.create_connection((host, int(port))) as server:
                if method == b"CONNECT":
                    client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
                else:
                    path = target.removeprefix(b"http://").partition(b"/")[2]
                    server.sendall(head.replace(target, b"/" + path, 1))
                back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
                back.start()
                self._pump(client, server)
                back.join()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def full_listener() -> Iterator[tuple[str, int]]:
    """An address where connections are neither accepted nor refused: its queue is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        yield listener.getsockname()
        for one in waiting:
            one.close()


def resolve_to(monkeypatch: pytest.MonkeyPatch, name: str, addresses: list[tuple[str, int]]) -> None:
    """Let a name resolve to these addresses."""
    real = socket.getaddrinfo
    found = [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address) for address in addresses]

    def resolve(host: str, *more: Any, **named: Any) -> list[Any]:
        return found if host == name else real(host, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
