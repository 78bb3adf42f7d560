"""Listener of one origin: a port, and a thread per connection."""

from __future__ import annotations

import contextlib
import select
import socket
import socketserver
import ssl
import sys
import threading
from collections.abc import Iterator
from typing import Any

from .handler import Handler, Service


class Listener(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """One origin: a port, and a thread per connection."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None, service: Service) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.service = service
        self.stopping = threading.Event()
        self._tls = tls
        self._open: dict[socket.socket, threading.Thread] = {}
        self._open_lock = threading.Lock()
        super().__init__((host, port), Handler)
        self.origin = f"{'https' if tls else 'http'}://{_url_host(host)}:{self.server_address[1]}"
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._accept, daemon=True, name=self.origin)

    def start(self) -> None:
        """Start to accept connections."""
        self._thread.start()

    def stop(self) -> None:
        """Close the port and all connections, and wait for the threads."""
        self.stopping.set()
        self._wake.send(b"!")
        self._thread.join()
        for end in (self._wake, self._woken):
            end.close()
        self.server_close()
        with self._open_lock:
            open_now = dict(self._open)
            for connection in open_now:
                # not SSLSocket.shutdown: it would remove the TLS object that the thread uses
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
        for thread in open_now.values():
            thread.join(timeout=5)

    def _accept(self) -> None:
        """Accept until woken; serve_forever polls for its end, which makes each stop slow."""
        while not self.stopping.is_set():
            ready, _, _ = select.select([self.socket, self._woken], [], [])
            if self.socket in ready:
                self.handle_request()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; its own thread does the TLS handshake, so it does not delay other connections."""
        connection, address = super().get_request()
        if self._tls is not None:
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    @contextlib.contextmanager
    def registered(self, connection: socket.socket) -> Iterator[None]:
        """Register a connection, so that `stop` closes it."""
        with self._open_lock:
            if self.stopping.is_set():
                raise ConnectionAbortedError
            self._open[connection] = threading.current_thread()
        try:
            yield
        finally:
            with self._open_lock:
                self._open.pop(connection, None)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection without a shutdown first, which would send FIN instead of RST."""
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore disconnected clients; show any other error, which is a defect of the simulator."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def _url_host(host: str) -> str:
    """Return a host as clients on this machine write it in a URL."""
    if host in ("0.0.0.0", ""):  # noqa: S104 - compared, not bound
        return "127.0.0.1"
    if host == "::":
        return "[::1]"
    return f"[{host}]" if ":" in host else host
