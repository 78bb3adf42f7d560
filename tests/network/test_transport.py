"""Heads and bodies against raw sockets: whatever curl or h11 accepts is accepted."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time

import httpx
import pytest
import trustme
from support.agents import PATIENCE
from support.servers import Script, drips, full_listener, repeats, resolve_to, says, serving

from restore_agent.network import sockets
from restore_agent.network import transport as wire
from restore_agent.network.transport import BLOCKS, BlockTransport


async def _fetched(url: str, stall: float, block_size: int) -> tuple[int, httpx.Headers, bytes]:
    collected = bytearray()
    block = memoryview(bytearray(block_size))
    transport = BlockTransport(ssl.create_default_context(), stall)
    async with (
        httpx.AsyncClient(transport=transport, trust_env=False) as client,
        client.stream("GET", url) as response,
    ):
        while got := await response.extensions[BLOCKS].readinto(block):
            collected += block[:got]
        return response.status_code, response.headers, bytes(collected)


def fetched(
    script: Script, *, stall: float = 5.0, block_size: int = 1 << 16, within: float = PATIENCE
) -> tuple[int, httpx.Headers, bytes]:
    """Status, headers and body of one exchange over the block transport; httpx errors come through."""
    with serving(script) as (url, _):
        return asyncio.run(asyncio.wait_for(_fetched(url, stall, block_size), within))


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
BODY = bytes(range(256)) * 3
CHUNKS = (
    b"5\r\nhello\r\n" + b"00a;name=value\r\n, chunked \r\n" + b'6 ;x="y;z"\r\nworld!\r\n' + b"0\r\nX-Trailer: t\r\n\r\n"
)
CHUNKS_BODY = b"hello, chunked world!"


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (OK + b"Content-Length: 768\r\n\r\n" + BODY, BODY),
        (OK + b"Content-Length: 5\r\n\r\nhello and what was not announced", b"hello"),
        (OK + b"Content-Length: 0\r\n\r\n", b""),
        (OK + b"\r\n" + BODY, BODY),
        (OK + b"\r\n", b""),
        (b"HTTP/1.0 200 OK\r\n\r\n" + BODY, BODY),
        (CHUNKED + CHUNKS, CHUNKS_BODY),
        (CHUNKED + CHUNKS.replace(b"\r\n", b"\n"), CHUNKS_BODY),
        (CHUNKED + b"0\r\n\r\n", b""),
        (CHUNKED + b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS, CHUNKS_BODY),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + OK + b"Content-Length: 5\r\n\r\nhello", b"hello"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 3 + OK + b"Content-Length: 5\r\n\r\nhello", b"hello"),
        (b"HTTP/1.1 102 Processing\r\n\r\n" + CHUNKED + CHUNKS, CHUNKS_BODY),
        (OK + b"X: y\r\n" * 150 + b"Content-Length: 5\r\n\r\nhello", b"hello"),
        (OK + b"X: y\r\n" * 5000 + b"Content-Length: 5\r\n\r\nhello", b"hello"),
        (OK + b"X: " + b"y" * 70_000 + b"\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
        (OK + b"X: " + b"y" * 700_000 + b"\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
        (OK + b"X-Odd : y\r\nContent-Length : 5\r\n\r\nhello", b"hello"),
        (OK + b"X-\xc3\xa4\xff: y\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
        (OK + b"X: y\r\n folded: z\r\n\tagain\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
        (OK + b" folded at the start\r\nno colon\r\n: no name\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
        (OK + b"X:\x01\x7f\r\nCONTENT-length:\t 005 \r\n\r\nhello", b"hello"),
        (OK + b"Content-Length: 5\r\ncontent-length: 5, 05\r\n\r\nhello", b"hello"),
        (OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", b"hello"),
        (OK + b"Content-Length: five\r\n\r\nhello", b"hello"),
        (OK.replace(b"\r\n", b"\n") + b"Content-Length: 5\n\nhello", b"hello"),
        (b"\r\n" + OK + b"Content-Length: 5\r\n\r\nhello", b"hello"),
        (b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
        (b"HTTP/1.0  200  Fine \r\nContent-Length: 5\r\n\r\nhello", b"hello"),
        (OK + b"Transfer-Encoding: Chunked\r\n\r\n" + CHUNKS, CHUNKS_BODY),
        (OK + b"Transfer-Encoding:  , chunked ,\r\n\r\n" + CHUNKS, CHUNKS_BODY),
        (OK + b"Transfer-Encoding: identity, chunked\r\n\r\n" + CHUNKS, CHUNKS_BODY),
        (OK + b"Transfer-Encoding: identity\r\nTransfer-Encoding:\tCHUNKED\r\n\r\n" + CHUNKS, CHUNKS_BODY),
        (OK + b"Transfer-Encoding: chunked;x=y\r\n\r\n" + CHUNKS, CHUNKS_BODY),
        (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS, CHUNKS_BODY),
        (CHUNKED + b"0000000000000000000000005\r\nhello\r\n00000000000000000000\r\n\r\n", b"hello"),
        (CHUNKED + b"5 \t\r\nhello\r\n5 and more\r\nworld\r\n0;\r\n\r\n", b"helloworld"),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", b""),
        (OK + b"Content-Length: 5\r\nSet-Cookie: \xe4\xff\r\n\r\nhello", b"hello"),
        (OK + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    ],
)
@pytest.mark.parametrize("block_size", [1 << 16, 7])
def test_a_body_ends_where_its_framing_ends(raw: bytes, body: bytes, block_size: int) -> None:
    _, _, got = fetched(says(raw), block_size=block_size)
    assert got == body


def test_a_body_is_the_same_when_every_byte_arrives_separately() -> None:
    assert fetched(drips(CHUNKED + CHUNKS))[2] == CHUNKS_BODY
    assert fetched(drips(OK + b"Content-Length: 21\r\n\r\n" + CHUNKS_BODY))[2] == CHUNKS_BODY


def test_a_chunked_body_is_the_same_wherever_packets_divide_it() -> None:
    async def everywhere(url: str) -> list[bytes]:
        return [(await _fetched(url, 5.0, 16))[2] for _ in range(len(CHUNKS))]

    scripts = [says(CHUNKED + CHUNKS[:at], 0.002, CHUNKS[at:]) for at in range(len(CHUNKS))]
    with serving(*scripts) as (url, _):
        assert set(asyncio.run(everywhere(url))) == {CHUNKS_BODY}


@pytest.mark.parametrize("at", [1, 9, len(CHUNKED) - 2])
def test_a_head_that_ends_early_is_an_error(at: int) -> None:
    with pytest.raises(httpx.TransportError):
        fetched(says(CHUNKED[:at]))


LAST_CHUNK = len(CHUNKS) - len(b"X-Trailer: t\r\n\r\n")


@pytest.mark.parametrize("at", range(LAST_CHUNK))
def test_a_chunked_body_that_ends_early_is_an_error_wherever_it_ends(at: int) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        fetched(says(CHUNKED + CHUNKS[:at]))


@pytest.mark.parametrize("at", range(LAST_CHUNK, len(CHUNKS)))
def test_a_chunked_body_is_complete_with_its_last_chunk_whatever_the_trailers_are(at: int) -> None:
    assert fetched(says(CHUNKED + CHUNKS[:at]))[2] == CHUNKS_BODY
    assert fetched(says(CHUNKED + CHUNKS[:at], 2.0), stall=0.1, within=1.5)[2] == CHUNKS_BODY


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n" + b"x" * 10,
        OK + b"X: " + b"y" * 2_000_000 + b"\r\n\r\n",
        OK + b"X: y\r\n" * 400_000 + b"\r\n",
        OK + b"Content-Length: 10\r\n\r\nhello",
        CHUNKED + b"5\r\nhello and more than five\r\n0\r\n\r\n",
        CHUNKED + b"xyz\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"1000000000000000\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"5;" + b"x" * 40_000 + b"\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"5" * 40_000,
    ],
    ids=range(16),
)
def test_an_answer_that_is_not_http_is_an_error_of_httpx(raw: bytes) -> None:
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        fetched(says(raw))


def test_bytes_before_an_interruption_are_returned_first() -> None:
    async def read(url: str) -> bytes:
        block = memoryview(bytearray(1 << 16))
        transport = BlockTransport(ssl.create_default_context(), 5)
        async with httpx.AsyncClient(transport=transport) as client, client.stream("GET", url) as response:
            stream = response.extensions[BLOCKS]
            got = await stream.readinto(block)
            for _ in range(2):  # and it stays broken
                with pytest.raises(httpx.RemoteProtocolError, match="5 bytes early"):
                    await stream.readinto(block)
            return bytes(block[:got])

    with serving(says(OK + b"Content-Length: 10\r\n\r\nhello")) as (url, _):
        assert asyncio.run(read(url)) == b"hello"


def test_bytes_before_a_pause_are_returned_soon() -> None:
    async def read(url: str) -> float:
        block = memoryview(bytearray(1 << 16))
        transport = BlockTransport(ssl.create_default_context(), 30)
        async with httpx.AsyncClient(transport=transport) as client, client.stream("GET", url) as response:
            began = time.monotonic()
            assert await asyncio.wait_for(response.extensions[BLOCKS].readinto(block), PATIENCE) == 5
            return time.monotonic() - began

    with serving(says(OK + b"Content-Length: 10\r\n\r\nhello", 1.5)) as (url, _):
        assert asyncio.run(read(url)) < 1


def test_iterating_over_the_stream_gives_the_same_bytes() -> None:
    async def read(url: str) -> bytes:
        transport = BlockTransport(ssl.create_default_context(), 5)
        async with httpx.AsyncClient(transport=transport) as client:
            return (await client.get(url)).content

    with serving(says(CHUNKED + CHUNKS)) as (url, _):
        assert asyncio.run(read(url)) == CHUNKS_BODY


def test_a_stall_is_a_read_timeout() -> None:
    with pytest.raises(httpx.ReadTimeout):
        fetched(says(OK + b"Content-Length: 10\r\n\r\n", 1.0), stall=0.1)
    with pytest.raises(httpx.ReadTimeout):
        fetched(says(1.0), stall=0.1)


@pytest.mark.parametrize(
    "script",
    [
        drips(OK + b"X: y\r\n" * 50, 0.02),
        repeats(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["slow", "endless"],
)
def test_an_endless_head_is_abandoned(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_CONNECT_TIMEOUT", 0.2)
    with pytest.raises((httpx.ReadTimeout, httpx.RemoteProtocolError)):
        fetched(script, stall=0.2)


def test_a_connection_that_is_refused_is_a_connect_error() -> None:
    with serving() as (url, _):
        pass
    with pytest.raises(httpx.ConnectError):
        asyncio.run(_fetched(url, 1.0, 64))


def test_a_name_that_does_not_resolve_is_a_connect_error() -> None:
    with pytest.raises(httpx.ConnectError):
        asyncio.run(_fetched("http://nowhere.invalid/a", 1.0, 64))


def test_a_header_with_a_line_break_is_never_sent() -> None:
    async def ask(url: str) -> None:
        request = httpx.Request("GET", url, headers={"X": "a\r\nInjected: yes"})
        await BlockTransport(ssl.create_default_context(), 1).handle_async_request(request)

    with serving(says(OK + b"\r\n")) as (url, heads), pytest.raises(httpx.LocalProtocolError):
        asyncio.run(ask(url))
    assert b"Injected" not in b"".join(heads)


def test_a_cancelled_read_closes_its_connection_immediately() -> None:
    gone = threading.Event()

    def watch(connection: socket.socket) -> None:
        connection.sendall(OK + b"Content-Length: 10\r\n\r\n")
        connection.settimeout(PATIENCE)
        if connection.recv(1) == b"":
            gone.set()

    async def ask(url: str) -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(_fetched(url, 60, 64), 0.1)

    with serving(watch) as (url, _):
        asyncio.run(ask(url))
        assert gone.wait(PATIENCE)


def test_a_request_cancelled_while_it_waits_for_the_head_closes_its_connection() -> None:
    gone = threading.Event()

    def watch(connection: socket.socket) -> None:
        connection.settimeout(PATIENCE)
        if connection.recv(1) == b"":
            gone.set()

    async def ask(url: str) -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(_fetched(url, 60, 64), 0.1)

    with serving(watch) as (url, _):
        asyncio.run(ask(url))
        assert gone.wait(PATIENCE)


def test_tls_in_answer_to_plain_http_is_named() -> None:
    with pytest.raises(wire.TlsPort, match="expects TLS"):
        fetched(says(b"\x15\x03\x03\x00\x02\x02\x46", 1.0), within=0.9)


def test_a_name_with_a_trailing_dot_is_the_host_of_its_certificate() -> None:
    authority = trustme.CA()
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(served)
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)

    def answer(connection: socket.socket) -> None:
        with served.wrap_socket(connection, server_side=True) as secured:
            secured.recv(65536)
            secured.sendall(OK + b"Content-Length: 5\r\n\r\nhello")

    async def ask(port: int) -> bytes:
        transport = BlockTransport(trusted, 5)
        async with httpx.AsyncClient(transport=transport) as client:
            return (await client.get(f"https://localhost.:{port}/a")).content

    with serving(answer, read_head=False) as (url, _):
        assert asyncio.run(ask(httpx.URL(url).port or 0)) == b"hello"


# ---------------------------------------------------------------- before the request is sent


def test_unreachable_addresses_are_tried_in_turn_within_the_time_to_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(says(OK + b"Content-Length: 5\r\n\r\nhello")) as (url, _):
        port = httpx.URL(url).port or 0
        with full_listener() as dead:
            resolve_to(monkeypatch, "six.example", [dead] * 2 + [("127.0.0.1", port)])
            monkeypatch.setattr(sockets, "_LEAST_PER_ADDRESS", 0.2)
            assert asyncio.run(_fetched(f"http://six.example:{port}/a", 0.6, 64))[2] == b"hello"


@pytest.mark.parametrize("dead_addresses", [1, 6])
def test_only_unreachable_addresses_are_a_connect_error(dead_addresses: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_CONNECT_TIMEOUT", 0.2)
    with full_listener() as dead:
        resolve_to(monkeypatch, "six.example", [dead] * dead_addresses)
        with pytest.raises((httpx.ConnectTimeout, httpx.ConnectError)):
            asyncio.run(_fetched("http://six.example/a", 0.3, 64))


def test_a_resolver_that_hangs_delays_no_cancellation(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: released.wait(PATIENCE))

    async def ask() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(_fetched("http://slow.example/a", 60, 64), 0.1)

    began = time.monotonic()
    asyncio.run(ask())
    assert time.monotonic() - began < 2
    released.set()


def test_a_resolver_that_hangs_is_a_connect_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: released.wait(PATIENCE))
    monkeypatch.setattr(wire, "_CONNECT_TIMEOUT", 0.1)
    with pytest.raises(httpx.ConnectTimeout):
        asyncio.run(_fetched("http://slow.example/a", 0.1, 64))
    released.set()


def test_a_host_that_cannot_start_a_thread_is_a_connect_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def ask(url: str) -> None:
        transport = BlockTransport(ssl.create_default_context(), 1)
        monkeypatch.setattr(threading.Thread, "start", refuse)
        await transport.handle_async_request(httpx.Request("GET", url))

    with serving() as (url, heads), pytest.raises(httpx.ConnectError, match="no thread"):
        asyncio.run(ask(url))
    assert heads == []
