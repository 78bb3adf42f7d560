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
from http import HTTPStatus
from typing import Any, TypeVar

import httpx

from .framing import Body, behind_head, body_of
from .sockets import TICK, HeadReader, Idle, Plain, Stream, Tls

BLOCKS = "blocks"

"""Name of the response extension that holds the `BlockStream`."""

_ITERATED = 256 << 10  # bytes handed out at once to who iterates over a body

_CONNECT_TIMEOUT = 15.0  # seconds

_MOST_HEADS = 20  # of one answer: its own and the interim ones before it

_T = TypeVar("_T")


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

    @property
    def fills_blocks(self) -> bool:
        """Whether the kernel fills a whole block by itself: plain http, not in chunks."""
        return self._exchange.fills_blocks

    async def readinto(self, block: memoryview) -> int:
        """Fill `block` from its start and return how much; 0 at the end of the body.

        Returns early after a quarter of a second. Raises httpx.ReadTimeout, ReadError or RemoteProtocolError;
        what came before is returned first.
        """
        return await self._worker.call(self._exchange.readinto, block)

    async def run(self, work: Callable[[Callable[[memoryview], int]], _T]) -> _T:
        """Hand a `readinto` that may block to `work`, in the thread that reads: no hop of the event loop per block."""
        return await self._worker.call(work, self._exchange.readinto)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        block = memoryview(bytearray(_ITERATED))
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
        self._body: Body | None = None
        self._pending: Exception | None = None

    @property
    def fills_blocks(self) -> bool:
        """See `BlockStream`; known once the head is read."""
        return self._body is not None and self._body.fills_blocks

    def open(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        """Connect, send the request, read the head: status and headers."""
        with _as_httpx(self._request, connecting=True):
            stream = self._connect()
        with _as_httpx(self._request, connecting=False):
            stream.send(_head(self._request))
            left_over = memoryview(b"")
            for _ in range(_MOST_HEADS):
                reader: Any = HeadReader(stream, self._stall_timeout, left_over)
                response = self._response = http.client.HTTPResponse(reader, method=self._request.method)
                response.begin()
                left_over = behind_head(response, reader)
                if response.status >= 200 or response.status == HTTPStatus.SWITCHING_PROTOCOLS:
                    break  # the answer; whatever 1xx came before it announces one (RFC 9110, 15.2)
            self._body = body_of(response, left_over, stream)
            # http.client reads latin-1, which is every byte; httpx takes bytes and decodes them without failing
            headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.getheaders()]
            return response.status, headers

    def _connect(self) -> Stream:
        url = self._request.url
        secure = url.scheme == "https"
        host, timeout = url.raw_host.decode("ascii"), min(_CONNECT_TIMEOUT, self._stall_timeout)
        connection = socket.create_connection((host, url.port or (443 if secure else 80)), timeout=timeout)
        try:
            self._keep(connection)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if not secure:
                return Plain(connection)
            stream = Tls(connection, self._context, host)
            stream.shake_hands(timeout)
            return stream
        except BaseException:
            connection.close()
            raise

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
                    if time.monotonic() > began + TICK:
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
            except Idle:
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
                    self._socket.shutdown(socket.SHUT_RDWR)

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
