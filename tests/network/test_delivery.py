"""Transfers over both transports, the wire itself against raw sockets, and every httpx error's way into ours."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import httpx
import pytest
from support.agents import PATIENCE, Restore, StartSimulator, deliveries, sha1_of
from support.servers import Script, says, serving

from restore_agent.core.errors import (
    AgentError,
    AttemptFailed,
    ConnectFailed,
    DeliveryRefused,
    ResumeRefused,
    TlsError,
    TransferCut,
    Unreachable,
)
from restore_agent.core.jobs import DeliveryUrl
from restore_agent.core.redaction import Redactor, Secret
from restore_agent.network import transport as wire
from restore_agent.network.client import tls_problem
from restore_agent.network.delivery import DeliveryClient, Resume, delivery_error
from restore_agent.network.opsmanager import api_error
from restore_agent.network.transport import BLOCKS, BlockTransport

# httpx reads proxies only when it brings its own transport; for this host they are then left out again
STOCK = {"ALL_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
TRANSPORTS = pytest.mark.parametrize("transport", [{}, STOCK], ids=["fast", "stock"])


# ---------------------------------------------------------------- whole runs over both transports


@TRANSPORTS
@pytest.mark.parametrize(
    ("faults", "code"),
    [
        (["framing=length"], 0),
        (["framing=chunked"], 0),
        (["framing=close"], 0),
        (["framing=close", "cut=60%"], 23),
        (["framing=chunked", "cut=60%", "max-downloads=2"], 0),
        (["framing=length", "reset=60%", "max-downloads=2"], 0),
        (["framing=length", "stall=60%", "max-downloads=2"], 0),
        (["cut=60%", "max-downloads=2", "range=honour"], 0),
        (["content-encoding-gzip"], 0),
        (["header-noise", "url-v2", "redirect=3"], 0),
        (["other-origin", "redirect-other-origin"], 0),
        (["html-body=always"], 23),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)
def test_both_transports_end_alike(
    faults: list[str],
    code: int,
    transport: Mapping[str, str],
    simulator: StartSimulator,
    restore: Restore,
    dest: Path,
) -> None:
    sim = simulator(*faults, tls="cut=60%" in faults or len(faults) == 1)
    ended = restore(sim, "--stall-timeout=0.3s", env=transport)
    assert ended.code == code, ended.out
    assert (dest / sim.job(0).file_name).exists() == (code == 0)
    if code == 0:
        assert sha1_of(dest / sim.job(0).file_name) == sim.job(0).archive().sha1
    assert ended.archive["resumed"] is ("range=honour" in faults)


@TRANSPORTS
def test_large_archives_come_whole_over_both(
    transport: Mapping[str, str], simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("framing=chunked@0", "framing=close@1", shards=2, archive_size=5 << 20)
    assert restore(sim, env=transport).code == 0
    for index in range(3):
        assert sha1_of(dest / sim.job(index).file_name) == sim.job(index).archive().sha1


class ForwardProxy:
    """A forward proxy for absolute-form requests and CONNECT, an exchange per connection; `targets`: what was asked."""

    def __init__(self, refusal: bytes | None = None) -> None:
        self.targets: list[bytes] = []
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
                head += client.recv(1) or b"\r\n\r\n"
            method, target, _ = head.split(b" ", 2)
            self.targets.append(method + b" " + target)
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
                    once = head.replace(b"Connection: keep-alive", b"Connection: close")
                    server.sendall(once.replace(target, b"/" + path, 1))
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


@pytest.fixture
def proxy() -> Iterator[Callable[..., ForwardProxy]]:
    """Start a forward proxy."""
    running: list[ForwardProxy] = []

    def start(refusal: bytes | None = None) -> ForwardProxy:
        running.append(ForwardProxy(refusal))
        return running[-1]

    yield start
    for one in running:
        one.close()


@pytest.mark.parametrize(("tls", "variable"), [(False, "HTTP_PROXY"), (True, "HTTPS_PROXY"), (True, "ALL_PROXY")])
def test_the_usual_variables_send_everything_through_a_proxy(
    tls: bool,
    variable: str,
    simulator: StartSimulator,
    restore: Restore,
    proxy: Callable[..., ForwardProxy],
    dest: Path,
) -> None:
    sim, through = simulator("other-origin", tls=tls), proxy()
    assert restore(sim, env={variable: through.url}).code == 0
    asked = b" ".join(through.targets).decode()
    for origin in (sim.manager.origin, sim.manager.second_origin):
        assert origin.split("//")[1] in asked
    assert sha1_of(dest / sim.job(0).file_name) == sim.job(0).archive().sha1


def test_no_proxy_leaves_a_host_out(
    simulator: StartSimulator, restore: Restore, proxy: Callable[..., ForwardProxy]
) -> None:
    through = proxy()
    env = {"HTTP_PROXY": through.url, "NO_PROXY": "127.0.0.1"}
    assert restore(simulator(), env=env).code == 0
    assert through.targets == []


def test_a_proxy_that_refuses_is_ops_manager_out_of_reach(
    simulator: StartSimulator, restore: Restore, proxy: Callable[..., ForwardProxy]
) -> None:
    through = proxy(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
    sim = simulator(tls=True)
    ended = restore(sim, "--wait-timeout=0.2s", "--hash-timeout=0.2s", env={"HTTPS_PROXY": through.url})
    assert ended.code == 32
    assert sim.requests == []


# ---------------------------------------------------------------- the wire against raw sockets


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
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", b""),
        (OK + b"Content-Length: 5\r\nSet-Cookie: \xe4\xff\r\n\r\nhello", b"hello"),
        (OK + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    ],
)
@pytest.mark.parametrize("block_size", [1 << 16, 7])
def test_a_body_is_what_its_framing_says(raw: bytes, body: bytes, block_size: int) -> None:
    _, _, got = fetched(says(raw), block_size=block_size)
    assert got == body


def test_a_body_is_the_same_when_every_byte_comes_alone() -> None:
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


@pytest.mark.parametrize("at", range(len(CHUNKS)))
def test_a_chunked_body_that_ends_early_is_an_error_wherever_it_ends(at: int) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        fetched(says(CHUNKED + CHUNKS[:at]))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n" + b"x" * 10,
        OK + b"X: " + b"y" * 70_000 + b"\r\n\r\n",
        OK + b"X: y\r\n" * 200 + b"\r\n",
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
def test_what_is_no_http_is_an_error_of_httpx(raw: bytes) -> None:
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        fetched(says(raw))


def test_what_came_before_the_break_is_handed_on_first() -> None:
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


def test_what_came_before_a_pause_is_handed_on_soon() -> None:
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


def test_trailers_that_never_end_are_an_error() -> None:
    with pytest.raises(httpx.TransportError):
        fetched(repeats(CHUNKED + b"0\r\n", b"X-Trailer: " + b"t" * 1000 + b"\r\n"), within=2.0)


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
def test_a_head_that_never_ends_is_given_up(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_cancelled_read_closes_its_connection_at_once() -> None:
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


# ---------------------------------------------------------------- one attempt


async def _attempt(url: str, resume: Resume | None, header: tuple[str, Secret] | None = None) -> tuple[int, bytes]:
    collected = bytearray()
    block = memoryview(bytearray(1 << 16))
    async with (
        DeliveryClient(ssl.create_default_context(), 2.0, Redactor()) as deliveries,
        deliveries.open(DeliveryUrl(url, "a.tar.gz", header), resume, time.time()) as body,
    ):
        while got := await body.read(block):
            collected += block[:got]
        return body.offset, bytes(collected)


@pytest.fixture
def attempt(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, bytes]]:
    """Make one attempt at a raw server: `attempt(transport, script, resume)` gives the body's offset and bytes."""

    def make(transport: Mapping[str, str], *scripts: Script, resume: Resume | None = None) -> tuple[int, bytes]:
        for name, value in transport.items():
            monkeypatch.setenv(name, value)
        with serving(*scripts) as (url, _):
            return asyncio.run(asyncio.wait_for(_attempt(url, resume), PATIENCE))

    return make


Attempt = Callable[..., tuple[int, bytes]]
RESUME = Resume(4, '"v1"', 10)


def partial(content_range: str | None, *headers: str, body: bytes = b"456789") -> Script:
    lines = ["HTTP/1.1 206 Partial Content", f"Content-Length: {len(body)}", *headers]
    if content_range is not None:
        lines.append(f"Content-Range: {content_range}")
    return says("\r\n".join([*lines, "", ""]).encode() + body)


@TRANSPORTS
@pytest.mark.parametrize("headers", [(), ('ETag: "v1"',)])
def test_an_exact_rest_is_taken_up(transport: Mapping[str, str], headers: Sequence[str], attempt: Attempt) -> None:
    assert attempt(transport, partial("bytes 4-9/10", *headers), resume=RESUME) == (4, b"456789")


@TRANSPORTS
def test_a_rest_in_chunks_is_taken_up(transport: Mapping[str, str], attempt: Attempt) -> None:
    head = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 4-9/10\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert attempt(transport, says(head + b"6\r\n456789\r\n0\r\n\r\n"), resume=RESUME) == (4, b"456789")


@TRANSPORTS
@pytest.mark.parametrize(
    "script",
    [
        partial(None),
        partial("bytes 4-9/*"),
        partial("bytes 4-8/10", body=b"45678"),
        partial("bytes 3-9/10", body=b"3456789"),
        partial("bytes 4-10/11", body=b"456789a"),
        partial("bytes 4-9/10", 'ETag: "v2"'),
        partial("bytes 4-9/10", body=b"45678"),
        partial("items 4-9/10"),
        partial("bytes 4-9/10, bytes 4-9/10"),
        partial("bytes 99999999999999999999-9/10"),
        says(b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */10\r\nContent-Length: 0\r\n\r\n"),
    ],
    ids=range(11),
)
def test_a_rest_that_proves_nothing_is_refused(transport: Mapping[str, str], script: Script, attempt: Attempt) -> None:
    with pytest.raises(ResumeRefused) as refused:
        attempt(transport, script, resume=RESUME)
    assert refused.value.spent is True


def test_a_whole_answer_to_a_range_starts_at_the_beginning(attempt: Attempt) -> None:
    assert attempt({}, says(OK + b"Content-Length: 10\r\n\r\n0123456789"), resume=RESUME) == (0, b"0123456789")


def test_a_partial_answer_that_nobody_asked_for_is_refused(attempt: Attempt) -> None:
    with pytest.raises(DeliveryRefused):
        attempt({}, partial("bytes 0-5/6"))


@TRANSPORTS
@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"Content-Length: 10\r\n\r\n", b"01234"),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\n01234\r\n"),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\n012345\r\n0\r\n\r\n"),
    ],
)
def test_a_body_that_breaks_its_framing_is_cut(
    transport: Mapping[str, str], head: bytes, body: bytes, attempt: Attempt
) -> None:
    with pytest.raises(TransferCut) as cut:
        attempt(transport, says(OK + head + body))
    assert cut.value.spent is True


@pytest.mark.parametrize("body", [b"45678", b"456789a"])
def test_a_rest_of_another_length_than_announced_is_cut(body: bytes, attempt: Attempt) -> None:
    head = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 4-9/10\r\n\r\n"
    with pytest.raises(TransferCut):
        attempt({}, says(head + body), resume=RESUME)


@TRANSPORTS
@pytest.mark.parametrize(
    "status", [b"201 Created", b"204 No Content", b"400 Bad", b"403 No", b"404 No", b"500 No", b"599 ?", b"999 ?"]
)
def test_any_other_status_is_a_refusal(transport: Mapping[str, str], status: bytes, attempt: Attempt) -> None:
    with pytest.raises(DeliveryRefused, match=status[:3].decode()) as refused:
        attempt(transport, says(b"HTTP/1.1 " + status + b"\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"))
    assert refused.value.retry_after == 7


@TRANSPORTS
@pytest.mark.parametrize(
    "location",
    [b"ftp://127.0.0.1/a", b"http://[", b"http://127.0.0.1:99999/", b"file:///etc/passwd", b"http://a b/"],
)
def test_a_redirect_to_what_is_no_http_url_is_refused(
    transport: Mapping[str, str], location: bytes, attempt: Attempt
) -> None:
    answer = b"HTTP/1.1 302 Found\r\nLocation: " + location + b"\r\nContent-Length: 0\r\n\r\n"
    with pytest.raises(AttemptFailed):
        attempt(transport, says(answer))


def test_a_relative_redirect_is_followed_and_cookies_are_not_carried() -> None:
    found = b"HTTP/1.1 307 Elsewhere\r\nLocation: ../other/a\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: 0\r\n\r\n"
    with serving(says(found), says(OK + b"Content-Length: 5\r\n\r\nhello")) as (url, heads):
        assert asyncio.run(_attempt(url, None, ("Authorization", Secret("Bearer token")))) == (0, b"hello")
    assert [head.split(b" ")[1] for head in heads] == [b"/pull/secret/a.tar.gz", b"/pull/other/a"]
    assert b"cookie" not in heads[1].lower()
    assert all(b"Authorization: Bearer token" in head for head in heads)


def test_the_token_stays_behind_for_good_once_a_redirect_has_left_its_origin() -> None:
    with serving(says(OK + b"Content-Length: 5\r\n\r\nhello")) as (there, heads):
        away = f"HTTP/1.1 302 Found\r\nLocation: {there}\r\nContent-Length: 0\r\n\r\n".encode()
        with serving(says(away)) as (url, first):
            asyncio.run(_attempt(url, RESUME, ("X-Token", Secret("very secret"))))
    assert b"very secret" in first[0]
    assert b"very secret" not in heads[0]
    assert b"Range: bytes=4-" in heads[0]


def test_a_redirect_from_https_to_http_is_not_followed(simulator: StartSimulator, restore: Restore) -> None:
    plain = simulator()
    sim = simulator("redirect-other-origin", "max-downloads=9", tls=True)
    sim.manager.second_origin = plain.manager.origin
    ended = restore(sim, "--retries=0")
    assert ended.code == 25
    assert "https to http" in ended.events("archive")[0]["problem"]["message"]
    assert plain.requests == []


@pytest.mark.parametrize("etag", ['W/"weak"', "unquoted", '"a" "b"', '"' + "x" * 300 + '"'])
def test_a_validator_that_if_range_may_not_carry_is_not_kept(etag: str) -> None:
    async def ask(url: str) -> str | None:
        async with (
            DeliveryClient(ssl.create_default_context(), 2.0, Redactor()) as deliveries,
            deliveries.open(DeliveryUrl(url, "a"), None, 0) as body,
        ):
            return body.validator

    with serving(says(OK + b"ETag: " + etag.encode() + b"\r\nContent-Length: 0\r\n\r\n")) as (url, _):
        assert asyncio.run(ask(url)) is None


# ---------------------------------------------------------------- errors at the border


def leaves(kind: type[Exception]) -> Iterator[type[Exception]]:
    """The exceptions of a tree that have no kinds of their own."""
    below = kind.__subclasses__()
    if not below:
        yield kind
    for one in below:
        yield from leaves(one)


# each transport exception of httpx: what it means for a delivery, whether the request may have been counted, and
# what an operator reads when the API meets it
MEANINGS: dict[type[Exception], tuple[type[AgentError], bool, str]] = {
    httpx.ConnectError: (ConnectFailed, False, "no connection"),
    httpx.ConnectTimeout: (ConnectFailed, False, "no connection in time"),
    httpx.PoolTimeout: (ConnectFailed, False, "no answer in time"),
    httpx.ProxyError: (ConnectFailed, False, "the proxy refused"),
    httpx.LocalProtocolError: (ConnectFailed, False, "the connection broke or the answer is no HTTP"),
    httpx.UnsupportedProtocol: (TransferCut, True, "the request failed"),  # schemes are checked before: cannot come
    httpx.ReadTimeout: (TransferCut, True, "no answer in time"),
    httpx.WriteTimeout: (TransferCut, True, "no answer in time"),
    httpx.ReadError: (TransferCut, True, "the connection broke"),
    httpx.WriteError: (TransferCut, True, "the connection broke"),
    httpx.CloseError: (TransferCut, True, "the connection broke"),
    httpx.RemoteProtocolError: (TransferCut, True, "the connection broke or the answer is no HTTP"),
}


def test_every_transport_exception_of_httpx_has_a_meaning() -> None:
    assert set(leaves(httpx.TransportError)) == set(MEANINGS)


@pytest.mark.parametrize("kind", MEANINGS, ids=lambda kind: kind.__name__)
def test_a_transport_exception_means_the_same_wherever_it_comes(kind: type[Exception]) -> None:
    ours, spent, said = MEANINGS[kind]
    meant = delivery_error(kind("the detail"))
    assert type(meant) is ours
    assert meant.spent is spent
    assert meant.message
    passing = api_error(kind("the detail"))
    assert type(passing) is Unreachable
    assert passing.message == f"Ops Manager cannot be reached: {said} (the detail)"


@pytest.mark.parametrize("error", [httpx.DecodingError("x"), httpx.TooManyRedirects("x"), httpx.InvalidURL("x")])
def test_other_exceptions_of_httpx_are_errors_of_ours_too(error: Exception) -> None:
    assert isinstance(delivery_error(error), AttemptFailed)
    assert isinstance(api_error(error), Unreachable)


def raised_from(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


def test_a_tls_problem_behind_an_exception_is_found_and_a_mere_cut_is_none() -> None:
    untrusted = ssl.SSLCertVerificationError(1, "certificate verify failed")
    untrusted.verify_message = "self-signed certificate"
    alert = ssl.SSLError(1, "tlsv13 alert certificate required")
    alert.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    assert tls_problem(raised_from(httpx.ConnectError("x"), untrusted)) == "self-signed certificate"
    assert tls_problem(raised_from(httpx.ReadError("x"), ssl.SSLEOFError(8, "EOF occurred"))) is None
    assert tls_problem(raised_from(httpx.ReadError("x"), ssl.SSLZeroReturnError(6, "closed"))) is None
    assert tls_problem(raised_from(httpx.ReadTimeout("x"), ssl.SSLWantReadError(2, "not done"))) is None
    assert tls_problem(raised_from(httpx.ReadError("x"), ConnectionResetError("reset"))) is None
    meant = delivery_error(raised_from(httpx.ConnectError("x"), untrusted))
    assert isinstance(meant, TlsError)
    assert meant.spent is False
    assert isinstance(api_error(raised_from(httpx.ReadError("x"), alert)), TlsError)


@TRANSPORTS
def test_a_client_certificate_that_the_delivery_host_misses_is_31(
    transport: Mapping[str, str], simulator: StartSimulator, restore: Restore
) -> None:
    elsewhere = simulator("client-cert", tls=True)
    url = elsewhere.document(0)["delivery"]["url"]
    sim = simulator(f'job-field=delivery.url:"{url}"')
    ended = restore(sim, f"--ca-file={elsewhere.hello['ca_file']}", "--retries=0", env=transport)
    assert ended.code == 31, ended.out
    assert deliveries(elsewhere) == []
