"""Servers of raw bytes on real sockets."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

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
def serving(*scripts: Script) -> Iterator[tuple[str, list[bytes]]]:
    """A server that plays one script per connection; the URL of an archive there, and the heads of its requests."""
    heads: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for script in scripts:
                with contextlib.suppress(OSError):
                    connection, _ = listener.accept()
                    with connection:
                        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        head = b""
                        while b"\r\n\r\n" not in head and (data := connection.recv(65536)):
                            head += data
                        heads.append(head)
                        script(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/pull/secret/a.tar.gz", heads
        listener.close()
