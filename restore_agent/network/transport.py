"""An httpx transport that reads the body of an answer into the caller's own large blocks.

httpx's own transport returns the result of each `recv` as a new bytes object, on the event loop, and that is four to
eight times slower than the network. Here one thread per exchange fills a reused block of megabytes directly from the
socket; the interpreter lock is free while the thread waits, copies, and decrypts. The transport speaks HTTP/1.1, one
exchange per connection, directly or through an HTTP proxy. It also serves the API, so that both accept the same
answers, and because a daemon thread that hangs in the resolver never delays the end of the program.

It uses two documented interfaces of httpx: `AsyncBaseTransport`, and a response extension, `"blocks"`.
"""

from __future__ import annotations

import asyncio
import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Any, TypeVar

import httpx

from .framing import Body, FramingError, Head, TlsExpected, body_of, read_head
from .proxies import DEFAULT_PORTS, Proxies, Proxy
from .sockets import TICK, Idle, Plain, Stream, Tls, buffer_size, connect
from .tls import explain_rejection

BLOCKS = "blocks"

"""Name of the response extension that holds the `BlockStream`."""

NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, httpx.PoolTimeout, httpx.LocalProtocolError)

"""Exceptions that mean that no request was sent."""

_ITERATED = 256 << 10  # bytes per piece if a body is iterated over

_SMALL_BUFFER = 64 << 10  # bytes received together of a body that is expected to be small

_CONNECT_TIMEOUT = 15.0  # seconds

_MOST_HEADS = 20  # of one answer: its own and the interim ones before it

_T = TypeVar("_T")


class ProxyRefused(httpx.ProxyError):
    """A proxy's refusal to connect to the host. `status` is that of its answer."""

    def __init__(self, status: int, request: httpx.Request) -> None:
        super().__init__(f"the proxy answered {status_line(status)}", request=request)
        self.status = status


class TlsPort(httpx.RemoteProtocolError):
    """Plain HTTP was sent to a port that expects TLS."""


class BlockTransport(httpx.AsyncBaseTransport):
    """One thread and one connection per request.

    `stall_timeout` is in seconds without a byte. Without `proxies` every host is reached directly. `transfers` is how
    many large bodies are received in parallel; with 0, bodies are expected to be small.
    """

    def __init__(
        self, context: ssl.SSLContext, stall_timeout: float, proxies: Proxies | None = None, *, transfers: int = 1
    ) -> None:
        self._context = context
        self._stall_timeout = stall_timeout
        self._proxies = proxies
        self._transfers = transfers

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request and read the head. Raises the same httpx exceptions as httpx's own transport."""
        proxy = self._proxies.for_url(request.url) if self._proxies else None
        exchange = _Exchange(request, self._context, self._stall_timeout, proxy, self._transfers)
        worker = _Worker(exchange)
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT + self._stall_timeout):  # however slowly the head arrives
                head = await worker.call(exchange.open)
        except TimeoutError:
            worker.stop()
            if not exchange.sent:
                raise httpx.ConnectTimeout("no connection in time", request=request) from None
            raise httpx.ReadTimeout("the head of the answer did not arrive in time", request=request) from None
        except BaseException:
            worker.stop()
            raise
        stream = BlockStream(exchange, worker, head.length)
        extensions = {BLOCKS: stream}
        return httpx.Response(
            head.status, headers=list(head.headers), stream=stream, extensions=extensions, request=request
        )


class BlockStream(httpx.AsyncByteStream):
    """A body that is read by filling blocks, or by iteration. `length` is in bytes, None if it is not announced."""

    def __init__(self, exchange: _Exchange, worker: _Worker, length: int | None) -> None:
        self._exchange = exchange
        self._worker = worker
        self.length = length

    @property
    def fills_blocks(self) -> bool:
        """Whether one system call fills a whole block: plain http, not in chunks."""
        return self._exchange.fills_blocks

    async def readinto(self, block: memoryview) -> int:
        """Fill `block` from its start and return the number of bytes; 0 at the end of the body.

        Returns early after a quarter of a second. Raises httpx.ReadTimeout, ReadError, or RemoteProtocolError; bytes
        received before that are returned first.
        """
        return await self._worker.call(self._exchange.readinto, block)

    async def run(self, work: Callable[[Callable[[memoryview], int]], _T]) -> _T:
        """Run `work` in the thread that reads, with a `readinto` that blocks: no event loop involved per block."""
        return await self._worker.call(work, self._exchange.readinto)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        block = memoryview(bytearray(_ITERATED))
        while size := await self.readinto(block):
            yield bytes(block[:size])

    async def aclose(self) -> None:
        """Close the connection and end the thread."""
        self._worker.stop()


class _Worker:
    """A daemon thread that runs one call after the other, so that a hanging call never delays the exit.

    A cancelled call is aborted by closing its socket, so that it cannot go on sending or receiving.
    """

    def __init__(self, exchange: _Exchange) -> None:
        self._exchange = exchange
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        try:
            threading.Thread(target=self._run, name="exchange", daemon=True).start()
        except RuntimeError as error:  # the limit of threads is reached
            raise httpx.ConnectError(f"no thread for the connection ({error})") from error

    async def call(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Run `function` in the thread and wait for it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()

        def work() -> None:
            try:
                outcome: Any = function(*arguments)
                settle: Callable[[Any], None] = future.set_result
            except Exception as error:
                outcome, settle = error, future.set_exception
            with suppress(RuntimeError):  # the loop is closed, and the result is not needed
                loop.call_soon_threadsafe(lambda: None if future.done() else settle(outcome))

        self._work.put(work)
        try:
            return await future
        except asyncio.CancelledError:
            self._exchange.abort()
            raise

    def stop(self) -> None:
        """End the thread; it closes the connection when it no longer uses it."""
        self._exchange.abort()
        self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
        self._exchange.close()


class _Exchange:
    """One request and its answer on one connection. Every method except `abort` runs in the worker's thread."""

    def __init__(
        self, request: httpx.Request, context: ssl.SSLContext, stall_timeout: float, proxy: Proxy | None, transfers: int
    ) -> None:
        self._request = request
        self._context = context
        self._stall_timeout = stall_timeout
        self._proxy = proxy
        self._bulk = transfers > 0
        self._buffer = buffer_size(transfers) if transfers else _SMALL_BUFFER
        self._socket: socket.socket | None = None
        self._aborted = False
        self._guard = threading.Lock()
        self._body: Body | None = None
        self._pending: Exception | None = None
        self.sent = False  # whether the peer may have seen the request

    @property
    def fills_blocks(self) -> bool:
        """See `BlockStream`; known once the head has been read."""
        return self._body is not None and self._body.fills_blocks

    def open(self) -> Head:
        """Connect, send the request, and read the head of the answer."""
        with _as_httpx(self._request, connecting=True):
            stream = self._connect()
        with _as_httpx(self._request, connecting=False):
            raw = self._request_bytes()
            self._begin_to_send()
            stream.send(raw)
            left_over = memoryview(b"")
            for _ in range(_MOST_HEADS):
                head, left_over = read_head(stream, self._stall_timeout, left_over)
                if head.status >= 200 or head.status == HTTPStatus.SWITCHING_PROTOCOLS:
                    break  # any other 1xx precedes the answer (RFC 9110, 15.2)
            else:
                raise FramingError(f"more than {_MOST_HEADS} interim answers")
            if self._bulk:
                stream.expect_bulk()
            self._body = body_of(head, left_over, stream, self._buffer // 2)
            return head

    def _connect(self) -> Stream:
        """Return a connection to the host, through the proxy if there is one."""
        url, timeout = self._request.url, min(_CONNECT_TIMEOUT, self._stall_timeout)
        host, port = url.raw_host.decode("ascii"), url.port or DEFAULT_PORTS[url.scheme]
        place = (self._proxy.host, self._proxy.port) if self._proxy else (host, port)
        stream: Stream = Plain(connect(*place, timeout, self._keep))
        if self._proxy and self._proxy.secure:
            stream = self._secured(stream, self._proxy.host, timeout)
        if url.scheme == "https":
            if self._proxy:
                self._tunnel(stream, self._proxy, host, port)
            stream = self._secured(stream, host, timeout)
        return stream

    def _secured(self, below: Stream, host: str, timeout: float) -> Tls:
        stream = Tls(below, self._context, host, self._buffer)
        try:
            stream.shake_hands(timeout)
        except ssl.SSLError as error:
            explain_rejection(error, self._context)
            raise
        return stream

    def _tunnel(self, stream: Stream, proxy: Proxy, host: str, port: int) -> None:
        """Have the proxy connect to the host (RFC 9110, 9.3.6). Raises ProxyRefused, FramingError, OSError."""
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        if proxy.authorization:
            lines.append(f"Proxy-Authorization: {proxy.authorization.reveal()}")
        stream.send("\r\n".join([*lines, "", ""]).encode("ascii"))
        head, _ = read_head(stream, self._stall_timeout, memoryview(b""))
        if not 200 <= head.status < 300:
            raise ProxyRefused(head.status, self._request)

    def _keep(self, connection: socket.socket) -> None:
        with self._guard:
            self._require_wanted()
            self._socket = connection

    def _begin_to_send(self) -> None:
        with self._guard:
            self._require_wanted()
            self.sent = True

    def _require_wanted(self) -> None:
        if self._aborted:  # cancelled while connecting: the request must not be sent
            raise ConnectionAbortedError("cancelled before the request was sent")

    def _request_bytes(self) -> bytes:
        """Return the request as it is sent (RFC 9112, 3). httpx has added Host and, with a body, Content-Length."""
        request, forwarded = self._request, self._proxy is not None and self._request.url.scheme == "http"
        target = request.url.raw_path
        if forwarded:
            target = b"http://" + request.url.netloc + target
        lines = [b"%s %s HTTP/1.1" % (request.method.encode("ascii"), target)]
        for name, value in request.headers.raw:
            if name.lower() == b"connection":
                continue
            if re.search(rb"[\r\n\x00]", name + value):
                raise httpx.LocalProtocolError("a request header contains a line break", request=request)
            lines.append(name + b": " + value)
        if forwarded and self._proxy and self._proxy.authorization:
            lines.append(b"Proxy-Authorization: " + self._proxy.authorization.reveal().encode("ascii"))
        return b"\r\n".join([*lines, b"Connection: close", b"", request.content])

    def readinto(self, block: memoryview) -> int:
        """Fill the block; see `BlockStream.readinto`."""
        if self._pending:
            raise self._pending
        filled, began = 0, time.monotonic()
        try:
            with _as_httpx(self._request, connecting=False):
                while filled < len(block) and (got := self._some(block[filled:], began, patient=not filled)):
                    filled += got
                    if time.monotonic() > began + TICK:
                        break
        except httpx.TransportError as error:
            if not filled:
                raise
            self._pending = error  # return the received data first, raise on the next call
        return filled

    def _some(self, view: memoryview, began: float, *, patient: bool) -> int:
        """Read at least one byte; 0 at the end of the body or, unless patient, after a tick without any."""
        while self._body is not None:
            try:
                return self._body.readinto(view)
            except Idle:
                if not patient:
                    break  # return the bytes received so far, so that a stall does not keep them from the disk
                if time.monotonic() > began + self._stall_timeout:
                    raise TimeoutError(f"no byte within {self._stall_timeout:g} s") from None
        return 0

    def abort(self) -> None:
        """Shut the connection down from any thread; a blocked call returns immediately."""
        with self._guard:
            self._aborted = True
            if self._socket is not None:
                with suppress(OSError):  # not connected any more
                    self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket, once no call reads from it any more."""
        if self._socket is not None:
            self._socket.close()


def status_line(status: int) -> str:
    """Return a status with its standard phrase, never with the server's text, which may echo a secret."""
    known = status in HTTPStatus.__members__.values()
    return f"HTTP {status} {HTTPStatus(status).phrase if known else 'unknown status'}"


def names_tls_port(body: bytes) -> bool:
    """Return whether the body of a 400 says that plain HTTP was sent to a port that expects TLS."""
    return re.search(rb"(?i)\bhttps\b(?!:)|\bssl[- ]enabled\b|\btls\b", body) is not None


@contextmanager
def _as_httpx(request: httpx.Request, *, connecting: bool) -> Iterator[None]:
    """Raise exceptions of sockets, TLS, and framing as those that httpx's own transport would raise."""
    try:
        yield
    except TimeoutError as error:
        kind = httpx.ConnectTimeout if connecting else httpx.ReadTimeout
        raise kind(str(error), request=request) from error
    except OSError as error:
        raise (httpx.ConnectError if connecting else httpx.ReadError)(str(error), request=request) from error
    except TlsExpected as error:
        raise TlsPort(str(error), request=request) from error
    except (FramingError, ValueError) as error:
        kind_of_failure = httpx.ConnectError if connecting else httpx.RemoteProtocolError
        raise kind_of_failure(str(error) or type(error).__name__, request=request) from error
