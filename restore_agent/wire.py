"""An httpx transport that lands a response's body in the caller's own large blocks.

Why it exists: httpx's stock transport hands out what each `recv` brought as a new bytes object, on the event loop,
and that is four to eight times slower than the wire. Here one thread per exchange fills a recycled block of
megabytes straight from the socket; the interpreter lock is free while it waits, copies and decrypts. It speaks
HTTP/1.1, one exchange per connection, which is what a download is. Proxies are left to the stock transport.

The seam is httpx's documented one: `AsyncBaseTransport`, and a response extension, `"blocks"`.
"""

from __future__ import annotations

import asyncio
import http.client
import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from typing import Any, TypeVar

import httpx

from .errors import UsageError
from .redaction import printable

BLOCKS = "blocks"
"""Name of the response extension that holds the `BlockStream`."""
_TICK = 0.25  # seconds after which a block is handed on although it is not full, so that progress shows
_SCRATCH = 256 << 10  # bytes received at once where chunk heads stand between the data
_CHUNK_HEAD = re.compile(rb"\s*([0-9A-Fa-f]{1,15})\s*(?:;.*)?\r?\n", re.DOTALL)
_LONGEST_LINE = 16 << 10  # bytes of a chunk head or trailer line
_MOST_TRAILERS = 100
_CONNECT_TIMEOUT = 15.0  # seconds
_T = TypeVar("_T")


def client(**options: Any) -> httpx.AsyncClient:
    """An httpx client. Raises UsageError when a proxy variable names what cannot be used as a proxy."""
    try:
        return httpx.AsyncClient(follow_redirects=False, **options)
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        detail = printable(str(error), 120)
        raise UsageError(f"the proxy variables (https_proxy, all_proxy, …) cannot be used: {detail}") from None


class BlockTransport(httpx.AsyncBaseTransport):
    """One thread and one connection per request. `stall_timeout` is in seconds without a byte."""

    def __init__(self, context: ssl.SSLContext, stall_timeout: float) -> None:
        self._context = context
        self._stall_timeout = stall_timeout

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request and read the head. Raises the same httpx exceptions as the stock transport."""
        exchange = _Exchange(request, self._context, self._stall_timeout)
        worker = _Worker(exchange)
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT + self._stall_timeout):  # however slowly the head drips
                status, headers = await worker.call(exchange.open)
        except TimeoutError:
            worker.stop()
            raise httpx.ReadTimeout("the head of the answer did not come in time", request=request) from None
        except BaseException:
            worker.stop()
            raise
        stream = BlockStream(exchange, worker)
        return httpx.Response(status, headers=headers, stream=stream, extensions={BLOCKS: stream}, request=request)


class BlockStream(httpx.AsyncByteStream):
    """A body that is read by filling blocks; iterating it works, too."""

    def __init__(self, exchange: _Exchange, worker: _Worker) -> None:
        self._exchange = exchange
        self._worker = worker

    async def readinto(self, block: memoryview) -> int:
        """Fill `block` from its start and return how much; 0 at the end of the body.

        Returns early after a quarter of a second. Raises httpx.ReadTimeout, ReadError or RemoteProtocolError;
        what came before is returned first.
        """
        return await self._worker.call(self._exchange.readinto, block)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        block = memoryview(bytearray(_SCRATCH))
        while size := await self.readinto(block):
            yield bytes(block[:size])

    async def aclose(self) -> None:
        """Close the connection and end the thread."""
        self._worker.stop()


class _Worker:
    """A daemon thread that runs one call after the other, so that a hanging one never holds up the exit.

    A cancelled call is aborted by closing its socket, never left to send or receive behind our back.
    """

    def __init__(self, exchange: _Exchange) -> None:
        self._exchange = exchange
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="delivery", daemon=True).start()

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
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(lambda: None if future.done() else settle(outcome))

        self._work.put(work)
        try:
            return await future
        except asyncio.CancelledError:
            self._exchange.abort()
            raise

    def stop(self) -> None:
        """End the thread, which closes the connection when it is done with it."""
        self._exchange.abort()
        self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
        self._exchange.close()


class _Exchange:
    """One request and its answer on one connection; every method but `abort` runs in the worker's thread."""

    def __init__(self, request: httpx.Request, context: ssl.SSLContext, stall_timeout: float) -> None:
        self._request = request
        self._context = context
        self._stall_timeout = stall_timeout
        self._socket: socket.socket | None = None
        self._aborted = False
        self._guard = threading.Lock()
        self._response: http.client.HTTPResponse | None = None
        self._body: _Body | None = None
        self._pending: Exception | None = None

    def open(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        """Connect, send the request, read the head: status and headers."""
        with _as_httpx(self._request, connecting=True):
            self._connect()
        with _as_httpx(self._request, connecting=False):
            assert self._socket is not None  # noqa: S101  # set by _connect, for the type checker
            self._socket.sendall(_head(self._request))
            response = self._response = http.client.HTTPResponse(self._socket, method=self._request.method)
            response.begin()
            self._body = _body_of(response, self._socket)
            # http.client reads latin-1, which is every byte; httpx takes bytes and decodes them without failing
            headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.getheaders()]
            return response.status, headers

    def _connect(self) -> None:
        url = self._request.url
        secure = url.scheme == "https"
        address = (url.raw_host.decode("ascii"), url.port or (443 if secure else 80))
        connection = socket.create_connection(address, timeout=min(_CONNECT_TIMEOUT, self._stall_timeout))
        try:
            self._keep(connection)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if secure:
                self._keep(self._context.wrap_socket(connection, server_hostname=address[0]))
        except BaseException:
            connection.close()
            raise
        if self._socket:
            self._socket.settimeout(self._stall_timeout)  # for the head; the body is read in ticks

    def _keep(self, connection: socket.socket) -> None:
        with self._guard:
            if self._aborted:  # cancelled while connecting: the request must not be sent any more
                raise ConnectionAbortedError("cancelled before the request was sent")
            self._socket = connection

    def readinto(self, block: memoryview) -> int:
        """Fill the block; see `BlockStream.readinto`."""
        if self._pending:
            raise self._pending
        filled, began = 0, time.monotonic()
        try:
            with _as_httpx(self._request, connecting=False):
                while filled < len(block) and (got := self._some(block[filled:], began, patient=not filled)):
                    filled += got
                    if time.monotonic() > began + _TICK:
                        break
        except httpx.TransportError as error:
            if not filled:
                raise
            self._pending = error  # first what came, then what broke
        return filled

    def _some(self, view: memoryview, began: float, *, patient: bool) -> int:
        """At least one byte; 0 at the end of the body or, when not patient, after a tick without any."""
        while self._body is not None:
            try:
                return self._body.readinto(view)
            except _Idle:
                if not patient:
                    break  # hand on what is here, so that a stalled peer keeps nothing from the disk
                if time.monotonic() > began + self._stall_timeout:
                    raise TimeoutError(f"no byte within {self._stall_timeout:g} s") from None
        return 0

    def abort(self) -> None:
        """Shut the connection down from any thread; a blocked call returns at once."""
        with self._guard:
            self._aborted = True
            if self._socket is not None:
                with suppress(OSError):  # not connected any more
                    # on the plain socket: SSLSocket.shutdown would take the session from under the reading thread
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the descriptor back; only once no call reads from it any more."""
        for holder in (self._response, self._socket):
            if holder is not None:
                holder.close()


def _head(request: httpx.Request) -> bytes:
    """The request as it goes onto the wire (RFC 9112); httpx has put Host in, bodies are not sent."""
    lines = [b"%s %s HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    for name, value in request.headers.raw:
        if name.lower() == b"connection":
            continue
        if re.search(rb"[\r\n\x00]", name + value):
            raise httpx.LocalProtocolError("a request header holds a line break", request=request)
        lines.append(name + b": " + value)
    return b"\r\n".join([*lines, b"Connection: close", b"", b""])


@contextmanager
def _as_httpx(request: httpx.Request, *, connecting: bool) -> Iterator[None]:
    """Socket, TLS and http.client exceptions as the httpx ones that the stock transport would raise."""
    try:
        yield
    except TimeoutError as error:
        kind = httpx.ConnectTimeout if connecting else httpx.ReadTimeout
        raise kind(str(error), request=request) from error
    except OSError as error:
        raise (httpx.ConnectError if connecting else httpx.ReadError)(str(error), request=request) from error
    except (http.client.HTTPException, ValueError) as error:
        raise httpx.RemoteProtocolError(str(error) or type(error).__name__, request=request) from error


# ---------------------------------------------------------------- bodies


class _Idle(Exception):
    """No byte within a tick. Every reader keeps its place, so that it can simply be called again."""


class _Body:
    """A body until the connection closes; also the way to the bytes for the other two kinds."""

    def __init__(self, response: http.client.HTTPResponse, connection: socket.socket) -> None:
        self._socket = connection
        self._left_over = _behind_head(response, connection)
        connection.settimeout(_TICK)

    def readinto(self, view: memoryview) -> int:
        return self._receive(view)

    def _receive(self, view: memoryview) -> int:
        """Bytes from the wire, at least one; 0 when the peer has closed. Raises _Idle."""
        if not self._left_over:
            try:
                return self._socket.recv_into(view)
            except TimeoutError:
                raise _Idle from None
        size = min(len(view), len(self._left_over))
        view[:size] = self._left_over[:size]
        self._left_over = self._left_over[size:]
        return size


def _behind_head(response: http.client.HTTPResponse, connection: socket.socket) -> memoryview:
    """What came together with the head and waits in the buffer that http.client read it through."""
    reader: Any = response.fp
    if reader is None:  # http.client has closed it: there is no body
        return memoryview(b"")
    connection.settimeout(0)  # an empty buffer must not make `peek` wait for the wire
    try:
        return memoryview(reader.peek())
    except (BlockingIOError, ssl.SSLWantReadError):
        return memoryview(b"")


class _LengthBody(_Body):
    """A body of `Content-Length` bytes."""

    def __init__(self, response: http.client.HTTPResponse, connection: socket.socket, length: int) -> None:
        super().__init__(response, connection)
        self._remaining = length

    def readinto(self, view: memoryview) -> int:
        if not self._remaining:
            return 0
        got = self._receive(view[: self._remaining])
        if not got:
            raise http.client.HTTPException(f"the connection closed {self._remaining} bytes early")
        self._remaining -= got
        return got


class _Next(Enum):
    """What a chunked body shows next."""

    HEAD = "chunk head"
    DATA = "data"
    AFTER = "line break after the data"
    TRAILER = "trailer"
    END = "end"


class _ChunkedBody(_Body):
    """A chunked body (RFC 9112, 7.1). Many small chunks come per `recv`, so they pass through a scratch block."""

    def __init__(self, response: http.client.HTTPResponse, connection: socket.socket) -> None:
        super().__init__(response, connection)
        self._scratch = memoryview(bytearray(_SCRATCH))
        self._ready = self._scratch[:0]
        self._line = bytearray()
        self._next = _Next.HEAD
        self._chunk = 0  # bytes of the current chunk still to come
        self._trailers = 0

    def readinto(self, view: memoryview) -> int:
        filled = 0
        while filled < len(view) and self._next is not _Next.END:
            if not self._ready:
                if filled:
                    break  # hand on what is here rather than wait for more
                self._refill()
            if self._next is _Next.DATA:
                filled += self._data(view[filled:])
            elif (line := self._take_line()) is not None:
                self._next = self._after_line(line)
        return filled

    def _refill(self) -> None:
        got = self._receive(self._scratch)
        if not got:
            raise http.client.HTTPException("the connection closed before the last chunk")
        self._ready = self._scratch[:got]

    def _data(self, view: memoryview) -> int:
        size = min(self._chunk, len(self._ready), len(view))
        view[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        self._chunk -= size
        if not self._chunk:
            self._next = _Next.AFTER
        return size

    def _take_line(self) -> bytes | None:
        """The next line, or None while it is not whole."""
        piece = bytes(self._ready[:_LONGEST_LINE])
        end = piece.find(b"\n") + 1 or len(piece)
        self._line += piece[:end]
        self._ready = self._ready[end:]
        if self._line.endswith(b"\n"):
            line = bytes(self._line)
            self._line.clear()
            return line
        if len(self._line) > _LONGEST_LINE:
            raise http.client.HTTPException("a chunk head does not end")
        return None

    def _after_line(self, line: bytes) -> _Next:
        if self._next is _Next.AFTER:
            if line.strip():
                raise http.client.HTTPException("a chunk is longer than its head says")
            return _Next.HEAD
        if self._next is _Next.TRAILER:
            self._trailers += 1
            if self._trailers > _MOST_TRAILERS:
                raise http.client.HTTPException("the trailers do not end")
            return _Next.TRAILER if line.strip() else _Next.END
        found = _CHUNK_HEAD.fullmatch(line)
        if not found:
            raise http.client.HTTPException("a chunk head does not parse")
        self._chunk = int(found[1], 16)
        return _Next.DATA if self._chunk else _Next.TRAILER


def _body_of(response: http.client.HTTPResponse, connection: socket.socket) -> _Body:
    """The reader for the framing that the head declares (RFC 9112, 6.3)."""
    if response.status in (204, 304) or response.length == 0:
        return _LengthBody(response, connection, 0)
    if response.chunked:
        return _ChunkedBody(response, connection)
    if response.length is not None:
        return _LengthBody(response, connection, response.length)
    return _Body(response, connection)
