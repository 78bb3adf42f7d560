"""Connection handler: reads requests, and sends the answers of the API and of deliveries."""

from __future__ import annotations

import contextlib
import ssl
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any, Protocol

from ..api.answers import HOSTILE, Answer, Question
from ..api.api import Api
from ..api.documents import API
from ..body import Body, BytesPart, Headers
from ..delivery import deliveries
from ..delivery.plan import Plan
from ..log import Request, RequestLog
from ..model import Manager
from .tls import handshake
from .wire import Transfer, Wire

_MAX_BODY = 1 << 20


@dataclass(frozen=True)
class Service:
    """Parts of the simulator that answer requests."""

    manager: Manager
    api: Api
    log: RequestLog


class _Server(Protocol):
    service: Service
    stopping: threading.Event
    origin: str

    def registered(self, connection: Any) -> contextlib.AbstractContextManager[None]: ...


class Handler(BaseHTTPRequestHandler):
    """One connection: http.server parses requests, a `Wire` sends the answers."""

    protocol_version = "HTTP/1.1"
    timeout = None
    server: _Server  # type: ignore[assignment]  # typeshed declares BaseServer; only `_Server` creates handlers

    def handle(self) -> None:
        """Serve requests until the connection ends."""
        with self.server.registered(self.connection):
            if isinstance(self.connection, ssl.SSLSocket):
                handshake(self.connection, self.server.service.manager.faults.plain_400)
            self.wire = Wire(self.connection, self.server.stopping)
            super().handle()

    def finish(self) -> None:
        """Close the files of the socket; an open one would keep the connection open."""
        with contextlib.suppress(OSError):
            super().finish()

    def __getattr__(self, name: str) -> Any:
        """Return the method for every HTTP method (`do_GET`, `do_HEAD`, …)."""
        if name.startswith("do_"):
            return self._answer
        raise AttributeError(name)

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing to stderr: requests are in the request log."""

    def _answer(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        size = headers.get("content-length", "")
        body = self.rfile.read(min(int(size), _MAX_BODY)) if size.isdecimal() else b""
        self.record = Request(self.command, self.path, headers, "other")
        if deliveries.is_delivery(self.path):
            self._answer_delivery(headers)
        elif self.path.startswith(API):
            self._answer_api(Question(self.command, self.path, headers.get("authorization"), body))
        else:
            self.server.service.log.add(self.record)
            self._send_small(404, (("Content-Type", "text/plain"),), Body((BytesPart(b"Not found.\n"),)))

    # API

    def _answer_api(self, question: Question) -> None:
        service = self.server.service
        self.record.kind = "api"
        job = service.manager.find_job(question.path.rstrip("/").rpartition("/")[2])
        self.record.job_id = job.id if job else None
        service.log.add(self.record)
        self.server.stopping.wait(service.manager.faults.api_delay)
        answer = service.api.answer(question)
        self.record.auth = answer.auth
        self.server.stopping.wait(answer.delay)
        if answer.trouble is None:
            self._send_small(answer.status, answer.headers, answer.body)
        else:
            self._withhold(answer)

    def _withhold(self, answer: Answer) -> None:
        self.close_connection = True
        if answer.trouble == "reset":
            self.wire.reset()
        elif answer.trouble == "stall":
            self.wire.hold(self.server.stopping.is_set)
        elif answer.trouble == "endless-header":
            self._send_endless_header()

    def _send_endless_header(self) -> None:
        self.close_connection = True
        self.record.status = 200
        self.wire.send(b"HTTP/1.1 200 OK\r\n")
        while not self.server.stopping.is_set():
            self.wire.send(b"X-Filler: " + b"x" * 8000 + b"\r\n")

    def _send_small(self, status: int, headers: Headers, body: Body) -> None:
        """Send an answer with Content-Length; the connection stays open."""
        head = [*self._common_headers(), *headers, ("Content-Length", str(len(body)))]
        self.record.status = status
        if self.close_connection:
            head.append(("Connection", "close"))
        self.wire.send_head(status, head)
        if self.command != "HEAD":
            self.wire.transfer(body, Transfer(), _Progress(self.record, self.server.stopping))

    def _common_headers(self) -> Headers:
        manager = self.server.service.manager
        headers: Headers = ()
        if not manager.faults.no_date:
            date = "sometime last week" if manager.faults.bad_date else manager.clock.http_date()
            headers += (("Date", date),)
        if manager.faults.hostile_text:
            headers += (("X-Hostile", HOSTILE.replace("\r", "").replace("\n", "").replace("\0", "")),)
        return headers

    # Deliveries

    def _answer_delivery(self, headers: dict[str, str]) -> None:
        service = self.server.service
        job = deliveries.job_of(service.manager, self.path)
        self.record.kind, self.record.job_id = "delivery", job.id if job else None
        service.log.add(self.record)
        taken = deliveries.answer(service.manager, self.command, self.path, headers, self.server.origin)
        self.record.auth, self.record.status = taken.auth, taken.plan.status
        if job is not None:
            self.server.stopping.wait(job.faults.delivery_delay)
        if job is not None and job.faults.endless_delivery_header:
            self._send_endless_header()
        else:
            self._send_delivery(taken)

    def _send_delivery(self, taken: deliveries.DeliveryAnswer) -> None:
        plan = taken.plan
        if plan.ending != "whole" or plan.form.framing == "close":
            self.close_connection = True
        head = [*self._common_headers(), *plan.headers, *self._framing(plan)]
        self.wire.send_head(plan.status, head, plan.form.head)
        if self.command == "HEAD":
            return
        progress = _Progress(self.record, self.server.stopping, taken)
        chunks = plan.form.chunks if plan.form.framing == "chunked" else None
        transfer = Transfer(plan.ending, plan.rate, chunks, is_all=plan.send == plan.length)
        if not self.wire.transfer(taken.body, transfer, progress):
            self.close_connection = True
        if self.close_connection and plan.ending in ("whole", "clean-cut"):
            self.wire.close_notify()

    def _framing(self, plan: Plan) -> Headers:
        headers: Headers = (("Connection", "close"),) if self.close_connection else ()
        if plan.form.framing == "length":
            return (*headers, ("Content-Length", str(plan.declared)))
        if plan.form.framing == "chunked":
            return (*headers, ("Transfer-Encoding", plan.form.transfer_encoding))
        return headers


class _Progress:
    """Records the progress of a transfer, and completes its download in the model."""

    def __init__(
        self, record: Request, stopping: threading.Event, taken: deliveries.DeliveryAnswer | None = None
    ) -> None:
        self._record, self._stopping, self._taken = record, stopping, taken

    def sent(self, count: int) -> None:
        """Count sent bytes."""
        self._record.bytes_sent += count

    def last_byte(self) -> None:
        """Record that all bytes are sent."""
        self._record.completed = self._taken is None or self._taken.plan.ending == "whole"
        if self._taken is not None:
            deliveries.complete(self._taken)

    def halted(self) -> bool:
        """Return whether the simulator stops, or the delivery has expired during the transfer."""
        return self._stopping.is_set() or (self._taken is not None and self._taken.is_cut_off())
