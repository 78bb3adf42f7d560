"""HTTP/1.1 on real sockets: listeners, connections, TLS, and the way of one request from its bytes to its answer."""

from __future__ import annotations

import contextlib
import select
import socket
import socketserver
import ssl
import sys
import threading
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any

from ..api.answers import Answer, Question
from ..api.api import Api
from ..api.documents import API, HOSTILE
from ..body import Body, BytesPart, Headers
from ..delivery import links
from ..delivery.plan import Plan
from ..log import Request, RequestLog
from ..model import Manager
from .wire import Wire

_HANDSHAKE_PATIENCE = 10.0

_MAX_BODY = 1 << 20


class Listener(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """One origin: a port, and a thread per connection."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, host: str, port: int, tls: ssl.SSLContext | None, manager: Manager, api: Api, log: RequestLog
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.manager, self.api, self.log = manager, api, log
        self.stopping = threading.Event()
        self._tls = tls
        self._open: dict[socket.socket, threading.Thread] = {}
        self._open_lock = threading.Lock()
        super().__init__((host, port), Handler)
        self.origin = f"{'https' if tls else 'http'}://{_literal(host)}:{self.server_address[1]}"
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._accept, daemon=True, name=self.origin)

    def start(self) -> None:
        """Accept connections from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Close the port, cut what is open, and wait for the threads."""
        self.stopping.set()
        self._wake.send(b"!")
        self._thread.join()
        for end in (self._wake, self._woken):
            end.close()
        self.server_close()
        with self._open_lock:
            open_now = dict(self._open)
            for connection in open_now:
                # not SSLSocket.shutdown: it would take the TLS object from under the thread that uses it
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
        for thread in open_now.values():
            thread.join(timeout=5)

    def _accept(self) -> None:
        """Accept until woken: serve_forever looks for its end by the clock, which makes each stop slow."""
        while not self.stopping.is_set():
            ready, _, _ = select.select([self.socket, self._woken], [], [])
            if self.socket in ready:
                self.handle_request()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept; the TLS handshake is left to the connection's thread, so that it cannot hold up others."""
        connection, address = super().get_request()
        if self._tls is not None:
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    @contextlib.contextmanager
    def registered(self, connection: socket.socket) -> Iterator[None]:
        """Keep a connection in view for `stop`."""
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
        """Close a connection without a polite shutdown before: that would send FIN where RST is wanted."""
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients come and go; anything but their going is a defect here and is shown."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def _literal(host: str) -> str:
    """A host as clients on this machine write it in a URL."""
    if host in ("0.0.0.0", ""):  # noqa: S104 - compared, not bound
        return "127.0.0.1"
    if host == "::":
        return "[::1]"
    return f"[{host}]" if ":" in host else host


class Handler(BaseHTTPRequestHandler):
    """One connection: parses requests (http.server does), answers them through a `Wire`."""

    protocol_version = "HTTP/1.1"
    timeout = None
    server: Listener

    def handle(self) -> None:
        """Serve requests until the connection ends."""
        with self.server.registered(self.connection):
            if isinstance(self.connection, ssl.SSLSocket):
                shake_hands(self.connection)
            self.wire = Wire(self.connection, self.server.stopping)
            super().handle()

    def finish(self) -> None:
        """Let go of the files of the socket; one of them left open would keep the connection open."""
        with contextlib.suppress(OSError):
            super().finish()

    def __getattr__(self, name: str) -> Any:
        """`do_GET`, `do_HEAD` and all the others are one method."""
        if name.startswith("do_"):
            return self._answer
        raise AttributeError(name)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing on stderr: the request log has it."""

    def _answer(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        size = headers.get("content-length", "")
        body = self.rfile.read(min(int(size), _MAX_BODY)) if size.isdecimal() else b""
        self.record = Request(self.command, self.path, headers, "other")
        if links.is_link(self.path):
            self._answer_delivery(headers)
        elif self.path.startswith(API):
            self._answer_api(Question(self.command, self.path, headers.get("authorization"), body))
        else:
            self.server.log.add(self.record)
            self._send_small(404, (("Content-Type", "text/plain"),), Body((BytesPart(b"Not found.\n"),)))

    # API

    def _answer_api(self, question: Question) -> None:
        self.record.kind = "api"
        self.record.job_id = self._job_in(question.path)
        self.server.log.add(self.record)
        answer = self.server.api.answer(question)
        self.record.auth = answer.auth
        if answer.trouble is not None:
            self._be_trouble(answer)
        else:
            self._send_small(answer.status, answer.headers, answer.body)

    def _job_in(self, path: str) -> str | None:
        job = self.server.manager.find_job(path.rstrip("/").rpartition("/")[2])
        return job.id if job else None

    def _be_trouble(self, answer: Answer) -> None:
        self.close_connection = True
        if answer.trouble == "reset":
            self.wire.reset()
        elif answer.trouble == "stall":
            self.wire.hold(self.server.stopping.is_set)
        else:
            self._send_endless_header()

    def _send_endless_header(self) -> None:
        self.close_connection = True
        self.record.status = 200
        self.wire.send(b"HTTP/1.1 200 OK\r\n")
        while not self.server.stopping.is_set():
            self.wire.send(b"X-Filler: " + b"x" * 8000 + b"\r\n")

    def _send_small(self, status: int, headers: Headers, body: Body) -> None:
        """A whole answer with Content-Length, after which the connection stays."""
        head = [*self._common_headers(), *headers, ("Content-Length", str(len(body)))]
        self.record.status = status
        if self.close_connection:
            head.append(("Connection", "close"))
        self.wire.send_head(status, _phrase(status), head)
        if self.command != "HEAD":
            watcher = _Watcher(self.record, self.server.stopping)
            self.wire.transfer(body, chunked=False, ending="whole", rate=None, watcher=watcher)

    def _common_headers(self) -> Headers:
        manager = self.server.manager
        headers: Headers = ()
        if not manager.faults.no_date:
            date = "sometime last week" if manager.faults.bad_date else manager.clock.http_date()
            headers += (("Date", date),)
        if manager.faults.hostile_text:
            headers += (("X-Hostile", HOSTILE.replace("\r", "").replace("\n", "").replace("\0", "")),)
        return headers

    # DeliveryClient

    def _answer_delivery(self, headers: dict[str, str]) -> None:
        job = links.link_job(self.server.manager, self.path)
        self.record.kind, self.record.job_id = "delivery", job.id if job else None
        self.server.log.add(self.record)
        taken = links.pull(self.server.manager, self.command, self.path, headers, self.server.origin)
        self.record.auth, self.record.status = taken.auth, taken.plan.status
        if job is not None and job.faults.endless_delivery_header:
            self._send_endless_header()
        else:
            self._perform(taken)

    def _perform(self, taken: links.Pull) -> None:
        plan = taken.plan
        if plan.ending != "whole" or plan.framing == "close":
            self.close_connection = True
        self.wire.send_head(
            plan.status, _phrase(plan.status), [*self._common_headers(), *plan.headers, *self._framing(plan)]
        )
        if self.command == "HEAD":
            return
        watcher = _Watcher(self.record, self.server.stopping, taken)
        chunked = plan.framing == "chunked"
        whole = self.wire.transfer(taken.body, chunked=chunked, ending=plan.ending, rate=plan.rate, watcher=watcher)
        if not whole:
            self.close_connection = True
        if self.close_connection and plan.ending in ("whole", "clean-cut"):
            self.wire.goodbye()

    def _framing(self, plan: Plan) -> Headers:
        headers: Headers = (("Connection", "close"),) if self.close_connection else ()
        if plan.framing == "length":
            return (*headers, ("Content-Length", str(plan.declared)))
        return (*headers, ("Transfer-Encoding", "chunked")) if plan.framing == "chunked" else headers


class _Watcher:
    """Takes down how far a transfer came, and lets the model know when it is whole."""

    def __init__(self, record: Request, stopping: threading.Event, taken: links.Pull | None = None) -> None:
        self._record, self._stopping, self._taken = record, stopping, taken

    def sent(self, count: int) -> None:
        """More bytes are out."""
        self._record.bytes_sent += count

    def last_byte(self) -> None:
        """The body is as good as whole."""
        self._record.completed = True
        if self._taken is not None:
            links.complete(self._taken)

    def halted(self) -> bool:
        """Whether the simulator stops, or the link has expired under the transfer."""
        return self._stopping.is_set() or (self._taken is not None and self._taken.is_cut_off())


def shake_hands(connection: ssl.SSLSocket) -> None:
    """The server's part of the TLS handshake, in the connection's own thread."""
    connection.settimeout(_HANDSHAKE_PATIENCE)
    try:
        connection.do_handshake()
    except ssl.SSLError:
        _let_the_alert_arrive(connection)
        raise
    connection.settimeout(None)


def _let_the_alert_arrive(connection: ssl.SSLSocket) -> None:
    """Read what the client still sends: closing on unread data is a RST, which overtakes the alert that explains."""
    connection.settimeout(0.5)
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_WR)
        while socket.socket.recv(connection, 65536):
            pass


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Unknown"
